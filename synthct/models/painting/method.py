"""What every way of painting with a network has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from synthct.models.patch import Patch


class Method(Protocol):
    """A network with its scheduler, to which patches of one size are given together.

    A sample's bits may depend on the shape of the batch, but not on its place or companions there.

    Attributes:
        passes: Of the network, for one batch.
        device: Where the network is.
    """

    passes: int
    device: torch.device

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """Paint some patches.

        Args:
            patches: All of one size and strength.
            seeds: Of the noise, one per patch.

        Returns:
            (B, S, S) in -1..1, equal to the images outside of the masks; NaN where the network or
            the scheduler overflowed.
        """
        ...

    def probe(self, size: int) -> None:
        """One pass of the network on an empty patch, to know how long it takes."""
        ...


class Tensors(NamedTuple):
    """What all methods make of a batch.

    Attributes:
        image: (B, 1, S, S) in -1..1.
        mask: (B, 1, S, S); 1 where the model paints.
        generators: One on the CPU per sample, so that its noise does not depend on its companions.
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
