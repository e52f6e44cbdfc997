"""Say what is installed on this machine, what is missing, and what to do about each.

Nothing is changed, fetched or sent; only `--online` asks the model hub whether it answers. The exit
status is 1 if something that training needs is missing. A missing model or data set does not count:
the toy world needs neither.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bgaug_d2.commands.doctor import data, machine, software
from bgaug_d2.commands.doctor.finding import MISSING, Finding
from bgaug_d2.config.bgaug import CacheConfig


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``bgaug doctor``."""
    arguments = parse_arguments(argv)
    found = []
    for each in findings(arguments.cache, arguments.online):
        found.append(each)
        if not arguments.json:
            print(to_text(each), flush=True)  # at once: some checks take seconds
    if arguments.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    sys.exit(1 if any(each.required and each.status == MISSING for each in found) else 0)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a mistake ends the process with status 2."""
    parser = argparse.ArgumentParser(prog="bgaug doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--online", action="store_true", help="ask the model hub as well")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(CacheConfig().dir),
        metavar="DIR",
        help="folder of the cache whose disk is looked at [%(default)s]",
    )
    return parser.parse_args(argv)


def findings(cache: Path, online: bool) -> Iterator[Finding]:
    """All checks, in the order of the report."""
    yield software.check_python()
    yield software.check_libraries()
    yield software.check_torch()
    yield software.check_opencv()
    yield software.check_detectron2()
    yield machine.check_gpu()
    yield machine.check_memory()
    yield machine.check_disk("disk, runs", Path("output"))
    yield machine.check_disk("disk, cache", cache)
    yield machine.check_shared_memory()
    yield machine.check_open_files()
    yield machine.check_temporary_folder()
    yield from data.check_models()
    if online:
        yield data.check_hub()
    yield from data.check_datasets()


def to_text(finding: Finding) -> str:
    """One line, and below it what to do."""
    line = f"{finding.status:<8} {finding.topic:<17} {finding.fact}"
    return f"{line}\n{'':<26} -> {finding.remedy}" if finding.remedy else line


if __name__ == "__main__":
    main()
