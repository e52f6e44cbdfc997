"""Labels of the originals, from an annotation file in COCO's format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bgaug_d2.data.coco_check import check_annotations, check_categories, check_images
from bgaug_d2.data.files import read_json
from bgaug_d2.errors import AuditError
from bgaug_d2.inspection.faults import Labels
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.pixels.object_masks import object_masks


class Annotations:
    """The labels of each image of a COCO file.

    Args:
        path: Instances file; every annotation is checked.

    Raises:
        DatasetError, AnnotationError: The file is unusable.
    """

    def __init__(self, path: Path) -> None:
        content = read_json(path)
        images = check_images(content, path)
        check_annotations(content, images, check_categories(content, path), path, evaluated=False)
        self._path = path
        self._images = {image["file_name"]: image for image in images.values()}
        self._annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)

    def labels(self, file_name: str) -> Labels:
        """The labels of one image.

        Crowd regions and boxes without a segmentation belong to the object mask only: the detector
        is not expected to find them one by one.

        Args:
            file_name: As the cache names it; it may have more folders than the annotation file's.

        Raises:
            AuditError: The annotation file does not list the image.
        """
        image = self._image(file_name)
        size = image["height"], image["width"]
        instances, union = [], np.zeros(size, dtype=bool)
        for each in map(_readable, self._annotations[image["id"]]):
            if each is None:
                continue
            # The same code as for painting, so the masks are exactly those that were protected.
            (item,) = objects_from_annotations([each], image["id"])
            mask = object_masks([item], *size, image["id"]).object_mask
            union |= mask
            if item.segmentation and not item.iscrowd:
                instances.append(mask)
        return Labels(np.array(instances, dtype=bool).reshape(-1, *size), union)

    def _image(self, file_name: str) -> Mapping[str, Any]:
        # The cache names a file from the data set's root, the annotations from the image folder.
        parts = PurePosixPath(file_name).parts
        for start in range(len(parts)):
            image = self._images.get("/".join(parts[start:]))
            if image is not None:
                return image
        raise AuditError(
            f"image {file_name!r} of the cache is not in {self._path}; "
            "give the annotations of the data set that was painted"
        )


def _readable(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The annotation as Detectron2 loads it: without polygons of one or two points."""
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons:
        return dict(annotation)
    # Fewer than three points enclose no area, and rasterising refuses them.
    kept = [each for each in polygons if len(each) >= 6]
    return {**annotation, "segmentation": kept} if kept else None
