"""One lesion in several sizes: painted at its largest, of which every smaller step shows a part.

Painted anew at each size a lesion has another level each time: a network goes on with the organ in
a small mask, and paints a lesion into a large one, and grain draws a small one more towards the
organ around it (174, 133 and 114 HU in a kidney of 182). So a smaller step shows what was painted
of the largest, and its own paint at the rim, which goes over into the tissue there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from synthct.build.block import Block
from synthct.build.fronts import Stack
from synthct.models.patch import Patch
from synthct.volume import Volume

#: Less deep in its mask than this, a step shows some of its own paint.
RIM_MM = 1.5


@dataclass(frozen=True, eq=False)
class Step:
    """A step of a series that is smaller than the largest.

    Attributes:
        own: Its mask, painted as if it were alone.
        largest: The mask of the largest step, painted as there.
        region: Boolean, the largest mask in what the sample shows.
    """

    own: Stack | Block
    largest: Stack | Block
    region: Volume

    @property
    def patches(self) -> tuple[tuple[Patch, ...], ...]:
        """Those of both, its own first."""
        return (*self.own.patches, *self.largest.patches)


def parts_of(painted: Stack | Block | Step) -> tuple[Stack | Block, ...]:
    """What is painted for a volume, in the order of its patches."""
    return (painted.own, painted.largest) if isinstance(painted, Step) else (painted,)


def shown_of_largest(
    own: Volume, largest: Volume, mask: Volume, level_hu: float | None = None
) -> Volume:
    """What a smaller step shows.

    Args:
        own: HU with its own paint.
        largest: HU with that of the largest step.
        mask: Boolean, its mask, on the same grid.
        level_hu: The median that it is to have, since a part of the largest has another one than
            all of it; None to leave it.
    """
    inside = mask.array.astype(bool)
    depth_mm = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=mask.spacing_mm)
    share = np.minimum(depth_mm[1:-1, 1:-1, 1:-1][inside] / RIM_MM, 1)
    of_own, of_largest = (one.array[inside].astype(np.float32) for one in (own, largest))
    shown = of_own + share * (of_largest - of_own)
    if level_hu is not None:
        shown += np.float32(level_hu - np.median(shown))
    hu = np.zeros(own.shape, np.float32)
    hu[inside] = shown
    return own.paste(hu, where=inside)
