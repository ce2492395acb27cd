"""A tiny network in 3D, as training writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import TINY_PAINTS
from diffusers import DDPMScheduler

from synthct.models.volume_unet import VolumeInpaintPipeline, VolumeUNet
from synthct.models.vox2vox import Vox2VoxGenerator, Vox2VoxInpaintPipeline

#: Its fields: boxes of 32 x 32 x 8 voxels.
TINY_VOLUME: dict[str, Any] = {
    "patch_sizes": (32,),
    "depth": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "spacing_range_mm": (0.5, 3.1),
    "slice_range_mm": (0.5, 4.0),
}


def tiny_unet(seed: int = 0, **fields: Any) -> VolumeUNet:
    """A network of random numbers that depends on everything a trained one depends on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: VolumeUNet = VolumeUNet(**{"labels": TINY_PAINTS, **TINY_VOLUME, **fields})
        for name, weight in unet.named_parameters():
            if "through.weight" in name or name == "label_embedding.weight":
                torch.nn.init.normal_(weight, std=0.3)
    unet.eval().requires_grad_(False)
    return unet


def write_tiny_volume(folder: Path, *, seed: int = 0, **fields: Any) -> Path:
    """A checkpoint of ``tiny_unet``."""
    noise = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    VolumeInpaintPipeline(tiny_unet(seed, **fields), noise).save_pretrained(folder)
    return folder


#: Fields of a tiny Med-DDPM: boxes of 16 x 16 x 8 voxels.
TINY_MED_DDPM: dict[str, Any] = {
    "patch_sizes": (16,),
    "depth": 8,
    "block_out_channels": (4, 8, 8),
    "norm_num_groups": 4,
    "spacing_range_mm": (0.5, 3.1),
    "slice_range_mm": (0.5, 4.0),
}


def tiny_med_ddpm(**fields: Any) -> Any:
    """A Med-DDPM of random numbers; MONAI must be there."""
    from synthct.models.med_ddpm import MedDDPMUNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = MedDDPMUNet(**{**TINY_MED_DDPM, **fields})
        for name, weight in unet.named_parameters():
            if name.endswith("conv2.conv.weight") or name.startswith("unet.out"):
                torch.nn.init.normal_(weight, std=0.1)
    return unet.eval().requires_grad_(False)


def write_tiny_med_ddpm(folder: Path) -> Path:
    """A checkpoint of ``tiny_med_ddpm``."""
    from synthct.models.med_ddpm import MedDDPMInpaintPipeline

    noise = DDPMScheduler(
        250, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon", clip_sample=False
    )
    MedDDPMInpaintPipeline(tiny_med_ddpm(), noise).save_pretrained(folder)
    return folder


#: Fields of a tiny Vox2Vox: boxes of 32 x 32 x 32 voxels.
TINY_VOX2VOX: dict[str, Any] = {
    "patch_sizes": (32,),
    "depth": 32,
    "base_channels": 2,
    "spacing_range_mm": (0.5, 3.1),
    "slice_range_mm": (0.5, 4.0),
}


def tiny_vox2vox(**fields: Any) -> Vox2VoxGenerator:
    """A Vox2Vox of random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Vox2VoxGenerator = Vox2VoxGenerator(**{**TINY_VOX2VOX, **fields})
        for weight in made.parameters():
            if weight.ndim == 5:
                torch.nn.init.normal_(weight, std=0.3)
    made.eval().requires_grad_(False)
    return made


def write_tiny_vox2vox(folder: Path) -> Path:
    """A checkpoint of ``tiny_vox2vox``."""
    Vox2VoxInpaintPipeline(tiny_vox2vox()).save_pretrained(folder)
    return folder
