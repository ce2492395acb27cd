"""The denoising loop: what a sample's bits depend on, and that every scheduler does its work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pipeline_of
from torch import Tensor, nn

from synthct.errors import CheckpointError, MaskError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.denoiser import Denoiser, clip_prediction, smooth_fill
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint
from synthct.models.painting import (
    NOT_FROM_IMAGES,
    SCHEDULERS,
    Inpainter,
    Job,
    make_scheduler,
    numerics_class,
    trailing_timesteps,
)
from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet
from synthct.models.patch import Patch
from synthct.volume.intensity import FULL_RANGE, SOFT_TISSUE

#: As training writes it.
TRAINED_WITH = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "clip_sample": True,
}
#: Passes of the network that 20 steps take, where they are not 20.
PASSES = {"heun": 39, "pndm": 21}


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, one_thread: None) -> Checkpoint:
    return load_checkpoint(str(tiny_checkpoint))


def make_patch(seed: int, size: int = 32, label: int = 1, spacing: float = 0.8) -> Patch:
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), dtype=bool)
    row, column = rng.integers(4, size - 16, 2)
    mask[row : row + 11, column : column + 9] = True
    return Patch(
        image=rng.uniform(-1, 1, (size, size)).astype(np.float32),
        mask=mask,
        own=mask,
        label=label,
        codec=SOFT_TISSUE if label else FULL_RANGE,
        spacing_mm=(spacing, spacing),
        origin=(0, 0),
        scale=(1.0, 1.0),
    )


def paint_one(inpainter: Inpainter, patch: Patch, seed: int) -> np.ndarray:
    (painted,) = inpainter.paint([patch], [seed])
    return painted


def test_bits_depend_on_neither_place_nor_companions(checkpoint: Checkpoint) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=2, batch_size=3))
    jobs = [
        Job(n, make_patch(n, size, n % 4), 100 + n) for n, size in enumerate([32] * 5 + [64] * 4)
    ]
    alone = {job.key: paint_one(inpainter, job.patch, job.seed) for job in jobs}
    for order in (jobs, jobs[::-1], jobs[3:] + jobs[:3], jobs[::2]):
        painted = dict(inpainter.stream(order))
        assert set(painted) == {job.key for job in order}
        for key, pixels in painted.items():
            assert pixels.tobytes() == alone[key].tobytes()


@pytest.mark.parametrize("scheduler", ["ddpm", "sde-dpmsolver++", "euler-ancestral", "unipc"])
def test_noisy_and_multistep_schedulers_keep_nothing_from_batch_to_batch(
    checkpoint: Checkpoint, scheduler: str
) -> None:
    inpainter = Inpainter(
        checkpoint, Diffusion(scheduler=scheduler, num_inference_steps=3, batch_size=2)
    )
    patches = [make_patch(n) for n in range(5)]
    together = inpainter.paint(patches, [7, 8, 9, 10, 11])
    for patch, seed, pixels in zip(patches, [7, 8, 9, 10, 11], together, strict=True):
        assert paint_one(inpainter, patch, seed).tobytes() == pixels.tobytes()


def test_paint_depends_on_seed_label_spacing_and_surroundings(checkpoint: Checkpoint) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=2))
    patch = make_patch(0)
    first = paint_one(inpainter, patch, 1)
    assert paint_one(inpainter, patch, 1).tobytes() == first.tobytes()
    other_image = patch.image.copy()
    other_image[0, 0] += 0.5
    others = [
        paint_one(inpainter, patch, 2),
        paint_one(inpainter, replace(patch, label=2), 1),
        paint_one(inpainter, replace(patch, spacing_mm=(0.8, 2.0)), 1),
        paint_one(inpainter, replace(patch, image=other_image), 1),
    ]
    for other in others:
        assert not np.array_equal(other[patch.mask], first[patch.mask])


def test_paint_does_not_depend_on_what_is_masked(checkpoint: Checkpoint) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=2))
    patch = make_patch(0)
    hidden = np.where(patch.mask, np.float32(0.25), patch.image)
    expected = paint_one(inpainter, patch, 1)
    assert np.array_equal(paint_one(inpainter, replace(patch, image=hidden), 1), expected)


def test_results_come_in_the_order_of_the_patches(checkpoint: Checkpoint) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=1, batch_size=2))
    patches = [make_patch(n, size) for n, size in enumerate([32, 64, 32, 64, 64, 32, 32])]
    painted = inpainter.paint(patches, list(range(7)))
    for patch, pixels in zip(patches, painted, strict=True):
        assert np.array_equal(pixels[~patch.mask], patch.image[~patch.mask])


def test_batches_have_one_shape_per_patch_size(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=1, batch_size=4))
    sides = [(n, n) for n in (32, 128, 192, 256, 512)]
    assert [inpainter.shape_of_batch(one) for one in sides] == [4, 4, 1, 1, 1]
    assert inpainter.shape_of_batch((8, 8, 4)) == 1
    shapes = []
    forward = checkpoint["unet"].forward

    def spy(noisy: Tensor, *args: Any) -> Tensor:
        shapes.append(tuple(noisy.shape))
        return forward(noisy, *args)

    monkeypatch.setattr(checkpoint["unet"], "forward", spy)
    inpainter.paint([make_patch(n, 32 if n < 6 else 64) for n in range(7)], list(range(7)))
    assert shapes == [(4, 1, 32, 32), (4, 1, 32, 32), (4, 1, 64, 64)]


def test_no_jobs_no_paint(checkpoint: Checkpoint) -> None:
    assert Inpainter(checkpoint, Diffusion()).paint([], []) == []


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_paints_the_mask_and_nothing_else(
    checkpoint: Checkpoint, scheduler: str
) -> None:
    inpainter = Inpainter(
        checkpoint, Diffusion(scheduler=scheduler, num_inference_steps=3, batch_size=2)
    )
    patches = [make_patch(n) for n in range(3)]
    for patch, pixels in zip(patches, inpainter.paint(patches, [1, 2, 3]), strict=True):
        assert pixels.dtype == np.float32
        assert np.isfinite(pixels).all()
        assert np.abs(pixels).max() <= 1
        assert np.array_equal(pixels[~patch.mask], patch.image[~patch.mask])
        assert (pixels[patch.mask] != patch.image[patch.mask]).mean() > 0.9


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_network_always_sees_clean_surroundings(
    checkpoint: Checkpoint, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpainter = Inpainter(
        checkpoint, Diffusion(scheduler=scheduler, num_inference_steps=4, batch_size=2)
    )
    patches = [make_patch(n) for n in range(2)]
    known = torch.from_numpy(np.stack([~p.mask for p in patches])[:, None])
    image = torch.from_numpy(np.stack([p.image for p in patches])[:, None])
    forward, passes = checkpoint["unet"].forward, []

    def spy(noisy: Tensor, steps: Tensor, masked: Tensor, mask: Tensor, *args: Tensor) -> Tensor:
        assert torch.equal(noisy[known], image[known])
        assert torch.equal(masked[known], image[known])
        assert torch.equal(masked[~known], torch.zeros_like(masked[~known]))
        assert torch.equal(mask, (~known).float())
        passes.append(steps)
        return forward(noisy, steps, masked, mask, *args)

    monkeypatch.setattr(checkpoint["unet"], "forward", spy)
    inpainter.paint(patches, [1, 2])
    assert len(passes) == {"heun": 7, "pndm": 5}.get(scheduler, 4)
    assert all(steps.shape == (2,) for steps in passes)


class Oracle(Denoiser, nn.Module):
    """The perfect network for patches whose pixels are drawn from N(mean, var), all independent.

    Its answer is the exact posterior mean, so a scheduler that does its work draws from just that
    distribution.
    """

    size_multiple = 1
    noise_embedding, null_label, trained_steps = "timestep", None, None
    clip_denoised = False
    noise_position = PaletteUNet.noise_position
    surroundings = PaletteUNet.surroundings
    to_diffused = PaletteUNet.to_diffused
    from_diffused = PaletteUNet.from_diffused
    neighbour_channels, neighbours = PaletteUNet.neighbour_channels, 0
    given_noisy, known_region = PaletteUNet.given_noisy, "clean"

    def __init__(
        self, mean: Tensor, var: float, config: dict[str, Any], residual_scale: float | None = None
    ) -> None:
        super().__init__()
        self.mean, self.var, self.kind = mean, var, config["prediction_type"]
        self.residual_scale = residual_scale
        clean = make_scheduler("ddim", config).alphas_cumprod.double().numpy()
        self.ratio = np.sqrt((1 - clean) / clean)  # of noise to signal
        self.passes = 0

    def forward(self, noisy: Tensor, steps: Tensor, *_: Tensor) -> Tensor:
        self.passes += 1
        sigma = float(np.interp(float(steps[0]), np.arange(len(self.ratio)), self.ratio))
        return self.answer(noisy, sigma)

    def answer(self, noisy: Tensor, sigma: float) -> Tensor:
        a = 1 / np.sqrt(1 + sigma**2)
        b = sigma * a
        gain = a * self.var / (a**2 * self.var + b**2)
        image = self.mean + gain * (noisy - a * self.mean)
        noise = (noisy - a * image) / b
        answers = {"epsilon": noise, "sample": image, "v_prediction": a * noise - b * image}
        return answers[self.kind].float()


def paint_with(
    network: Denoiser,
    sampler: Any,
    image: Tensor,
    *,
    mask: Tensor | None = None,
    steps: int,
    strength: float = 1.0,
) -> Tensor:
    """Paint pictures (N, 1, S, S), each with noise of its own; all of them without a mask."""
    number = len(image)
    return PaletteInpaintPipeline(network, sampler)(
        image=image,
        mask_image=torch.ones_like(image) if mask is None else mask,
        label=torch.zeros(number, dtype=torch.int64),
        spacing_mm=torch.ones(number, 2),
        generator=[torch.Generator().manual_seed(n) for n in range(number)],
        num_inference_steps=steps,
        strength=strength,
    )


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear"])
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_draws_what_a_perfect_network_knows(
    scheduler: str, prediction: str, schedule: str
) -> None:
    config = {**TRAINED_WITH, "prediction_type": prediction, "beta_schedule": schedule}
    if prediction == "sample" and scheduler in NOT_FROM_IMAGES:
        with pytest.raises(CheckpointError, match="predicts the image itself"):
            make_scheduler(scheduler, config)
        return
    mean = torch.linspace(-0.4, 0.4, 8).expand(64, 1, 8, 8)
    oracle = Oracle(mean, 0.2**2, config)
    painted = paint_with(
        oracle, make_scheduler(scheduler, config), torch.zeros_like(mean), steps=20
    )
    assert (painted - mean).mean(dim=0).abs().mean() < 0.03
    # Twenty steps lose some of the spread of 0.2, most where each adds noise.
    assert 0.12 < float((painted - mean).std()) < 0.23
    assert oracle.passes == PASSES.get(scheduler, 20)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_difference_from_a_guess_is_painted_on_the_guess(scheduler: str) -> None:
    """The differences lie beyond -1..1 here, so a scheduler that clips would show."""
    image = torch.linspace(-0.5, 0.5, 16).expand(32, 1, 16, 16).contiguous()
    mask = torch.zeros_like(image)
    mask[:, :, 4:12, 4:12] = 1
    oracle = Oracle(torch.full_like(image, 1.6), 0.1**2, TRAINED_WITH, residual_scale=4.0)
    sampler = make_scheduler(scheduler, TRAINED_WITH)
    painted = paint_with(oracle, sampler, image, mask=mask, steps=20)
    expected = torch.where(mask > 0.5, smooth_fill(image, 1 - mask) + 0.4, image)
    assert torch.equal(painted[mask < 0.5], image[mask < 0.5])
    assert (painted - expected).mean(dim=0).abs().max() < 0.03


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_few_steps_paint_the_mean_or_are_refused(
    checkpoint: Checkpoint, scheduler: str, steps: int
) -> None:
    if steps < 3 and scheduler in ("heun", "euler-ancestral"):
        with pytest.raises(
            CheckpointError, match=f"'{scheduler}' cannot paint in .*; give it more"
        ):
            Inpainter(checkpoint, Diffusion(scheduler=scheduler, num_inference_steps=steps))
        return
    settings = Diffusion(scheduler=scheduler, num_inference_steps=steps)
    sampler = pipeline_of(Inpainter(checkpoint, settings)).scheduler
    mean = torch.linspace(-0.6, 0.6, 8).expand(32, 1, 8, 8)
    oracle = Oracle(mean, 0.05**2, TRAINED_WITH)
    painted = paint_with(oracle, sampler, torch.zeros_like(mean), steps=steps)
    assert (painted - mean).mean(dim=0).abs().mean() < (0.12 if scheduler == "heun" else 0.05)


def retold(checkpoint: Checkpoint, **config: Any) -> Checkpoint:
    """The tiny network with other weights and another config."""
    torch.manual_seed(1)
    unet = PaletteUNet.from_config({**checkpoint["unet"].config, **config}).eval()
    nn.init.normal_(unet.label_embedding.weight)
    return replace(checkpoint, components={"unet": unet.requires_grad_(False)})


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpmsolver++", "euler", "unipc"])
def test_a_checkpoint_of_few_steps_meets_the_levels_it_knows_and_no_others(
    checkpoint: Checkpoint, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = retold(checkpoint, trained_steps=4)
    inpainter = Inpainter(few, Diffusion(scheduler=scheduler, num_inference_steps=4))
    levels, forward = [], few["unet"].forward

    def spy(noisy: Tensor, position: Tensor, *args: Tensor) -> Tensor:
        levels.append(float(position[0]))
        return forward(noisy, position, *args)

    monkeypatch.setattr(few["unet"], "forward", spy)
    paint_one(inpainter, make_patch(0), 1)
    assert levels == pytest.approx(trailing_timesteps(1000, 4), abs=1)
    levels.clear()
    paint_one(inpainter, replace(make_patch(0), strength=0.5), 1)
    assert levels == pytest.approx([499, 249], abs=1)  # later in the schedule, at known levels
    Inpainter(few, Diffusion(scheduler=scheduler, num_inference_steps=2))
    with pytest.raises(CheckpointError, match=r"trained for 4 steps .* set num_inference_steps to"):
        Inpainter(few, Diffusion(scheduler=scheduler, num_inference_steps=5))


def test_guidance_goes_on_from_untold_through_told(checkpoint: Checkpoint) -> None:
    guided = retold(checkpoint, guided=True)
    inpainter = Inpainter(guided, Diffusion(scheduler="ddim", num_inference_steps=1))

    def painted(label: int, scale: float) -> np.ndarray:
        patch = replace(make_patch(0, label=label), guidance_scale=scale)
        return paint_one(inpainter, patch, 1).astype(np.float64)

    told, untold = painted(1, 1.0), painted(guided["unet"].null_label, 1.0)
    beyond = np.abs([told, untold, painted(1, 1.5)]).max(axis=0)
    inside = make_patch(0).mask & (beyond < 1)  # what is clipped is not linear
    assert inside.sum() > 10
    assert np.abs(told - untold)[inside].max() > 1e-3
    expected = untold + 1.5 * (told - untold)
    np.testing.assert_allclose(painted(1, 1.5)[inside], expected[inside], atol=1e-4)
    with pytest.raises(CheckpointError, match=r"tiny.*label_dropout .* guidance_scale to 1, not 2"):
        Inpainter(checkpoint, Diffusion(guidance_scale=2))


def test_a_checkpoint_says_which_labels_are_guided_and_how_much(checkpoint: Checkpoint) -> None:
    stated = retold(checkpoint, guidance={"kidney": 2.0})
    files = replace(checkpoint.files, configs={"unet": dict(stated["unet"].config)})

    def painted(**settings: float) -> list[np.ndarray]:
        inpaint = Diffusion(num_inference_steps=2, **settings)
        rules = files.network.rules(files, inpaint, ())
        patches = [
            replace(make_patch(n, label=n), guidance_scale=rules.guidance_scale(label))
            for n, label in ((1, "kidney"), (2, "tumor"), (0, None))
        ]
        return Inpainter(stated, inpaint).paint(patches, [1, 2, 3])

    own, unguided, guided = painted(), painted(guidance_scale=1), painted(guidance_scale=2)
    np.testing.assert_array_equal(own[0], guided[0])
    assert np.abs(own[0] - unguided[0]).max() > 1e-3
    for n in (1, 2):
        np.testing.assert_array_equal(own[n], unguided[n])
    np.testing.assert_allclose(guided[2], unguided[2], atol=1e-5)  # nothing to be guided from


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpmsolver++", "euler", "unipc"])
def test_paint_has_the_level_that_is_asked_for(checkpoint: Checkpoint, scheduler: str) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(scheduler=scheduler, num_inference_steps=4))
    asked = replace(make_patch(0), level_hu=130.0)
    other = make_patch(1)
    told, beside = inpainter.paint([asked, other], [1, 2])
    assert np.median(told[asked.mask]) == pytest.approx(0.4, abs=0.02)
    np.testing.assert_array_equal(told[~asked.mask], asked.image[~asked.mask])
    np.testing.assert_array_equal(beside, paint_one(inpainter, other, 2))
    assert abs(np.median(paint_one(inpainter, make_patch(0), 1)[asked.mask]) - 0.4) > 0.1


def test_a_network_told_the_level_paints_alike_on_another_schedule() -> None:
    """Palette trains on 2000 steps and paints with 1000 others."""
    mean = torch.linspace(-0.4, 0.4, 8).expand(64, 1, 8, 8)
    schedules = [
        {"num_train_timesteps": 2000, "beta_start": 1e-6, "beta_end": 0.01},
        {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.09},
    ]

    class Leveled(Oracle):
        noise_embedding = "level"

        def forward(self, noisy: Tensor, position: Tensor, *_: Tensor) -> Tensor:
            sigma = np.tan(float(position[0]) * np.pi / 2000)
            return self.answer(noisy, min(sigma, 1e6))

    for schedule in schedules:
        config = {**TRAINED_WITH, "prediction_type": "epsilon", "beta_schedule": "linear"}
        sampler = make_scheduler("ddim", {**config, **schedule})
        oracle = Leveled(mean, 0.2**2, config)
        painted = paint_with(oracle, sampler, torch.zeros_like(mean), steps=100)
        assert (painted - mean).mean(dim=0).abs().mean() < 0.03
        assert 0.15 < float((painted - mean).std()) < 0.22


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_clipping_keeps_what_is_meant_within_range_and_bounds_the_rest(prediction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.randn(2, 1, 1, 32, 32, generator=generator)
    for clean in torch.tensor([1e-20, 1e-6, 0.3, 0.999]):
        noisy = clean.sqrt() * image + (1 - clean).sqrt() * noise
        meant = {
            "epsilon": noise,
            "v_prediction": clean.sqrt() * noise - (1 - clean).sqrt() * image,
            "sample": image,
        }[prediction]
        clipped = clip_prediction(meant, noisy, clean, prediction)
        inside = image.abs() < 0.99
        torch.testing.assert_close(clipped[inside], meant[inside], rtol=1e-2, atol=1e-2)
        if clean < 1e-3:  # a slightly wrong prediction would mean an image of any size
            assert torch.isfinite(clip_prediction(meant * 1.01, noisy, clean, prediction)).all()
        again = {
            "epsilon": (noisy - (1 - clean).sqrt() * clipped) / clean.sqrt(),
            "v_prediction": clean.sqrt() * noisy - (1 - clean).sqrt() * clipped,
            "sample": clipped,
        }[prediction]
        if clean > 1e-3:
            assert again.abs().max() < 1.001


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpmsolver++", "euler", "heun"])
def test_a_network_that_predicts_noise_badly_still_paints_in_range_if_clipped(
    scheduler: str,
) -> None:
    """On Palette's own schedule the signal is ten thousand million times weaker than the noise."""
    schedule = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.09}
    config = {**TRAINED_WITH, "prediction_type": "epsilon", "beta_schedule": "linear", **schedule}
    mean = torch.linspace(-0.4, 0.4, 8).expand(64, 1, 8, 8)

    class Noisy(Oracle):
        clip_denoised = True

        def answer(self, noisy: Tensor, sigma: float) -> Tensor:
            return super().answer(noisy, sigma) * 1.001

    oracle, sampler = Noisy(mean, 0.2**2, config), make_scheduler(scheduler, config)
    painted = paint_with(oracle, sampler, torch.zeros_like(mean), steps=40)
    assert (painted - mean).mean(dim=0).abs().mean() < 0.1
    assert 0.1 < float((painted - mean).std()) < 0.3


