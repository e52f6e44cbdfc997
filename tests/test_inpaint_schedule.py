from __future__ import annotations

import math

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from bgaug_d2.inpaint.schedule import Schedule, timesteps_for

NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}


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


@pytest.mark.parametrize("T_hat", [0, -1, 26])
def test_T_hat_out_of_range_is_refused(T_hat: int) -> None:
    with pytest.raises(ValueError, match=f"T_hat={T_hat} must be between 1 and T=25"):
        Schedule(NOISE, 25, T_hat, "linspace")


@pytest.mark.parametrize("T_hat", [1, 12, 24, 25])
def test_walk_takes_the_last_T_hat_timesteps(T_hat: int) -> None:
    schedule = Schedule(NOISE, 25, T_hat, "linspace")
    assert schedule.timesteps == timesteps_for(1000, 25, "linspace")[25 - T_hat :]
    assert schedule.pure_noise == (T_hat == 25)


def test_noised_follows_the_training_schedule_and_ends_at_the_original() -> None:
    schedule = Schedule(NOISE, 25, 10, "linspace")
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_bar = torch.cumprod(1 - betas, dim=0)
    original, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    for level, timestep in enumerate(schedule.timesteps):
        alpha_bar = float(alphas_bar[timestep])
        expected = math.sqrt(alpha_bar) * original + math.sqrt(1 - alpha_bar) * noise
        torch.testing.assert_close(schedule.noised(original, noise, level), expected)
    assert torch.equal(schedule.noised(original, noise, 10), original)


def test_start_is_pure_noise_only_for_the_full_walk() -> None:
    original, noise = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    assert torch.equal(Schedule(NOISE, 25, 25, "linspace").start(original, noise), noise)
    part = Schedule(NOISE, 25, 24, "linspace")
    assert torch.equal(part.start(original, noise), part.noised(original, noise, 0))
    with pytest.raises(ValueError, match="needs the encoded originals"):
        part.start(None, noise)


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
    latents, predictions = torch.randn(1, 4, 3, 3), torch.randn(5, 1, 4, 3, 3)
    ends = []
    for config in (NOISE, foreign):
        schedule, state = Schedule(config, 8, 5, "trailing"), latents
        for index in range(5):
            state = schedule.step(predictions[index], index, state)
        ends.append(state)
    assert torch.equal(*ends)


def test_a_perfect_prediction_leads_back_to_the_original() -> None:
    schedule = Schedule(NOISE, 25, 18, "linspace")
    original, noise = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    latents = schedule.start(original, noise)
    for index in range(18):
        torch.testing.assert_close(
            latents, schedule.noised(original, noise, index), atol=1e-4, rtol=0
        )
        latents = schedule.step(noise, index, latents)
    torch.testing.assert_close(latents, original, atol=1e-4, rtol=0)


def test_v_prediction_is_read_as_such() -> None:
    schedule = Schedule(NOISE | {"prediction_type": "v_prediction"}, 25, 18, "linspace")
    original, noise = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    latents = schedule.start(original, noise)
    for index in range(18):
        alpha = float(schedule.noised(torch.ones(1), torch.zeros(1), index))
        sigma = float(schedule.noised(torch.zeros(1), torch.ones(1), index))
        latents = schedule.step(alpha * noise - sigma * original, index, latents)
    torch.testing.assert_close(latents, original, atol=1e-4, rtol=0)
