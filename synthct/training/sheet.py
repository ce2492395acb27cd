"""Sample sheets over training: masked input, painted, original, side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from PIL import Image

from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet
from synthct.training.data import Batch

ROWS, STEPS = 8, 20


def write_sheet(unet: PaletteUNet, noise: SchedulerMixin, batch: Batch, path: Path) -> None:
    """Paint the first patches of a batch and write them as a PNG, in the range of their codecs.

    Args:
        unet: The network, in evaluation mode.
        noise: The schedule it is trained with.
        batch: A training batch.
        path: The PNG to write.
    """
    few = {name: value[:ROWS] for name, value in batch.items()}
    pipeline = PaletteInpaintPipeline(
        unet, DPMSolverMultistepScheduler.from_config(noise.config, use_karras_sigmas=False)
    )
    pipeline.set_progress_bar_config(disable=True)
    painted = pipeline(
        image=few["image"],
        mask_image=few["mask"],
        label=few["label"],
        spacing_mm=few["spacing_mm"],
        generator=[torch.Generator().manual_seed(n) for n in range(len(few["label"]))],
        num_inference_steps=STEPS,
    )
    columns = [few["image"] * (1 - few["mask"]) - few["mask"], painted, few["image"]]
    # Axial slices are (left-right, back-front): turn them as a radiologist looks at them.
    tiles = torch.stack(columns, dim=1)[:, :, 0].flip(2, 3).transpose(2, 3)
    rows, three, height, width = tiles.shape
    sheet = tiles.permute(0, 2, 1, 3).reshape(rows * height, three * width)
    grey = ((sheet.float().cpu().numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
