"""Data sets for Detectron2: COCO, PASCAL VOC, the built-in toy world, and registered names.

errors.py           DatasetError: one sentence that says what is missing and what is expected
register.py         check_dataset, register_dataset: from settings to names in the catalogue
coco.py             COCO's format: fractions and folds, captions
coco_check.py       checks an annotation file before pycocotools sees it
voc.py              PASCAL VOC: boxes, instance masks
evaluator.py        Detectron2's evaluators, which leave a breakdown of AP
breakdown.py        AP by background ratio, class and object size
polygons.py         a mask as polygons that rasterise to exactly that mask
toy.py              the toy world as a data set in COCO's format
toy_scene.py, toy_shapes.py, toy_backgrounds.py    draw it
"""
