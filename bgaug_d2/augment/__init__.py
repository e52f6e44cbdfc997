"""The augmentations that background augmentation is compared and combined with, for Detectron2.

affine.py        AffineTransform: moves image, masks, polygons and boxes alike
build.py         build_mapper: builds the mapper of the training loader from settings
copy_paste.py    CopyPaste: pastes objects of another training image
mapper.py        AugmentMapper: a DatasetMapper for pasted objects, with boxes made tight again
objects.py       annotations as copies that may be changed, and their masks
rand_augment.py  RandAugment: random operations on colours and geometry
"""
