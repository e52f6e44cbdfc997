"""Measures speed: everything that does so is here.

What is compared runs in one process and in turns, and medians are given, so that other work on the
machine hits all sides of a comparison alike.

``suite.py``            runs the parts below and writes JSON, Markdown and a plot
``engine.py``           the engine against diffusers' own pipeline, and its optimisations
``baselines.py``        the requests of that benchmark, and the programs that paint them
``hardware.py``         work of the model and rate of the device: FLOPs, matrix products
``loader.py``           how long training waits for its loader
``training.py``         what augmentation costs an iteration of training
``hits.py``             what a hit costs: the cache, and Detectron2's mapper around it
``paced_engine.py``     a stand-in for the model, of a given speed
``full_size_model.py``  a model of Stable Diffusion's full shape with random weights
``random_model.py``     a small one, which the tests use too
``markdown.py``         a report as Markdown tables
"""
