"""The diffusion model: its identity, loading and writing, prompts, copies to the device."""