def test_too_many_steps_are_refused(checkpoint: Checkpoint) -> None:
    schedule = {**checkpoint.files.scheduler_config, "num_train_timesteps": 500}
    files = replace(checkpoint.files, configs={**checkpoint.files.configs, "scheduler": schedule})
    with pytest.raises(CheckpointError, match="'ddpm' cannot paint in 501 steps"):
        Inpainter(
            replace(checkpoint, files=files), Diffusion(scheduler="ddpm", num_inference_steps=501)
        )


def test_unknown_scheduler_is_refused_with_the_choice() -> None:
    with pytest.raises(
        CheckpointError, match=r"'dpm' is unknown; choose ddpm, ddim, dpmsolver\+\+"
    ):
        make_scheduler("dpm", TRAINED_WITH)


def test_scheduler_that_cannot_follow_the_noise_schedule_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'heun' does not fit the checkpoint"):
        make_scheduler("heun", {**TRAINED_WITH, "rescale_betas_zero_snr": True})
    with pytest.raises(CheckpointError, match="'ddim' does not fit the checkpoint"):
        make_scheduler("ddim", {**TRAINED_WITH, "beta_schedule": "nonsense"})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_scheduler_has_the_noise_schedule_of_the_training(scheduler: str) -> None:
    betas = [0.001, 0.002, 0.01, 0.02, 0.03, 0.5, 0.7, 0.9]
    config = {**TRAINED_WITH, "num_train_timesteps": 8, "trained_betas": betas}
    made = make_scheduler(scheduler, config)
    clean = np.cumprod(1 - np.array(betas))
    assert made.alphas_cumprod.numpy() == pytest.approx(clean, rel=1e-5)
    assert made.config.prediction_type == "v_prediction"


