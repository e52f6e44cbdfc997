"""Denoising of the pictures in flight: their state, the solver, the UNet calls, the VAE."""
