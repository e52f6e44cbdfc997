"""Plans of runs, and the tables and plots made of finished runs.

``plan.py``            a plan: cells, tables, plots, audit
``plan_file.py``       reads a plan from YAML
``plans/``             the plans of the paper's tables, of the toy tables and of the demo
``plan_from_runs.py``  a plan made from whatever runs there are
``commands.py``        the command lines that run what a plan misses
``cost.py``            what that takes, by measured rates
``runs.py``            reads finished runs
``long_table.py``      runs as one long table; the values of a plan's cells by seed
``statistics.py``      mean, interval, paired test, Holm's correction
``cells.py``           cells against their baselines
``markdown.py``        the report in Markdown
``csv_latex.py``       its tables as CSV and LaTeX
``plots.py``           its plots
``write_tables.py``    all of these into a folder
"""
