"""Simple Copy-Paste (Ghiasi et al. 2021, arXiv 2012.07177): objects of another image on top.

Words used here:
    target   the image that objects are pasted onto
    donor    the image that they come from, drawn at random from the training set
    H, W     size of the target, in pixels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import detection_utils
from detectron2.data.common import DatasetFromList
from detectron2.data.transforms import ResizeTransform

from bgaug_d2.augment.objects import Annotation, object_from_mask, object_mask, objects_of
from bgaug_d2.config.comparison import CopyPasteConfig
from bgaug_d2.errors import ConfigError, DatasetError
from bgaug_d2.pixels.masks import BoolMask, Picture


class CopyPaste:
    """Pastes objects of a random image, with probability ``p``; picklable.

    Objects are resized with their image and pasted without blending; the paper found that blending
    changes little. Random numbers come from NumPy's global generator, which Detectron2 seeds in
    each loader process.

    Args:
        settings: Probability, scale, number of objects, and when a covered object is dropped.
        dataset_dicts: The donors: originals of the training set in Detectron2's format. Images
            without objects are left out.
        image_format: Format of the pictures, as ``detection_utils.read_image`` takes it.

    Raises:
        ConfigError: No image has an object.
    """

    def __init__(
        self,
        settings: CopyPasteConfig,
        dataset_dicts: Sequence[Mapping[str, Any]],
        image_format: str,
    ) -> None:
        names = ("file_name", "height", "width", "annotations")
        donors = [
            {name: each[name] for name in names if name in each}
            for each in dataset_dicts
            # A crowd region is no single object that could be pasted.
            if any(not item.get("iscrowd", 0) for item in each["annotations"])
        ]
        if not donors:
            raise ConfigError(
                "augment.copy_paste.p > 0 needs objects to paste, but no training image has one"
            )
        self.settings = settings
        self.donors = DatasetFromList(donors, copy=False)  # serialised: processes share it
        self.image_format = image_format

    def __call__(
        self, image: Picture, objects: list[Annotation]
    ) -> tuple[Picture, list[Annotation]]:
        """Paste objects on a picture, with probability ``p``.

        Args:
            image: The target, uint8 (H, W, 3); it is not changed.
            objects: The target's objects, from ``objects_of``; they are not changed.

        Returns:
            The picture, and its objects: what is left of the target's, then the pasted ones. An
            object that is covered in part keeps its uncovered pixels and gets their box; an
            untouched one stays as it is. Without a paste the input comes back.

        Raises:
            DatasetError: The donor cannot be read; the message names its file.
        """
        if np.random.uniform() >= self.settings.p:
            return image, objects
        # 1. Objects of a donor on a canvas of the target's size.
        layer, pasted = self._draw_layer(*image.shape[:2])
        if not pasted:
            return image, objects
        # 2. They cover pixels of the target and of its objects.
        covered = np.logical_or.reduce([pixels for _, pixels in pasted])
        picture = np.where(covered[:, :, None], layer, image)
        left = [self._uncovered(each, covered) for each in objects]
        on_top = [object_from_mask(category_id, pixels) for category_id, pixels in pasted]
        return picture, [each for each in left if each is not None] + on_top

    def _draw_layer(self, height: int, width: int) -> tuple[Picture, list[tuple[int, BoolMask]]]:
        """A donor on a canvas (H, W, 3), and class and mask (H, W) of its objects to paste."""
        donor = self.donors[np.random.randint(len(self.donors))]
        picture = _read(donor, self.image_format)
        objects = objects_of(donor["annotations"])
        most = min(len(objects), self.settings.max_objects)
        chosen = np.random.choice(len(objects), np.random.randint(1, most + 1), replace=False)
        flip = np.random.uniform() < 0.5
        factor = np.random.uniform(self.settings.scale[0], self.settings.scale[1])
        rows, columns = picture.shape[:2]
        size = max(1, round(rows * factor)), max(1, round(columns * factor))
        resize = ResizeTransform(rows, columns, *size)
        top, left = _offset(size[0], height), _offset(size[1], width)

        layer = resize.apply_image(_flipped(picture, flip))
        pasted = []
        for index in chosen:
            # The mask goes through the same flip, resize and shift as the picture.
            whole = _flipped(object_mask(objects[index], rows, columns), flip)
            whole = resize.apply_segmentation(whole.astype(np.uint8)).astype(bool)
            visible = _placed(whole, (height, width), top, left)
            if self._enough(visible, whole):
                pasted.append((objects[index]["category_id"], visible))
        return _placed(layer, (height, width), top, left), pasted

    def _uncovered(self, item: Annotation, covered: BoolMask) -> Annotation | None:
        """The object without its covered pixels; None if too few are left."""
        whole = object_mask(item, *covered.shape)
        visible = whole & ~covered
        # Unchanged, so its polygons stay exact.
        if np.array_equal(visible, whole):
            return item
        if not self._enough(visible, whole):
            return None
        return object_from_mask(item["category_id"], visible)

    def _enough(self, visible: BoolMask, whole: BoolMask) -> bool:
        left, area = int(np.count_nonzero(visible)), int(np.count_nonzero(whole))
        return left > 0 and left >= self.settings.min_visible * area


def _read(donor: dict[str, Any], image_format: str) -> Picture:
    try:
        picture: Picture = detection_utils.read_image(donor["file_name"], format=image_format)
        detection_utils.check_image_size(donor, picture)
    # Detectron2 and Pillow raise many kinds; the user needs the donor's name in all cases.
    except Exception as error:
        raise DatasetError(
            f"{donor['file_name']}, whose objects were to be pasted, cannot be read "
            f"({type(error).__name__}: {error})"
        ) from error
    return picture


def _flipped(picture: Any, flip: bool) -> Any:
    return picture[:, ::-1] if flip else picture


def _offset(length: int, frame: int) -> int:
    """A random start for the donor: inside the frame if it fits, else so that it fills it."""
    low, high = sorted((0, frame - length))
    return int(np.random.randint(low, high + 1))


def _placed(picture: Any, shape: tuple[int, int], top: int, left: int) -> Any:
    """A canvas of zeros, (H, W) or (H, W, 3), with the part of ``picture`` that is on it."""
    canvas = np.zeros((*shape, *picture.shape[2:]), picture.dtype)
    rows, columns = picture.shape[:2]
    y0, y1 = max(top, 0), min(top + rows, shape[0])
    x0, x1 = max(left, 0), min(left + columns, shape[1])
    canvas[y0:y1, x0:x1] = picture[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas
