"""Whole runs: the command line, training, painting beforehand, their results."""
