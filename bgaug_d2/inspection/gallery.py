"""A page and a contact sheet of the painted pictures of a cache.

The sidecars hold the object masks, so outlines need only the cache. The page shows the untouched
originals where the folder of the source images is given.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape

from bgaug_d2.cache.store import CacheEntry, Rejection, VariantCache
from bgaug_d2.errors import ImageError
from bgaug_d2.inspection.recipes import differing, recipe_key, target_of
from bgaug_d2.pixels.masks import mask_from_rle
from bgaug_d2.pixels.paths import resolve_inside
from bgaug_d2.pixels.read import read_image

THUMBNAIL = 320  # px, longer side on the page
CELL, CAPTION = 192, 16  # px, side of a cell on the contact sheet and the line below it
_OUTLINE = (255, 64, 160)  # RGB; a pink that photographs hardly have


@dataclass(frozen=True)
class PaintedVariant:
    """One painted variant: ``image`` uint8 (H, W, 3) RGB and its sidecar."""

    image: np.ndarray
    sidecar: dict[str, Any]

    @property
    def settings(self) -> dict[str, str]:
        """The recipe by dotted names."""
        return dict(recipe_key(self.sidecar))

    @property
    def target(self) -> str:
        """What was painted, in words."""
        return target_of(self.sidecar)

    @property
    def prompts(self) -> list[str]:
        """Prompts of the background and of the objects, each once."""
        objects = [each["prompt"] for each in self.sidecar.get("object_passes", ())]
        return [each for each in dict.fromkeys([self.sidecar["prompt"], *objects]) if each]


@dataclass(frozen=True)
class Row:
    """One source image with its variants.

    Attributes:
        file_name: Name of the source, relative to the data set's root.
        original: uint8 (H, W, 3) RGB; None without the folder of the source images.
        outline: The original (or else the first variant) with the objects' outlines, same shape.
        variants: The painted variants, in the order of their numbers.
    """

    file_name: str
    original: np.ndarray | None
    outline: np.ndarray
    variants: tuple[PaintedVariant, ...]


@dataclass(frozen=True)
class Gallery:
    """What the page shows.

    Attributes:
        rows: The images on the page.
        models: Identities of the models that painted the cache.
        pictures: Number of painted pictures in the cache, shown or not.
        rejections: Number of jobs that painting rejected, by reason.
    """

    rows: list[Row]
    models: list[dict[str, str]]
    pictures: int
    rejections: dict[str, int]

    @property
    def differing(self) -> list[str]:
        """Settings that tell the recipes of the shown pictures apart; none for a single recipe."""
        names = differing(recipe_key(each.sidecar) for row in self.rows for each in row.variants)
        # ``model.id`` tells models apart in words; the page lists their digests once, at its top.
        return [name for name in names if name not in ("model.sha256", "model.revision")]

    @property
    def protected(self) -> bool:
        """Whether no shown picture has painted objects."""
        return all(each.target == "background" for row in self.rows for each in row.variants)

    @property
    def pasted(self) -> bool:
        """Whether the unpainted pixels of all shown pictures equal the source bit for bit."""
        recipes = [each.sidecar["recipe"] for row in self.rows for each in row.variants]
        return all(
            each["settings"]["paste_back"] and each.get("picture_format", "png") == "png"
            for each in recipes
        )


def collect(
    cache: VariantCache, image_root: str | None, max_images: int, max_variants: int
) -> Gallery:
    """Choose the first images by name and read their variants.

    Args:
        cache: The cache to show; reading verifies every entry.
        image_root: Folder of the source images, or None.
        max_images: Most rows on the page.
        max_variants: Most variants in a row.
    """
    by_name: dict[str, list[CacheEntry]] = {}
    rejections: Counter[str] = Counter()
    models: dict[str, dict[str, str]] = {}
    for entry in cache.entries():
        if isinstance(entry, Rejection):
            rejections[entry.reason] += 1
            continue
        by_name.setdefault(entry.sidecar["source"]["file_name"], []).append(entry)
        # By digest: two models may have the same name.
        models[entry.sidecar["model"]["sha256"]] = entry.sidecar["model"]
    rows = []
    for file_name in sorted(by_name)[:max_images]:
        entries = sorted(by_name[file_name], key=lambda entry: entry.sidecar["variant"])
        rows.append(_row(file_name, entries[:max_variants], image_root))
    pictures = sum(map(len, by_name.values()))
    return Gallery(rows, list(models.values()), pictures, dict(sorted(rejections.items())))


def write_page(gallery: Gallery, path: Path, title: str) -> None:
    """Write one self-contained HTML file: no script, no outside address, a strict policy."""
    # File names, prompts and model names are data of strangers: everything is escaped.
    environment = Environment(
        loader=PackageLoader("bgaug_d2.inspection"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    # The policy allows this style by its digest, and nothing else: file names and prompts come from
    # data sets, so the page must not run or load what they might smuggle in.
    style = environment.get_template("gallery.css").render()
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    html = environment.get_template("gallery.html.j2").render(
        gallery=gallery, title=title, style=style, style_hash=style_hash
    )
    path.write_text(html, encoding="utf-8")


def write_contact_sheet(gallery: Gallery, path: Path) -> None:
    """Write a PNG grid: a row an image (original, outline, variants), padded to the longest row."""
    lines = [_cells(row) for row in gallery.rows]
    width = max(map(len, lines))
    blank = np.full((CELL + CAPTION, CELL, 3), 255, np.uint8)
    grid = np.vstack([np.hstack(line + [blank] * (width - len(line))) for line in lines])
    # OpenCV writes BGR. Its own file writer only returns False on a full disk, without a reason.
    encoded = cv2.imencode(".png", cv2.cvtColor(grid, cv2.COLOR_RGB2BGR))[1]
    path.write_bytes(encoded.tobytes())


def _row(file_name: str, entries: Sequence[CacheEntry], image_root: str | None) -> Row:
    variants = tuple(PaintedVariant(read_image(entry.path), entry.sidecar) for entry in entries)
    original = _original(file_name, image_root)
    base = variants[0].image if original is None else original
    return Row(
        file_name,
        original,
        draw_outline(base, mask_from_rle(entries[0].sidecar["object_mask"])),
        variants,
    )


def _original(file_name: str, image_root: str | None) -> np.ndarray | None:
    if image_root is None:
        return None
    try:
        return read_image(resolve_inside(image_root, file_name))
    # The page is useful without originals, so a missing one is left out.
    except (ImageError, FileNotFoundError):
        return None


def draw_outline(image: np.ndarray, object_mask: np.ndarray) -> np.ndarray:
    """A copy of ``image`` uint8 (H, W, 3) with the contours of ``object_mask`` bool (H, W)."""
    contours = cv2.findContours(object_mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[
        0
    ]
    # About one pixel after shrinking to a thumbnail, whatever the size of the image.
    thickness = max(1, round(max(image.shape[:2]) / 320))
    return cv2.drawContours(image.copy(), contours, -1, _OUTLINE, thickness)


def _cells(row: Row) -> list[np.ndarray]:
    ratio = row.variants[0].sidecar["background_ratio"]
    cells = [] if row.original is None else [_square(row.original, "original")]
    cells.append(_square(row.outline, f"objects, background {100 * ratio:.0f} %"))
    for each in row.variants:
        side = each.sidecar
        text = each.target
        if text == "background":
            steps = f"T_hat {side['T_hat']} of {side['recipe']['settings']['num_inference_steps']}"
            text = f"{steps}, changed {100 * side['qc']['changed_share']:.0f} %"
        cells.append(_square(each.image, f"{side['variant']}: {text}"))
    return cells


def _square(image: np.ndarray, caption: str) -> np.ndarray:
    small = _shrink(image, CELL - 4)
    cell = np.full((CELL + CAPTION, CELL, 3), 255, np.uint8)
    top, left = (CELL - small.shape[0]) // 2, (CELL - small.shape[1]) // 2
    cell[top : top + small.shape[0], left : left + small.shape[1]] = small
    place = (2, CELL + CAPTION - 5)
    return cv2.putText(
        cell, caption, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (60, 60, 60), 1, cv2.LINE_AA
    )


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    size = tuple(max(1, round(length * scale)) for length in image.shape[1::-1])
    # Area averages when shrinking; it would give blocks when enlarging.
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _data_uri(image: np.ndarray) -> str:
    small = cv2.cvtColor(_shrink(image, THUMBNAIL), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
