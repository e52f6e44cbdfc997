"""How a picture is painted: every setting that decides its pixels."""

from __future__ import annotations

from dataclasses import dataclass, field

from bgaug_d2.config.checks import check_between, check_choice
from bgaug_d2.errors import ConfigError

PROMPT_KINDS = ("clean", "caption", "class_names", "scene")
TARGETS = ("background", "objects", "objects_and_background")
CLASS_NAME = "{class_name}"  # the field of recipe.object_prompt
STEP_POLICIES = ("adaptive", "fixed")
EROSION_RESOLUTIONS = ("diffusion", "image")
CROWD_POLICIES = ("protect", "skip_image")
TIMESTEP_SPACINGS = ("linspace", "trailing")


@dataclass
class QualityConfig:
    """When a painted background is refused (and painted again with the next seed).

    Painted objects are never refused: real objects are often small, or of one colour.

    Attributes:
        min_std: Smallest standard deviation of the background, in grey levels; less is "flat".
        min_changed: Smallest share of background pixels, 0..1, that differ from the source by more
            than ``changed_threshold`` grey levels in some channel.
        changed_threshold: Grey levels, 0..255.
        max_retries: Number of further seeds to try before the job counts as rejected.
    """

    min_std: float = 2.0
    min_changed: float = 0.5
    changed_threshold: int = 4
    max_retries: int = 2

    def __post_init__(self) -> None:
        # As in `RecipeConfig`: 2 and 2.0 have to give one cache key.
        self.min_std, self.min_changed = float(self.min_std), float(self.min_changed)
        check_between("quality.min_std", self.min_std, 0, 128)
        check_between("quality.min_changed", self.min_changed, 0, 1)
        check_between("quality.changed_threshold", self.changed_threshold, 0, 255)
        check_between("quality.max_retries", self.max_retries, 0, 100)


