"""Detectron2's evaluators with a breakdown of AP by background ratio, class and object size.

Detectron2 takes every metric for a single number, so the breakdown cannot be one of them. It goes
into a file, which ``breakdown.read_breakdowns`` reads for the results of a run.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.evaluation.pascal_voc_evaluation import parse_rec, voc_eval
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bgaug_d2.data.breakdown import (
    breakdown,
    breakdown_path,
    evaluated,
    image_ratios,
    in_memory,
    write_breakdown,
)

_LARGEST = 1e10  # pixels; COCO's own


class BreakdownCOCOEvaluator(COCOEvaluator):
    """``COCOEvaluator`` that leaves a breakdown, and may have its own limits between sizes.

    Args:
        dataset_name: Name in Detectron2's catalogue.
        tasks: ``bbox`` and ``segm``.
        output_dir: Folder for the breakdown and Detectron2's files.
        size_limits: Largest area, in pixels, of a small and of a medium object, for APs, APm and
            APl; None for COCO's 32 and 96 pixels squared, which are for pictures of about 640.

    Attributes:
        breakdown: Breakdowns of the last evaluation, by task; in the first process only.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str],
        output_dir: str,
        size_limits: tuple[float, float] | None = None,
    ) -> None:
        # The fast implementation is compiled, and keeps no records per image; a Detectron2 in pure
        # Python lacks it. The AP is the same.
        super().__init__(dataset_name, tasks, output_dir=output_dir, use_fast_impl=False)
        self.breakdown: dict[str, Any] = {}
        self._dataset_name = dataset_name
        self._ratios: dict[Hashable, float] | None = None
        self._area_ranges: list[list[float]] | None = None
        if size_limits is not None:
            small, medium = size_limits
            if not 0 < small < medium:
                raise ValueError(f"size_limits={size_limits} must be positive and rising")
            self._area_ranges = [[0, _LARGEST], [0, small], [small, medium], [medium, _LARGEST]]

    def reset(self) -> None:
        super().reset()
        self.breakdown = {}
        _remove_breakdown(self._output_dir, self._dataset_name)

    def evaluate(self, img_ids: Any = None) -> dict[str, Any]:
        results: dict[str, Any] = super().evaluate(img_ids)
        if self.breakdown:
            write_breakdown(self.breakdown, self._output_dir, self._dataset_name)
        return results

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        # Detectron2 has no earlier place where a subclass can reach pycocotools' parameters.
        if coco_eval is not None and self._area_ranges is not None:
            coco_eval.params.areaRng = self._area_ranges
            coco_eval.evaluate()
            coco_eval.accumulate()
            coco_eval.summarize()
        results: dict[str, float] = super()._derive_coco_results(coco_eval, iou_type, class_names)
        # A run that finds nothing must not look like one that was not measured.
        if coco_eval is None:  # nothing was found: AP 0 here, where Detectron2 has NaN
            coco_eval = evaluated(self._coco_api, [], iou_type, self._area_ranges)
        if self._ratios is None:
            self._ratios = image_ratios(self._images())
        self.breakdown[iou_type] = breakdown(coco_eval, self._ratios)
        return results

    def _images(self) -> list[dict[str, Any]]:
        return [
            {
                "image_id": image_id,
                "height": image["height"],
                "width": image["width"],
                "annotations": self._coco_api.imgToAnns.get(image_id, ()),
            }
            for image_id, image in self._coco_api.imgs.items()
        ]


