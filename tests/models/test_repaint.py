"""RePaint: an unconditional network paints what fits to what is known, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import RePaintScheduler
from foreign_checkpoints import SIDE, count_passes, write_unconditional
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint, CheckpointFiles
from synthct.models.networks.unconditional import Unconditional
from synthct.models.painting import Inpainter, Job
from synthct.models.patch import Patch
from synthct.volume.intensity import SOFT_TISSUE

LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear", "clip_sample": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Checkpoint:
    return load_checkpoint(str(write_unconditional(tmp_path_factory.mktemp("ddpm") / "ddpm")))


def patch_of(image: Any, mask: Any) -> Patch:
    return Patch(
        image=np.asarray(image, dtype=np.float32),
        mask=np.asarray(mask, dtype=bool),
        own=np.asarray(mask, dtype=bool),
        label=0,
        codec=SOFT_TISSUE,
        spacing_mm=(0.8, 0.8),
        origin=(0, 0),
        scale=(1.0, 1.0),
    )


def random_patch(seed: int, size: int = SIDE) -> Patch:
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), dtype=bool)
    row, column = rng.integers(2, size - 14, 2)
    mask[row : row + 11, column : column + 9] = True
    return patch_of(rng.uniform(-1, 1, (size, size)), mask)


class Oracle(nn.Module):
    """A perfect network: of all that a sample may be, its answer is the mean."""

    def __init__(self, schedule: dict[str, Any], channels: int = 1) -> None:
        super().__init__()
        self.config = SimpleNamespace(in_channels=channels)
        self.place = nn.Parameter(torch.zeros(1))  # on which device
        told = {k: v for k, v in schedule.items() if k != "clip_sample"}
        self.levels = RePaintScheduler(**told).alphas_cumprod.double()

    def forward(self, noisy: Tensor, t: int) -> SimpleNamespace:
        clean = self.levels[t]
        a, b = float(clean.sqrt()), float((1 - clean).sqrt())
        noise = (noisy.double() - a * self.meant(noisy.double(), a, b)) / b
        return SimpleNamespace(sample=noise.float())

    def meant(self, noisy: Tensor, a: float, b: float) -> Tensor:
        raise NotImplementedError


class OfConstants(Oracle):
    """For images of one value throughout, drawn from N(0, 0.5)."""

    def meant(self, noisy: Tensor, a: float, b: float) -> Tensor:
        count = noisy.shape[1:].numel()
        sums = noisy.sum(dim=(1, 2, 3), keepdim=True)
        return (a * 0.25 * sums / (a**2 * 0.25 * count + b**2)).expand_as(noisy)


class OfNoise(Oracle):
    """For images whose pixels are drawn from N(0.2, 0.3), each for itself."""

    def meant(self, noisy: Tensor, a: float, b: float) -> Tensor:
        return 0.2 + a * 0.09 / (a**2 * 0.09 + b**2) * (noisy - a * 0.2)


def method_of(unet: nn.Module, schedule: dict[str, Any], steps: int, *jumps: int) -> Unconditional:
    files = CheckpointFiles(
        name="oracle",
        folder=Path(),
        revision=None,
        hashes={},
        configs={"unet": {}, "scheduler": schedule},
        training={},
        network=Unconditional,
    )
    length, times = jumps
    inpaint = Diffusion(
        scheduler="repaint",
        num_inference_steps=steps,
        jump_length=length,
        jump_n_sample=times,
    )
    return Unconditional(Checkpoint(files, {"unet": unet}), inpaint, ())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2", "scaled_linear"])
def test_a_hole_in_a_constant_image_is_painted_constant(schedule: str, channels: int) -> None:
    told = {**LINEAR, "beta_schedule": schedule}
    method = method_of(OfConstants(told, channels), told, 50, 5, 3)
    mask = np.zeros((24, 24), dtype=bool)
    mask[5:15, 8:20] = True
    values = (-0.7, 0.1, 0.6)
    # What lies inside of the mask must have no influence.
    patches = [patch_of(np.where(mask, -v, v), mask) for v in values]
    painted = method.paint_batch(patches, [1, 2, 3]).numpy()
    for value, pixels in zip(values, painted, strict=True):
        assert np.array_equal(pixels[~mask], np.full((~mask).sum(), value, dtype=np.float32))
        assert np.abs(pixels[mask] - value).max() < 0.02


def test_resampling_leaves_a_perfect_networks_distribution_as_it_is() -> None:
    """``undo_step`` of diffusers adds too much noise where steps are skipped: 0.04 here."""
    patches = [patch_of(np.full((32, 32), 0.2), np.ones((32, 32))) for _ in range(8)]
    spread = {}
    for jumps in [(1, 1), (10, 5), (4, 3)]:
        method = method_of(OfNoise(LINEAR), LINEAR, 50, *jumps)
        painted = method.paint_batch(patches, list(range(8))).numpy()
        assert abs(painted.mean() - 0.2) < 0.01
        spread[jumps] = painted.std()
    assert spread[1, 1] == pytest.approx(0.3, abs=0.03)
    assert [spread[10, 5], spread[4, 3]] == pytest.approx([spread[1, 1]] * 2, abs=0.02)


@pytest.mark.long
def test_without_skipped_steps_it_is_the_scheduler_of_diffusers(checkpoint: Checkpoint) -> None:
    """The loop of diffusers' RePaintPipeline, with ``undo_step``."""
    steps, jumps = 24, (4, 3)
    told = {**checkpoint.files.scheduler_config, "num_train_timesteps": steps}
    patch = random_patch(0)
    ours = method_of(checkpoint["unet"], told, steps, *jumps).paint_batch([patch], [7])[0]

    scheduler, generator = RePaintScheduler(num_train_timesteps=steps), torch.Generator()
    scheduler.set_timesteps(steps, *jumps)
    image = torch.from_numpy(patch.image)[None, None]
    known = torch.from_numpy(~patch.mask).float()[None, None]
    noisy = torch.randn(image.shape, generator=generator.manual_seed(7))
    last = int(scheduler.timesteps[0]) + 1
    for t in scheduler.timesteps.tolist():
        if t < last:
            with torch.no_grad():
                noise = checkpoint["unet"](noisy, t).sample
            noisy = scheduler.step(noise, t, noisy, image, known, generator).prev_sample
        else:
            noisy = scheduler.undo_step(noisy, last, generator)
        last = t
    assert (ours - noisy[0, 0].clamp(-1, 1)).abs()[torch.from_numpy(patch.mask)].max() < 1e-4


