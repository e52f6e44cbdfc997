"""Paints for several runs, one after another, in one process.

``python -m bgaug_d2.runs.paint_cells FILE``: the file is a JSON list, of each run its arguments of
``bgaug paint``. Runs that share a cache find what an earlier one painted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bgaug_d2.errors import BgAugError
from bgaug_d2.runs.generate import generate
from bgaug_d2.runs.generate_report import check_complete
from bgaug_d2.runs.hydra_app import compose_run, save_configs
from bgaug_d2.runs.train import log_to


def paint_cells(runs: Sequence[Sequence[str]]) -> None:
    """Paint all that the runs lack.

    Raises:
        BgAugError: A mistake of the user's; IncompleteError where pictures could not be painted.
    """
    for arguments in runs:
        cfg, experiment = compose_run(arguments)
        save_configs(cfg, experiment, painting=True)
        log_to(experiment.output_dir)
        check_complete(generate(experiment), experiment.output_dir)


if __name__ == "__main__":
    try:
        paint_cells(json.loads(Path(sys.argv[1]).read_text()))
    except BgAugError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
