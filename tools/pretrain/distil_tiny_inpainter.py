"""Distils the tiny model into one that paints in four steps without guidance.

After an interruption, the same command goes on where it was.
`python -m tools.pretrain.profiles --few-steps FOLDER` says how good the result is. A recipe for it
has `num_inference_steps=4 solver_order=1 guidance_scale=1 timestep_spacing=trailing`.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from bgaug_d2.inpaint.model.identity import TINY, TINY_LICENSE, TINY_MODEL, digest_model
from bgaug_d2.inpaint.model.load import load_model
from bgaug_d2.inpaint.model.write import write_model
from bgaug_d2.jobs.job import ModelIdentity
from tools.pretrain.diffusion import NOISE, encode_images
from tools.pretrain.distillation import FewSteps, distil
from tools.pretrain.loop import set_up
from tools.pretrain.pictures import draw_pictures
from tools.pretrain.stages import SIZE, to_tensor

CARD = """# The tiny model of bgaug_d2, distilled to {steps} steps without guidance

Made from the tiny model of the package by
`python -m tools.pretrain.distil_tiny_inpainter`: seed {seed},
{training_steps} training steps on {pictures} procedural backgrounds. Apache-2.0.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=Path("output/tiny_distillation"), help="[%(default)s]"
    )
    parser.add_argument(
        "--model", type=Path, default=Path("output/tiny_few_steps"), help="to write [%(default)s]"
    )
    parser.add_argument("--pictures", type=int, default=4_000, help="[%(default)s]")
    parser.add_argument("--training-steps", type=int, default=800, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads [all]")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    set_up(arguments.work, arguments.threads)
    identity = ModelIdentity(TINY, "", digest_model(TINY_MODEL), TINY_LICENSE)
    model = load_model(TINY_MODEL, "cpu", "float32", identity)
    backgrounds = range(0, 2 * arguments.pictures, 2)  # even numbers have no objects
    pictures = draw_pictures(backgrounds, SIZE, processes=os.cpu_count() or 1)
    latents = encode_images(model.vae, to_tensor([each.image for each in pictures]))
    few = FewSteps()
    unet = distil(
        model,
        latents,
        [each.captions for each in pictures],
        arguments.work,
        few,
        arguments.training_steps,
        arguments.seed,
    )
    # Only the UNet is distilled; all other parts stay the teacher's.
    shutil.copytree(
        TINY_MODEL,
        arguments.model,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("unet", "samples.jpg"),
    )
    card = CARD.format(steps=few.steps, **vars(arguments))
    write_model(arguments.model, {"unet": unet.half()}, NOISE, card)
    print(f"The model is in {arguments.model}")


if __name__ == "__main__":
    main()
