"""From a dataset dict to what its draw shows: the original, or a painted variant and its key.

A hit needs the cache key but not the whole job: objects are parsed only for a job. The two costly
parts of the key, the digests of the image file and of the objects, lie in the dataset dict
(``cache.source_digests``); where they do not, they are computed at every draw.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgaug_d2.cache.source_digests import FILE_KEY, OBJECTS_KEY, file_digest, objects_sha256
from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import PlanError
from bgaug_d2.jobs.job import InpaintJob, Recipe, SourceImage, job_key
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.jobs.prompts import object_prompt, prompt_for
from bgaug_d2.sampling.policy import replace_variant

_FORMAT = "Detectron2's standard format needs it"
_EXPAND = "bgaug.mode='expand' takes a data set from bgaug_d2.sampling.expand.expand_dataset"
_REPLACE = "bgaug.mode='replace' takes a loader from bgaug_d2.sampling.loader.build_train_loader"


@dataclass(frozen=True)
class DrawPlan:
    """What one draw shows, and the parts of the job that paints it.

    Attributes:
        variant: 0 for the original, else the number of the painted variant, from 1.
        key: Cache key of the variant, 64 hex digits; None when nothing is looked up.
        reason: Why a variant that was drawn is not painted (``no_objects``, ``crowd``), else None.
        source: The image; None when nothing is looked up.
        recipe: How the variant is painted; None when nothing is looked up.
        prompt: ``InpaintJob.prompt``.
        object_prompts: ``InpaintJob.object_prompts``.
        annotations: Those of the dataset dict, not parsed yet.
    """

    variant: int = 0
    key: str | None = None
    reason: str | None = None
    source: SourceImage | None = None
    recipe: Recipe | None = None
    prompt: str = ""
    object_prompts: tuple[str, ...] = ()
    annotations: Sequence[Mapping[str, Any]] = ()

    def job(self) -> InpaintJob:
        """The job that paints the variant; its key is ``key``.

        Raises:
            ValueError: Nothing is painted.
            AnnotationError: An annotation is not usable.
        """
        if self.source is None or self.recipe is None:
            raise ValueError(f"variant {self.variant} is not painted ({self.reason or 'original'})")
        return InpaintJob(
            source=self.source,
            objects=objects_from_annotations(self.annotations, self.source.image_id),
            prompt=self.prompt,
            recipe=self.recipe,
            variant=self.variant,
            object_prompts=self.object_prompts,
        )


class JobPlanner:
    """Plans draws; a pure function of its settings, the dataset dict and the image file.

    It keeps nothing between draws, so it is picklable and usable from several threads.

    Args:
        settings: Mode, probability, number of variants and the rest of the augmentation.
        recipe: How pictures are painted, with the model resolved.
        image_root: Folder that holds all images of the data set; names in keys are relative to it.
        seed: Seed of the draws. It decides which variant is shown, never how a variant looks.
        class_names: Names of the data set's classes, indexed by ``category_id``.
    """

    def __init__(
        self,
        settings: BgAugConfig,
        recipe: Recipe,
        image_root: str,
        seed: int,
        class_names: Sequence[str],
    ) -> None:
        self.settings = settings
        self.recipe = recipe
        self.image_root = image_root
        self.seed = seed
        self.class_names = tuple(class_names)
        # Once for all draws: they depend on the class alone.
        self._class_prompts = tuple(
            object_prompt(recipe.settings, name)
            for name in self.class_names
            if recipe.settings.paints_objects
        )

    def plan(self, dataset_dict: Mapping[str, Any]) -> DrawPlan:
        """What this draw shows.

        Args:
            dataset_dict: Detectron2's format; with ``bgaug_visit`` (mode replace) or
                ``bgaug_variant`` (mode expand) as ``bgaug_d2.sampling`` adds them.

        Raises:
            PlanError: A key is missing that Detectron2's format or the mode needs.
            ImageError, OSError: The image file is outside the root or cannot be read.
            AnnotationError: An annotation is not usable.
        """
        variant = self.variant(dataset_dict)
        return self.plan_variant(dataset_dict, variant) if variant else DrawPlan()

    def variant(self, dataset_dict: Mapping[str, Any]) -> int:
        """The variant that this draw asks for, 0 for the original."""
        settings = self.settings
        # Originals need no visit and no id, so any dataset dict will do.
        if not settings.paints:
            return 0
        if settings.mode == "expand":
            return int(_needed(dataset_dict, "bgaug_variant", _EXPAND))
        visit = int(_needed(dataset_dict, "bgaug_visit", _REPLACE))
        image_id = _needed(dataset_dict, "image_id", _FORMAT)
        return replace_variant(self.seed, image_id, visit, settings.p, settings.variants)

    def plan_variant(self, dataset_dict: Mapping[str, Any], variant: int) -> DrawPlan:
        """The plan of a draw that shows ``variant``, from 1; raises like ``plan``."""
        reason = skip_reason(dataset_dict, self.recipe.settings)
        if reason is not None:
            return DrawPlan(variant, reason=reason)
        source = self._source(dataset_dict)
        objects = dataset_dict.get(OBJECTS_KEY) or objects_sha256(dataset_dict)
        prompt = self._prompt(dataset_dict, variant)
        object_prompts = self._object_prompts(dataset_dict)
        return DrawPlan(
            variant,
            job_key(source, objects, prompt, self.recipe.digest, variant, object_prompts),
            None,
            source,
            self.recipe,
            prompt,
            object_prompts,
            dataset_dict["annotations"],
        )

    def all_jobs(
        self, dataset_dicts: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], int]]:
        """Every (dataset dict, variant) that training can ask for, in a fixed order.

        Mode replace: variants 1..V of each image; mode expand: the copies as listed. Images that
        are never painted are left out; mode none has no jobs. No file is read.
        """
        mode, paints = self.settings.mode, self.settings.paints
        for dataset_dict in dataset_dicts:
            if not paints or skip_reason(dataset_dict, self.recipe.settings) is not None:
                continue
            if mode == "replace":
                for variant in range(1, self.settings.variants + 1):
                    yield dataset_dict, variant
            # The originals of an expanded data set have variant 0: nothing to paint.
            elif variant := self.variant(dataset_dict):
                yield dataset_dict, variant

    def _source(self, dataset_dict: Mapping[str, Any]) -> SourceImage:
        path = _needed(dataset_dict, "file_name", _FORMAT)
        # Before the file is read: if it changes meanwhile, the next draw sees another time.
        status = os.stat(path)
        digest = dataset_dict.get(FILE_KEY)
        # A file that changed since its digest was kept is hashed again.
        if digest is None or tuple(digest[2:]) != (status.st_size, status.st_mtime_ns):
            digest = file_digest(path, self.image_root, status)
        name, sha256, num_bytes, _ = digest
        return SourceImage(
            file_name=name,
            sha256=sha256,
            num_bytes=num_bytes,
            height=int(_needed(dataset_dict, "height", _FORMAT)),
            width=int(_needed(dataset_dict, "width", _FORMAT)),
            image_id=_needed(dataset_dict, "image_id", _FORMAT),
        )

    def _prompt(self, dataset_dict: Mapping[str, Any], variant: int) -> str:
        image_id = _needed(dataset_dict, "image_id", _FORMAT)
        settings = self.recipe.settings
        # The prompt is part of the key, so one without effect must not vary.
        if not settings.paints_background:
            return ""
        captions = dataset_dict.get("captions", ())
        if settings.prompt != "class_names":
            return prompt_for(settings, image_id, variant, captions, ())
        names = {
            self.class_names[each["category_id"]] for each in dataset_dict.get("annotations", ())
        }
        # Sorted: the order of a set varies between processes, and with it the key would.
        return prompt_for(settings, image_id, variant, captions, sorted(names))

    def _object_prompts(self, dataset_dict: Mapping[str, Any]) -> tuple[str, ...]:
        """``InpaintJob.object_prompts``."""
        if not self.recipe.settings.paints_objects:
            return ()
        annotations = dataset_dict.get("annotations", ())
        try:
            return tuple(
                # Crowd regions are not painted; "" keeps the list parallel to the objects.
                "" if each.get("iscrowd", 0) else self._class_prompts[each["category_id"]]
                for each in annotations
            )
        except IndexError:
            raise PlanError(
                f"a dataset dict ({dataset_dict.get('file_name')}) has a category_id beyond the "
                f"{len(self.class_names)} class names that the planner was given"
            ) from None


def skip_reason(
    dataset_dict: Mapping[str, Any], settings: RecipeConfig, ratio: float | None = None
) -> str | None:
    """The rule by which an image is never painted, or None.

    These are the rules of ``painting.prepare``, as far as they are known without its masks.

    Args:
        dataset_dict: Detectron2's format.
        settings: The recipe, for its target, its policy on crowds and its smallest background.
        ratio: Background share of the image, 0..1, where it is known.

    Returns:
        ``no_objects``, ``crowd``, ``small_background`` or None.
    """
    crowds = [bool(each.get("iscrowd", 0)) for each in dataset_dict.get("annotations") or ()]
    # Crowd regions are never painted, so with target=objects they alone leave nothing to do.
    if not crowds or (all(crowds) and not settings.paints_background):
        return "no_objects"
    if settings.crowd == "skip_image" and any(crowds):
        return "crowd"
    # The smallest background share has no meaning with target=objects.
    if not settings.paints_background:
        return None
    # Draws do not know the ratio; painting checks it again, on its masks.
    if ratio is not None and ratio < settings.min_background:
        return "small_background"
    return None


def _needed(dataset_dict: Mapping[str, Any], name: str, advice: str) -> Any:
    try:
        return dataset_dict[name]
    except KeyError:
        raise PlanError(
            f"a dataset dict ({dataset_dict.get('file_name')}) has no {name!r}; {advice}"
        ) from None
