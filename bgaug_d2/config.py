"""Settings of the augmentation as plain dataclasses; standard library only.

Every key lives here once, with its default and its allowed values, which ``__post_init__`` checks;
``experiment_config`` adds what a whole training run needs. The classes are not frozen because Hydra
cannot compose frozen schemas; treat them as constants all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROMPT_KINDS = ("clean", "caption", "class_names", "scene")
TARGETS = ("background", "objects", "objects_and_background")
CLASS_NAME = "{class_name}"  # the field of recipe.object_prompt
STEP_KINDS = ("adaptive", "fixed")
EROSION_RESOLUTIONS = ("diffusion", "image")
CROWD_POLICIES = ("protect", "skip_image")
TIMESTEP_SPACINGS = ("linspace", "trailing")
MODES = ("none", "duplicate", "replace", "expand")
WEIGHTINGS = ("uniform", "nonuniform")
ON_MISS = ("original", "wait", "error")
DTYPES = ("auto", "float32", "bfloat16")
PICTURE_FORMATS = ("png", "jpeg")
GPU_ROWS, CPU_ROWS = 32, 8  # what worker.rows=0 means


class ConfigError(ValueError):
    """A setting is not allowed; the message names the key, the value and the choices."""


def check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{key}={value!r} is not allowed; choose one of {', '.join(allowed)}")


def check_between(key: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise ConfigError unless ``low <= value <= high``."""
    if not low <= value <= high:
        upper = "" if high == float("inf") else f" and at most {high}"
        raise ConfigError(f"{key}={value!r} is not allowed; it must be at least {low}{upper}")


@dataclass
class QualityConfig:
    """When a painted background is refused (and painted again with the next seed).

    Painted objects are never refused: many a real object is small, or of one colour.

    Attributes:
        min_std: Smallest standard deviation of the background, in grey levels; less is "flat".
        min_changed: Smallest share of background pixels, 0..1, that differ from the source by more
            than ``changed_threshold`` grey levels in some channel.
        changed_threshold: Grey levels, 0..255.
        max_retries: How many more seeds are tried before the job counts as rejected.
    """

    min_std: float = 2.0
    min_changed: float = 0.5
    changed_threshold: int = 4
    max_retries: int = 2

    def __post_init__(self) -> None:
        self.min_std, self.min_changed = float(self.min_std), float(self.min_changed)
        check_between("quality.min_std", self.min_std, 0, 128)
        check_between("quality.min_changed", self.min_changed, 0, 1)
        check_between("quality.changed_threshold", self.changed_threshold, 0, 255)
        check_between("quality.max_retries", self.max_retries, 0, 100)


