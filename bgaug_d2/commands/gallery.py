"""Show what is in a cache of painted pictures: one HTML page and one PNG contact sheet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bgaug_d2.cache.store import open_existing
from bgaug_d2.errors import BgAugError
from bgaug_d2.inspection.gallery import collect, write_contact_sheet, write_page


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="bgaug gallery", description=__doc__)
    parser.add_argument(
        "--cache", required=True, metavar="DIR", help="folder of the cache (bgaug.cache.dir)"
    )
    parser.add_argument(
        "--image-root",
        metavar="DIR",
        help="folder that the cache's file names are relative to; shows the originals as well",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output/gallery"),
        metavar="DIR",
        help="folder to write to [%(default)s]",
    )
    parser.add_argument(
        "--limit", type=int, default=24, metavar="N", help="at most N images [%(default)s]"
    )
    parser.add_argument(
        "--variants", type=int, default=6, metavar="N", help="at most N of an image [%(default)s]"
    )
    parser.add_argument("--title", default="Painted backgrounds", help="heading [%(default)s]")
    arguments = parser.parse_args(argv)
    if arguments.limit < 1 or arguments.variants < 1:
        parser.error("--limit and --variants must be at least 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug gallery``."""
    arguments = parse_arguments(argv)
    try:
        cache = open_existing(arguments.cache)
        gallery = collect(cache, arguments.image_root, arguments.limit, arguments.variants)
    except BgAugError as error:
        sys.exit(str(error))
    if not gallery.rows:
        sys.exit(f"the cache at {arguments.cache} holds no picture; `bgaug paint` paints some")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_page(gallery, out / "index.html", arguments.title)
    write_contact_sheet(gallery, out / "contact_sheet.png")
    print(f"{len(gallery.rows)} images: {out / 'index.html'} and {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    main()
