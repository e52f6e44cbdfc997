"""``bgaug doctor``: what is there, what is missing, and what to do about each.

``main.py``      the command: runs all checks, prints them, sets the exit status
``finding.py``   what a check finds
``software.py``  Python, libraries, Detectron2, OpenCV's system libraries
``machine.py``   GPU, memory, disk, shared memory, open files, temporary folder
``data.py``      models in the hub's cache, data sets
"""
