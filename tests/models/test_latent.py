"""Latent inpainting guided by text: what goes in, what comes back, and as diffusers paints it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline
from foreign_checkpoints import SIDE, count_passes, write_text_model
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint
from synthct.models.painting import Inpainter, Job
from synthct.models.patch import Patch, PatchRules, cut_patches, paste_patches
from synthct.volume import Volume
from synthct.volume.intensity import SOFT_TISSUE

PROMPTS = ("ct slice", "a kidney", "a tumor of a kidney")
RULES = PatchRules(("kidney",), {"default": SOFT_TISSUE}, (SIDE,), (0.01, 100.0))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Checkpoint:
    return load_checkpoint(str(write_text_model(tmp_path_factory.mktemp("text") / "text")))


def random_patch(seed: int, label: int = 1) -> Patch:
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    row, column = 2 * rng.integers(1, 9, 2)
    mask[row : row + 10, column : column + 8] = True
    image = rng.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    return Patch(image, mask, mask, label, SOFT_TISSUE, (0.8, 0.8), (0, 0), (1.0, 1.0))


def inpainter_of(
    checkpoint: Checkpoint, prompts: Sequence[str | None] = PROMPTS, **settings: Any
) -> Inpainter:
    """Prompts by the number of a label; the first for whatever fits."""
    labels = ("default", *(f"label {n}" for n in range(1, len(prompts))))
    by_label = {name: text for name, text in zip(labels, prompts, strict=True) if text is not None}
    fields = {"scheduler": "ddim", "num_inference_steps": 3, "prompt": by_label, **settings}
    return Inpainter(checkpoint, Diffusion(**fields), labels[1:])


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_it_paints_what_the_pipeline_of_diffusers_paints(
    checkpoint: Checkpoint, guidance_scale: float
) -> None:
    patch = random_patch(0, label=2)
    (ours,) = inpainter_of(checkpoint, guidance_scale=guidance_scale).paint([patch], [5])
    assert checkpoint["text"] is not None
    tokenizer = checkpoint["text"].tokenizer
    tokenizer.model_max_length = 77
    pipeline = StableDiffusionInpaintPipeline(
        vae=checkpoint["vae"],
        text_encoder=checkpoint["text"].encoder,
        tokenizer=tokenizer,
        unet=checkpoint["unet"],
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
            timestep_spacing="trailing", clip_sample=False, steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn((1, 4, SIDE // 2, SIDE // 2), generator=torch.Generator().manual_seed(5))
    theirs = pipeline(
        prompt=PROMPTS[2],
        image=(torch.from_numpy(patch.image)[None, None].expand(1, 3, -1, -1) + 1) / 2,
        mask_image=torch.from_numpy(patch.mask).float()[None, None],
        height=SIDE,
        width=SIDE,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        latents=latents,
        output_type="np",
    ).images[0]
    difference = (ours + 1) / 2 - theirs.mean(axis=2)
    unclipped = ((theirs > 0.001) & (theirs < 0.999)).all(axis=2) & patch.mask
    assert unclipped.sum() > 0.5 * patch.mask.sum()
    assert np.abs(difference[unclipped]).max() < 2e-4


class Lossless(nn.Module):
    """An autoencoder that folds blocks of 2 by 2 pixels of three channels into latents."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(in_channels=3, scaling_factor=0.5, block_out_channels=(1, 1))

    def encode(self, image: Tensor) -> SimpleNamespace:
        assert image.shape[1] == 3
        assert torch.equal(image[:, 0], image[:, 1])
        assert torch.equal(image[:, 0], image[:, 2])
        self.seen = image
        latents = nn.functional.pixel_unshuffle(image, 2)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=nn.functional.pixel_shuffle(latents, 2))


class Knowing(nn.Module):
    """A network that knows the latents of the truth, and so predicts just the noise."""

    def __init__(self, truth: Tensor, levels: Tensor) -> None:
        super().__init__()
        self.truth, self.levels = truth, levels
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, seen: Tensor, t: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        noisy, self.cells, self.known = seen.split([12, 1, 12], dim=1)
        a, b = self.levels[int(t)].sqrt(), (1 - self.levels[int(t)]).sqrt()
        return SimpleNamespace(sample=(noisy - a * self.truth) / b)