class BreakdownVOCEvaluator(PascalVOCDetectionEvaluator):
    """``PascalVOCDetectionEvaluator`` with each class's AP50, and a breakdown by COCO's rules.

    The breakdown is COCO's AP, with 101 recall thresholds, over the same detections. "Difficult"
    objects are COCO's crowd regions there: neither they nor detections on them count, which is
    VOC's rule except for a detection on a part of such an object. Sizes are areas of boxes.

    Args:
        dataset_name: Name in Detectron2's catalogue, with VOC's metadata.
        output_dir: Where the breakdown goes.

    Attributes:
        breakdown: Breakdowns of the last evaluation, by task; in the first process only.
    """

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        super().__init__(dataset_name)
        self.breakdown: dict[str, Any] = {}
        self._output_dir = output_dir
        self._found: list[dict[str, Any]] = []

    def reset(self) -> None:
        super().reset()
        self.breakdown = {}
        self._found = []
        _remove_breakdown(self._output_dir, self._dataset_name)

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        super().process(inputs, outputs)
        for each, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to(self._cpu_device)
            # Detectron2 keeps text rounded to a tenth of a pixel; COCO's rules get the exact boxes.
            self._found += instances_to_coco_json(instances, each["image_id"])

    def evaluate(self) -> dict[str, Any] | None:
        """VOC's ``AP``, ``AP50`` and ``AP75``, and ``AP50-<class>``; NaN without objects."""
        # Every process takes part, also those that Detectron2's ``evaluate`` ends early below.
        gathered = comm.gather((dict(self._predictions), self._found), dst=0)
        results: dict[str, Any] | None = super().evaluate()
        if results is None:
            return None
        found = list(itertools.chain.from_iterable(each for _, each in gathered))
        dicts = DatasetCatalog.get(self._dataset_name)
        coco_eval = evaluated(self._ground_truth(dicts), found, "bbox")
        self.breakdown = {"bbox": breakdown(coco_eval, image_ratios(dicts))}
        write_breakdown(self.breakdown, self._output_dir, self._dataset_name)
        classes = self.breakdown["bbox"]["classes"]
        for name, ap50 in self._ap50([lines for lines, _ in gathered]).items():
            there = classes[name]["all"]["objects"] > 0
            results["bbox"][f"AP50-{name}"] = ap50 if there else math.nan
        return results

    def _ground_truth(self, dicts: Sequence[Mapping[str, Any]]) -> COCO:
        """The boxes of the annotation files, which alone say what is difficult."""
        annotations: list[dict[str, Any]] = []
        for each in dicts:
            for item in parse_rec(self._anno_file_template.format(each["image_id"])):
                if item["name"] not in self._class_names:
                    continue
                x0, y0, x1, y1 = item["bbox"]  # from 1, the last pixel included
                width, height = x1 - x0 + 1, y1 - y0 + 1
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # 0 means "no match" to pycocotools
                        "image_id": each["image_id"],
                        "category_id": self._class_names.index(item["name"]),
                        "bbox": [x0 - 1, y0 - 1, width, height],
                        "area": width * height,
                        "iscrowd": item["difficult"],
                    }
                )
        images = [{"id": each["image_id"]} for each in dicts]
        return in_memory(images, annotations, self._class_names)

    def _ap50(self, predictions: Sequence[Mapping[int, list[str]]]) -> dict[str, float]:
        """AP50 of every class, as Detectron2 computes it for the mean.

        Args:
            predictions: Per process, lines of text by class number.
        """
        found = {}
        with tempfile.TemporaryDirectory(prefix="pascal_voc_eval_") as folder:
            for number, name in enumerate(self._class_names):
                lines = [line for each in predictions for line in each.get(number, ())]
                (Path(folder) / f"{name}.txt").write_text("\n".join(lines))
                *_, ap = voc_eval(
                    f"{folder}/{{}}.txt",
                    self._anno_file_template,
                    self._image_set_path,
                    name,
                    ovthresh=0.5,
                    use_07_metric=self._is_2007,
                )
                found[name] = float(ap * 100)
        return found


def _remove_breakdown(output_dir: str, dataset_name: str) -> None:
    """Remove the breakdown of an earlier evaluation, which nobody may take for this one's."""
    if comm.is_main_process():
        breakdown_path(output_dir, dataset_name).unlink(missing_ok=True)
