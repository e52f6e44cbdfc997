"""Runs every cell of the paper's tables at miniature size, and writes the tables.

The toy world stands for COCO, and in VOC's layout for VOC. Detectors, arms and tables are the real
ones, pictures and training are not: it shows that everything runs to its end, and its numbers mean
nothing. Finished runs are skipped, so an interrupted call goes on when it is made again.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

from bgaug_d2.config.experiment import ToyConfig
from bgaug_d2.data.toy.voc_layout import write_toy_voc
from bgaug_d2.data.toy.world import generate_toy
from bgaug_d2.report.commands import sweep
from bgaug_d2.report.markdown import to_markdown
from bgaug_d2.report.plan import PLANS, Plan, load_plan
from bgaug_d2.report.plots import write_plots
from bgaug_d2.report.runs import load_runs
from bgaug_d2.runs.environment import machine, versions

TOOLS = Path(__file__).resolve().parent
OUT = Path("output/miniature")
NOTE = (
    "**Miniature.** Eight toy images of 96 px, four steps from random weights, ResNets of a "
    "quarter of their width, the tiny model: "
    "these tables show that every cell runs from its data to its table on two CPU cores. **Their "
    "numbers mean nothing** and are no reproduction of the paper; an AP near 0 is to be expected. "
    "The toy world has no fractions: the three of table 1 are the same images.\n"
)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = sorted(each.stem for each in PLANS.glob("*.yaml"))
    parser.add_argument("tables", nargs="*", default=names, help=f"[{' '.join(names)}]")
    parser.add_argument("--seeds", type=int, default=2, help="of each cell [%(default)s]")
    parser.add_argument("--report", type=Path, default=OUT / "miniature.md", help="[%(default)s]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    began = time.monotonic()
    plans = {name: load_plan(PLANS / f"{name}.yaml") for name in arguments.tables}
    write_data()
    for name, plan in plans.items():
        print(f"{name}: {len(plan.cells)} cells", flush=True)
        run_cells(plan, plan.seeds[: arguments.seeds], name)
    minutes = (time.monotonic() - began) / 60
    write_report(plans, arguments.report, minutes)


def write_data() -> None:
    """The toy world, and the same in VOC's layout."""
    generate_toy(OUT / "world", ToyConfig(num_train=16, num_val=4, num_test=8))
    write_toy_voc(OUT / "world", OUT / "voc")


def run_cells(plan: Plan, seeds: tuple[int, ...], name: str) -> None:
    """All runs of a plan, as one sweep of tools/train_net.py."""
    data = "dataset=toy dataset.toy.num_train=16 dataset.toy.num_val=4 dataset.toy.num_test=8"
    kind = [*data.split(), f"dataset.root={OUT / 'world'}"]
    if name == "table4":
        kind = [f"dataset.root={OUT / 'voc'}"]
    command = [sys.executable, str(TOOLS / "train_net.py"), *sweep(plan, list(plan.cells), seeds)]
    log = OUT / f"{name}.txt"
    with open(log, "wb") as output:
        done = subprocess.run(
            [*command, f"hydra.sweep.dir={OUT / 'runs'}", "debug=miniature", *kind],
            stdout=output,
            stderr=output,
            check=False,
            env={**os.environ, "HYDRA_FULL_ERROR": "1"},
        )
    if done.returncode:
        sys.exit(f"{name} failed, see {log}")
    for checkpoint in (OUT / "runs").rglob("model_*.pth"):  # Swin's are large
        checkpoint.unlink()


def write_report(plans: dict[str, Plan], path: Path, minutes: float) -> None:
    runs = load_runs(OUT / "runs")
    facts = {
        "command": "`python tools/miniature.py`",
        "machine": machine(),
        "commit": str(versions()["git_commit"])[:7],
        "date": datetime.date.today().isoformat(),
        "time": f"{minutes:.0f} min (of what was not finished before)",
    }
    known = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    parts = [f"# The paper's tables in miniature\n\n{NOTE}\n{known}"]
    for plan in plans.values():
        write_plots(plan, runs, path.with_suffix(""))
        text = "\n" + to_markdown(plan, runs, {}).replace("](", f"]({path.stem}/")
        parts.append(text.replace("\n#", "\n##"))
    path.write_text("".join(parts), encoding="utf-8")
    print(f"The report is {path}")


if __name__ == "__main__":
    main()
