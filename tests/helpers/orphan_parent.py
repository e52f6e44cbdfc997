"""A training run that is about to be killed: starts a pool, prints its sockets' folder, and waits.

Arguments: a folder, the builder of the engine, ``fork`` to have a child that holds all it inherits,
``busy`` to have a job under way, ``starting`` to be inside ``start``.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.helpers.worker_site import Site, wait_until  # noqa: E402


def main() -> None:
    folder, builder, *options = sys.argv[1:]
    site = Site(Path(folder))
    pool = site.pool(site.spec(builder), site.spec(builder))
    if "starting" in options:
        threading.Thread(target=pool.start, daemon=True).start()
        wait_until(lambda: len(list(site.root.glob("batches.jsonl.*"))) == 2)
    else:
        pool.start()
    if "busy" in options:
        for _ in range(4):
            pool.client().enqueue(site.job("hang"))
        wait_until(lambda: len(site.painted()) > 0)
    if "fork" in options and os.fork() == 0:  # as a loader process
        time.sleep(120)
        os._exit(0)
    print(Path(pool.addresses[0]).parent, flush=True)  # noqa: T201
    time.sleep(120)


if __name__ == "__main__":
    main()
