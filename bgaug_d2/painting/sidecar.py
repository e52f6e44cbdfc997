"""The record that the cache keeps beside a picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bgaug_d2.jobs.job import SCHEMA, InpaintJob
from bgaug_d2.painting.passes import Finished, Prepared
from bgaug_d2.pixels import masks


def sidecar(prepared: Prepared, finished: Finished, attempt: int, created: str) -> dict[str, Any]:
    """The record beside a picture; the cache adds ``sha256``, ``file`` and ``digest``.

    Args:
        prepared: The job before its last pass.
        finished: The result of its last pass.
        attempt: Which seed it had.
        created: Time of painting, ISO 8601, UTC.
    """
    job, attempts = prepared.job, (*prepared.attempts, attempt)
    # The seed of the record is the first pass's; those of objects stand in object_passes.
    return job_sidecar(job, attempts[0], created) | {
        "objects": dict(prepared.masks.sources),
        "object_mask": masks.mask_to_rle(prepared.masks.object_mask),
        "T_hat": prepared.T_hat,
        "background_ratio": prepared.background_ratio,
        "object_passes": [
            {"object": index, "prompt": job.object_prompts[index], "seed": job.seed(tried, number)}
            # Not strict: after a rejected background the objects' passes had no attempt.
            for number, (index, tried) in enumerate(zip(prepared.passes, attempts, strict=False))
            if index is not None
        ],
        "qc": prepared.qc | finished.qc,
    }


def job_sidecar(job: InpaintJob, attempt: int, created: str) -> dict[str, Any]:
    """The part of the record that is known without painting (all there is for a skipped image).

    Args:
        job: The job.
        attempt: Which seed of the first pass, from 0.
        created: Time of painting, ISO 8601, UTC.
    """
    recipe = asdict(job.recipe)
    source = asdict(job.source)
    del source["num_bytes"]
    return {
        "schema": SCHEMA,
        "key": job.key,
        "source": source,
        "model": recipe.pop("model"),
        "recipe": recipe,
        "prompt": job.prompt,
        "variant": job.variant,
        "seed": job.seed(attempt),
        "created": created,
    }