def test_bits_depend_on_neither_place_nor_companions(checkpoint: Checkpoint) -> None:
    inpaint = Diffusion(
        scheduler="repaint",
        num_inference_steps=4,
        jump_length=1,
        jump_n_sample=2,
        batch_size=3,
    )
    inpainter = Inpainter(checkpoint, inpaint)
    jobs = [Job(n, random_patch(n), 100 + n) for n in range(5)]
    alone = {job.key: inpainter.paint([job.patch], [job.seed])[0] for job in jobs}
    for order in (jobs, jobs[::-1], jobs[2:] + jobs[:2]):
        for key, pixels in inpainter.stream(order):
            assert pixels.tobytes() == alone[key].tobytes()
    assert not np.array_equal(alone[0], inpainter.paint([jobs[0].patch], [9])[0])


def test_paint_fills_the_mask_and_nothing_else(checkpoint: Checkpoint) -> None:
    inpainter = Inpainter(
        checkpoint,
        Diffusion(scheduler="repaint", num_inference_steps=4, jump_length=1, jump_n_sample=2),
    )
    patch = random_patch(3)
    (painted,) = inpainter.paint([patch], [1])
    assert np.array_equal(painted[~patch.mask], patch.image[~patch.mask])
    assert (painted[patch.mask] != patch.image[patch.mask]).mean() > 0.9
    assert np.abs(painted).max() <= 1


def test_half_precision_paints_about_the_same(checkpoint: Checkpoint) -> None:
    halved = Inpainter(
        checkpoint,
        Diffusion(
            scheduler="repaint",
            num_inference_steps=4,
            jump_length=1,
            jump_n_sample=2,
            dtype="bfloat16",
        ),
    )
    whole = Inpainter(
        checkpoint,
        Diffusion(
            scheduler="repaint",
            num_inference_steps=4,
            jump_length=1,
            jump_n_sample=2,
            dtype="float32",
        ),
    )
    patch = random_patch(0)
    (coarse,), (fine,) = (one.paint([patch], [1]) for one in (halved, whole))
    assert 0 < np.abs(coarse - fine).max() < 0.1


def test_passes_are_counted(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    inpainter = Inpainter(
        checkpoint,
        Diffusion(scheduler="repaint", num_inference_steps=20, jump_length=5, jump_n_sample=3),
    )
    passes = count_passes(checkpoint["unet"], monkeypatch)
    inpainter.paint([random_patch(0)], [1])
    assert len(passes) == inpainter.network.passes > 20
    passes.clear()
    inpainter.probe(SIDE)
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": "ddim"}, "unconditional model, .* set scheduler to repaint, not ddim"),
        ({"guidance_scale": 3.0}, "takes no label.* guidance_scale to 1, not 3"),
        ({"num_inference_steps": 240}, "num_inference_steps 240 .* divisor, such as 250"),
        ({"num_inference_steps": 2}, "cannot paint in num_inference_steps 2"),
        ({"num_inference_steps": 1}, "cannot paint in num_inference_steps 1"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(
    checkpoint: Checkpoint, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        Inpainter(
            checkpoint, Diffusion(**{"scheduler": "repaint", "num_inference_steps": 20, **settings})
        )


def test_other_checkpoints_do_not_repaint(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="'repaint' is for unconditional checkpoints"):
        Inpainter(load_checkpoint(str(tiny_checkpoint)), Diffusion(scheduler="repaint"))
