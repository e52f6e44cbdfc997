"""What background augmentation is compared and combined with, for Detectron2.

build.py          build_mapper: from settings to the mapper of the training loader
mapper.py         AugmentMapper: DatasetMapper with pasted objects and boxes that are tight again
copy_paste.py     CopyPaste: objects of another training image on top of an image
rand_augment.py   RandAugment: operations on colours and geometry, drawn at random
affine.py         AffineTransform: image, masks, polygons and boxes moved alike
objects.py        annotations as copies that may be changed, and their masks
"""
