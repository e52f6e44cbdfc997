"""Settings: every key refuses what is not allowed, with its name, the value and the choices."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from bgaug_d2.config import bgaug, experiment, recipe, schedule
from bgaug_d2.errors import ConfigError

BAD: list[tuple[type, dict[str, Any], str]] = [
    (recipe.QualityConfig, {"min_std": -1}, "quality.min_std"),
    (recipe.QualityConfig, {"min_changed": 1.5}, "quality.min_changed"),
    (recipe.QualityConfig, {"min_changed": math.nan}, "quality.min_changed"),
    (recipe.QualityConfig, {"changed_threshold": 256}, "quality.changed_threshold"),
    (recipe.QualityConfig, {"max_retries": -1}, "quality.max_retries"),
    (recipe.RecipeConfig, {"target": "foreground"}, "recipe.target"),
    (recipe.RecipeConfig, {"object_prompt": "A photo"}, "recipe.object_prompt"),
    (recipe.RecipeConfig, {"object_prompt": "A {name}"}, "{class_name}"),
    (recipe.RecipeConfig, {"prompt": "poem"}, "recipe.prompt"),
    (recipe.RecipeConfig, {"prompt": "scene"}, "recipe.scenes"),
    (recipe.RecipeConfig, {"step_policy": "some"}, "recipe.step_policy"),
    (recipe.RecipeConfig, {"erosion_resolution": "latent"}, "recipe.erosion_resolution"),
    (recipe.RecipeConfig, {"timestep_spacing": "leading"}, "recipe.timestep_spacing"),
    (recipe.RecipeConfig, {"crowd": "paint"}, "recipe.crowd"),
    (recipe.RecipeConfig, {"num_inference_steps": 0}, "recipe.num_inference_steps"),
    (recipe.RecipeConfig, {"fixed_T_hat": 26}, "recipe.fixed_T_hat"),
    (recipe.RecipeConfig, {"D": 0}, "recipe.D"),
    (recipe.RecipeConfig, {"D": 1}, "recipe.D"),
    (recipe.RecipeConfig, {"D": math.nan}, "recipe.D"),
    (recipe.RecipeConfig, {"erosion_kernel": 4}, "recipe.erosion_kernel"),
    (recipe.RecipeConfig, {"erosion_kernel": 0}, "recipe.erosion_kernel"),
    (recipe.RecipeConfig, {"guidance_scale": 0.5}, "recipe.guidance_scale"),
    (recipe.RecipeConfig, {"guidance_scale": math.inf}, "recipe.guidance_scale"),
    (recipe.RecipeConfig, {"guidance_interval": [0.6, 0.4]}, "recipe.guidance_interval"),
    (recipe.RecipeConfig, {"guidance_interval": [0.5]}, "recipe.guidance_interval"),
    (recipe.RecipeConfig, {"guidance_interval": [0.0, math.nan]}, "recipe.guidance_interval"),
    (bgaug.CacheConfig, {"format": "webp"}, "cache.format"),
    (recipe.RecipeConfig, {"resolution": 8}, "recipe.resolution"),
    (recipe.RecipeConfig, {"min_background": -0.1}, "recipe.min_background"),
    (bgaug.InpainterConfig, {"engine": "photoshop"}, "inpainter.engine"),
    (bgaug.InpainterConfig, {"dtype": "float16"}, "inpainter.dtype"),
    (bgaug.CacheConfig, {"dir": ""}, "cache.dir"),
    (bgaug.CacheConfig, {"max_gb": -1}, "cache.max_gb"),
    (bgaug.WorkerConfig, {"devices": []}, "worker.devices"),
    (bgaug.WorkerConfig, {"max_batch_rows": -1}, "worker.max_batch_rows"),
    (bgaug.WorkerConfig, {"threads": 0}, "worker.threads"),
    (bgaug.WorkerConfig, {"queue_size": 0}, "worker.queue_size"),
    (bgaug.AdvancedWorkerConfig, {"deadline_s": 0}, "worker.advanced.deadline_s"),
    (bgaug.AdvancedWorkerConfig, {"hang_timeout_s": math.nan}, "advanced.hang_timeout_s"),
    (bgaug.AdvancedWorkerConfig, {"backoff_s": -1}, "worker.advanced.backoff_s"),
    (bgaug.WorkerConfig, {"cuda_graphs": True}, "worker.compile=true"),
    (bgaug.AdvancedWorkerConfig, {"breaker_failures": 0}, "advanced.breaker_failures"),
    (bgaug.BgAugConfig, {"mode": "both"}, "bgaug.mode"),
    (bgaug.BgAugConfig, {"p": 1.1}, "bgaug.p"),
    (bgaug.BgAugConfig, {"variants": 0}, "bgaug.variants"),
    (bgaug.BgAugConfig, {"alpha": 0}, "bgaug.alpha"),
    (bgaug.BgAugConfig, {"weighting": "random"}, "bgaug.weighting"),
    (bgaug.BgAugConfig, {"on_miss": "guess"}, "bgaug.on_miss"),
    (bgaug.BgAugConfig, {"look_ahead": -1}, "bgaug.look_ahead"),
    (bgaug.BgAugConfig, {"mode": "expand", "p": 0.3}, "choose an arm whose mode is replace"),
    (bgaug.BgAugConfig, {"mode": "none", "variants": 2}, "bgaug.variants=2 means nothing"),
    (bgaug.BgAugConfig, {"mode": "replace", "alpha": 2}, "mode is expand or duplicate"),
    (bgaug.BgAugConfig, {"weighting": "nonuniform"}, "means nothing with bgaug.mode=none"),
    (recipe.RecipeConfig, {"scenes": ["a beach"]}, "set recipe.prompt=scene"),
    (recipe.RecipeConfig, {"fixed_T_hat": 5}, "recipe.fixed_T_hat=5 means nothing"),
    (experiment.ToyConfig, {"image_size": 16}, "dataset.toy.image_size"),
    (experiment.CocoConfig, {"percent": 0}, "dataset.coco.percent"),
    (experiment.CocoConfig, {"percent": 101}, "dataset.coco.percent"),
    (experiment.DatasetConfig, {"kind": "lvis"}, "dataset.kind"),
    (experiment.DatasetConfig, {"kind": "registered"}, "dataset.train_names"),
    (experiment.DatasetConfig, {"max_train_images": -1}, "dataset.max_train_images"),
    (schedule.ScheduleConfig, {"iterations": 0}, "schedule.iterations"),
    (schedule.ScheduleConfig, {"base_lr": -1}, "schedule.base_lr"),
    (experiment.LaunchConfig, {"device": "tpu"}, "launch.device"),
    (experiment.LaunchConfig, {"machine_rank": 1}, "launch.machine_rank"),
    (experiment.ExperimentConfig, {"seed": -1}, "seed"),
    (
        experiment.ExperimentConfig,
        {"arm": "baseline", "suffix": experiment.SuffixConfig(ablation="-D25")},
        "ablation=D25 changes how pictures are painted, but arm=baseline",
    ),
]


@pytest.mark.parametrize(("settings", "values", "key"), BAD)
def test_a_bad_value_is_named(settings: type, values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert key in str(caught.value)


def test_a_choice_lists_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="'both'.*none, duplicate, replace, expand"):
        bgaug.BgAugConfig(mode="both")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("replace", {"p": 0.3, "variants": 2}),
        ("expand", {"alpha": 2, "weighting": "nonuniform"}),
        ("duplicate", {"alpha": 5}),
    ],
)
def test_an_option_of_the_mode_is_allowed(mode: str, options: dict[str, Any]) -> None:
    settings = bgaug.BgAugConfig(mode=mode, **options)
    settings.check_options(options)
    others = {"p", "variants", "alpha", "weighting"} - set(options)
    if mode == "replace":  # even with its default value
        for name in others:
            with pytest.raises(ConfigError, match=f"bgaug.{name}="):
                settings.check_options([name])


def test_copies_are_ablated_where_nothing_is_painted() -> None:
    suffix = experiment.SuffixConfig(ablation="-alpha2")
    duplicate = bgaug.BgAugConfig(mode="duplicate", alpha=2)
    assert experiment.ExperimentConfig(suffix=suffix, bgaug=duplicate).suffix == suffix


def test_the_papers_defaults() -> None:
    settings = recipe.RecipeConfig()
    assert settings.prompt_text == "Generate a clean background"
    assert (settings.num_inference_steps, settings.D, settings.erosion_kernel) == (25, 0.5, 7)
    assert (settings.guidance_scale, settings.negative_prompt, settings.resolution) == (
        7.5,
        "",
        512,
    )
    assert settings.paste_back
    assert experiment.ExperimentConfig().bgaug == bgaug.BgAugConfig()


def test_equal_numbers_are_equal_settings() -> None:
    """7 and 7.0 would be different JSON, and so different cache keys."""
    settings = recipe.RecipeConfig(guidance_scale=7, min_background=0)
    assert repr(settings.guidance_scale) == "7.0"
    assert repr(settings.min_background) == "0.0"
    assert repr(recipe.QualityConfig(min_std=2).min_std) == "2.0"


def test_defaults_are_not_shared() -> None:
    recipe.RecipeConfig().scenes.append("a beach")
    assert recipe.RecipeConfig().scenes == []


def test_the_core_needs_neither_torch_nor_detectron2() -> None:
    """Loader workers and other trainers import it."""
    code = (
        "import sys\n"
        "from bgaug_d2.config import bgaug, comparison, experiment, parse, recipe, schedule\n"
        "from bgaug_d2.jobs import job, parse, prompts, steps\n"
        "from bgaug_d2.pixels import masks, object_masks, read, rle\n"
        "from bgaug_d2.cache import store\n"
        "from bgaug_d2.painting import finish, prepare\n"
        "from bgaug_d2.worker import client\n"
        "from bgaug_d2.sampling import mapper, planner, policy\n"
    )
    code += "print([m for m in ('torch', 'detectron2', 'diffusers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
