"""What happens to a picture between noise and pixels; ``trajectory`` has the glossary of shapes.

``trajectory.py``     one picture's state, its start, and one denoising step of many pictures
``dpm_solver.py``     DPM-Solver++ as a table of numbers, so that each row has its own timestep
``unet_calls.py``     UNet calls of at most W rows: whole, compiled, or the outermost level alone
``compiled_unet.py``  a UNet compiled for two numbers of rows
``deep_cache.py``     a step with the outermost level of the UNet only
``vae.py``            pictures to latents and back
``latent_cache.py``   encoded originals, kept for further variants of their images
"""
