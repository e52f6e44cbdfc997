"""Detectron2's ``DatasetMapper`` for objects that are pasted, rotated and sheared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList, TransformList
from detectron2.structures import Instances

from bgaug_d2.augment.copy_paste import CopyPaste
from bgaug_d2.augment.objects import Annotation, objects_of


class AugmentMapper:
    """Maps a dataset dict as ``DatasetMapper`` does in training, for boxes and instance masks.

    It differs in two ways. It may paste objects of another image first. It makes boxes tight again
    after the augmentations, also for a detector that wants boxes only, because the envelope of a
    rotated box's corners is far too large: the tight box is that of the object's mask, or of its
    box taken as a mask. An object without a pixel is left out. With neither, samples equal those of
    the stock mapper.

    Args:
        augmentations: Applied to the image and its objects, in order.
        image_format: Format of the pictures, as ``detection_utils.read_image`` takes it.
        use_instance_mask: Whether samples have ``gt_masks``.
        mask_format: ``polygon`` or ``bitmask``. Copy-paste needs ``bitmask`` for all samples: the
            rest of a covered object is no polygon, and Detectron2 wants one kind of mask in a
            batch.
        tight_boxes: Whether boxes are made from masks after the augmentations.
        copy_paste: Pastes objects; None pastes nothing.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        image_format: str,
        use_instance_mask: bool,
        mask_format: str,
        tight_boxes: bool,
        copy_paste: CopyPaste | None = None,
    ) -> None:
        if copy_paste is not None and mask_format != "bitmask":
            raise ValueError(f"mask_format={mask_format!r} must be 'bitmask' for copy-paste")
        self.augmentations = AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.mask_format = mask_format
        self.tight_boxes = tight_boxes
        self.copy_paste = copy_paste

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Map one image.

        Args:
            dataset_dict: Detectron2's format with ``annotations``; it is not changed.

        Returns:
            The dict without ``annotations``, with ``image`` (uint8 tensor (3, H, W)) and
            ``instances``.

        Raises:
            OSError, SizeMismatchError: As ``DatasetMapper``, for an image that cannot be read or
                has another size than the dict says.
            DatasetError: The image that objects were to be pasted from cannot be read.
        """
        # A shallow copy is enough: ``objects_of`` copies the annotations.
        sample = dict(dataset_dict)
        # 1. The image and its objects, crowds left out.
        image = detection_utils.read_image(sample["file_name"], format=self.image_format)
        detection_utils.check_image_size(sample, image)
        objects = objects_of(sample.pop("annotations"))
        # 2. Objects of another image on top.
        if self.copy_paste is not None:
            image, objects = self.copy_paste(image, objects)
        # 3. RandAugment, flip, resize.
        aug_input = AugInput(image)
        transforms = self.augmentations(aug_input)
        # A flip leaves a view with negative strides, which torch refuses.
        image = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        # 4. Tensors.
        sample["image"] = torch.as_tensor(image)
        sample["instances"] = self._instances(objects, transforms, image.shape[1:])
        return sample

    def _instances(
        self, objects: list[Annotation], transforms: TransformList, shape: tuple[int, int]
    ) -> Instances:
        moved = [self._moved(each, transforms, shape) for each in objects]
        moved = [each for each in moved if not _is_outside(each)]
        instances = detection_utils.annotations_to_instances(moved, shape, self.mask_format)
        if self.tight_boxes and instances.has("gt_masks"):  # none where there is no object
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        instances = detection_utils.filter_empty_instances(instances)
        # Masks were needed for the boxes only; a detector without a mask head must not get them.
        if instances.has("gt_masks") and not self.use_instance_mask:
            instances.remove("gt_masks")
        return instances

    def _moved(
        self, item: Annotation, transforms: TransformList, shape: tuple[int, int]
    ) -> Annotation:
        """Transform one object in place."""
        if not (self.use_instance_mask or self.tight_boxes):  # saves the work on masks
            del item["segmentation"]
        moved: Annotation = detection_utils.transform_instance_annotations(item, transforms, shape)
        return moved


def _is_outside(item: Annotation) -> bool:
    """Whether no polygon of an object is left in the image; Detectron2 cannot rasterise those."""
    segmentation = item.get("segmentation")
    return isinstance(segmentation, list) and not segmentation
