"""The built-in toy world: procedural images, annotations and backgrounds.

backgrounds.py     eight kinds of backgrounds
drawing_engine.py  an engine that draws real backgrounds: the ceiling for any model
scene.py           one picture: objects over a background, captions
shapes.py          objects: eight shapes with random pose, colour and texture
voc_layout.py      the toy world in PASCAL VOC's layout
world.py           the toy world as a data set in COCO's format
"""
