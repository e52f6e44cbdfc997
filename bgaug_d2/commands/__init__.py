"""The command line: ``bgaug NAME ...``, one file a subcommand.

``main.py``               finds the subcommand and calls it; imports nothing heavy
``hydra_command.py``      help and arguments of the subcommands that Hydra configures
``train.py``              train and evaluate a detector
``paint.py``              paint backgrounds before training
``samples.py``            draw training samples as the detector gets them
``plan.py``               cells, cost and commands of a table; runs what is missing
``table.py``              tables from finished runs
``gallery.py``            a page and a contact sheet of a cache
``cache.py``              figures, verification, clean-up and export of a cache
``audit.py``              what painting did wrong, seen by a detector
``bench.py``              measure this machine
``demo.py``               the whole way on the toy world
``doctor/``               what is installed and what is missing
``install_detectron2.py`` install Detectron2
``detectron2_source.py``  edits the source package from PyPI and makes a wheel of it
"""
