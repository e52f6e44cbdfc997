"""Which draws show what: from the settings to a loader of samples.

policy.py          which draw shows which variant; how many copies an image gets
planner.py         from a dataset dict to its plan: variant, cache key, job
mapper.py          the mapper around a mapper: reads painted pictures on hits
outcomes.py        one table from replies and rules to the outcomes that are counted
expand.py          the data set of mode ``expand``: originals and copies
visit_sampler.py   a sampler whose draws know how often their image was drawn before
loader.py          Detectron2's training loader, with visits
counted_loader.py  a loader that counts outcomes and drives the look-ahead
lookahead.py       asks for pictures before training needs them
from_cfg.py        data set, sampler and loader that a Detectron2 ``cfg`` names
"""
