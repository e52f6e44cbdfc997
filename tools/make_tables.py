"""Compare baseline and augmented runs: one table from all results.json below a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bgaug_d2.report.tables import ReportError, compare, load_runs, to_csv, to_markdown


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Cells are mean ± standard deviation over seeds; in brackets the mean difference to "
        "the baseline of the same name (toy_bgaug against toy_baseline) over common seeds.",
    )
    parser.add_argument("runs", type=Path, help="folder that holds the runs, at any depth")
    parser.add_argument("--out", type=Path, help="folder for table.md and table.csv [RUNS]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    try:
        rows = compare(load_runs(arguments.runs))
    except ReportError as error:
        sys.exit(str(error))
    out = arguments.out or arguments.runs
    out.mkdir(parents=True, exist_ok=True)
    table = to_markdown(rows)
    (out / "table.md").write_text(table, encoding="utf-8")
    (out / "table.csv").write_text(to_csv(rows), encoding="utf-8")
    print(table + f"\nwritten to {out / 'table.md'} and {out / 'table.csv'}")


if __name__ == "__main__":
    main()
