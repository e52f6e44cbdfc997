"""What decides the pixels of one picture, and the cache key that follows from it.

job.py      the job, its parts, its key and its seeds
parse.py    objects from Detectron2's annotations; jobs that came over the wire
digests.py  canonical JSON, digests of values and files
prompts.py  prompts of backgrounds and objects
steps.py    how many denoising steps a picture gets (T_hat)
"""
