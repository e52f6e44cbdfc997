"""Painted pictures on disk: content-addressed, verified, safe against kills and full disks.

store.py              the cache: get, put, reject, quota
files.py              names on disk, atomic writes, checked reads, quarantine
sidecar_bytes.py      JSON that carries its own digest, as sidecars are stored
scan.py               which keys and files a cache folder holds
upkeep.py             listing, figures, verification, eviction
source_digests.py     digests of images and objects, put into the dataset dicts
background_ratios.py  the background share of every image, computed once
export_coco.py        the pictures as a plain COCO data set
"""
