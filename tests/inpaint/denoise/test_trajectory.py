"""The painting loop against diffusers' pipeline, against its formulas, and by its own rules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline

from bgaug_d2.inpaint.denoise.dpm_solver import timesteps_for
from bgaug_d2.inpaint.denoise.vae import decode, encode
from bgaug_d2.inpaint.model.load import InpaintModel
from bgaug_d2.painting.engine_interface import PaintRequest
from bgaug_d2.pixels.masks import latent_background_mask
from tests.helpers.tiny_models import (
    denoise,
    make_image,
    make_mask,
    make_request,
    no_count,
    paint,
    tiny_folder,
    tiny_loaded,
    with_unet,
)

FACTOR = 4


def _pixels(request: PaintRequest) -> torch.Tensor:
    return torch.from_numpy(request.image).permute(2, 0, 1)[None].float() / 127.5 - 1


def _cells(request: PaintRequest) -> torch.Tensor:
    """1 where painted, float32 (1, 1, h, w)."""
    return torch.from_numpy(latent_background_mask(request.painted_mask, FACTOR))[
        None, None
    ].float()


def _noise(request: PaintRequest) -> torch.Tensor:
    side = request.image.shape[0] // FACTOR
    generator = torch.Generator().manual_seed(request.seed)
    return torch.randn((1, 4, side, side), generator=generator)


def _pipeline(model: InpaintModel, request: PaintRequest) -> StableDiffusionInpaintPipeline:
    folder = tiny_folder(model.unet_in_channels, model.noise_config["prediction_type"])
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        folder, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        model.noise_config, timestep_spacing=request.settings.timestep_spacing
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _stock_latents(model: InpaintModel, request: PaintRequest) -> torch.Tensor:
    """What diffusers' pipeline ends at, given the same cells, mean latents and noise."""
    cells = _cells(request)
    blank = cells.repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
    side = request.image.shape[0]
    with torch.inference_mode():
        original = encode(model, _pixels(request))
        masked = encode(model, _pixels(request) * (1 - blank))
    # The pipeline truncates T * strength: half a step more gives exactly T_hat.
    whole = request.T_hat == request.settings.num_inference_steps
    strength = 1.0 if whole else (request.T_hat + 0.5) / request.settings.num_inference_steps
    return _pipeline(model, request)(
        prompt=request.prompt,
        negative_prompt=request.settings.negative_prompt,
        image=original,
        mask_image=blank,
        masked_image_latents=masked,
        height=side,
        width=side,
        strength=strength,
        num_inference_steps=request.settings.num_inference_steps,
        guidance_scale=request.settings.guidance_scale,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
    ).images


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("T_hat", [1, 5, 9, 10])
@pytest.mark.parametrize(
    ("unet_channels", "prediction_type", "spacing"),
    [
        (4, "v_prediction", "linspace"),
        (4, "epsilon", "trailing"),
        (9, "v_prediction", "trailing"),
        (9, "epsilon", "linspace"),
    ],
)
def test_latents_agree_with_diffusers_inpainting_pipeline(
    unet_channels: int, prediction_type: str, spacing: str, T_hat: int, guidance_scale: float
) -> None:
    model = tiny_loaded(unet_channels, prediction_type)
    request = make_request(
        T_hat=T_hat,
        num_inference_steps=10,
        guidance_scale=guidance_scale,
        timestep_spacing=spacing,
        prompt="a quiet street",
        negative_prompt="people",
        seed=2**62 + 11,
    )
    expected = _stock_latents(model, request)
    latents = denoise(model, [request], no_count)
    scale = float(expected.abs().max())
    torch.testing.assert_close(latents, expected, atol=1e-5 * scale, rtol=0)


def test_decoded_picture_agrees_with_diffusers_pipeline() -> None:
    model, request = tiny_loaded(), make_request()
    latents = _stock_latents(model, request)
    pipeline = _pipeline(model, request)
    with torch.inference_mode():
        stock = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    stock = pipeline.image_processor.postprocess(stock, output_type="np")[0]
    picture = paint(model, [request], no_count)[0]
    assert picture is not None
    assert np.abs(picture / 255 - stock).max() <= 0.5 / 255 + 1e-4


