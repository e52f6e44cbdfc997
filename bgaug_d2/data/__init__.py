"""Data sets for Detectron2: COCO, PASCAL VOC, the built-in toy world, and registered names.

breakdown.py       AP by background ratio, class and object size
catalogue.py       entries of Detectron2's catalogue: DatasetHandle and what all kinds share
coco.py            COCO's format: fractions and folds, captions
coco_check.py      checks the content of an annotation file before pycocotools sees it
evaluator.py       Detectron2's evaluators, which leave a breakdown of AP
files.py           files of a data set's folder: paths, JSON, images that are there
register.py        check_dataset, register_dataset: a table of the kinds of data sets
register_coco.py   registers COCO, folders like it, and the toy world
register_names.py  uses data sets that the user has registered
register_voc.py    registers PASCAL VOC
toy/               the built-in toy world
voc.py             PASCAL VOC: lists of images, boxes from XML
voc_masks.py       PASCAL VOC: instance masks

``toy_backbone.safetensors`` holds the weights of the toy detector's backbone.
"""
