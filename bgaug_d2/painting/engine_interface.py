"""What goes into an engine and what comes out of it: one pass of a picture through the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bgaug_d2.pixels.masks import BoolMask, Picture


@dataclass(eq=False)
class PaintRequest:
    """What the engine needs for one pass.

    Attributes:
        request_id: ``key/pass/attempt``.
        image: uint8 RGB (S, S, 3), the squashed picture.
        painted_mask: bool (S, S), True is painted: the eroded background, or one object.
        T_hat: Denoising steps, 1..num_inference_steps.
        seed: Of the noise, in [0, 2**63).
        prompt, negative_prompt: Texts of the two guidance branches.
        guidance_scale: 1 means no guidance.
        guidance_interval: Shares of the full schedule, 0..1, between which guidance is on.
        solver_order: 1 or 2.
        whole_every: The whole UNet runs at each so-manieth step, its outer level at the others.
        num_inference_steps: ``T``, the length of the full schedule.
        timestep_spacing: ``linspace`` or ``trailing``.
        touched_cells: Whether a latent cell is painted if any of its pixels is True (an object), or
            only if all are (the background).
    """

    request_id: str
    image: Picture
    painted_mask: BoolMask
    T_hat: int
    seed: int
    prompt: str
    negative_prompt: str
    guidance_scale: float
    guidance_interval: tuple[float, float]
    solver_order: int
    whole_every: int
    num_inference_steps: int
    timestep_spacing: str
    touched_cells: bool = False


@dataclass(eq=False)
class PaintResult:
    """What the engine gives back: a picture, uint8 RGB (S, S, 3), or an error, never both."""

    request_id: str
    image: Picture | None
    error: str | None


class PaintEngine(Protocol):
    """What paints: ``bgaug_d2.inpaint.engine.Engine``, or a stand-in. One thread uses it.

    Any thread reads ``progress``, which grows while it works, and ``rows``.
    """

    progress: int
    rows: int

    @property
    def pending(self) -> int:
        """Requests submitted whose result ``poll`` has not handed out yet."""

    def submit(self, request: PaintRequest) -> None:
        """Accept a request."""

    def poll(self) -> list[PaintResult]:
        """Do one unit of work; an exception means that this process is of no more use."""

    def metrics(self) -> dict[str, float | None]:
        """Numbers about its work, by name; any thread calls it."""

    def probe(self) -> None:
        """Run the model once; an exception means the same."""
