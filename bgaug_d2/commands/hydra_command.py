"""What the subcommands that Hydra configures share: their help, and handing over arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bgaug_d2.runs.hydra_app import Composed, config_dir, group_choices, hydra_app

_OVERRIDES = """\
arguments:
  GROUP=OPTION    choose an option of a group, see below
  KEY=VALUE       set any key; `--cfg job` prints all keys with their values
  -m, --multirun  a run for every combination of comma-separated values
  --hydra-help    Hydra's own options

groups and their options:
"""


def run_with_hydra(usage: str, job: Callable[[Composed], None], argv: Sequence[str] | None) -> None:
    """Answer ``--help``, or compose the configuration of the command line and call ``job``.

    Args:
        usage: The help of the subcommand; its first line is ``usage: bgaug NAME ...``.
        job: Gets the composed, unresolved configuration.
        argv: The arguments after the subcommand; None takes those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Answered here, because Hydra's own help knows nothing of the subcommand.
    if {"-h", "--help"} & set(arguments):
        print(f"{usage}\n{override_help()}")
        return
    # Hydra reads the command line of the process and nothing else.
    sys.argv = [usage.split(" [")[0].removeprefix("usage: "), *arguments]
    hydra_app(job, config_dir())


def override_help() -> str:
    """The part of the help that is the same for every subcommand: groups, options, keys."""
    choices = group_choices(config_dir())
    return _OVERRIDES + "\n".join(_group_line(group, choices[group]) for group in choices)


def _group_line(group: str, options: Sequence[str]) -> str:
    lines, line = [], f"  {group}:"
    for option in options:
        if len(line) + len(option) > 96:
            lines.append(line)
            line = "     "
        line += f" {option}"
    return "\n".join([*lines, line])
