"""Detectron2's COCO evaluator with other limits between small, medium and large objects.

COCO's limits (32 and 96 pixels squared) are for pictures of about 640 pixels.
"""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import COCOEvaluator

_LARGEST = 1e10  # pixels; COCO's own


class SizedCOCOEvaluator(COCOEvaluator):
    """``COCOEvaluator`` whose APs, APm and APl use other limits; every other number is unchanged.

    Args:
        *args: As ``COCOEvaluator``.
        size_limits: Largest area, in pixels, of a small and of a medium object.
        **rest: As ``COCOEvaluator``.
    """

    def __init__(self, *args: Any, size_limits: tuple[float, float], **rest: Any) -> None:
        super().__init__(*args, **rest)
        small, medium = size_limits
        if not 0 < small < medium:
            raise ValueError(f"size_limits={size_limits} must be positive and rising")
        self._area_ranges = [[0, _LARGEST], [0, small], [small, medium], [medium, _LARGEST]]

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        # Detectron2 has no earlier place where a subclass can reach pycocotools' parameters.
        if coco_eval is not None:  # None: nothing was predicted
            coco_eval.params.areaRng = self._area_ranges
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        results: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        return results
