"""The whole way in minutes on a laptop: a toy world, painted backgrounds, two detectors, a table.

One seed and a short training: it shows that every part works. Whether augmentation helps is what
`make toy-tables` measures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

TOOLS = Path(__file__).resolve().parent
ARMS = {"baseline": "toy_baseline", "augmented": "toy_bgaug"}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("output/demo"), help="[%(default)s]")
    parser.add_argument("--iterations", type=int, default=300, help="of both runs [%(default)s]")
    parser.add_argument("--images", type=int, default=64, help="training images [%(default)s]")
    arguments = parser.parse_args(argv)
    if arguments.iterations < 1 or arguments.images < 8:
        parser.error("--iterations must be at least 1 and --images at least 8")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    out = arguments.out
    common = [
        f"dataset.root={out / 'toy'}",
        f"dataset.toy.num_train={arguments.images}",
        f"bgaug.cache.dir={out / 'cache'}",
        "bgaug.variants=2",
        "bgaug.on_miss=error",  # all pictures are painted beforehand
        "bgaug.recipe.step_policy=fixed",  # in this world better than adaptive: docs/results/toy.md
        "bgaug.recipe.deepcache_interval=2",  # half the work, hardly worse: docs/benchmarks.md
        f"schedule.iterations={arguments.iterations}",
        f"schedule.steps=[{4 * arguments.iterations // 5}]",
        f"schedule.checkpoint_period={arguments.iterations}",
    ]
    runs = out / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    announce("1/4  A toy world, and new backgrounds for it by a worker process")
    # Into the run's own folder: the table of costs finds there what was painted for it.
    augmented = runs / ARMS["augmented"]
    run("generate.py", f"experiment={augmented.name}", f"output_dir={augmented}", *common)
    announce("2/4  Mask R-CNN without and with the painted backgrounds, at equal iterations")
    train(runs, common, arguments.iterations)
    announce("3/4  The table (one seed and a short training: no conclusion can be drawn)")
    run("make_tables.py", "all", str(runs))
    announce("4/4  The gallery")
    gallery = ["--cache", str(out / "cache"), "--image-root", str(out / "toy")]
    run(
        "gallery.py",
        *gallery,
        "--out",
        str(out / "gallery"),
        "--title",
        "Toy world, tiny model",
    )
    print(f"\nOpen {(out / 'gallery' / 'index.html').resolve()} in a browser.")


def announce(text: str) -> None:
    print(f"\n{text}", flush=True)


def run(tool: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, str(TOOLS / tool), *arguments], check=False)
    if done.returncode:
        sys.exit(f"{tool} failed, see above")


def train(folder: Path, common: list[str], iterations: int) -> None:
    """Train all arms side by side, each with its share of the cores, and show how far they are."""
    threads = max(1, (os.cpu_count() or 1) // len(ARMS))
    processes: dict[str, subprocess.Popen[bytes]] = {}
    bars = {}
    try:
        for place, (arm, experiment) in enumerate(ARMS.items()):
            own = folder / experiment
            own.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, str(TOOLS / "train_net.py"), f"experiment={experiment}"]
            with open(own / "output.txt", "wb") as output:
                processes[arm] = subprocess.Popen(
                    [*command, f"output_dir={own}", *common],
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "OMP_NUM_THREADS": str(threads)},
                )
            bars[arm] = tqdm(total=iterations, desc=f"{arm:>9}", unit="it", position=place)
        while any(process.poll() is None for process in processes.values()):
            for arm, experiment in ARMS.items():
                bars[arm].n = min(iterations_done(folder / experiment), iterations)
                bars[arm].refresh()
            time.sleep(2.0)
    finally:
        for process in processes.values():
            process.terminate()  # does nothing to one that has ended
        for bar in bars.values():
            bar.close()
    for arm, process in processes.items():
        if process.wait():
            log = folder / ARMS[arm] / "output.txt"
            sys.exit(f"the {arm} run failed: {log.read_text().strip().splitlines()[-1]} ({log})")


def iterations_done(folder: Path) -> int:
    """Iterations that a run has logged so far, every 20th."""
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        last = (folder / "metrics.json").read_text().splitlines()[-1]
        return int(json.loads(last)["iteration"]) + 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs under way are ended
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