def test_scheduler_computes_in_float32_under_autocast(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    inpainter = Inpainter(
        checkpoint, Diffusion(scheduler="unipc", num_inference_steps=3, dtype="bfloat16")
    )
    scheduler, seen = pipeline_of(inpainter).scheduler, []
    step = scheduler.step

    def spy(model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any:
        seen.append((model_output.dtype, sample.dtype, torch.is_autocast_enabled("cpu")))
        return step(model_output, timestep, sample)

    monkeypatch.setattr(scheduler, "step", spy)
    patch = make_patch(0)
    coarse = paint_one(inpainter, patch, 1)
    assert seen == [(torch.float32, torch.float32, False)] * 3
    fine = paint_one(
        Inpainter(checkpoint, Diffusion(scheduler="unipc", num_inference_steps=3)), patch, 1
    )
    assert not np.array_equal(coarse, fine)
    assert np.abs(coarse - fine).max() < 0.2


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e38])
def test_paint_that_is_not_finite_is_refused(tiny_checkpoint: Path, poison: float) -> None:
    broken = load_checkpoint(str(tiny_checkpoint))
    broken["unet"].unet.conv_out.weight.data.fill_(poison)
    with pytest.raises(MaskError, match="checkpoint tiny painted values that are not finite"):
        Inpainter(broken, Diffusion(num_inference_steps=2)).paint([make_patch(0)], [0])


