"""Paints with latent diffusion; diffusers and transformers are used here only.

Importing this package loads neither torch nor diffusers: ``model.identity`` is usable everywhere,
and ``build.build_engine`` is what a painting process calls.

``build.py``          the engine from plain options, as a painting process gets them
``engine.py``         continuous batching: a queue of requests, pictures under way, results
``check_request.py``  what a request must be like for the engine to paint it
``meter.py``          counts rows, pictures and latencies
``model/``            the diffusion model: identity, loading, writing, prompts, copies
``denoise/``          what happens to a picture between noise and pixels
``tiny_model/``       the small model that comes with the package, and its card
"""
