"""Settings of a whole run (data set, detector, launch) around those of the augmentation.

``runs.hydra_app`` fills these classes from Hydra, ``training.detectron2_cfg`` turns them into
Detectron2's own configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bgaug_d2.config.bgaug import BgAugConfig, InpainterConfig
from bgaug_d2.config.checks import check_between, check_choice
from bgaug_d2.config.comparison import AugmentConfig
from bgaug_d2.config.schedule import ScheduleConfig
from bgaug_d2.errors import ConfigError

DATASET_KINDS = ("toy", "coco", "voc", "registered")
TRACKING = ("none", "wandb", "mlflow")


@dataclass
class ToyConfig:
    """The built-in procedural world (``bgaug_d2.data.toy.world``).

    Attributes:
        image_size: Longer side, in pixels.
        num_train, num_val, num_test: Images of each split.
        seed: Seed of the training split; the other two are the same for every seed.
        bias: How firmly classes go with a few backgrounds in the training split, 0..1.
        evaluate_on: ``val`` (to decide by) or ``test`` (to report).
    """

    image_size: int = 128
    num_train: int = 100
    num_val: int = 100
    num_test: int = 200
    seed: int = 0
    bias: float = 0.9
    evaluate_on: str = "test"

    def __post_init__(self) -> None:
        check_between("dataset.toy.image_size", self.image_size, 64, 1024)
        check_between("dataset.toy.num_train", self.num_train, 1)
        check_between("dataset.toy.num_val", self.num_val, 1)
        check_between("dataset.toy.num_test", self.num_test, 1)
        check_between("dataset.toy.bias", self.bias, 0, 1)
        check_choice("dataset.toy.evaluate_on", self.evaluate_on, ("val", "test"))


@dataclass
class CocoConfig:
    """A data set in COCO's format; paths are relative to ``dataset.root``.

    Attributes:
        train_json, train_images, test_json, test_images: Annotation files and image folders.
        train_captions: Caption file for ``recipe.prompt=caption``; may be empty.
        percent: Share of the training images, in (0, 100].
        fold: Which of the literature's folds (1..5) the share is; unused at 100 %.
    """

    train_json: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    test_json: str = "annotations/instances_val2017.json"
    test_images: str = "val2017"
    train_captions: str = "annotations/captions_train2017.json"
    percent: float = 100.0
    fold: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise ConfigError(f"dataset.coco.percent={self.percent!r} must be in (0, 100]")
        # A fold is a seed of NumPy, so more of them exist than the literature's five.
        check_between("dataset.coco.fold", self.fold, 0)


@dataclass
class VocConfig:
    """PASCAL VOC in its own layout (``VOC2007/``, ``VOC2012/`` under ``dataset.root``).

    Attributes:
        train, test: ``YEAR_SPLIT`` names, for example ``2007_trainval``.
        masks: Read instance masks from ``SegmentationObject`` and keep only images that have them
            (needed by Mask R-CNN); off: boxes, and masks where present protect the objects.
        toy: The toy world (``dataset.toy``) in this layout: drawn into ``dataset.root`` at first
            use.
    """

    train: list[str] = field(default_factory=lambda: ["2007_trainval", "2012_trainval"])
    test: list[str] = field(default_factory=lambda: ["2007_test"])
    masks: bool = False
    toy: bool = False


@dataclass
class DatasetConfig:
    """What is trained and tested on.

    Attributes:
        kind: ``toy``, ``coco``, ``voc`` or ``registered`` (names in Detectron2's catalogue).
        root: Folder of the data; the toy world is written there. No file outside it is opened.
        train_names, test_names: Registered names, for kind ``registered`` only.
        max_train_images, max_test_images: Keep only the first images; 0 keeps all.
    """

    kind: str = "toy"
    root: str = "output/toy"
    train_names: list[str] = field(default_factory=list)
    test_names: list[str] = field(default_factory=list)
    max_train_images: int = 0
    max_test_images: int = 0
    toy: ToyConfig = field(default_factory=ToyConfig)
    coco: CocoConfig = field(default_factory=CocoConfig)
    voc: VocConfig = field(default_factory=VocConfig)

    def __post_init__(self) -> None:
        check_choice("dataset.kind", self.kind, DATASET_KINDS)
        check_between("dataset.max_train_images", self.max_train_images, 0)
        check_between("dataset.max_test_images", self.max_test_images, 0)
        if self.kind == "registered" and not (self.train_names and self.test_names):
            raise ConfigError("dataset.kind='registered' needs dataset.train_names and .test_names")

    @property
    def is_toy(self) -> bool:
        """Whether the images are of the toy world, in whatever layout."""
        return self.kind == "toy" or (self.kind == "voc" and self.voc.toy)


@dataclass
class DetectorConfig:
    """The detector, as Detectron2 knows it.

    Attributes:
        config_file: A model-zoo name (``COCO-InstanceSegmentation/...yaml``) or the path of a YAML
            file.
        weights: Start weights: a path, a ``detectron2://`` or ``https://`` address, ``toy`` (a
            backbone that comes with the package, for ``detector=toy_mask_rcnn``), or empty for
            random weights.
        opts: Further Detectron2 settings as a nested mapping; unknown keys are an error.
    """

    config_file: str = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    # What this file of the model zoo names itself.
    weights: str = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    opts: dict[str, Any] = field(default_factory=dict)


@dataclass
class LaunchConfig:
    """Processes and machines, as Detectron2's ``launch`` takes them.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        num_gpus: Training processes on this machine; on a CPU more than one trains with gloo.
        num_machines, machine_rank, dist_url: Several machines; ``dist_url=auto`` on one machine.
    """

    device: str = "auto"
    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    def __post_init__(self) -> None:
        check_choice("launch.device", self.device, ("auto", "cpu", "cuda"))
        check_between("launch.num_gpus", self.num_gpus, 1)
        check_between("launch.num_machines", self.num_machines, 1)
        check_between("launch.machine_rank", self.machine_rank, 0, self.num_machines - 1)


@dataclass
class SuffixConfig:
    """What is added to a run's name, so that different runs never share a folder.

    Attributes:
        ablation: Set by the files in ``configs/ablation``, for example ``-D25``.
        debug: Set by the files in ``configs/debug``, for example ``-smoke``.
    """

    ablation: str = ""
    debug: str = ""


@dataclass
class ExperimentConfig:
    """One run of ``bgaug train`` or ``bgaug paint``.

    Attributes:
        benchmark: Data set, detector and schedule by one name (``configs/benchmark``).
        arm: What is compared on the benchmark, by name (``configs/arm``).
        suffix: What an ablation or a debug setting adds to the name.
        name: Name of the run in tables; runs of one name differ in their seed only.
        seed: Seed of sampler, policy and detector. Pictures do not depend on it: they depend on
            their key only.
        output_dir: Folder that the run writes to.
        resume: Go on from the last checkpoint in ``output_dir``; a finished run is left as it is.
        eval_only: Evaluate the weights (or the last checkpoint, with ``resume``) and stop.
        tracking: Where scalars go besides TensorBoard: ``none``, ``wandb`` or ``mlflow``, each an
            optional extra of the package.
        dry_run: ``bgaug paint`` only: print the estimate of time and disk and stop.
    """

    benchmark: str = "custom"
    arm: str = "custom"
    suffix: SuffixConfig = field(default_factory=SuffixConfig)
    name: str = "custom"
    seed: int = 0
    output_dir: str = "output/custom"
    resume: bool = False
    eval_only: bool = False
    tracking: str = "none"
    dry_run: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    inpainter: InpainterConfig = field(default_factory=InpainterConfig)
    bgaug: BgAugConfig = field(default_factory=BgAugConfig)

    def __post_init__(self) -> None:
        check_between("seed", self.seed, 0, 2**31 - 1)
        check_choice("tracking", self.tracking, TRACKING)
        # Only ablations of alpha change a run that paints nothing, and only one with copies; any
        # other would give the arm's own numbers under another name.
        if self.suffix.ablation and not self.bgaug.paints and self.bgaug.alpha == BgAugConfig.alpha:
            raise ConfigError(
                f"ablation={self.suffix.ablation.lstrip('-')} changes how pictures are painted, "
                f"but arm={self.arm} (bgaug.mode={self.bgaug.mode}) paints none; leave the "
                "ablation out or choose an arm that paints, for example arm=expand"
            )
