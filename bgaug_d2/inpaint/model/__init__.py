"""The diffusion model and the ways in and out of it.

``identity.py``        which model paints, and where its files are
``load.py``            reads and checks a folder in diffusers' layout, safetensors only
``write.py``           writes such a folder
``prompt_encoder.py``  prompts to embeddings, each text encoded once
``device_copy.py``     copies between host memory and the device that neither side waits for
"""