def test_a_network_that_knows_the_noise_gives_back_the_very_hu(checkpoint: Checkpoint) -> None:
    """From HU through codec, channels, latents and scale, and back; oblong and not centred."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-150, 251, (40, 36, 1)).astype(np.int16)
    region = np.zeros(hu.shape, dtype=bool)
    region[20:29, 5:12] = True  # odd in size and place: latent pixels lie across its border
    ct, mask = Volume(hu, np.eye(4)), Volume(region, np.eye(4))
    (patch,) = cut_patches(ct, mask, "kidney", RULES)
    vae = Lossless()
    truth = 0.5 * vae.encode(torch.from_numpy(patch.image).expand(1, 3, -1, -1)).latent_dist.mode()
    levels = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).alphas_cumprod
    unet = Knowing(truth, levels)
    faked = replace(checkpoint, components={**checkpoint.components, "unet": unet, "vae": vae})
    (painted,) = inpainter_of(faked, num_inference_steps=10).paint([patch], [1])
    pasted = paste_patches(ct, mask, [patch], [painted]).array
    assert np.abs(pasted.astype(int) - hu)[region].max() <= 1
    assert np.array_equal(pasted[~region], hu[~region])
    # What is masked was hidden, in pixels and in every latent that one of them is part of.
    hidden = torch.from_numpy(patch.mask)
    assert (vae.seen[:, :, hidden] == 0).all()
    assert unet.cells.repeat_interleave(2, 2).repeat_interleave(2, 3)[0, 0][hidden].all()
    assert torch.allclose(unet.known, 0.5 * nn.functional.pixel_unshuffle(vae.seen, 2))


def test_bits_depend_on_neither_place_nor_companions(checkpoint: Checkpoint) -> None:
    inpainter = inpainter_of(checkpoint, scheduler="ddpm", batch_size=3, guidance_scale=2.0)
    jobs = [Job(n, random_patch(n, n % 3), 100 + n) for n in range(5)]
    alone = {job.key: inpainter.paint([job.patch], [job.seed])[0] for job in jobs}
    for order in (jobs, jobs[::-1], jobs[2:] + jobs[:2]):
        for key, pixels in inpainter.stream(order):
            assert pixels.tobytes() == alone[key].tobytes()


def test_paint_depends_on_seed_prompt_and_surroundings(checkpoint: Checkpoint) -> None:
    inpainter, patch = inpainter_of(checkpoint), random_patch(0)
    (first,) = inpainter.paint([patch], [1])
    assert np.array_equal(first[~patch.mask], patch.image[~patch.mask])
    brighter = np.where(patch.mask, patch.image, np.float32(0.9))
    for other, seed in [
        (patch, 2),
        (replace(patch, label=2), 1),
        (replace(patch, image=brighter), 1),
    ]:
        assert not np.array_equal(
            inpainter.paint([other], [seed])[0][patch.mask], first[patch.mask]
        )
    hidden = np.where(patch.mask, np.float32(0.25), patch.image)
    assert np.array_equal(inpainter.paint([replace(patch, image=hidden)], [1])[0], first)


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "euler", "heun", "pndm", "unipc", "lms"])
def test_every_kind_of_scheduler_paints(checkpoint: Checkpoint, scheduler: str) -> None:
    inpainter = inpainter_of(checkpoint, scheduler=scheduler, num_inference_steps=4)
    patch = random_patch(0)
    (first,), (again,) = (inpainter.paint([patch], [1]) for _ in range(2))
    assert np.abs(first).max() <= 1
    assert np.array_equal(first, again)


def test_half_precision_paints_about_the_same(checkpoint: Checkpoint) -> None:
    halved = inpainter_of(checkpoint, dtype="bfloat16")
    whole = inpainter_of(checkpoint, dtype="float32")
    patch = random_patch(0)
    (coarse,), (fine,) = (one.paint([patch], [1]) for one in (halved, whole))
    assert 0 < np.abs(coarse - fine).max() < 0.1


def test_passes_are_counted(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    inpainter = inpainter_of(checkpoint, guidance_scale=2.0)
    passes = count_passes(checkpoint["unet"], monkeypatch)
    inpainter.paint([random_patch(0)], [1])
    assert len(passes) == inpainter.network.passes == 6
    passes.clear()
    inpainter.probe(SIDE)
    assert len(passes) == 1


def test_a_label_without_a_prompt_is_not_painted(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="is guided by text; give it a prompt"):
        inpainter_of(checkpoint, prompts=(None, "a kidney")).paint([random_patch(0, 0)], [1])


def test_text_is_padded_to_one_length_and_never_cut(checkpoint: Checkpoint) -> None:
    text = checkpoint["text"]
    assert text is not None
    assert text.tokenizer.pad_token == "!"
    assert text.encode("a kidney").shape == text.encode("").shape == (77, 16)
    assert not torch.equal(text.encode("a kidney"), text.encode("a tumor"))
    assert torch.equal(text.encode("A  Kidney"), text.encode("a kidney"))
    text.encode("kidney " * 75)
    with pytest.raises(CheckpointError, match="reads 77 tokens and the prompt has 78"):
        text.encode("kidney " * 76)


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    folder = write_text_model(tmp_path / "text")
    before = torch.random.get_rng_state()
    load_checkpoint(str(folder))
    assert torch.equal(torch.random.get_rng_state(), before)