@dataclass(frozen=True)
class DiffusionSettings:
    """The part of a recipe that the engine needs: the same for every pass of every picture.

    ``RecipeConfig.diffusion`` builds it from checked values; ``RecipeConfig`` says more about each.

    Attributes:
        num_inference_steps: ``T``, the length of the full schedule.
        timestep_spacing: ``linspace`` or ``trailing``.
        solver_order: 1 or 2.
        deepcache_interval: Run the whole UNet every N steps of a picture.
        guidance_scale: Classifier-free guidance; 1 means none.
        guidance_interval: Two shares of the full schedule, 0..1, between which guidance is on.
        negative_prompt: Text of the unconditional guidance branch.
    """

    num_inference_steps: int
    timestep_spacing: str
    solver_order: int
    deepcache_interval: int
    guidance_scale: float
    guidance_interval: tuple[float, float]
    negative_prompt: str


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
        scenes: The prompts of kind ``scene``. The variants of an image take them in turn, and each
            image starts at another place of the list.
        negative_prompt: The unconditional branch of classifier-free guidance; empty in the paper.
        num_inference_steps: ``T``, the length of the full schedule.
        step_policy: ``adaptive`` (T_hat from the background ratio) or ``fixed`` (the ablation).
        D: Strength of the adaptive reduction, in (0, 1).
        fixed_T_hat: Steps taken when ``step_policy`` is ``fixed``; 0 means ``num_inference_steps``.
        erosion_kernel: Minimum-filter width ``k`` in pixels, odd; 1 switches erosion off.
        erosion_resolution: Whether ``k`` counts pixels of the ``diffusion`` square or of the
            ``image``.
        guidance_scale: Classifier-free guidance; 1 switches it off.
        guidance_interval: Two shares of the full schedule, 0..1, between which guidance is on
            (Kynkaanniemi et al. 2024, arXiv 2404.07724). A step outside costs half. [0, 1] is all.
        solver_order: 2 (DPM-Solver++(2M)), or 1 (its first order, which is DDIM's step) for models
            that are distilled to a few steps, such as SD-Turbo.
        deepcache_interval: Run the whole UNet every N steps of a picture, and only its outermost
            level in the steps between (DeepCache; Ma et al. 2024, arXiv 2312.00858): faster, and a
            little worse. 1 runs the whole UNet in every step.
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
    # The paper gives neither these steps nor D: docs/paper_gaps.md.
    num_inference_steps: int = 25
    step_policy: str = "adaptive"
    D: float = 0.5
    fixed_T_hat: int = 0
    # The paper's k; at 512 pixels about one latent cell.
    erosion_kernel: int = 7
    erosion_resolution: str = "diffusion"
    guidance_scale: float = 7.5
    guidance_interval: list[float] = field(default_factory=lambda: [0.0, 1.0])
    solver_order: int = 2
    deepcache_interval: int = 1
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
        self.guidance_interval = [float(share) for share in self.guidance_interval]
        self._check_prompts()
        self._check_masks()
        self._check_diffusion()

    @property
    def paints_background(self) -> bool:
        """Whether ``target`` names the background."""
        return self.target != "objects"

    @property
    def paints_objects(self) -> bool:
        """Whether ``target`` names the objects."""
        return self.target != "background"

    @property
    def diffusion(self) -> DiffusionSettings:
        """What the engine needs of this recipe."""
        first, end = self.guidance_interval
        return DiffusionSettings(
            num_inference_steps=self.num_inference_steps,
            timestep_spacing=self.timestep_spacing,
            solver_order=self.solver_order,
            deepcache_interval=self.deepcache_interval,
            guidance_scale=self.guidance_scale,
            guidance_interval=(first, end),
            negative_prompt=self.negative_prompt,
        )

    def _check_prompts(self) -> None:
        check_choice("recipe.target", self.target, TARGETS)
        check_choice("recipe.prompt", self.prompt, PROMPT_KINDS)
        # Otherwise objects of all classes would get one prompt.
        if CLASS_NAME not in self.object_prompt:
            raise ConfigError(
                f"recipe.object_prompt={self.object_prompt!r} needs the field {CLASS_NAME}, "
                "which stands for the object's class"
            )
        if self.prompt == "scene" and not self.scenes:
            raise ConfigError("recipe.prompt='scene' needs recipe.scenes, a list of prompts")
        if self.scenes and self.prompt != "scene":
            raise ConfigError(
                f"recipe.scenes={self.scenes!r} means nothing with recipe.prompt={self.prompt!r}; "
                "leave it out, or set recipe.prompt=scene"
            )

    def _check_masks(self) -> None:
        check_choice("recipe.crowd", self.crowd, CROWD_POLICIES)
        check_choice("recipe.erosion_resolution", self.erosion_resolution, EROSION_RESOLUTIONS)
        check_between("recipe.resolution", self.resolution, 32, 4096)
        check_between("recipe.min_background", self.min_background, 0, 1)
        check_between("recipe.erosion_kernel", self.erosion_kernel, 1, 255)
        # An even window has no middle pixel, so it would shift the mask.
        if self.erosion_kernel % 2 == 0:
            raise ConfigError(f"recipe.erosion_kernel={self.erosion_kernel!r} must be odd")

    def _check_diffusion(self) -> None:
        check_choice("recipe.step_policy", self.step_policy, STEP_POLICIES)
        check_choice("recipe.timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        check_between("recipe.num_inference_steps", self.num_inference_steps, 1, 1000)
        check_between("recipe.fixed_T_hat", self.fixed_T_hat, 0, self.num_inference_steps)
        if self.fixed_T_hat and self.step_policy == "adaptive":
            raise ConfigError(
                f"recipe.fixed_T_hat={self.fixed_T_hat!r} means nothing with recipe.step_policy="
                f"{self.step_policy!r}; leave it out, or set recipe.step_policy=fixed"
            )
        check_between("recipe.guidance_scale", self.guidance_scale, 1, 100)
        check_between("recipe.solver_order", self.solver_order, 1, 2)
        check_between("recipe.deepcache_interval", self.deepcache_interval, 1, 1000)
        if len(self.guidance_interval) != 2 or not (
            0 <= self.guidance_interval[0] <= self.guidance_interval[1] <= 1
        ):
            raise ConfigError(
                f"recipe.guidance_interval={self.guidance_interval!r} is not allowed; give two "
                "shares of the schedule, 0..1, the smaller first"
            )
        if not 0 < self.D < 1:
            raise ConfigError(
                f"recipe.D={self.D!r} is not allowed; it must be between 0 and 1, exclusive"
            )
