"""From settings to names in Detectron2's catalogue.

The names hold a digest of the settings, so that different settings never share one. What is
registered is loaded, and checked in full, when Detectron2 asks for it.

Detectron2 is imported inside functions: ``check_dataset`` answers before anything slow is imported.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.data import voc
from bgaug_d2.data.coco import CocoSplit, load_coco, read_categories
from bgaug_d2.data.coco_check import check_ending, find_inside
from bgaug_d2.data.toy.voc_layout import generate_toy_voc
from bgaug_d2.data.toy.world import generate_toy, size_limits
from bgaug_d2.errors import DatasetError
from bgaug_d2.jobs.digests import canonical_json

_DictLoader = Callable[[], list[dict[str, Any]]]


@dataclass(frozen=True)
class DatasetHandle:
    """A registered data set.

    Attributes:
        train, test: Names in Detectron2's catalogue.
        image_root: Folder that holds all training images.
        evaluator: ``coco`` (COCOEvaluator) or ``voc`` (PascalVOCDetectionEvaluator).
        class_names: By ``category_id``.
    """

    train: list[str]
    test: list[str]
    image_root: str
    evaluator: str
    class_names: list[str]


def check_dataset(config: DatasetConfig) -> None:
    """Fail early and cheaply: are the files there, in the expected layout, and not cut off?

    The toy world is drawn and names are looked up by ``register_dataset``, so those pass here.

    Raises:
        DatasetError: One sentence that names what is missing and shows the layout.
    """
    try:
        if config.kind == "coco":
            _check_coco(config)
        elif config.kind == "voc" and not config.is_toy:
            _check_voc(config)
    except OSError as error:  # no permission, a name that is too long, ...
        raise DatasetError(f"dataset.root={config.root!r} cannot be read: {error}") from error


def register_dataset(config: DatasetConfig) -> DatasetHandle:
    """Register the data set of the settings; doing it again changes nothing.

    The toy world is drawn first if it is not there. Test sets that ``max_test_images`` shortens,
    and VOC with masks, are converted to COCO's format by COCOEvaluator, which then needs an
    ``output_dir``. A shortened VOC is measured by COCO's rules, since VOC's evaluator would count
    the images left out.

    Raises:
        DatasetError: The data set is missing or malformed.
    """
    check_dataset(config)
    if config.kind == "toy":
        generate_toy(_real_root(config), config.toy)
    elif config.is_toy:
        generate_toy_voc(_real_root(config), config.toy)
    if config.kind in ("toy", "coco"):
        return _register_coco(config)
    if config.kind == "voc":
        return _register_voc(config)
    return _register_names(config)


def _check_coco(config: DatasetConfig) -> None:
    coco = config.coco
    layout = f"{{{coco.train_json}, {coco.test_json}, {coco.train_images}/, {coco.test_images}/}}"
    expected = f"expected layout: {config.root}/{layout}"
    root = _check_root(config, expected)
    for relative in (coco.train_json, coco.test_json):
        path = find_inside(root, relative)
        if not path.is_file():
            raise DatasetError(f"dataset.root={config.root!r} has no file {relative}; {expected}")
        check_ending(path)
    for relative in (coco.train_images, coco.test_images):
        folder = find_inside(root, relative)
        if not folder.is_dir() or not any(folder.iterdir()):
            raise DatasetError(
                f"dataset.root={config.root!r} has no folder {relative} with images; {expected}"
            )


def _check_voc(config: DatasetConfig) -> None:
    parts = "Annotations/, JPEGImages/, ImageSets/Main/*.txt"
    expected = (
        f"expected layout: {config.root}/{{VOC2007,VOC2012}}/{{{parts}, SegmentationObject/}}"
    )
    _check_root(config, expected)
    for split in _voc_splits(config, config.voc.train) + _voc_splits(config, config.voc.test):
        missing = voc.missing_parts(split)
        if missing:
            raise DatasetError(f"dataset.root={config.root!r} has no {missing[0]}; {expected}")


def _check_root(config: DatasetConfig, expected: str) -> Path:
    root = _real_root(config)
    if not root.is_dir():
        raise DatasetError(f"dataset.root={config.root!r} is no folder; {expected}")
    return root


def _real_root(config: DatasetConfig) -> Path:
    return Path(config.root).expanduser().resolve()


def _register_coco(config: DatasetConfig) -> DatasetHandle:
    train, test = _coco_splits(config)
    categories = read_categories(test)
    class_names = list(categories.values())
    metadata = {
        "thing_classes": class_names,
        "thing_dataset_id_to_contiguous_id": {each: i for i, each in enumerate(categories)},
        "evaluator_type": "coco",
    }
    names = []
    for part, split in (("train", train), ("test", test)):
        share = f"{split.percent:g}pct_fold{split.fold}_" if split.percent < 100 else ""
        drawn = asdict(config.toy) if config.kind == "toy" else {}
        name = f"{config.kind}_{part}_{share}{_digest([asdict(split), drawn])}"
        extra: dict[str, Any] = {"image_root": split.root}
        if config.kind == "toy":
            extra["size_limits"] = size_limits(config.toy.image_size)
        if part == "test" and not split.max_images:
            extra["json_file"] = str(find_inside(Path(split.root), split.json_file))
        _register(name, partial(load_coco, split, name, categories), {**metadata, **extra})
        names.append(name)
    return DatasetHandle([names[0]], [names[1]], train.root, "coco", class_names)


def _coco_splits(config: DatasetConfig) -> tuple[CocoSplit, CocoSplit]:
    root = str(_real_root(config))
    most_train, most_test = config.max_train_images, config.max_test_images
    if config.kind == "toy":
        captions = "annotations/captions_train.json"
        return (
            CocoSplit(
                root, "annotations/instances_train.json", "train", captions, max_images=most_train
            ),
            CocoSplit(
                root,
                f"annotations/instances_{config.toy.evaluate_on}.json",
                config.toy.evaluate_on,
                max_images=most_test,
                evaluated=True,
            ),
        )
    coco = config.coco
    return (
        CocoSplit(
            root,
            coco.train_json,
            coco.train_images,
            coco.train_captions,
            coco.percent,
            coco.fold if coco.percent < 100 else 1,
            most_train,
        ),
        CocoSplit(root, coco.test_json, coco.test_images, max_images=most_test, evaluated=True),
    )


def _register_voc(config: DatasetConfig) -> DatasetHandle:
    evaluator = "coco" if config.voc.masks or config.max_test_images else "voc"
    classes = list(voc.VOC_CLASSES)
    names: dict[str, list[str]] = {"train": [], "test": []}
    for part, wanted, most in (
        ("train", config.voc.train, config.max_train_images),
        ("test", config.voc.test, config.max_test_images),
    ):
        for split in _shortened(_voc_splits(config, wanted), most):
            evaluated = part == "test" and evaluator == "voc"
            split = replace(split, evaluated=evaluated)
            masks = "masks_" if split.masks else ""
            name = f"voc_{split.year}_{split.split}_{masks}{_digest(asdict(split))}"
            metadata: dict[str, Any] = {
                "thing_classes": classes,
                "dirname": str(split.folder),
                "year": split.year,
                "split": split.split,
                "evaluator_type": "pascal_voc" if evaluator == "voc" else "coco",
            }
            _register(name, partial(voc.load_voc, split), metadata)
            names[part].append(name)
    return DatasetHandle(names["train"], names["test"], str(_real_root(config)), evaluator, classes)


def _voc_splits(config: DatasetConfig, wanted: Sequence[str]) -> list[voc.VocSplit]:
    if not wanted:
        raise DatasetError("dataset.voc.train and dataset.voc.test each need a YEAR_SPLIT")
    root = str(_real_root(config))
    return [voc.VocSplit(root, *voc.parse_split(name), config.voc.masks) for name in wanted]


def _shortened(splits: list[voc.VocSplit], most: int) -> list[voc.VocSplit]:
    """The splits with the first ``most`` images of all, the last one shortened; 0 keeps all."""
    if not most:
        return splits
    kept = []
    for split in splits:
        if most > 0:
            kept.append(replace(split, max_images=most))
            most -= len(voc.read_image_ids(split))
    return kept


def _register_names(config: DatasetConfig) -> DatasetHandle:
    """Sets that the user has registered; they are loaded to learn where their images are."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    known = list(DatasetCatalog.list())
    for name in (*config.train_names, *config.test_names):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "register it first"
            raise DatasetError(f"{name!r} is not in Detectron2's catalogue; {hint}")
    train, train_dicts = _shortened_names(config.train_names, config.max_train_images)
    test, _ = _shortened_names(config.test_names, config.max_test_images)
    folders = {os.path.dirname(os.path.abspath(each["file_name"])) for each in train_dicts}
    metadata = MetadataCatalog.get(config.train_names[0])
    class_names = metadata.get("thing_classes")
    if not folders or not class_names:
        raise DatasetError(
            f"{config.train_names[0]!r} has no images, or no thing_classes in its metadata"
        )
    is_voc = MetadataCatalog.get(test[0]).get("evaluator_type") == "pascal_voc"
    evaluator = "voc" if is_voc and not config.max_test_images else "coco"
    return DatasetHandle(
        train, test, os.path.commonpath(sorted(folders)), evaluator, list(class_names)
    )


def _shortened_names(names: Sequence[str], most: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of sets cut to the first ``most`` images of all (0 keeps all), and their dicts."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    kept: list[str] = []
    all_dicts: list[dict[str, Any]] = []
    for name in names:
        dicts = DatasetCatalog.get(name)
        room = most - len(all_dicts)
        if most and room <= 0:
            break
        if most and len(dicts) > room:
            dicts = dicts[:room]
            metadata = dict(MetadataCatalog.get(name).as_dict())
            # The evaluator must not count the images left out: no annotation file that lists them.
            for key in ("name", "json_file", "evaluator_type"):
                metadata.pop(key, None)
            short = f"{name}_first{room}"
            _register(short, partial(_first, name, room), metadata)
            name = short
        kept.append(name)
        all_dicts += dicts
    return kept, all_dicts


def _first(name: str, count: int) -> list[dict[str, Any]]:
    from detectron2.data import DatasetCatalog

    return DatasetCatalog.get(name)[:count]


def _register(name: str, loader: _DictLoader, metadata: dict[str, Any]) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    if name not in DatasetCatalog.list():
        DatasetCatalog.register(name, loader)
        MetadataCatalog.get(name).set(**metadata)


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()[:8]
