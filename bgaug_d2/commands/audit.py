"""Count what painting did wrong: extra objects in backgrounds, objects grown beyond their masks.

A detector that was trained on the same classes looks at the painted pictures of one or more caches
and at their originals. Each recipe gets a line of a Markdown table, which is printed and written
beside the JSON file that has everything.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bgaug_d2.cache.store import CacheEntry
from bgaug_d2.errors import BgAugError
from bgaug_d2.inspection.annotations import Annotations
from bgaug_d2.inspection.audit import (
    audit_cache,
    check_originals,
    limited,
    read_entries,
    shown,
)
from bgaug_d2.inspection.audit_summary import to_markdown
from bgaug_d2.inspection.faults import Thresholds
from bgaug_d2.inspection.recipes import RecipeKey


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="bgaug audit", description=__doc__)
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="folder of a trained Mask R-CNN (output_dir)"
    )
    parser.add_argument(
        "--cache",
        action="append",
        required=True,
        metavar="DIR",
        help="folder of a cache (bgaug.cache.dir); may be repeated",
    )
    parser.add_argument(
        "--image-root",
        required=True,
        metavar="DIR",
        help="folder that the cache's file names are relative to",
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="JSON",
        help="COCO instances file of the originals",
    )
    _add_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.limit < 0 or arguments.batch_size < 1 or not 0 <= arguments.min_score <= 1:
        parser.error("--limit must be 0 or more, --batch-size at least 1, --min-score in 0..1")
    return arguments


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("audit.json"),
        metavar="FILE",
        help="JSON file; the table goes beside it [%(default)s]",
    )
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="at most N pictures a recipe [all]"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the choice and of the intervals [%(default)s]"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the detector runs [%(default)s]",
    )
    parser.add_argument(
        "--batch-size", type=int, default=8, metavar="N", help="pictures at once [%(default)s]"
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=Thresholds.min_score,
        metavar="SCORE",
        help="detections below it do not count [%(default)s]",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug audit``."""
    arguments = parse_arguments(argv)
    try:
        # Everything that needs no detector comes first: its mistakes show in seconds.
        annotations = Annotations(arguments.annotations)
        groups = limited(read_entries(arguments.cache), arguments.limit, arguments.seed)
        check_originals(groups, arguments.image_root)
        print(run(arguments, groups, annotations))
    except (BgAugError, OSError) as error:
        sys.exit(str(error))
    print(f"written to {arguments.out}")


def run(
    arguments: argparse.Namespace,
    groups: Mapping[RecipeKey, Sequence[CacheEntry]],
    annotations: Annotations,
) -> str:
    """Audit, write the JSON file and return the table."""
    # Imported here, so that a mistake on the command line is answered without loading torch.
    import torch

    from bgaug_d2.inspection.detector import load_detector
    from bgaug_d2.runs.environment import versions
    from bgaug_d2.runs.results import write_results

    best = "cuda" if torch.cuda.is_available() else "cpu"
    device = best if arguments.device == "auto" else arguments.device
    thresholds = Thresholds(min_score=arguments.min_score)
    detector, checkpoint = load_detector(arguments.run, device, thresholds.min_score)
    audits = audit_cache(
        groups,
        annotations,
        arguments.image_root,
        detector,
        thresholds,
        arguments.batch_size,
        arguments.seed,
        functools.partial(tqdm, unit=" pictures"),
    )
    rows = shown(audits)
    content: dict[str, Any] = {
        "run": str(arguments.run),
        "checkpoint": checkpoint,
        "caches": arguments.cache,
        "annotations": str(arguments.annotations),
        "limit": arguments.limit,
        "seed": arguments.seed,
        "thresholds": asdict(thresholds),
        "versions": versions(),
        "recipes": [{"recipe": dict(recipe), **asdict(each)} for recipe, each in audits.items()],
    }
    write_results(content, arguments.out)
    table = to_markdown(rows)
    # `bgaug table` appends this file to the report of a plan that has an audit.
    arguments.out.with_suffix(".md").write_text(table, encoding="utf-8")
    return table


if __name__ == "__main__":
    main()
