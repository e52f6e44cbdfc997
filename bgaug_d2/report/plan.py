"""Plans: the cells of a set of runs, and the tables and plots made of them.

The plans of the paper's tables and of the toy tables are in ``plans/``, one YAML file each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bgaug_d2.config.parse import nearest_of
from bgaug_d2.errors import ReportError
from bgaug_d2.report.runs import BACKGROUNDS

# Name in plans and reports -> (task, metric) in results.json, COCO's names.
# The last ones are of images by their background ratio, see BACKGROUNDS.
METRICS = {
    f"{word} {metric}": (task, metric)
    for word, task in (("box", "bbox"), ("mask", "segm"))
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl", *BACKGROUNDS)
}


# Metrics of a table that names none; the first metric of a table is tested.
DEFAULT_METRICS = ("box AP", "mask AP")
PLANS = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class PlannedCell:
    """One cell: a run without its seed.

    Attributes:
        title: What tables call it.
        product: Benchmark, arm and ablation (``none`` for none); None where ``run`` says it.
        run: Arguments of ``bgaug train``, seed and name left out; empty where nobody knows them.
    """

    title: str
    product: tuple[str, str, str] | None = None
    run: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of ``bgaug train`` that choose the cell; empty where nobody knows them."""
        if self.product is None:
            return self.run
        benchmark, arm, ablation = self.product
        chosen = (f"benchmark={benchmark}", f"arm={arm}")
        return chosen if ablation == "none" else (*chosen, f"ablation={ablation}")


@dataclass(frozen=True)
class PlannedTable:
    """One table.

    Attributes:
        title: Heading.
        cells: Names, in the order of the rows.
        text: A paragraph above the table, Markdown; may be empty.
        pairs: Cell -> the cell it is compared with in place of the plan's baseline.
        plot: File name of a plot of the differences, or None.
        metrics: Keys of ``METRICS`` that are compared.
    """

    title: str
    cells: tuple[str, ...]
    text: str
    pairs: dict[str, str]
    plot: str | None
    metrics: tuple[str, ...] = DEFAULT_METRICS


@dataclass(frozen=True)
class PlannedPlot:
    """One plot: a panel per metric, a line per series.

    Attributes:
        title: Heading.
        file: File name, ``*.png``.
        x: Rising positions on the x axis.
        series: Label -> a cell's name for each ``x``.
        metrics: Keys of ``METRICS``.
        xlabel: What ``x`` is, with its unit.
    """

    title: str
    file: str
    x: tuple[float, ...]
    series: dict[str, tuple[str, ...]]
    metrics: tuple[str, ...]
    xlabel: str


@dataclass(frozen=True)
class PlannedAudit:
    """A detector that looks for faults in what some cells paint.

    Attributes:
        detector: Name of the detector's run; it is no cell of the plan.
        run: Arguments of ``bgaug train`` for the detector.
        seed: Seed of the detector and of the cells.
        cells: Cells whose pictures are audited.
        overrides: Further arguments with which these cells paint for the audit.
        text: Markdown above the table; ``{ap}`` stands for the detector's box AP.
    """

    detector: str
    run: tuple[str, ...]
    seed: int
    cells: tuple[str, ...]
    overrides: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class ResultsPlan:
    """What is run, and what is shown of it.

    Attributes:
        name: The plan's name, or the path of its file.
        seeds: Seeds of every cell.
        baseline: Name of the cell that others are compared with; None where only pairs are.
        cells: By name, which is the run's name in ``results.json``.
        tables: In the order of the report.
        plots: In the order of the report.
        title: Heading of the report.
        text: A paragraph below it, Markdown; may be empty.
        overrides: Arguments that every run of the plan has beside cell and seed.
        folder: Folder of the runs, ``CELL/seedSEED`` below it.
        paper: Cell -> metric -> what the paper gives, in percent.
        audit: None where nothing is audited.
    """

    name: str
    seeds: tuple[int, ...]
    baseline: str | None
    cells: Mapping[str, PlannedCell]
    tables: tuple[PlannedTable, ...]
    plots: tuple[PlannedPlot, ...] = ()
    title: str = "Results"
    text: str = ""
    overrides: tuple[str, ...] = ()
    folder: str = "output/runs"
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    audit: PlannedAudit | None = None

    def baseline_of(self, table: PlannedTable, cell: str) -> str | None:
        """What ``cell`` is compared with in ``table``: its pair, or else the plan's baseline.

        None for a cell that others are compared with, unless the pairs name one for it too.
        """
        if cell in table.pairs:
            return table.pairs[cell]
        return None if cell in {self.baseline, *table.pairs.values()} else self.baseline


def product_of(name: str) -> tuple[str, str, str] | None:
    """Benchmark, arm and ablation of a run named BENCHMARK-ARM[-ABLATION]; None for other names."""
    parts = name.split("-")
    # Names of benchmarks, arms and ablations hold no dash, so the parts are unambiguous.
    if len(parts) not in (2, 3) or not all(parts):
        return None
    benchmark, arm, ablation = [*parts, "none"][:3]
    return benchmark, arm, ablation


def plan_names() -> list[str]:
    """The plans in the package."""
    # Sorted: `glob` gives the order of the file system.
    return sorted(each.stem for each in PLANS.glob("*.yaml"))


def find_plan(name: str) -> Path:
    """The plan of that name in the package, or a path.

    Raises:
        ReportError: There is neither.
    """
    known = plan_names()
    # First, so that a file of that name in the working folder hides no plan of the package.
    if name in known:
        return PLANS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    raise ReportError(
        f"there is no plan {name!r}{nearest_of(name, known)}; or give the path of a plan"
    )
