"""The solver's tables against diffusers' scheduler, picture by picture, and against formulas."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, TCDScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from bgaug_d2.inpaint.denoise.dpm_solver import (
    SolverTable,
    advance,
    noised,
    solver_table,
    timesteps_for,
)

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
SHAPE = (4, 3, 3)


def level(table: SolverTable, index: int, original: torch.Tensor, noise: torch.Tensor):
    return float(table.alpha[index]) * original + float(table.sigma[index]) * noise


def lines(table: SolverTable, indices: list[int], firsts: list[bool]) -> torch.Tensor:
    return torch.stack(
        [
            torch.from_numpy((table.first_steps if first else table.steps)[index])
            for index, first in zip(indices, firsts, strict=True)
        ]
    )


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_timesteps_equal_those_of_diffusers_where_those_are_sound(spacing: str) -> None:
    compared = 0
    for num_steps in range(1, 400):
        solver = DPMSolverMultistepScheduler(timestep_spacing=spacing)
        solver.set_timesteps(num_steps)
        theirs = solver.timesteps.tolist()
        if len(theirs) == num_steps:
            assert timesteps_for(1000, num_steps, spacing) == theirs
            compared += 1
    assert compared > 380


@pytest.mark.parametrize("num_steps", [61, 103, 121])
def test_trailing_has_exactly_T_timesteps_where_a_float_range_has_one_more(num_steps: int) -> None:
    timesteps = timesteps_for(1000, num_steps, "trailing")
    assert len(timesteps) == num_steps
    assert timesteps[0] == 999
    assert timesteps[-1] >= 0


def test_both_spacings_start_at_the_highest_noise_level() -> None:
    assert timesteps_for(1000, 25, "linspace")[0] == 999
    assert timesteps_for(1000, 25, "trailing")[0] == 999


def test_leading_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'leading' is not allowed; choose linspace or trailing"):
        timesteps_for(1000, 25, "leading")


def test_timesteps_that_would_coincide_are_refused() -> None:
    with pytest.raises(ValueError, match="num_inference_steps=1000 is too many for 1000"):
        timesteps_for(1000, 1000, "linspace")
    assert timesteps_for(1000, 999, "linspace") == list(range(999, 0, -1))
    assert timesteps_for(1000, 1000, "trailing") == list(range(999, -1, -1))


def answer(latents: torch.Tensor, timestep: int) -> torch.Tensor:
    """Some smooth function in the UNet's place."""
    return torch.tanh(latents * (0.6 + timestep / 2000)) + timestep / 4000


def alone(config: dict[str, object], spacing: str, T: int, start: int, noise: torch.Tensor):
    """The latents at the end of diffusers' own scheduler, for one picture."""
    scheduler = DPMSolverMultistepScheduler(
        **{**config, "final_sigmas_type": "zero"}, algorithm_type="dpmsolver++", solver_order=2
    )
    scheduler.set_timesteps(timesteps=timesteps_for(1000, T, spacing))
    scheduler.set_begin_index(start)
    latents = noise[None]
    for timestep in scheduler.timesteps[start:]:
        latents = scheduler.step(answer(latents, int(timestep)), timestep, latents)[0]
    return latents[0]


@settings(deadline=None, max_examples=40)
@given(
    prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
    spacing=st.sampled_from(["linspace", "trailing"]),
    T=st.integers(1, 40),
    data=st.data(),
)
def test_any_mix_of_starts_agrees_with_a_scheduler_per_picture(
    prediction_type: str, spacing: str, T: int, data: st.DataObject
) -> None:
    starts = data.draw(st.lists(st.integers(0, T - 1), min_size=1, max_size=6))
    config = NOISE | {"prediction_type": prediction_type}
    table = solver_table(config, T, spacing)
    noise = torch.randn((len(starts), *SHAPE), generator=torch.Generator().manual_seed(T))
    latents, previous, at = noise.clone(), noise.clone(), list(starts)
    while rows := [row for row, index in enumerate(at) if index < T]:
        predictions = torch.stack([answer(latents[row], table.timesteps[at[row]]) for row in rows])
        steps = lines(table, [at[row] for row in rows], [at[row] == starts[row] for row in rows])
        latents[rows], previous[rows] = advance(latents[rows], previous[rows], predictions, steps)
        at = [index + (row in rows) for row, index in enumerate(at)]
    for row, start in enumerate(starts):
        expected = alone(config, spacing, T, start, noise[row])
        error = float((latents[row] - expected).abs().max() / expected.abs().max())
        assert error < 1e-4


