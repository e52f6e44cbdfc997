"""Sums up the audits of many pictures: shares, means and paired differences, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bgaug_d2.errors import AuditError
from bgaug_d2.inspection.faults import Measured

LEVEL = 95.0  # percent of the bootstrap intervals


@dataclass(frozen=True, eq=False)
class Pair:
    """A painted picture and its original, measured with the same labels.

    Attributes:
        image: Name of the original; pictures of one original are not independent.
        painted, original: Measures of the same instances in the two pictures.

    Raises:
        ValueError: The two have different numbers of instances.
    """

    image: str
    painted: Measured
    original: Measured

    def __post_init__(self) -> None:
        if len(self.painted.matched) != len(self.original.matched):
            raise ValueError(
                f"{self.image}: {len(self.painted.matched)} instances in the painted picture, "
                f"{len(self.original.matched)} in the original; use the same labels for both"
            )


@dataclass(frozen=True)
class BootstrapEstimate:
    """A value with its bootstrap interval; NaN where there is nothing to estimate it from."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Audit:
    """A set of painted pictures against their originals.

    Attributes:
        pictures: Number of painted pictures.
        images: Number of different originals.
        extra_objects_share: Share of the painted pictures, 0..1, with at least one extra object.
        extra_objects_share_original: The same of their originals: the detector's own errors.
        extra_objects_difference: Painted minus original.
        labelled: Number of instances in the painted pictures.
        found, found_original: Number of these that the detector matched in the painted pictures,
            and in the originals.
        instances: Number of these that it matched in both; the means of growth are over them.
        object_growth: Mean pixels outside the labelled objects, as a share of the instance's area.
        object_growth_original: The same in the originals.
        object_growth_difference: Painted minus original.
    """

    pictures: int
    images: int
    extra_objects_share: BootstrapEstimate
    extra_objects_share_original: BootstrapEstimate
    extra_objects_difference: BootstrapEstimate
    labelled: int
    found: int
    found_original: int
    instances: int
    object_growth: BootstrapEstimate
    object_growth_original: BootstrapEstimate
    object_growth_difference: BootstrapEstimate


def aggregate(pairs: Sequence[Pair], seed: int = 0, resamples: int = 1000) -> Audit:
    """Shares and means with 95 % percentile bootstrap intervals.

    The bootstrap draws originals with replacement, each with all its painted pictures, because
    several pictures of one original are not independent. One original gives no interval.

    Raises:
        AuditError: There are no pairs.
    """
    if not pairs:
        raise AuditError("there are no pictures to sum up")
    names = sorted({each.image for each in pairs})
    place = {name: index for index, name in enumerate(names)}
    # One row of sums per original: a resample is then a weighted sum of rows.
    sums = np.zeros((len(names), len(_sums(pairs[0]))))
    for each in pairs:
        sums[place[each.image]] += _sums(each)
    totals = np.vstack([sums.sum(axis=0), _resampled(sums, seed, resamples)])
    pictures, extra, extra_original, instances, outside, outside_original = totals.T
    return Audit(
        pictures=len(pairs),
        images=len(names),
        extra_objects_share=_estimate(extra, pictures),
        extra_objects_share_original=_estimate(extra_original, pictures),
        extra_objects_difference=_estimate(extra - extra_original, pictures),
        labelled=sum(len(each.painted.matched) for each in pairs),
        found=sum(int(each.painted.matched.sum()) for each in pairs),
        found_original=sum(int(each.original.matched.sum()) for each in pairs),
        instances=int(instances[0]),
        object_growth=_estimate(outside, instances),
        object_growth_original=_estimate(outside_original, instances),
        object_growth_difference=_estimate(outside - outside_original, instances),
    )


def to_markdown(rows: Sequence[tuple[Mapping[str, str], Audit]]) -> str:
    """A Markdown table of recipes (the same fields in each) and their audits, in percent.

    Differences have their interval in brackets.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    measures = ("extra object, % of pictures", "outside, % of the object")
    columns = [f"{each}: {part}" for each in measures for part in ("painted", "original", "change")]
    counts = ["pictures", "objects in both"]
    header = [*rows[0][0], counts[0], *columns[:3], counts[1], *columns[3:]]
    lines = [header, ["---"] * len(header)]
    for recipe, audit in rows:
        extra = [audit.extra_objects_share, audit.extra_objects_share_original]
        grown = [audit.object_growth, audit.object_growth_original]
        lines.append(
            [
                # A prompt may hold the character that ends a cell.
                *(value.replace("|", "\\|") for value in recipe.values()),
                *(str(audit.pictures), *map(_percent, extra)),
                *(_change(audit.extra_objects_difference), f"{audit.instances}/{audit.labelled}"),
                *(*map(_percent, grown), _change(audit.object_growth_difference)),
            ]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _sums(pair: Pair) -> npt.NDArray[np.float64]:
    """What one pair adds: pictures, extra objects (both), instances, growth (both); float (6,)."""
    painted, original = pair.painted, pair.original
    # An instance that one of the two lacks has no paired difference.
    both = painted.matched & original.matched
    outside, outside_original = painted.outside[both].sum(), original.outside[both].sum()
    extra, extra_original = painted.extra > 0, original.extra > 0
    return np.array([1, extra, extra_original, both.sum(), outside, outside_original], np.float64)


def _resampled(sums: npt.NDArray[np.float64], seed: int, resamples: int) -> npt.NDArray[np.float64]:
    """Totals of resamples of the rows of ``sums``, (resamples, columns); (0, columns) for one row.

    Each resample has as many rows as ``sums``, drawn with replacement.
    """
    number, columns = sums.shape
    # Resampling one row gives that row again: an interval of no width would be a lie.
    if number < 2:
        return np.zeros((0, columns))
    rng = np.random.default_rng(seed)
    draws = np.empty((resamples, columns))
    for row in range(resamples):
        # Number of times that each row is drawn; the product sums the drawn rows.
        times = np.bincount(rng.integers(number, size=number), minlength=number)
        draws[row] = times @ sums
    return draws


def _estimate(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> BootstrapEstimate:
    """Ratio of the first elements, and the percentiles of the others' ratios."""
    ratios = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    # A resample may have no instance at all; it has no ratio.
    drawn = ratios[1:][np.isfinite(ratios[1:])]
    if not len(drawn):
        return BootstrapEstimate(float(ratios[0]), float("nan"), float("nan"))
    low, high = np.percentile(drawn, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return BootstrapEstimate(float(ratios[0]), float(low), float(high))


def _percent(estimate: BootstrapEstimate) -> str:
    return "–" if np.isnan(estimate.value) else f"{100 * estimate.value:.1f}"


def _change(estimate: BootstrapEstimate) -> str:
    if np.isnan(estimate.value):
        return "–"
    interval = f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return f"{100 * estimate.value:+.1f}" + ("" if np.isnan(estimate.low) else interval)