def test_pipeline_refuses_shapes_that_do_not_fit(checkpoint: Checkpoint) -> None:
    pipeline = pipeline_of(Inpainter(checkpoint, Diffusion()))
    label, spacing = torch.zeros(2, dtype=torch.int64), torch.ones(2, 2)
    two = [torch.Generator(), torch.Generator()]
    image = torch.zeros(2, 1, 32, 32)
    with pytest.raises(ValueError, match="must both be"):
        pipeline(image, image[:1], label, spacing, two)
    with pytest.raises(ValueError, match="multiples of 4"):
        pipeline(image[..., :30], image[..., :30], label, spacing, two)
    with pytest.raises(ValueError, match="1 generators for a batch of 2"):
        pipeline(image, image, label, spacing, two[:1])


def test_numerics_class_names_what_changes_low_bits(checkpoint: Checkpoint) -> None:
    facts = numerics_class(Inpainter(checkpoint, Diffusion(batch_size=3, dtype="bfloat16")))
    assert facts["device"] == "cpu"
    assert (facts["dtype"], facts["batch_size"], facts["threads"]) == ("bfloat16", 3, 1)
    assert facts["torch"] == torch.__version__


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_less_strength_starts_later_takes_as_many_steps_and_paints_the_same_mean(
    scheduler: str,
) -> None:
    """The guess is right here, so nothing is lost by starting from it."""
    image = torch.linspace(-0.5, 0.5, 16).expand(32, 1, 16, 16).contiguous()
    mask = torch.zeros_like(image)
    mask[:, :, 4:12, 4:12] = 1
    oracle = Oracle(torch.zeros_like(image), 0.1**2, TRAINED_WITH, residual_scale=4.0)
    first: list[float] = []
    oracle.register_forward_pre_hook(lambda _, args: first.append(float(args[1][0])))
    sampler = make_scheduler(scheduler, TRAINED_WITH)
    painted = paint_with(oracle, sampler, image, mask=mask, steps=20, strength=0.8)
    assert torch.equal(painted[mask < 0.5], image[mask < 0.5])
    guess = smooth_fill(image, 1 - mask)
    assert (painted - guess)[mask > 0.5].mean().abs() < 0.01
    assert 0.01 < float((painted - guess)[mask > 0.5].std()) < 0.04
    assert 700 < first[0] < 850
    assert abs(oracle.passes - PASSES.get(scheduler, 20)) <= 1


