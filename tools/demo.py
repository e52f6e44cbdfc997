"""The whole way in some minutes on a CPU, without data, GPU or network.

A toy world is drawn; a tiny inpainter paints new backgrounds; a small Mask R-CNN is trained without
and with them, at equal iterations; then come a table and a gallery. The inpainter has RANDOM WEIGHTS:
its backgrounds are noise, and no gain is to be expected. What you see is that everything works.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
# Lines of the programs' logs that say how far they are; log.txt has them all.
SHOWN = (" eta: ", "bgaug_d2.", "rror", "copypaste: AP", "written to", "contact_sheet")


class StepError(RuntimeError):
    """A program of the demo failed."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("output/demo"), help="[%(default)s]")
    parser.add_argument("--iterations", type=int, default=60, help="per training [%(default)s]")
    parser.add_argument("--images", type=int, default=48, help="to train on [%(default)s]")
    return parser.parse_args(argv)


def run(title: str, tool: str, *arguments: str) -> None:
    """Run ``tools/<tool>.py`` and show its progress."""
    print(f"\n=== {title}\n$ python tools/{tool}.py {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-u", str(TOOLS / f"{tool}.py"), *arguments]
    table = tool == "make_tables"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for line in process.stdout or ():
            if table or any(mark in line for mark in SHOWN):
                print(f"  {line.rstrip()}", flush=True)
    if process.returncode:
        raise StepError(f"tools/{tool}.py failed with code {process.returncode}; see above")


def demo(out: Path, iterations: int, images: int) -> None:
    cache, toy, runs = out / "cache", out / "toy", out / "runs"
    common = [
        *(f"dataset.root={toy}", f"dataset.toy.num_train={images}", "dataset.toy.num_test=24"),
        *(f"bgaug.cache.dir={cache}", "bgaug.variants=2", "launch.device=cpu"),
        *("schedule.images_per_batch=4", f"schedule.iterations={iterations}", "schedule.steps=[]"),
        f"schedule.warmup_iters={min(20, iterations // 2)}",
    ]
    print(__doc__)
    generate = ["experiment=toy_bgaug", f"output_dir={out}/generate", *common]
    run("Painting backgrounds (random weights: noise)", "generate", *generate)
    for name in ("toy_baseline", "toy_bgaug"):
        arguments = [f"experiment={name}", f"output_dir={runs}/{name}/seed0", *common]
        run(f"Training {name}, {iterations} iterations", "train_net", *arguments)
    run("Table", "make_tables", str(runs), "--out", str(out))
    gallery = ["--cache", str(cache), "--image-root", str(toy), "--out", str(out / "gallery")]
    run("Gallery", "gallery", *gallery)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    began = time.monotonic()
    try:
        demo(arguments.out, arguments.iterations, arguments.images)
    except StepError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    out = arguments.out
    print(
        f"\nDone in {(time.monotonic() - began) / 60:.1f} min.\n"
        f"  table:    {out}/table.md\n"
        f"  gallery:  {out}/gallery/index.html, {out}/gallery/contact_sheet.png\n"
        f"  runs:     {out}/runs/*/seed0/results.json (and TensorBoard's events)\n"
        "The two rows must not be compared for quality: the inpainter has RANDOM WEIGHTS, its "
        "backgrounds are noise, one seed and so few iterations show nothing."
    )


if __name__ == "__main__":
    main()
