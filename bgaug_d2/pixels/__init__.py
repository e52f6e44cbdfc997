"""Images and masks as arrays.

paths.py         file names inside a data set's folder
read.py          reads source images bit for bit as Detectron2 does
encode.py        resizes pictures and encodes them for the cache
rle.py           checks and decodes COCO run lengths
polygons.py      masks as polygons
object_masks.py  from annotations to the pixels of objects
masks.py         background masks, erosion, latent masks, compositing
"""
