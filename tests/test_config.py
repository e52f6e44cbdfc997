"""Settings: every key refuses what is not allowed, with its name, the value and the choices."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from bgaug_d2 import config, experiment_config
from bgaug_d2.config import ConfigError

BAD: list[tuple[type, dict[str, Any], str]] = [
    (config.QualityConfig, {"min_std": -1}, "quality.min_std"),
    (config.QualityConfig, {"min_changed": 1.5}, "quality.min_changed"),
    (config.QualityConfig, {"min_changed": math.nan}, "quality.min_changed"),
    (config.QualityConfig, {"changed_threshold": 256}, "quality.changed_threshold"),
    (config.QualityConfig, {"max_retries": -1}, "quality.max_retries"),
    (config.RecipeConfig, {"target": "foreground"}, "recipe.target"),
    (config.RecipeConfig, {"object_prompt": "A photo"}, "recipe.object_prompt"),
    (config.RecipeConfig, {"object_prompt": "A {name}"}, "{class_name}"),
    (config.RecipeConfig, {"prompt": "poem"}, "recipe.prompt"),
    (config.RecipeConfig, {"prompt": "scene"}, "recipe.scenes"),
    (config.RecipeConfig, {"steps": "some"}, "recipe.steps"),
    (config.RecipeConfig, {"erosion_resolution": "latent"}, "recipe.erosion_resolution"),
    (config.RecipeConfig, {"timestep_spacing": "leading"}, "recipe.timestep_spacing"),
    (config.RecipeConfig, {"crowd": "paint"}, "recipe.crowd"),
    (config.RecipeConfig, {"num_inference_steps": 0}, "recipe.num_inference_steps"),
    (config.RecipeConfig, {"fixed_T_hat": 26}, "recipe.fixed_T_hat"),
    (config.RecipeConfig, {"D": 0}, "recipe.D"),
    (config.RecipeConfig, {"D": 1}, "recipe.D"),
    (config.RecipeConfig, {"D": math.nan}, "recipe.D"),
    (config.RecipeConfig, {"erosion_kernel": 4}, "recipe.erosion_kernel"),
    (config.RecipeConfig, {"erosion_kernel": 0}, "recipe.erosion_kernel"),
    (config.RecipeConfig, {"guidance_scale": 0.5}, "recipe.guidance_scale"),
    (config.RecipeConfig, {"guidance_scale": math.inf}, "recipe.guidance_scale"),
    (config.RecipeConfig, {"guidance_interval": [0.6, 0.4]}, "recipe.guidance_interval"),
    (config.RecipeConfig, {"guidance_interval": [0.5]}, "recipe.guidance_interval"),
    (config.RecipeConfig, {"guidance_interval": [0.0, math.nan]}, "recipe.guidance_interval"),
    (config.CacheConfig, {"format": "webp"}, "cache.format"),
    (config.RecipeConfig, {"resolution": 8}, "recipe.resolution"),
    (config.RecipeConfig, {"min_background": -0.1}, "recipe.min_background"),
    (config.InpainterConfig, {"model": ""}, "inpainter.model"),
    (config.InpainterConfig, {"dtype": "float16"}, "inpainter.dtype"),
    (config.CacheConfig, {"dir": ""}, "cache.dir"),
    (config.CacheConfig, {"max_gb": -1}, "cache.max_gb"),
    (config.WorkerConfig, {"devices": []}, "worker.devices"),
    (config.WorkerConfig, {"rows": -1}, "worker.rows"),
    (config.WorkerConfig, {"threads": 0}, "worker.threads"),
    (config.WorkerConfig, {"queue_size": 0}, "worker.queue_size"),
    (config.WorkerConfig, {"deadline_s": 0}, "worker.deadline_s"),
    (config.WorkerConfig, {"hang_timeout_s": math.nan}, "worker.hang_timeout_s"),
    (config.WorkerConfig, {"backoff_s": -1}, "worker.backoff_s"),
    (config.WorkerConfig, {"cuda_graphs": True}, "worker.compile=true"),
    (config.WorkerConfig, {"breaker_failures": 0}, "worker.breaker_failures"),
    (config.BgAugConfig, {"mode": "both"}, "bgaug.mode"),
    (config.BgAugConfig, {"p": 1.1}, "bgaug.p"),
    (config.BgAugConfig, {"variants": 0}, "bgaug.variants"),
    (config.BgAugConfig, {"alpha": 0}, "bgaug.alpha"),
    (config.BgAugConfig, {"weighting": "random"}, "bgaug.weighting"),
    (config.BgAugConfig, {"on_miss": "guess"}, "bgaug.on_miss"),
    (config.BgAugConfig, {"look_ahead": -1}, "bgaug.look_ahead"),
    (experiment_config.ToyConfig, {"image_size": 16}, "dataset.toy.image_size"),
    (experiment_config.CocoConfig, {"percent": 0}, "dataset.coco.percent"),
    (experiment_config.CocoConfig, {"percent": 101}, "dataset.coco.percent"),
    (experiment_config.DatasetConfig, {"kind": "lvis"}, "dataset.kind"),
    (experiment_config.DatasetConfig, {"kind": "registered"}, "dataset.train_names"),
    (experiment_config.DatasetConfig, {"max_train_images": -1}, "dataset.max_train_images"),
    (experiment_config.ScheduleConfig, {"iterations": 0}, "schedule.iterations"),
    (experiment_config.ScheduleConfig, {"base_lr": -1}, "schedule.base_lr"),
    (experiment_config.LaunchConfig, {"device": "tpu"}, "launch.device"),
    (experiment_config.LaunchConfig, {"machine_rank": 1}, "launch.machine_rank"),
    (experiment_config.ExperimentConfig, {"seed": -1}, "seed"),
]


@pytest.mark.parametrize(("settings", "values", "key"), BAD)
def test_a_bad_value_is_named(settings: type, values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert key in str(caught.value)


def test_a_choice_lists_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="'both'.*none, duplicate, replace, expand"):
        config.BgAugConfig(mode="both")


def test_the_papers_defaults() -> None:
    recipe = config.RecipeConfig()
    assert recipe.prompt_text == "Generate a clean background"
    assert (recipe.num_inference_steps, recipe.D, recipe.erosion_kernel) == (25, 0.5, 7)
    assert (recipe.guidance_scale, recipe.negative_prompt, recipe.resolution) == (7.5, "", 512)
    assert recipe.paste_back
    assert experiment_config.ExperimentConfig().bgaug == config.BgAugConfig()


def test_equal_numbers_are_equal_settings() -> None:
    """7 and 7.0 would be different JSON, and so different cache keys."""
    recipe = config.RecipeConfig(guidance_scale=7, min_background=0)
    assert repr(recipe.guidance_scale) == "7.0"
    assert repr(recipe.min_background) == "0.0"
    assert repr(config.QualityConfig(min_std=2).min_std) == "2.0"


def test_defaults_are_not_shared() -> None:
    config.RecipeConfig().scenes.append("a beach")
    assert config.RecipeConfig().scenes == []


def test_the_core_needs_neither_torch_nor_detectron2() -> None:
    """Loader workers and other trainers import it."""
    modules = "config experiment_config jobs images rle masks steps prompts policy painting"
    code = "import sys\n" + "".join(f"import bgaug_d2.{name}\n" for name in modules.split())
    code += "print([m for m in ('torch', 'detectron2', 'diffusers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
