"""Look after a cache of painted pictures: figures, verification, clean-up, export."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from bgaug_d2.cache.export_coco import IMAGES, INSTANCES, export_coco
from bgaug_d2.cache.files import QUARANTINE
from bgaug_d2.cache.store import open_existing
from bgaug_d2.cache.upkeep import GRACE_S, TEMP_AGE_S
from bgaug_d2.errors import BgAugError


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="bgaug cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # A parent with a help of its own would clash with the help of each subcommand.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--cache",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the cache (bgaug.cache.dir of the training)",
    )

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=text, description=text)

    command("stats", "Show how many pictures and rejections the cache holds, and their size.")
    command(
        "verify",
        "Read every entry and compare it with its digest; damaged ones are moved to DIR/"
        f"{QUARANTINE}, and training paints them again. Exit status 1 if there were any.",
    )
    _add_gc_arguments(
        command(
            "gc",
            "Remove what killed processes left behind and, with --max-gb, the oldest entries. "
            "Safe while a training runs.",
        )
    )
    _add_export_arguments(
        command(
            "export-coco",
            f"Write OUT/{IMAGES}/ and OUT/{INSTANCES}: a COCO data set of the painted pictures "
            "with the annotations of their sources, for any other trainer.",
        )
    )
    return parser.parse_args(argv)


def _add_gc_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-gb",
        # 0 would mean no limit, the opposite of what somebody who types it wants.
        type=_positive,
        default=0.0,
        metavar="GB",
        help="evict the oldest entries until the cache has this size, in 10^9 bytes [no limit]",
    )
    parser.add_argument(
        "--temp-age",
        type=_not_negative,
        default=TEMP_AGE_S,
        metavar="SECONDS",
        help="how old an unfinished file must be to be removed [%(default)g]",
    )
    parser.add_argument(
        "--grace",
        type=_not_negative,
        default=GRACE_S,
        metavar="SECONDS",
        help="how long a picture outlives its entry, for processes that are about to read it; "
        "0 if nobody reads the cache now [%(default)g]",
    )


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="JSON",
        help="COCO annotation file of the source images, such as instances_train2017.json",
    )
    parser.add_argument(
        "--image-dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that the annotation file's file names are relative to, such as train2017",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument(
        "--originals", action="store_true", help="export the source images as well, all of them"
    )
    parser.add_argument(
        "--where",
        type=_assignment,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="only pictures with this value in their JSON record, for a cache that has several "
        "recipes, such as recipe.settings.prompt=clean or variant=1; may be given repeatedly",
    )
    parser.add_argument(
        "--hard-links", action="store_true", help="link the files instead of copying them"
    )


def _positive(text: str) -> float:
    value = float(text)
    # `float` reads "nan" and "inf" as well; no comparison with NaN holds.
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be more than 0")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be 0 or more")
    return value


def _assignment(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not field or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must look like FIELD=VALUE")
    return field, value


def stats(arguments: argparse.Namespace) -> int:
    """Print counts and sizes."""
    # A mistyped folder must not become a new cache.
    found = open_existing(arguments.cache).stats()
    print(f"pictures     {found['pictures']}")
    print(f"rejections   {sum(found['rejections'].values())}")
    for reason, number in found["rejections"].items():
        print(f"  {reason:<18} {number}")
    print(f"size         {_size(found['bytes'])}")
    print(f"unfinished   {found['temporaries']} files of killed or running writers")
    print(f"orphans      {found['orphans']} pictures without an entry")
    print(f"quarantined  {found['quarantined']} files")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read every entry; 1 if one was damaged."""
    report = open_existing(arguments.cache).verify(functools.partial(tqdm, unit=" entries"))
    for key, fault in {**report.corrupt, **report.unreadable}.items():
        print(f"{key}: {fault}")
    print(
        f"{report.pictures} pictures and {report.rejections} rejections are sound, "
        f"{len(report.corrupt)} entries were damaged, {len(report.unreadable)} could not be read"
    )
    return 1 if report.corrupt or report.unreadable else 0


def gc(arguments: argparse.Namespace) -> int:
    """Remove leftovers and, with ``--max-gb``, the oldest entries."""
    cache = open_existing(arguments.cache)
    report = cache.gc(int(arguments.max_gb * 1e9), arguments.temp_age, arguments.grace)
    print(f"removed {report.temporaries} unfinished files and {report.orphans} orphaned pictures")
    print(f"freed {_size(report.freed_bytes)}")
    if report.evicted:
        print(
            f"evicted {report.evicted} entries of {_size(report.evicted_bytes)}; "
            f"the first gc after {arguments.grace:g} s removes their pictures"
        )
    print(f"{report.entries} entries of {_size(report.bytes)} stay")
    if report.quarantined:
        print(
            f"{len(report.quarantined)} files in {arguments.cache / QUARANTINE}; "
            "nothing needs them, delete the folder when you have seen them"
        )
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write a COCO data set."""
    report = export_coco(
        open_existing(arguments.cache),
        arguments.annotations,
        arguments.image_dir,
        arguments.out,
        originals=arguments.originals,
        where=dict(arguments.where),
        hard_links=arguments.hard_links,
        progress=functools.partial(tqdm, unit=" images"),
    )
    for reason, number in sorted(report.skipped.items()):
        if number:
            print(f"skipped {number}: {reason}")
    print(
        f"{report.painted} painted pictures, {report.originals} originals and "
        f"{report.annotations} annotations are in {arguments.out}"
    )
    return 0


def _size(num_bytes: int) -> str:
    # Below 0.1 GB the three decimals would say little.
    return f"{num_bytes / 1e9:.3f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3f} MB"


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug cache``."""
    arguments = parse_arguments(argv)
    commands = {"stats": stats, "verify": verify, "gc": gc, "export-coco": export}
    try:
        status = commands[arguments.command](arguments)
    except (BgAugError, OSError) as error:
        sys.exit(str(error))
    sys.exit(status)


if __name__ == "__main__":
    main()
