"""From a dataset dict to what its draw shows: the original, or a painted variant and its key.

A hit needs the cache key but not the whole job. So the two costly parts of the key, the digest of
the image file and the digest of the objects, are kept per image; all else is computed anew.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bgaug_d2.config.bgaug import BgAugConfig
from bgaug_d2.config.recipe import RecipeConfig
from bgaug_d2.errors import PlanError
from bgaug_d2.jobs.digests import digest_file
from bgaug_d2.jobs.job import InpaintJob, Recipe, SourceImage, job_key, objects_digest
from bgaug_d2.jobs.parse import objects_from_annotations
from bgaug_d2.jobs.prompts import object_prompt, prompt_for
from bgaug_d2.pixels.paths import relative_name
from bgaug_d2.sampling.policy import replace_variant

_FORMAT = "Detectron2's standard format needs it"


@dataclass(frozen=True)
class Plan:
    """What one draw is to show.

    Attributes:
        variant: 0 for the original, else the number of the painted variant, from 1.
        key: Cache key of the variant; None when nothing is to be looked up.
        reason: Why a variant that was drawn is not painted (``no_objects``, ``crowd``), else None.
    """

    variant: int
    key: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class _KnownFile:
    """The digest of an image file, valid while its size and modification time stay as they are."""

    name: str
    num_bytes: int
    mtime_ns: int
    sha256: str


class JobPlanner:
    """Plans draws; a pure function of its settings, the dataset dict and the image file.

    Picklable, and usable from several threads: what it keeps per image (under 1 KB) are values
    that any thread would compute alike.

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
        self._class_prompts = tuple(
            object_prompt(recipe.settings, name)
            for name in self.class_names
            if recipe.settings.paints_objects
        )
        self._files: dict[str, _KnownFile] = {}
        self._objects: dict[str, tuple[bytes, str]] = {}

    def plan(self, dataset_dict: Mapping[str, Any]) -> Plan:
        """What this draw shows.

        Args:
            dataset_dict: Detectron2's format; with ``bgaug_visit`` (mode replace) or
                ``bgaug_variant`` (mode expand) as ``bgaug_d2.sampling.loader`` adds them.

        Raises:
            PlanError: A key is missing that Detectron2's format or the mode needs.
            ImageError, OSError: The image file is outside the root or cannot be read.
            AnnotationError: An annotation is not usable.
        """
        variant = self.variant(dataset_dict)
        if variant == 0:
            return Plan(0, None, None)
        reason = skip_reason(dataset_dict, self.recipe.settings)
        if reason is not None:
            return Plan(variant, None, reason)
        return Plan(variant, self.key(dataset_dict, variant), None)

    def variant(self, dataset_dict: Mapping[str, Any]) -> int:
        """The variant that this draw asks for, 0 for the original."""
        settings = self.settings
        if not settings.paints:
            return 0
        if settings.mode == "expand":
            advice = (
                "bgaug.mode='expand' takes a data set from bgaug_d2.sampling.loader.expand_dataset"
            )
            return int(_needed(dataset_dict, "bgaug_variant", advice))
        advice = (
            "bgaug.mode='replace' takes a loader from bgaug_d2.sampling.loader.build_train_loader"
        )
        visit = int(_needed(dataset_dict, "bgaug_visit", advice))
        image_id = _needed(dataset_dict, "image_id", _FORMAT)
        return replace_variant(self.seed, image_id, visit, settings.p, settings.variants)

    def key(self, dataset_dict: Mapping[str, Any], variant: int) -> str:
        """The cache key (64 hex digits) of ``job(...)``, without the cost of building the job."""
        return job_key(
            self._source(dataset_dict),
            self._objects_digest(dataset_dict),
            self._prompt(dataset_dict, variant),
            self.recipe.digest,
            variant,
            self._object_prompts(dataset_dict),
        )

    def job(self, dataset_dict: Mapping[str, Any], variant: int) -> InpaintJob:
        """The job that paints this variant; raises like ``plan``."""
        return InpaintJob(
            source=self._source(dataset_dict),
            objects=objects_from_annotations(
                dataset_dict.get("annotations", ()), dataset_dict["image_id"]
            ),
            prompt=self._prompt(dataset_dict, variant),
            recipe=self.recipe,
            variant=variant,
            object_prompts=self._object_prompts(dataset_dict),
        )

    def all_jobs(
        self, dataset_dicts: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], int]]:
        """Every (dataset dict, variant) that training can ask for, in a fixed order.

        Mode replace: variants 1..V of each image; mode expand: the copies as listed. Images that
        are never painted are left out; mode none has no jobs.
        """
        mode, paints = self.settings.mode, self.settings.paints
        for dataset_dict in dataset_dicts:
            if not paints or skip_reason(dataset_dict, self.recipe.settings) is not None:
                continue
            if mode == "replace":
                for variant in range(1, self.settings.variants + 1):
                    yield dataset_dict, variant
            elif variant := self.variant(dataset_dict):
                yield dataset_dict, variant

    def _source(self, dataset_dict: Mapping[str, Any]) -> SourceImage:
        path = _needed(dataset_dict, "file_name", _FORMAT)
        status = os.stat(path)
        known = self._files.get(path)
        if (
            known is None
            or known.num_bytes != status.st_size
            or known.mtime_ns != status.st_mtime_ns
        ):
            # The status was taken before the file is read: should the file change meanwhile, the
            # next use sees another time of modification and reads it again.
            name = relative_name(path, self.image_root)
            known = _KnownFile(name, status.st_size, status.st_mtime_ns, digest_file(path))
            self._files[path] = known
        return SourceImage(
            file_name=known.name,
            sha256=known.sha256,
            num_bytes=known.num_bytes,
            height=int(_needed(dataset_dict, "height", _FORMAT)),
            width=int(_needed(dataset_dict, "width", _FORMAT)),
            image_id=_needed(dataset_dict, "image_id", _FORMAT),
        )

    def _objects_digest(self, dataset_dict: Mapping[str, Any]) -> str:
        annotations = dataset_dict.get("annotations", ())
        # The canonical JSON of a crowded image costs a millisecond, its pickle some microseconds.
        # The pickle is only hashed, never read: equal bytes mean equal annotations, and
        # annotations that are equal but pickle differently are merely computed twice.
        fingerprint = hashlib.blake2b(pickle.dumps(annotations, -1), digest_size=16).digest()
        path = dataset_dict["file_name"]
        known = self._objects.get(path)
        if known is None or known[0] != fingerprint:
            objects = objects_from_annotations(annotations, dataset_dict["image_id"])
            known = self._objects[path] = fingerprint, objects_digest(objects)
        return known[1]

    def _prompt(self, dataset_dict: Mapping[str, Any], variant: int) -> str:
        image_id = _needed(dataset_dict, "image_id", _FORMAT)
        settings = self.recipe.settings
        if not settings.paints_background:
            return ""
        captions = dataset_dict.get("captions", ())
        if settings.prompt != "class_names":
            return prompt_for(settings, image_id, variant, captions, ())
        names = {
            self.class_names[each["category_id"]] for each in dataset_dict.get("annotations", ())
        }
        return prompt_for(settings, image_id, variant, captions, sorted(names))

    def _object_prompts(self, dataset_dict: Mapping[str, Any]) -> tuple[str, ...]:
        """``InpaintJob.object_prompts``."""
        if not self.recipe.settings.paints_objects:
            return ()
        annotations = dataset_dict.get("annotations", ())
        try:
            return tuple(
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

    These are the rules of ``painting.prepare``, as far as they can be told without its masks.

    Args:
        dataset_dict: Detectron2's format.
        settings: The recipe, for its target, its policy on crowds and its smallest background.
        ratio: Background share of the image, 0..1, where it is known.

    Returns:
        ``no_objects``, ``crowd``, ``small_background`` or None.
    """
    crowds = [bool(each.get("iscrowd", 0)) for each in dataset_dict.get("annotations") or ()]
    if not crowds or (all(crowds) and not settings.paints_background):
        return "no_objects"
    if settings.crowd == "skip_image" and any(crowds):
        return "crowd"
    if not settings.paints_background:
        return None
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
