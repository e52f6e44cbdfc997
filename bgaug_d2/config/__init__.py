"""Every setting as a plain dataclass; standard library only.

``bgaug.py``       which samples show a painted background; inpainter, cache, painting processes
``recipe.py``      how a picture is painted: all that decides its pixels
``comparison.py``  the augmentations that background augmentation is compared with
``schedule.py``    length and pace of training
``experiment.py``  a whole run: data set, detector, launch, and all of the above
``checks.py``      checks of values that several settings share
``parse.py``       from nested plain values to the dataclasses; the nearest name for a wrong key
"""
