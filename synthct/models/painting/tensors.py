"""Patches as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from synthct.models.patch import Patch


class Tensors(NamedTuple):
    """The tensors of a batch.

    Attributes:
        image: (B, 1, S, S) in -1..1.
        mask: (B, 1, S, S); 1 where the model paints.
        generators: One per sample, on the CPU, so that noise depends on the sample only.
    """

    image: Tensor
    mask: Tensor
    generators: list[torch.Generator]


def as_tensors(patches: Sequence[Patch], seeds: Sequence[int], device: torch.device) -> Tensors:
    """Patches as tensors on the device of the network."""
    image = np.stack([p.image for p in patches])[:, None]
    mask = np.stack([p.mask for p in patches])[:, None].astype(np.float32)
    return Tensors(
        torch.from_numpy(image).to(device),
        torch.from_numpy(mask).to(device),
        [torch.Generator().manual_seed(seed) for seed in seeds],
    )
