"""Painting new backgrounds with latent diffusion; the only place that imports diffusers.

Importing this package loads neither torch nor diffusers: ``identity`` is usable everywhere, and
``build.build_engine`` is what a painting process calls.
"""
