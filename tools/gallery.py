"""Show what is in a cache of painted pictures: one HTML page and one PNG contact sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bgaug_d2.cache.store import open_existing
from bgaug_d2.errors import CacheError
from bgaug_d2.inspection.gallery import collect, write_contact_sheet, write_page


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True, help="folder of the cache (bgaug.cache.dir)")
    parser.add_argument("--image-root", help="folder of the source images, to show them as well")
    parser.add_argument("--out", default="output/gallery", help="folder to write to [%(default)s]")
    parser.add_argument("--images", type=int, default=24, help="images shown [%(default)s]")
    parser.add_argument("--variants", type=int, default=6, help="variants an image [%(default)s]")
    parser.add_argument("--title", default="Painted backgrounds", help="heading of the page")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.images < 1 or arguments.variants < 1:
        sys.exit("--images and --variants must be at least 1")
    try:
        cache = open_existing(arguments.cache)
        gallery = collect(cache, arguments.image_root, arguments.images, arguments.variants)
    except CacheError as error:
        sys.exit(str(error))
    if not gallery.rows:
        sys.exit(f"the cache at {arguments.cache} holds no picture; tools/generate.py paints some")
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    write_page(gallery, out / "index.html", arguments.title)
    write_contact_sheet(gallery, out / "contact_sheet.png")
    print(f"{len(gallery.rows)} images: {out / 'index.html'} and {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    main()
