"""``bgaug NAME ...``: find the subcommand's module and call its ``main``.

Nothing heavy is imported here, so that ``bgaug --help`` and a wrong name are answered at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

import bgaug_d2
from bgaug_d2.errors import BgAugError

# Name -> its module in this folder, and its line in the help.
COMMANDS = {
    "train": ("train", "train and evaluate a detector"),
    "paint": ("paint", "paint backgrounds before training; dry_run=true estimates"),
    "samples": ("samples", "draw training samples as the detector gets them"),
    "plan": ("plan", "show what a table needs: cells, cost, commands; --run runs it"),
    "table": ("table", "make tables from finished runs"),
    "gallery": ("gallery", "show the pictures of a cache: a page and a contact sheet"),
    "cache": ("cache", "look after a cache: stats, verify, gc, export-coco"),
    "audit": ("audit", "count what painting did wrong, with a detector"),
    "bench": ("bench", "measure painting, loading and training on this machine"),
    "demo": ("demo", "go the whole way on a built-in toy world: minutes, CPU, offline"),
    "doctor": ("doctor.main", "say what is installed, what is missing and what to do"),
    "install-detectron2": ("install_detectron2", "install Detectron2 into this Python"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand and end the process with its exit status.

    Args:
        argv: The command line without the program's name; None takes that of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
        return
    if arguments[0] == "--version":
        print(f"bgaug {bgaug_d2.__version__}")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        sys.exit(f"bgaug: {unknown_command(name)}")
    module = importlib.import_module(f"bgaug_d2.commands.{COMMANDS[name][0]}")
    try:
        module.main(rest)
    # One sentence for what a user can cause; a traceback shows a fault of ours.
    except BgAugError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        # 128 + SIGINT, as shells report it.
        sys.exit(130)


def help_text() -> str:
    """What ``bgaug --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bgaug [--help] [--version] COMMAND ...",
            "",
            f"{bgaug_d2.__doc__}",
            "",
            "commands:",
            *lines,
            "",
            "`bgaug COMMAND --help` says more. Start with `bgaug doctor`, then `bgaug demo`.",
        ]
    )


def unknown_command(name: str) -> str:
    """One sentence with the nearest names."""
    nearest = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
    if nearest:
        return f"there is no command {name!r}; did you mean {' or '.join(nearest)}?"
    return f"there is no command {name!r}; there are {', '.join(COMMANDS)}"


if __name__ == "__main__":
    main()
