"""AP by background ratio, class and object size, from one evaluation of pycocotools.

Letters and words of pycocotools' ``COCOeval``, used throughout:
    T, R, K, A, M   numbers of IoU thresholds, recall thresholds, classes, size ranges, limits on
                    the detections of an image
    evalImgs        a record per class, size range and image, the image fastest: K * A * I of them;
                    None where an image has neither objects nor detections of the class
    precision       float (T, R, K, A, M), -1 where there are no objects to find
AP is in percent; None where there are no objects.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bgaug_d2.cache.background_ratios import background_ratios
from bgaug_d2.errors import AnnotationError

logger = logging.getLogger(__name__)

# Limits between the bins of the background ratio; the last bin has its upper end, 1, as well.
BACKGROUND_BINS = (0.0, 0.5, 0.75, 0.9, 1.0)
SIZES = ("all", "small", "medium", "large")  # the order of pycocotools' size ranges


def breakdown(coco_eval: COCOeval, ratios: Mapping[Any, float]) -> dict[str, Any]:
    """The breakdown of one task (``bbox`` or ``segm``).

    Args:
        coco_eval: After ``evaluate`` and ``accumulate``, with pycocotools' four size ranges.
        ratios: Background share of the images, 0..1, by image id.

    Returns:
        A dict of ``background`` (from ``by_background``), ``classes`` (from ``by_class``) and
        ``size_limits``: the largest area, in pixels, of a small and of a medium object.
    """
    return {
        "background": by_background(coco_eval, ratios),
        "classes": by_class(coco_eval),
        "size_limits": [float(upper) for _, upper in coco_eval.params.areaRng[1:3]],
    }


def by_background(coco_eval: COCOeval, ratios: Mapping[Any, float]) -> list[dict[str, Any]]:
    """AP over the images of each bin of the background ratio, as if they were the whole set.

    A bin's AP is the mean over the classes that it has objects of. Bins with different classes
    therefore differ in part because of their classes.

    Returns:
        Per bin ``from``, ``to``, ``images``, ``objects`` (without crowds), ``AP`` and ``AP50``. An
        image without a ratio is in no bin.
    """
    image_ids = coco_eval.params.imgIds
    places = [
        # Inner limits only: 0 and 1 belong to the first and the last bin.
        int(np.searchsorted(BACKGROUND_BINS[1:-1], ratios[each], side="right"))
        if each in ratios
        else None
        for each in image_ids
    ]
    bins = []
    for number, (low, high) in enumerate(itertools.pairwise(BACKGROUND_BINS)):
        chosen = [i for i, place in enumerate(places) if place == number]
        bins.append({"from": low, "to": high, "images": len(chosen), **_subset(coco_eval, chosen)})
    return bins


def by_class(coco_eval: COCOeval) -> dict[str, dict[str, dict[str, Any]]]:
    """``AP``, ``AP50`` and ``objects`` (without crowds) by class name and ``SIZES``.

    An object of another size, and a detection that matches it, are ignored.
    """
    params = coco_eval.params
    num_areas, num_images = len(params.areaRng), len(params.imgIds)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for k, category in enumerate(coco_eval.cocoGt.loadCats(params.catIds)):
        sizes = found.setdefault(category["name"], {})
        for a, size in enumerate(SIZES):
            start = (k * num_areas + a) * num_images
            records = coco_eval.evalImgs[start : start + num_images]
            # The last limit on detections, 100 per image, is the one of COCO's AP.
            precision = coco_eval.eval["precision"][:, :, k, a, -1]  # (T, R)
            sizes[size] = {**_ap(precision), "objects": _count_objects(records)}
    return found


def evaluated(
    coco: COCO,
    found: list[dict[str, Any]],
    task: str,
    area_ranges: Sequence[Sequence[float]] | None = None,
) -> COCOeval:
    """Evaluate and accumulate detections; there may be none.

    Args:
        coco: Ground truth.
        found: Detections in COCO's format.
        task: ``bbox`` or ``segm``.
        area_ranges: Smallest and largest area, in pixels, of ``SIZES``; None for COCO's.
    """
    # pycocotools prints its progress, and has no switch for that.
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(coco, coco.loadRes(found) if found else _no_detections(coco), task)
        if area_ranges is not None:
            coco_eval.params.areaRng = [list(each) for each in area_ranges]
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval


def image_ratios(images: Sequence[Mapping[str, Any]]) -> dict[Hashable, float]:
    """Background share, 0..1, of un-eroded pixels by image id (``ratios.background_ratios``).

    An image with broken annotations has no ratio; the evaluation goes on without it.

    Args:
        images: With ``image_id``, ``height``, ``width`` and ``annotations``.
    """
    found: dict[Hashable, float] = {}
    faults = []
    for each in images:
        try:
            (found[each["image_id"]],) = background_ratios([each], None)
        except AnnotationError as error:
            faults.append(str(error))
    if faults:
        logger.warning("%d images have no background ratio: %s", len(faults), faults[0])
    return found


def in_memory(
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    class_names: Sequence[str],
) -> COCO:
    """COCO's ground truth without a file; the classes have the ids 0, 1, ..."""
    coco = COCO()
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names)]
    coco.dataset = {"images": images, "annotations": annotations, "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def breakdown_path(folder: str, dataset_name: str) -> Path:
    """The file in which the evaluator of a data set leaves its breakdown."""
    return Path(folder) / f"breakdown_{quote(dataset_name, safe='')}.json"


def write_breakdown(content: Mapping[str, Any], folder: str, dataset_name: str) -> None:
    """Write the tasks' breakdowns of one data set."""
    path = breakdown_path(folder, dataset_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    # NaN is no JSON, and other readers of the file would fail on it.
    path.write_text(json.dumps(content, allow_nan=False))


def read_breakdowns(folder: str, dataset_names: Sequence[str]) -> dict[str, Any]:
    """Breakdowns of the last evaluation, by task; of several data sets, by data set and task."""
    found = {}
    for name in dataset_names:
        path = breakdown_path(folder, name)
        found[name] = json.loads(path.read_text()) if path.exists() else {}
    return dict(next(iter(found.values()))) if len(found) == 1 else found


def _subset(coco_eval: COCOeval, chosen: Sequence[int]) -> dict[str, Any]:
    """AP over the images at some places of ``params.imgIds``, and the number of their objects."""
    params = copy.copy(coco_eval.params)
    num_areas, num_images = len(params.areaRng), len(params.imgIds)
    # A shallow copy: the records are large and only read.
    part = copy.copy(coco_eval)
    # ``accumulate`` would look up the chosen images by their place among all images, which is wrong
    # for a subset; so the records are chosen here.
    part.evalImgs = [
        coco_eval.evalImgs[k * num_areas * num_images + i]
        for k in range(len(params.catIds))
        for i in chosen
    ]
    params.imgIds = [params.imgIds[i] for i in chosen]
    params.areaRng, params.maxDets = params.areaRng[:1], params.maxDets[-1:]
    part.params = part._paramsEval = params
    with contextlib.redirect_stdout(io.StringIO()):
        part.accumulate()
    return {"objects": _count_objects(part.evalImgs), **_ap(part.eval["precision"])}


def _ap(precision: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """AP and AP50 of a precision array (T, R, ...), as pycocotools summarises it."""
    return {"AP": _mean_percent(precision), "AP50": _mean_percent(precision[0])}


def _mean_percent(precision: npt.NDArray[np.float64]) -> float | None:
    # -1 marks classes without objects, which the mean leaves out as COCO does.
    there = precision[precision > -1]
    return float(there.mean() * 100) if there.size else None


def _count_objects(records: Sequence[Mapping[str, Any] | None]) -> int:
    """Objects that count, of records of one size range: no crowds, none of another size."""
    return sum(int(np.count_nonzero(each["gtIgnore"] == 0)) for each in records if each is not None)


def _no_detections(coco: COCO) -> COCO:
    """What ``loadRes`` would give for an empty list, which it does not take."""
    none = COCO()
    none.dataset = {**coco.dataset, "annotations": []}
    none.createIndex()
    return none
