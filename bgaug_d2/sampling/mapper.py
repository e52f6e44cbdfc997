"""The mapper around a mapper: some draws read a copy of their image with a new background.

Nothing else changes. The picture has the size of its source, so the wrapped mapper flips, resizes
and builds instances as usual; ``sem_seg_file_name`` and the like stay those of the source.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache
from bgaug_d2.config.bgaug import ON_MISS
from bgaug_d2.config.checks import check_choice
from bgaug_d2.errors import MissError, PlanError
from bgaug_d2.sampling.outcomes import outcome_of_rejection, outcome_of_reply
from bgaug_d2.sampling.planner import DrawPlan, JobPlanner
from bgaug_d2.worker.client import WorkerClient

logger = logging.getLogger(__name__)

# Faults per process that are logged as warnings. Later ones are only counted in their samples.
_LOUD_FAULTS = 10


class MapperError(TypeError):
    """The wrapped mapper returned something that is not a sample."""


class BackgroundAugMapper:
    """Wraps any mapper of Detectron2 dataset dicts; picklable when the mapper is.

    With ``on_miss`` ``original`` or ``wait``, no fault of cache, picture, annotations or painting
    process leaves this class. The draw then shows its original, and the sample says why.

    Args:
        mapper: Takes a dataset dict, reads ``file_name``, returns a dict. It must not change nested
            values of its input (Detectron2's own copies it first).
        planner: Decides what a draw shows.
        cache: Where painted pictures are.
        client: Asks for missing pictures; None reads the cache only.
        on_miss: ``original`` (show the original and ask for the picture), ``wait`` or ``error``.
        deadline_s: Seconds that ``wait`` waits for one picture.
    """

    def __init__(
        self,
        mapper: Callable[[dict[str, Any]], Any],
        planner: JobPlanner,
        cache: VariantCache,
        client: WorkerClient | None,
        on_miss: str,
        deadline_s: float,
    ) -> None:
        check_choice("bgaug.on_miss", on_miss, ON_MISS)
        if on_miss == "wait" and client is None:
            raise ValueError("on_miss='wait' needs a client to wait for; use 'original' or 'error'")
        self.mapper = mapper
        self.planner = planner
        self.cache = cache
        self.client = client
        self.on_miss = on_miss
        self.deadline_s = deadline_s
        self._faults = 0

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one draw.

        Args:
            dataset_dict: Detectron2's format, as ``bgaug_d2.sampling.loader`` hands it out.

        Returns:
            What the wrapped mapper returns, and ``bgaug``, one of ``OUTCOMES``. On a hit
            ``file_name`` is the picture that was read and ``bgaug_source`` the original.

        Raises:
            MissError: ``on_miss`` is ``error`` and the picture is missing.
            PlanError: The dataset dict did not come through ``bgaug_d2.sampling.loader``.
            MapperError: The wrapped mapper returned no dict for the original.
        """
        # 1. What does this draw show, and is it there?
        outcome, picture = self._look_up(dataset_dict)
        # 2. A painted background, read by the wrapped mapper in place of the original.
        if picture is not None:
            sample = self._map_picture(dataset_dict, picture)
            if isinstance(sample, dict):
                return {**sample, "bgaug": "hit", "bgaug_source": dataset_dict["file_name"]}
            outcome = sample
        # 3. The original, in all other cases.
        sample = self.mapper(dataset_dict)
        if not isinstance(sample, dict):
            # Detectron2 would put a random other image in the place of None, another one in each
            # loader process: the draws would no longer be the same.
            raise MapperError(
                f"{type(self.mapper).__name__} returned {type(sample).__name__} for image "
                f"{dataset_dict.get('image_id')!r}; a mapper under BackgroundAugMapper must return "
                "a dict for each image, so filter the data set before training instead"
            )
        return {**sample, "bgaug": outcome}

    def _look_up(self, dataset_dict: Mapping[str, Any]) -> tuple[str, str | None]:
        """The outcome, and the path of the picture on a hit."""
        try:
            plan = self.planner.plan(dataset_dict)
            if plan.key is None:
                return plan.reason or "original", None
            record = self.cache.get(plan.key)
            outcome = "miss"
            if record is None:
                outcome = self._ask_for(dataset_dict, plan)
                if outcome == "hit":
                    # The worker wrote or verified it a moment ago.
                    record = self.cache.get(plan.key, verify=False)
        except (MissError, PlanError):
            raise
        except Exception as error:  # noqa: BLE001 - counted in the sample, and logged
            return self._fault(dataset_dict, error), None
        if isinstance(record, CacheEntry):
            return "hit", record.path
        if isinstance(record, Rejection):
            return outcome_of_rejection(record.reason), None
        # "hit" without a record: painted, and gone or damaged since.
        return "miss" if outcome == "hit" else outcome, None

    def _ask_for(self, dataset_dict: Mapping[str, Any], plan: DrawPlan) -> str:
        """Ask for a picture that is missing; "hit" when it has been painted."""
        if self.on_miss == "error":
            raise MissError(
                f"image {dataset_dict['image_id']!r} ({dataset_dict['file_name']}): variant "
                f"{plan.variant} is not in the cache {self.cache.root} (key {plan.key}); paint it "
                "first with `bgaug paint` and the same settings, or set bgaug.on_miss to "
                "'original' or 'wait'"
            )
        if self.client is None:
            return "miss"
        job, waits = plan.job(), self.on_miss == "wait"
        reply = self.client.request(job, self.deadline_s) if waits else self.client.enqueue(job)
        if reply.status == "error":
            return self._fault(dataset_dict, RuntimeError(reply.reason))
        return outcome_of_reply(reply, waits)

    def _map_picture(self, dataset_dict: dict[str, Any], picture: str) -> dict[str, Any] | str:
        """The sample, or the outcome that says why there is none."""
        try:
            sample = self.mapper({**dataset_dict, "file_name": picture})
        except FileNotFoundError:
            if self.on_miss == "error":
                raise
            return "miss"  # evicted after it was looked up
        except Exception as error:  # noqa: BLE001 - its own fault comes again below
            return self._fault(dataset_dict, error)
        if isinstance(sample, dict):
            return sample
        return self._fault(dataset_dict, MapperError(f"the mapper returned {sample!r}"))

    def _fault(self, dataset_dict: Mapping[str, Any], error: Exception) -> str:
        if self.on_miss == "error":
            raise error
        self._faults += 1
        logger.log(
            logging.WARNING if self._faults <= _LOUD_FAULTS else logging.DEBUG,
            "image %s keeps its own background: %s: %s",
            dataset_dict.get("image_id"),
            type(error).__name__,
            error,
        )
        return "error"
