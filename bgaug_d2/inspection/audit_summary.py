"""Many pictures' audits in one: shares, means and paired differences with bootstrap intervals."""

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
        painted, original: Of the same instances.

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
class Estimate:
    """A value with its bootstrap interval; NaN where there is nothing to estimate it from."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Audit:
    """A set of painted pictures against their originals.

    Attributes:
        pictures: Painted pictures.
        images: Different originals.
        hallucinated_share: Of painted pictures, 0..1, with at least one extra object.
        hallucinated_share_original: The same of their originals: the detector's own errors.
        hallucinated_difference: Painted minus original.
        labelled: Instances in the painted pictures.
        found, found_original: How many of these were matched in the painted pictures, and in the
            originals.
        instances: Matched in both; those that growth is a mean over.
        growth: Mean pixels outside the labelled objects, as a share of the instance's area.
        growth_original: The same in the originals.
        growth_difference: Painted minus original.
    """

    pictures: int
    images: int
    hallucinated_share: Estimate
    hallucinated_share_original: Estimate
    hallucinated_difference: Estimate
    labelled: int
    found: int
    found_original: int
    instances: int
    growth: Estimate
    growth_original: Estimate
    growth_difference: Estimate


def aggregate(pairs: Sequence[Pair], seed: int = 0, resamples: int = 1000) -> Audit:
    """Shares and means with 95 % percentile bootstrap intervals.

    Originals are drawn with replacement, each with all its painted pictures, so that several
    pictures of one original do not pass for independent ones. From one original there is no
    interval.

    Raises:
        AuditError: There are no pairs.
    """
    if not pairs:
        raise AuditError("there are no pictures to sum up")
    names = sorted({each.image for each in pairs})
    place = {name: index for index, name in enumerate(names)}
    sums = np.zeros((len(names), len(_sums(pairs[0]))))
    for each in pairs:
        sums[place[each.image]] += _sums(each)
    totals = np.vstack([sums.sum(axis=0), _resampled(sums, seed, resamples)])
    pictures, extra, extra_original, instances, outside, outside_original = totals.T
    return Audit(
        pictures=len(pairs),
        images=len(names),
        hallucinated_share=_estimate(extra, pictures),
        hallucinated_share_original=_estimate(extra_original, pictures),
        hallucinated_difference=_estimate(extra - extra_original, pictures),
        labelled=sum(len(each.painted.matched) for each in pairs),
        found=sum(int(each.painted.matched.sum()) for each in pairs),
        found_original=sum(int(each.original.matched.sum()) for each in pairs),
        instances=int(instances[0]),
        growth=_estimate(outside, instances),
        growth_original=_estimate(outside_original, instances),
        growth_difference=_estimate(outside - outside_original, instances),
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
        extra = [audit.hallucinated_share, audit.hallucinated_share_original]
        grown = [audit.growth, audit.growth_original]
        lines.append(
            [
                *(value.replace("|", "\\|") for value in recipe.values()),
                *(str(audit.pictures), *map(_percent, extra)),
                *(_change(audit.hallucinated_difference), f"{audit.instances}/{audit.labelled}"),
                *(*map(_percent, grown), _change(audit.growth_difference)),
            ]
        )
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _sums(pair: Pair) -> npt.NDArray[np.float64]:
    painted, original = pair.painted, pair.original
    both = painted.matched & original.matched
    outside, outside_original = painted.outside[both].sum(), original.outside[both].sum()
    extra, extra_original = painted.extra > 0, original.extra > 0
    return np.array([1, extra, extra_original, both.sum(), outside, outside_original], np.float64)


def _resampled(sums: npt.NDArray[np.float64], seed: int, resamples: int) -> npt.NDArray[np.float64]:
    """Totals (resamples, columns) of as many rows of ``sums`` as there are, drawn anew each time.

    From one row there are none.
    """
    number, columns = sums.shape
    if number < 2:
        return np.zeros((0, columns))
    rng = np.random.default_rng(seed)
    draws = np.empty((resamples, columns))
    for row in range(resamples):
        times = np.bincount(rng.integers(number, size=number), minlength=number)
        draws[row] = times @ sums
    return draws


def _estimate(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> Estimate:
    """Ratio of the first elements, and the percentiles of the others' ratios."""
    ratios = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    drawn = ratios[1:][np.isfinite(ratios[1:])]
    if not len(drawn):
        return Estimate(float(ratios[0]), float("nan"), float("nan"))
    low, high = np.percentile(drawn, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return Estimate(float(ratios[0]), float(low), float(high))


def _percent(estimate: Estimate) -> str:
    return "–" if np.isnan(estimate.value) else f"{100 * estimate.value:.1f}"


def _change(estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return "–"
    interval = f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    return f"{100 * estimate.value:+.1f}" + ("" if np.isnan(estimate.low) else interval)
