"""Shows pictures and samples to people, and counts what painting did wrong.

annotations.py    labels of the originals, from a COCO file
audit.py          audits the pictures of caches, recipe by recipe
audit_summary.py  sums up many audits, with bootstrap intervals, as a Markdown table
detector.py       the detector of an audit, from the folder of a training run
faults.py         counts extra objects and measures object growth in one picture
gallery.py        an HTML page and a contact sheet of a cache
recipes.py        recipes of painted pictures as flat names and values
samples.py        a contact sheet of training samples
"""
