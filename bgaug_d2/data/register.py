"""From settings to names in Detectron2's catalogue: what each kind of data set needs, as a table.

The names hold a digest of the settings, so that different settings never share one. A data
set is loaded, and checked in full, when Detectron2 first asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bgaug_d2.config.experiment import DatasetConfig
from bgaug_d2.data.catalogue import DatasetHandle, real_root
from bgaug_d2.data.register_coco import check_coco, register_coco
from bgaug_d2.data.register_names import register_names
from bgaug_d2.data.register_voc import check_voc, register_voc
from bgaug_d2.data.toy.voc_layout import generate_toy_voc
from bgaug_d2.data.toy.world import generate_toy
from bgaug_d2.errors import DatasetError


@dataclass(frozen=True)
class _Kind:
    """What a ``dataset.kind`` needs.

    Attributes:
        check: Looks for missing files, cheaply.
        draw: Makes what is not there yet.
        register: Gives the names in the catalogue.
    """

    check: Callable[[DatasetConfig], None]
    draw: Callable[[DatasetConfig], None]
    register: Callable[[DatasetConfig], DatasetHandle]


def check_dataset(config: DatasetConfig) -> None:
    """Fail early and cheaply: are the files there, in the expected layout, and not cut off?

    ``register_dataset`` draws the toy world and looks up names, so those pass here.

    Raises:
        DatasetError: One sentence that names what is missing and shows the layout.
    """
    try:
        _KINDS[config.kind].check(config)
    except OSError as error:  # no permission, a name that is too long, ...
        raise DatasetError(f"dataset.root={config.root!r} cannot be read: {error}") from error


def register_dataset(config: DatasetConfig) -> DatasetHandle:
    """Register the data set of the settings; doing it again changes nothing.

    The toy world is drawn first if it is not there. Test sets that ``max_test_images`` shortens,
    and VOC with masks, are converted to COCO's format by COCOEvaluator, which then needs an
    ``output_dir``. COCO's rules measure a shortened VOC, since VOC's evaluator would count the
    images left out.

    Raises:
        DatasetError: The data set is missing or malformed.
    """
    check_dataset(config)
    kind = _KINDS[config.kind]
    kind.draw(config)
    return kind.register(config)


def _nothing(config: DatasetConfig) -> None:
    """This kind needs no such step."""


def _draw_toy(config: DatasetConfig) -> None:
    generate_toy(real_root(config), config.toy)


def _draw_toy_voc(config: DatasetConfig) -> None:
    if config.is_toy:
        generate_toy_voc(real_root(config), config.toy)


_KINDS = {
    # dataset.kind        check        draw       register
    "toy": _Kind(_nothing, _draw_toy, register_coco),
    "coco": _Kind(check_coco, _nothing, register_coco),
    "voc": _Kind(check_voc, _draw_toy_voc, register_voc),
    "registered": _Kind(_nothing, _nothing, register_names),
}
