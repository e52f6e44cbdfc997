"""Settings of the augmentation as plain dataclasses; standard library only.

Every key lives here once, with its default and its allowed values, which ``__post_init__`` checks;
``config.experiment`` adds what a whole training run needs. The classes are not frozen because tools
and tests shrink an experiment by assignment; everything else treats them as constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bgaug_d2.config.checks import check_between, check_choice
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import ConfigError

MODES = ("none", "duplicate", "replace", "expand")
WEIGHTINGS = ("uniform", "nonuniform")
# What only some modes read.
MODE_OPTIONS = {
    "p": ("replace",),
    "variants": ("replace",),
    "alpha": ("expand", "duplicate"),
    "weighting": ("expand", "duplicate"),
}
ON_MISS = ("original", "wait", "error")
ENGINES = ("continuous", "toy_backgrounds")  # keys of the table in `worker.engines`
DTYPES = ("auto", "float32", "bfloat16")
PICTURE_FORMATS = ("png", "jpeg")
GPU_ROWS, CPU_ROWS = 32, 8  # what worker.max_batch_rows=0 means


@dataclass
class InpainterConfig:
    """Which model paints, and with which engine.

    Attributes:
        model: A hub id, a local folder in diffusers' layout, or ``tiny`` (built into the package,
            for the toy world only). Empty means that no inpainter is chosen: a run that paints
            refuses to start.
        engine: ``continuous`` (a diffusion model, pictures join and leave its batches at every
            step) or ``toy_backgrounds`` (no model: draws real backgrounds of the toy world).
        revision: Hub revision (branch, tag or commit); ignored for ``tiny`` and folders.
        dtype: ``float32``, ``bfloat16`` or ``auto`` (bfloat16 where a GPU is present). It is part
            of the cache key: set it where a cache filled on a GPU is read on a machine without one.
        license: SPDX-like name recorded with every picture.
        allow_toy_model: Let ``tiny`` and ``toy_backgrounds`` paint on photographs, of which they
            know nothing: to test the machinery, never for results.
    """

    model: str = ""
    engine: str = "continuous"
    revision: str = "main"
    dtype: str = "auto"
    license: str = "unknown"
    allow_toy_model: bool = False

    def __post_init__(self) -> None:
        check_choice("inpainter.engine", self.engine, ENGINES)
        check_choice("inpainter.dtype", self.dtype, DTYPES)


@dataclass
class CacheConfig:
    """Where painted pictures are kept.

    Attributes:
        dir: Folder of the cache; created when missing.
        max_gb: Size quota in 10**9 bytes, the oldest entries go first; 0 means no quota.
        format: ``png`` keeps objects bit for bit. ``jpeg`` (quality 95, no chroma subsampling) is
            faster to read and smaller, and changes objects a little: on COCO by 1.3 grey levels on
            average, at most 3 over the objects of one image.
    """

    dir: str = "output/bgaug_cache"
    max_gb: float = 0.0
    format: str = "png"

    def __post_init__(self) -> None:
        check_choice("cache.format", self.format, PICTURE_FORMATS)
        check_between("cache.max_gb", self.max_gb, 0)
        if not self.dir:
            raise ConfigError("cache.dir is empty; give a folder")

    @property
    def max_bytes(self) -> int:
        """The quota in bytes; 0 means none."""
        return int(self.max_gb * 1e9)


@dataclass
class AdvancedWorkerConfig:
    """Time-outs, restarts and circuit breaker of the painting processes. Times are seconds.

    The defaults suit a GPU as well as a slow CPU; few users have a reason to change them.

    Attributes:
        deadline_s: How long ``on_miss=wait`` waits for one picture.
        start_timeout_s: How long a process may take to load its model, and to compile it.
        heartbeat_s: A process that reports nothing for this long is asked for a sign of life.
        hang_timeout_s: A process without progress for this long is killed and restarted.
        max_restarts: Restarts in a row, without a picture between them, before the process is
            given up.
        backoff_s: Pause before the first restart. It doubles with each further one, up to 60 s.
        breaker_failures: Failures in a row after which a client stops asking a process (a circuit
            breaker: training does not wait again and again for a process that is down).
        breaker_cooldown_s: Pause before the client asks again.
    """

    deadline_s: float = 120.0
    start_timeout_s: float = 600.0
    heartbeat_s: float = 5.0
    hang_timeout_s: float = 120.0
    max_restarts: int = 5
    backoff_s: float = 0.5
    breaker_failures: int = 5
    breaker_cooldown_s: float = 5.0

    def __post_init__(self) -> None:
        check_between("worker.advanced.max_restarts", self.max_restarts, 0)
        check_between("worker.advanced.breaker_failures", self.breaker_failures, 1)
        # A time-out of 0 would be over before anything could answer.
        for name in ("deadline_s", "start_timeout_s", "heartbeat_s", "hang_timeout_s"):
            check_between(f"worker.advanced.{name}", getattr(self, name), 0.01)
        for name in ("backoff_s", "breaker_cooldown_s"):
            check_between(f"worker.advanced.{name}", getattr(self, name), 0)


@dataclass
class WorkerConfig:
    """The painting processes.

    Attributes:
        devices: Torch devices, one process each; ``auto`` means every GPU, or the CPU where there
            is none.
        max_batch_rows: Rows of a UNet call at most, one per picture and guidance branch; 0 means 32
            on a GPU, 8 on a CPU.
        compile: Compile the UNet for calls of ``max_batch_rows`` rows and of 4: minutes at the
            start, faster calls after it; for long runs on a GPU.
        cuda_graphs: With ``compile``, replay the calls of 4 rows as CUDA graphs, so that a picture
            painted alone does not wait for the launch of kernels.
        threads: CPU threads per process that decode, build masks and encode PNG beside the model.
        queue_size: Jobs a process holds; it refuses more.
        advanced: Time-outs, restarts and circuit breaker.
    """

    devices: list[str] = field(default_factory=lambda: ["auto"])
    max_batch_rows: int = 0
    compile: bool = False
    cuda_graphs: bool = False
    threads: int = 2
    queue_size: int = 512
    advanced: AdvancedWorkerConfig = field(default_factory=AdvancedWorkerConfig)

    def __post_init__(self) -> None:
        check_between("worker.max_batch_rows", self.max_batch_rows, 0, 1024)
        check_between("worker.threads", self.threads, 1, 256)
        check_between("worker.queue_size", self.queue_size, 1, 1_000_000)
        # The graphs replay calls of the compiled UNet.
        if self.cuda_graphs and not self.compile:
            raise ConfigError("worker.cuda_graphs=true needs worker.compile=true")
        if not self.devices:
            raise ConfigError("worker.devices is empty; give ['auto'], ['cpu'] or ['cuda:0', ...]")


@dataclass
class BgAugConfig:
    """Which training samples show a painted background.

    Attributes:
        mode: ``none`` (baseline), ``replace`` (each draw shows a painted picture with probability
            ``p``), ``expand`` (the paper: the data set becomes originals plus copies) or
            ``duplicate`` (its control: the copies are originals too).
        p: Probability of mode ``replace``, 0..1.
        variants: Number V of different backgrounds an image has in mode ``replace``.
        alpha: Copies per image in modes ``expand`` and ``duplicate`` (paper, figure 6).
        weighting: ``uniform`` (alpha copies each) or ``nonuniform`` (more for larger backgrounds).
        on_miss: What a draw does when its picture is not in the cache yet: take the ``original``
            (and ask for the picture), ``wait`` for it, or stop with an ``error``.
        look_ahead: Number of draws ahead of training for which missing pictures are requested; 0
            switches it off.
        recipe: How backgrounds are painted.
        cache: Where pictures are kept.
        worker: The painting processes.
    """

    mode: str = "none"
    p: float = 0.5
    variants: int = 4
    alpha: int = 1
    weighting: str = "uniform"
    on_miss: str = "original"
    look_ahead: int = 128
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    worker: WorkerConfig = field(default_factory=WorkerConfig)

    def __post_init__(self) -> None:
        check_choice("bgaug.mode", self.mode, MODES)
        check_choice("bgaug.weighting", self.weighting, WEIGHTINGS)
        check_choice("bgaug.on_miss", self.on_miss, ON_MISS)
        check_between("bgaug.p", self.p, 0, 1)
        check_between("bgaug.variants", self.variants, 1, 10_000)
        check_between("bgaug.alpha", self.alpha, 1, 1000)
        check_between("bgaug.look_ahead", self.look_ahead, 0, 1_000_000)
        # By value: only a caller that sees the keys can refuse a default that was written out.
        self.check_options(
            name for name in MODE_OPTIONS if getattr(self, name) != self.default(name)
        )
        if self.worker.compile and self.recipe.deepcache_interval > 1:
            raise ConfigError(
                f"recipe.deepcache_interval={self.recipe.deepcache_interval} runs parts of the "
                "UNet, which worker.compile=true compiles as a whole; choose one of the two"
            )

    @classmethod
    def default(cls, name: str) -> object:
        """The default of an option in ``MODE_OPTIONS``."""
        # A dataclass keeps plain defaults as attributes of the class.
        return getattr(cls, name)

    def check_options(self, names: Iterable[str]) -> None:
        """Refuse options that the mode does not read: whoever set them expects an effect.

        Args:
            names: Options that somebody set; those that are not in ``MODE_OPTIONS`` pass.

        Raises:
            ConfigError: One of them means nothing in this mode.
        """
        for name in names:
            modes = MODE_OPTIONS.get(name, MODES)
            if self.mode not in modes:
                raise ConfigError(
                    f"bgaug.{name}={getattr(self, name)!r} means nothing with "
                    f"bgaug.mode={self.mode}; leave it out, or choose an arm whose mode is "
                    f"{' or '.join(modes)}"
                )

    @property
    def paints(self) -> bool:
        """Whether training shows painted pictures, so that a model and a cache are needed."""
        return self.mode in ("replace", "expand")