def _loop_written_out(model: InpaintModel, request: PaintRequest) -> torch.Tensor:
    """DPM-Solver++(2M) and eq. 2 straight from the formulas, in float64 but for the UNet."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_bar = torch.cumprod(1 - betas, dim=0)
    settings = request.settings
    full = timesteps_for(1000, settings.num_inference_steps, settings.timestep_spacing)
    timesteps = full[settings.num_inference_steps - request.T_hat :]
    alpha = [math.sqrt(alphas_bar[t]) for t in timesteps] + [1.0]
    sigma = [math.sqrt(1 - alphas_bar[t]) for t in timesteps] + [0.0]
    noise, painted = _noise(request).double(), _cells(request).double()
    with torch.inference_mode():
        original = encode(model, _pixels(request)).double()
        cond, uncond = (
            model.prompts([request.prompt]),
            model.prompts([request.settings.negative_prompt]),
        )
        x = alpha[0] * original + sigma[0] * noise
        if request.T_hat == settings.num_inference_steps:
            x = noise
        previous = None
        for i, t in enumerate(timesteps):
            answers = [model.unet(x.float(), t, each).sample.double() for each in (uncond, cond)]
            v = answers[0] + settings.guidance_scale * (answers[1] - answers[0])
            x0 = alpha[i] * x - sigma[i] * v
            if i + 1 == len(timesteps):
                x = x0
            else:
                lambdas = [math.log(alpha[j] / sigma[j]) for j in range(i + 2)]
                h = lambdas[i + 1] - lambdas[i]
                d = x0
                if previous is not None:
                    r = (lambdas[i] - lambdas[i - 1]) / h
                    d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
                x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * math.expm1(-h) * d
            previous = x0
            x = painted * x + (1 - painted) * (alpha[i + 1] * original + sigma[i + 1] * noise)
    return x.float()


@pytest.mark.parametrize("T_hat", [1, 2, 13, 20])
def test_latents_agree_with_the_formulas_written_out(T_hat: int) -> None:
    request = make_request(T_hat=T_hat, num_inference_steps=20, guidance_scale=3.0)
    latents = denoise(tiny_loaded(), [request], no_count)
    torch.testing.assert_close(
        latents, _loop_written_out(tiny_loaded(), request), atol=2e-4, rtol=1e-4
    )


@pytest.mark.parametrize("T_hat", [4, 6])
def test_kept_latents_follow_the_noised_original_at_every_step(T_hat: int) -> None:
    model, request = tiny_loaded(), make_request(T_hat=T_hat, guidance_scale=1.0)
    seen: list[tuple[int, torch.Tensor]] = []

    def spy(unet: Any, rows: torch.Tensor, timesteps: torch.Tensor, **rest: Any) -> Any:
        seen.append((int(timesteps[0]), rows.clone()))
        return unet(rows, timesteps, **rest)

    latents = denoise(with_unet(model, spy), [request], no_count)
    with torch.inference_mode():
        original = encode(model, _pixels(request))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alphas_bar = torch.cumprod(1 - betas, dim=0)
    kept = (_cells(request) == 0).expand_as(original)
    assert 0 < kept.sum() < kept.numel()
    assert len(seen) == T_hat
    for index, (timestep, rows) in enumerate(seen):
        alpha_bar = float(alphas_bar[timestep])
        expected = math.sqrt(alpha_bar) * original + math.sqrt(1 - alpha_bar) * _noise(request)
        if index == 0 and T_hat == request.settings.num_inference_steps:
            expected = _noise(request)  # the full schedule starts from pure noise, everywhere
        torch.testing.assert_close(rows[kept], expected[kept])
        if index:
            assert (rows - expected)[~kept].abs().mean() > 0.01  # the others go their own way
    assert torch.equal(latents[kept], original[kept])


def test_nothing_to_paint_gives_back_the_encoded_original() -> None:
    request = make_request(painted_mask=np.zeros((64, 64), dtype=bool))
    with torch.inference_mode():
        original = encode(tiny_loaded(), _pixels(request))
    assert torch.equal(denoise(tiny_loaded(), [request], no_count), original)


@pytest.mark.parametrize(("touched_cells", "painted"), [(True, 1), (False, 0)])
def test_one_pixel_is_painted_where_touched_cells_are(touched_cells: bool, painted: int) -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[37, 22] = True
    request = make_request(painted_mask=mask, touched_cells=touched_cells)
    with torch.inference_mode():
        original = encode(tiny_loaded(), _pixels(request))
    changed = (denoise(tiny_loaded(), [request]) != original).any(1)[0]
    assert changed.sum() == painted
    assert changed[37 // FACTOR, 22 // FACTOR] == touched_cells


def test_nine_channels_are_latents_mask_and_blanked_image() -> None:
    model, request = tiny_loaded(9), make_request(guidance_scale=2.0)
    seen: list[torch.Tensor] = []

    def spy(unet: Any, rows: torch.Tensor, timesteps: torch.Tensor, **rest: Any) -> Any:
        seen.append(rows.clone())
        return unet(rows, timesteps, **rest)

    denoise(with_unet(model, spy), [request], no_count)
    assert [rows.shape for rows in seen] == [(2, 9, 16, 16)] * 4
    image = _pixels(request)
    blank = _cells(request).repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3).bool()
    image[blank.expand_as(image)] = 0
    with torch.inference_mode():
        masked = encode(model, image)
    for rows in seen:
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows[:1, 4:5], _cells(request))
        torch.testing.assert_close(rows[:1, 5:], masked)


def test_nine_channel_pictures_do_not_see_masked_pixels_from_pure_noise() -> None:
    plain, other = make_image(), make_image(seed=9)
    cells = _cells(make_request())[0, 0].numpy().astype(bool).repeat(FACTOR, 0).repeat(FACTOR, 1)
    mixed = np.where(cells[..., None], other, plain)
    ends = [
        denoise(tiny_loaded(9), [make_request(image=image, T_hat=6)], no_count)
        for image in (plain, mixed)
    ]
    assert torch.equal(*ends)


def test_a_picture_does_not_depend_on_its_batch_mates() -> None:
    requests = [
        make_request(f"{i}/0", seed=i, image=make_image(i), prompt=f"scene {i}") for i in range(3)
    ]
    requests[1].painted_mask[:] = True
    together = denoise(tiny_loaded(), requests, no_count)
    for request, latents in zip(requests, together, strict=True):
        alone = denoise(tiny_loaded(), [request], no_count)[0]
        torch.testing.assert_close(latents, alone, atol=1e-4, rtol=0)
    for request, picture in zip(requests, paint(tiny_loaded(), requests, no_count), strict=True):
        single = paint(tiny_loaded(), [request], no_count)[0]
        assert picture is not None
        assert single is not None
        assert np.abs(picture.astype(int) - single).max() <= 1


def test_same_request_same_picture_and_global_random_state_does_not_matter() -> None:
    torch.manual_seed(5)
    first = paint(tiny_loaded(), [make_request()], no_count)[0]
    torch.manual_seed(6)
    state = torch.get_rng_state()
    second = paint(tiny_loaded(), [make_request()], no_count)[0]
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"prompt": "a forest"},
        {"negative_prompt": "people"},
        {"guidance_scale": 3.0},
        {"T_hat": 5},
        {"num_inference_steps": 8},
        {"timestep_spacing": "trailing"},
        {"image": make_image(seed=7)},
        {"painted_mask": np.ones((64, 64), dtype=bool)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_in_a_request_decides_the_picture(change: dict[str, Any]) -> None:
    plain = denoise(tiny_loaded(), [make_request()], no_count)
    changed = denoise(tiny_loaded(), [make_request(**change)], no_count)
    assert (plain - changed).abs().max() > 0.01


def test_guidance_one_takes_a_single_branch_and_ignores_the_negative_prompt() -> None:
    sizes: list[int] = []

    def spy(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        sizes.append(len(rows))
        return unet(rows, *args, **rest)

    model = with_unet(tiny_loaded(), spy)
    ends = [
        denoise(model, [make_request(guidance_scale=1.0, negative_prompt=text)], no_count)
        for text in ("", "people")
    ]
    assert sizes == [1] * 8
    assert torch.equal(*ends)


def test_a_row_that_is_not_finite_fails_alone() -> None:
    def poison(unet: Any, rows: torch.Tensor, *args: Any, **rest: Any) -> Any:
        answer = unet(rows, *args, **rest)[0].clone()
        answer[1] = torch.nan
        return (answer,)

    requests = [make_request(f"{i}/0", seed=i, guidance_scale=1.0) for i in range(3)]
    pictures = paint(with_unet(tiny_loaded(), poison), requests, no_count)
    assert pictures[1] is None
    for i in (0, 2):
        alone = paint(tiny_loaded(), [requests[i]], no_count)[0]
        assert pictures[i] is not None
        assert alone is not None
        assert np.abs(pictures[i].astype(int) - alone).max() <= 1  # type: ignore[union-attr]


def test_bfloat16_paints_nearly_the_same_latents() -> None:
    request = make_request(guidance_scale=1.0)
    exact = denoise(tiny_loaded(), [request], no_count)
    rounded = denoise(tiny_loaded(dtype="bfloat16"), [request], no_count)
    assert rounded.dtype == torch.float32
    error = (exact - rounded).pow(2).mean() / exact.pow(2).mean()
    assert 0 < error < 0.01
    assert paint(tiny_loaded(dtype="bfloat16"), [request], no_count)[0] is not None


def test_each_step_is_a_call_and_pixels_come_back_as_uint8_squares() -> None:
    steps: list[None] = []
    requests = [make_request(f"{i}/0", side=96, painted_mask=make_mask(96)) for i in range(2)]
    pictures = paint(tiny_loaded(), requests, lambda: steps.append(None))
    assert len(steps) == 4
    for picture in pictures:
        assert picture is not None
        assert picture.shape == (96, 96, 3)
        assert picture.dtype == np.uint8
        assert picture.flags["C_CONTIGUOUS"]


def test_encoding_is_deterministic_and_decoding_inverts_its_scale() -> None:
    model = tiny_loaded()
    with torch.inference_mode():
        latents = encode(model, _pixels(make_request()))
        assert torch.equal(latents, encode(model, _pixels(make_request())))
        unscaled = model.vae.encode(_pixels(make_request())).latent_dist.mean
        torch.testing.assert_close(decode(model, latents), model.vae.decode(unscaled).sample)