@dataclass
class RecipeConfig:
    """How a picture is painted; all of it decides pixels, so all of it is in the cache key.

    What is said of the background below (prompt, steps, erosion, smallest share) has no effect with
    ``target: objects``.

    Attributes:
        target: ``background``; ``objects``: every object but crowd regions is painted once, with
            its class name as prompt (paper, table 3, "object aug."); ``objects_and_background``:
            first the background, then the objects. The annotations stay as they are, though
            nothing guarantees that the model draws an object of the class in its mask.
        object_prompt: The prompt of an object; ``{class_name}`` stands for its class.
        prompt: ``clean`` (the paper's default), ``caption``, ``class_names`` or ``scene``.
        prompt_text: The prompt of kind ``clean`` (paper, section 3).
        scenes: The prompts of kind ``scene``; taken in turn by an image's variants,
            each image from another place of the list on.
        negative_prompt: The unconditional branch of classifier-free guidance; empty in the paper.
        num_inference_steps: ``T``, the length of the full schedule.
        steps: ``adaptive`` (T_hat from the background ratio) or ``fixed`` (the ablation).
        D: Strength of the adaptive reduction, in (0, 1).
        fixed_T_hat: Steps taken when ``steps`` is ``fixed``; 0 means ``num_inference_steps``.
        erosion_kernel: Minimum-filter width ``k`` in pixels, odd; 1 switches erosion off.
        erosion_resolution: Whether ``k`` counts pixels of the ``diffusion`` square or of the
            ``image``.
        guidance_scale: Classifier-free guidance; 1 switches it off.
        guidance_interval: Two shares of the full schedule, 0..1, between which guidance is on
            (Kynkaanniemi et al. 2024, arXiv 2404.07724); a step outside costs half. [0, 1] is all.
        solver_order: 2 (DPM-Solver++(2M)), or 1 (its first order, which is DDIM's step) for models
            that are distilled to a few steps, such as SD-Turbo.
        whole_every: The whole UNet runs at each so-manieth step of a picture, and its outermost
            level alone at the others (DeepCache; Ma et al. 2024, arXiv 2312.00858): faster, and a
            little worse. 1 is always.
        resolution: Side of the square that the model paints, in pixels.
        timestep_spacing: How the schedule places its timesteps, ``linspace`` or ``trailing``.
        paste_back: Put the source's object pixels back bit for bit once the background is painted
            (off: the paper-faithful arm). Around a painted object all is always put back.
        crowd: ``protect`` crowd regions, whatever the target, or ``skip_image``.
        min_background: Images whose background share (0..1) is smaller are not augmented.
        quality: When a painted background is refused.
    """

    target: str = "background"
    object_prompt: str = "A photo of a {class_name}"
    prompt: str = "clean"
    prompt_text: str = "Generate a clean background"
    scenes: list[str] = field(default_factory=list)
    negative_prompt: str = ""
    num_inference_steps: int = 25
    steps: str = "adaptive"
    D: float = 0.5
    fixed_T_hat: int = 0
    erosion_kernel: int = 7
    erosion_resolution: str = "diffusion"
    guidance_scale: float = 7.5
    guidance_interval: list[float] = field(default_factory=lambda: [0.0, 1.0])
    solver_order: int = 2
    whole_every: int = 1
    resolution: int = 512
    timestep_spacing: str = "linspace"
    paste_back: bool = True
    crowd: str = "protect"
    min_background: float = 0.05
    quality: QualityConfig = field(default_factory=QualityConfig)

    def __post_init__(self) -> None:
        # 7 and 7.0 are one setting, but as JSON, and so in the cache key, they would differ.
        self.D, self.guidance_scale = float(self.D), float(self.guidance_scale)
        self.min_background = float(self.min_background)
        check_choice("recipe.target", self.target, TARGETS)
        if CLASS_NAME not in self.object_prompt:
            raise ConfigError(
                f"recipe.object_prompt={self.object_prompt!r} needs the field {CLASS_NAME}, "
                "which stands for the object's class"
            )
        check_choice("recipe.prompt", self.prompt, PROMPT_KINDS)
        check_choice("recipe.steps", self.steps, STEP_KINDS)
        check_choice("recipe.erosion_resolution", self.erosion_resolution, EROSION_RESOLUTIONS)
        check_choice("recipe.timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        check_choice("recipe.crowd", self.crowd, CROWD_POLICIES)
        check_between("recipe.num_inference_steps", self.num_inference_steps, 1, 1000)
        check_between("recipe.fixed_T_hat", self.fixed_T_hat, 0, self.num_inference_steps)
        check_between("recipe.guidance_scale", self.guidance_scale, 1, 100)
        self.guidance_interval = [float(share) for share in self.guidance_interval]
        if len(self.guidance_interval) != 2 or not (
            0 <= self.guidance_interval[0] <= self.guidance_interval[1] <= 1
        ):
            raise ConfigError(
                f"recipe.guidance_interval={self.guidance_interval!r} is not allowed; give two "
                "shares of the schedule, 0..1, the smaller first"
            )
        check_between("recipe.solver_order", self.solver_order, 1, 2)
        check_between("recipe.whole_every", self.whole_every, 1, 1000)
        check_between("recipe.resolution", self.resolution, 32, 4096)
        check_between("recipe.min_background", self.min_background, 0, 1)
        check_between("recipe.erosion_kernel", self.erosion_kernel, 1, 255)
        if not 0 < self.D < 1:
            raise ConfigError(
                f"recipe.D={self.D!r} is not allowed; it must be between 0 and 1, exclusive"
            )
        if self.erosion_kernel % 2 == 0:
            raise ConfigError(f"recipe.erosion_kernel={self.erosion_kernel!r} must be odd")
        if self.prompt == "scene" and not self.scenes:
            raise ConfigError("recipe.prompt='scene' needs recipe.scenes, a list of prompts")

    @property
    def paints_background(self) -> bool:
        """Whether ``target`` names the background."""
        return self.target != "objects"

    @property
    def paints_objects(self) -> bool:
        """Whether ``target`` names the objects."""
        return self.target != "background"


@dataclass
class InpainterConfig:
    """Which diffusion model paints.

    Attributes:
        model: ``tiny`` (built into the package), a hub id, or a local folder in diffusers' layout.
        revision: Hub revision (branch, tag or commit); ignored for ``tiny`` and folders.
        dtype: ``float32``, ``bfloat16`` or ``auto`` (bfloat16 where a GPU is present). It is part
            of the cache key: set it where a cache filled on a GPU is read on a machine without one.
        license: SPDX-like name recorded with every picture.
    """

    model: str = "tiny"
    revision: str = "main"
    dtype: str = "auto"
    license: str = "unknown"

    def __post_init__(self) -> None:
        check_choice("inpainter.dtype", self.dtype, DTYPES)
        if not self.model:
            raise ConfigError("inpainter.model is empty; give 'tiny', a hub id or a local folder")


@dataclass
class CacheConfig:
    """Where painted pictures are kept.

    Attributes:
        dir: Folder of the cache; created when missing.
        max_gb: Size quota in 10**9 bytes, oldest entries go first; 0 means no quota.
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


@dataclass
class WorkerConfig:
    """The painting processes and how long anybody waits for them. Times are seconds.

    Attributes:
        devices: Torch devices, one process each; ``auto`` means every GPU, or the CPU where there
            is none.
        rows: Rows of a UNet call, one per picture and guidance branch; 0 means 32 on a GPU, 8 on a
            CPU.
        compile: Compile the UNet for calls of ``rows`` rows and of 4: minutes at the start, faster
            calls after it; for long runs on a GPU.
        cuda_graphs: With ``compile``, replay the calls of 4 rows as CUDA graphs, so that a picture
            painted alone does not wait for the launch of kernels.
        threads: CPU threads per process that decode, build masks and encode PNG beside the model.
        queue_size: Jobs a process holds; more are refused at once.
        deadline_s: How long ``on_miss=wait`` waits for one picture.
        start_timeout_s: How long a process may take to load its model, and to compile it.
        heartbeat_s: Pause between two heartbeats.
        hang_timeout_s: A process without progress for so long is killed and started anew.
        max_restarts: Restarts in a row, without a picture between them, before it is given up.
        backoff_s: Pause before the first restart; it doubles with each further one, up to 60 s.
        breaker_failures: Failures in a row after which a client stops asking.
        breaker_cooldown_s: Pause before it asks again.
    """

    devices: list[str] = field(default_factory=lambda: ["auto"])
    rows: int = 0
    compile: bool = False
    cuda_graphs: bool = False
    threads: int = 2
    queue_size: int = 512
    deadline_s: float = 120.0
    start_timeout_s: float = 600.0
    heartbeat_s: float = 5.0
    hang_timeout_s: float = 120.0
    max_restarts: int = 5
    backoff_s: float = 0.5
    breaker_failures: int = 5
    breaker_cooldown_s: float = 5.0

    def __post_init__(self) -> None:
        check_between("worker.rows", self.rows, 0, 1024)
        check_between("worker.threads", self.threads, 1, 256)
        check_between("worker.queue_size", self.queue_size, 1, 1_000_000)
        check_between("worker.max_restarts", self.max_restarts, 0)
        check_between("worker.breaker_failures", self.breaker_failures, 1)
        for name in ("deadline_s", "start_timeout_s", "heartbeat_s", "hang_timeout_s"):
            check_between(f"worker.{name}", getattr(self, name), 0.01)
        for name in ("backoff_s", "breaker_cooldown_s"):
            check_between(f"worker.{name}", getattr(self, name), 0)
        if self.cuda_graphs and not self.compile:
            raise ConfigError("worker.cuda_graphs=true needs worker.compile=true")
        if not self.devices:
            raise ConfigError("worker.devices is empty; give ['auto'], ['cpu'] or ['cuda:0', ...]")


@dataclass
class BgAugConfig:
    """Which training samples show a painted background.

    Attributes:
        mode: ``none`` (baseline), ``replace`` (each draw is swapped with probability ``p``) or
            ``expand`` (the paper: the data set becomes originals plus copies), or ``duplicate``
            (its control: the copies are originals too).
        p: Probability of ``replace``, 0..1.
        variants: Number V of different backgrounds an image has in mode ``replace``.
        alpha: Copies per image in modes ``expand`` and ``duplicate`` (paper, figure 6).
        weighting: ``uniform`` (alpha copies each) or ``nonuniform`` (more for larger backgrounds).
        on_miss: What a draw does when its picture is not in the cache yet: take the ``original``
            (and ask for the picture), ``wait`` for it, or stop with an ``error``.
        look_ahead: How many draws ahead of training missing pictures are asked for; 0 switches it
            off.
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
        if self.worker.compile and self.recipe.whole_every > 1:
            raise ConfigError(
                f"recipe.whole_every={self.recipe.whole_every} runs parts of the UNet, which "
                "worker.compile=true compiles as a whole; choose one of the two"
            )

    @property
    def paints(self) -> bool:
        """Whether training shows painted pictures, so that a model and a cache are needed."""
        return self.mode in ("replace", "expand")
