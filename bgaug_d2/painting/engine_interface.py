"""What goes into an engine and what comes out of it: one pass of a picture through the model.

Shapes: S the side of the square that the model paints, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bgaug_d2.config.recipe import DiffusionSettings
from bgaug_d2.pixels.masks import BoolMask, Picture


# eq=False, because comparing arrays gives an array, which has no truth value.
@dataclass(eq=False)
class PaintRequest:
    """One pass of one picture.

    Attributes:
        request_id: ``key/pass/attempt``.
        image: uint8 RGB (S, S, 3), the squashed picture.
        painted_mask: bool (S, S), True is painted: the eroded background, or one object.
        T_hat: Denoising steps, 1..settings.num_inference_steps.
        seed: Seed of the noise, in [0, 2**63).
        prompt: Text of the conditional guidance branch.
        settings: The part of the recipe that is the same for all passes.
        touched_cells: True paints a latent cell if any of its pixels is True in ``painted_mask``
            (an object); False only if all are (the background).
    """

    request_id: str
    image: Picture
    painted_mask: BoolMask
    T_hat: int
    seed: int
    prompt: str
    settings: DiffusionSettings
    touched_cells: bool = False


@dataclass(eq=False)
class PaintResult:
    """What the engine gives back: a picture, uint8 RGB (S, S, 3), or an error, never both."""

    request_id: str
    image: Picture | None
    error: str | None


class PaintEngine(Protocol):
    """What paints: ``bgaug_d2.inpaint.engine.Engine``, or a stand-in.

    An engine takes any number of requests and answers each exactly once, in any order, with a
    picture or an error text: a fault of one request must not reach another. ``poll`` does one
    unit of work, so that its caller can submit more requests between two units. An exception from
    ``poll`` or ``probe`` means that only a new process can go on. One thread calls ``submit``,
    ``poll`` and ``probe``; any thread may read the attributes and call ``metrics``.

    Attributes:
        progress: Grows with every unit of work: the sign of life for whoever watches the process.
        max_batch_rows: Largest number of rows of a UNet call.
    """

    progress: int
    max_batch_rows: int

    @property
    def pending(self) -> int:
        """Requests submitted whose result ``poll`` has not handed out yet."""

    def submit(self, request: PaintRequest) -> None:
        """Queue a request."""

    def poll(self) -> list[PaintResult]:
        """Do one unit of work and hand out what is finished; empty when there is nothing."""

    def metrics(self) -> dict[str, float | None]:
        """Numbers about the work so far, by name."""

    def probe(self) -> None:
        """Run the model once, to see whether it works."""