def test_levels_follow_the_training_schedule_and_end_at_the_original() -> None:
    table = solver_table(NOISE, 25, "linspace")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_bar = torch.cumprod(1 - betas, dim=0)
    for index, timestep in enumerate(table.timesteps):
        assert table.alpha[index] == pytest.approx(math.sqrt(alphas_bar[timestep]), rel=1e-5)
        assert table.sigma[index] == pytest.approx(math.sqrt(1 - alphas_bar[timestep]), rel=1e-5)
    assert (table.alpha[25], table.sigma[25]) == (1, 0)
    original, noise = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    after = noised(original, noise, lines(table, [3, 24], [False, True]))
    torch.testing.assert_close(after[0], level(table, 4, original[0], noise[0]))
    assert torch.equal(after[1], original[1])


def test_the_first_step_does_not_look_at_previous() -> None:
    table = solver_table(NOISE, 6, "trailing")
    latents, prediction = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    ends = [
        advance(latents, previous, prediction, lines(table, [2], [True]))[0]
        for previous in (torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE))
    ]
    assert torch.equal(*ends)


def test_a_models_own_sampling_settings_are_not_taken_over() -> None:
    foreign = NOISE | {
        "use_karras_sigmas": True,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "algorithm_type": "sde-dpmsolver++",
        "final_sigmas_type": "sigma_min",
        "solver_order": 3,
        "_class_name": "PNDMScheduler",
        "skip_prk_steps": True,
    }
    ours, theirs = (solver_table(config, 8, "trailing") for config in (NOISE, foreign))
    assert (ours.steps == theirs.steps).all()
    assert ours.timesteps == theirs.timesteps


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_leads_back_to_the_original(prediction_type: str) -> None:
    table = solver_table(NOISE | {"prediction_type": prediction_type}, 25, "linspace")
    original, noise = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    latents = previous = level(table, 7, original, noise)
    for index in range(7, 25):
        torch.testing.assert_close(latents, level(table, index, original, noise), atol=1e-4, rtol=0)
        prediction = noise
        if prediction_type == "v_prediction":
            prediction = float(table.alpha[index]) * noise - float(table.sigma[index]) * original
        steps = lines(table, [index], [index == 7])
        latents, previous = advance(latents, previous, prediction, steps)
    torch.testing.assert_close(latents, original, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", [DDIMScheduler, TCDScheduler])
def test_the_first_order_is_the_step_of_few_step_models(kind: type, prediction: str) -> None:
    """DDIM's step, and TCD's without added noise; TCD's last one ends a little before clean."""
    config = {**NOISE, "prediction_type": prediction}
    table = solver_table(config, 4, "trailing")
    scheduler = kind(**config, clip_sample=False, timestep_spacing="trailing")
    if kind is TCDScheduler:
        scheduler.set_timesteps(timesteps=list(table.timesteps))
    else:
        scheduler.set_timesteps(4)
        assert scheduler.timesteps.tolist() == list(table.timesteps)
    ours = theirs = torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(0))
    for index, timestep in enumerate(table.timesteps[: 3 if kind is TCDScheduler else 4]):
        prediction = answer(ours, timestep)
        ours, _ = advance(ours, ours, prediction, lines(table, [index], [True]))
        theirs = scheduler.step(answer(theirs, timestep), timestep, theirs, eta=0.0)[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
