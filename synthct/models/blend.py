"""Regions larger than a network's box: painted in overlapping boxes whose outputs are blended."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from synthct.models.region import boxes_in

#: The index of a box in a tensor (B, C, H, W, D).
Place = tuple[slice, ...]


def blended(predict: Callable[[Place], Tensor], mask: Tensor, box: tuple[int, ...]) -> Tensor:
    """The outputs of a network for all boxes that show some of the mask, blended.

    Where they overlap each counts the more, the further a voxel lies from the border of its box.

    Args:
        predict: Gives (B, 1, h, w, d) for the box at a place.
        mask: (B, 1, H, W, D); 1 where the model paints.
        box: Its sides (h, w, d).

    Returns:
        (B, 1, H, W, D); meaningful inside the mask only.
    """
    sides = tuple(mask.shape[2:])
    if sides == box:
        return predict((slice(None),) * 5)
    weight = box_weight(box).to(mask.device)
    total, weights = torch.zeros_like(mask), torch.zeros_like(mask)
    for place in boxes_in(sides, box):
        at = (slice(None), slice(None), *place)
        if not bool((mask[at] > 0.5).any()):
            continue
        total[at] += weight * predict(at)
        weights[at] += weight
    return total / weights.clamp_min(1e-6)


def box_weight(box: tuple[int, ...]) -> Tensor:
    """The weight of a box's output: 1 in its middle, falling to nearly 0 at its sides."""
    weight = torch.ones(())
    for side in box:
        place = torch.arange(side) + 0.5
        ramp = torch.minimum(place, side - place) / (side / 2)
        weight = weight[..., None] * ramp
    return weight