def test_strength_follows_the_label_and_never_shares_a_batch(checkpoint: Checkpoint) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=4, batch_size=2))
    weak, strong = replace(make_patch(1), strength=0.5), make_patch(1)
    together = inpainter.paint([weak, strong, weak], [5, 5, 5])
    assert together[0].tobytes() == together[2].tobytes() != together[1].tobytes()
    assert together[0].tobytes() == paint_one(inpainter, weak, 5).tobytes()


@pytest.mark.parametrize("strength", [0.0, 1.1])
def test_strength_outside_of_its_range_is_refused(checkpoint: Checkpoint, strength: float) -> None:
    inpainter = Inpainter(checkpoint, Diffusion(num_inference_steps=2))
    with pytest.raises(ValueError, match="strength"):
        inpainter.paint([replace(make_patch(0), strength=strength)], [0])


@pytest.mark.parametrize("steps", [4, 7, 30])
@pytest.mark.parametrize("scheduler", sorted({*SCHEDULERS} - {"deis", "pndm"}))  # never exact
def test_what_a_network_is_sure_of_is_painted_in_any_number_of_steps(
    scheduler: str, steps: int
) -> None:
    """No noise is left, also where the steps do not divide the schedule evenly."""
    mean = torch.linspace(-0.4, 0.4, 8).expand(4, 1, 8, 8)
    oracle = Oracle(mean, 1e-12, TRAINED_WITH)
    painted = paint_with(oracle, make_scheduler(scheduler, TRAINED_WITH), mean * 0, steps=steps)
    assert (painted - mean).abs().max() < 1e-3
