"""Whole runs: training, painting beforehand, plans of runs, and what they leave behind.

``hydra_app.py``        from a command line to ``ExperimentConfig``; all that knows Hydra
``output_folder.py``    a run's folder: its configuration, and who may write into it
``train.py``            one training run
``launch.py``           training processes on GPUs and on a CPU
``results.py``          ``results.json``
``environment.py``      versions, commit and machine that it names
``generate.py``         paints before training
``generate_report.py``  what became of the pictures
``announce.py``         recipe, number of pictures, time and disk, before and while painting
``run_plan.py``         runs what a plan misses: paints, trains, audits
``show_plan.py``        what that costs, and the commands that do it
``side_by_side.py``     processes side by side with one progress bar
``paint_cells.py``      paints for several runs in one process
"""
