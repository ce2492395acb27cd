"""Patches as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from synthct.models.patch import Patch


def as_tensors(
    patches: Sequence[Patch], seeds: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, list[torch.Generator]]:
    """Stack patches of one size on the device of the network.

    Returns:
        Images (B, 1, S, S) in -1..1; masks (B, 1, S, S), 1 where the network paints; and one CPU
        generator per sample, so that its noise depends on its seed only.
    """
    image = np.stack([p.image for p in patches])[:, None]
    mask = np.stack([p.mask for p in patches])[:, None].astype(np.float32)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.from_numpy(image).to(device), torch.from_numpy(mask).to(device), generators


def noise_tensor(patches: Sequence[Patch], device: torch.device) -> Tensor | None:
    """The noise that patches of one size start from, (B, 1, S, S); None if theirs is drawn."""
    given = [p.noise for p in patches if p.noise is not None]
    return torch.from_numpy(np.stack(given)[:, None]).to(device) if given else None


def neighbours_tensor(patches: Sequence[Patch], device: torch.device) -> Tensor | None:
    """The neighbouring slices of patches of one size: (B, 2, S, S), NaN where nothing is known.

    None if no patch has any.
    """
    if all(p.neighbours is None for p in patches):
        return None
    nothing = np.full((2, patches[0].size, patches[0].size), np.nan, dtype=np.float32)
    stacked = np.stack([nothing if p.neighbours is None else p.neighbours for p in patches])
    return torch.from_numpy(stacked).to(device)


def level_tensor(patches: Sequence[Patch], device: torch.device) -> Tensor | None:
    """The medians of the paint of patches in -1..1, (B,), NaN where left open; None if all are."""
    stated = [np.nan if p.level_hu is None else p.level_hu for p in patches]
    if np.isnan(stated).all():
        return None
    levels = [p.codec.encode(np.array(hu)) for p, hu in zip(patches, stated, strict=True)]
    return torch.tensor(np.array(levels, dtype=np.float32), device=device)
