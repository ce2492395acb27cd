"""Controls: paints without a model, which a diffusion model must beat on the same masks.

A control is made once for a drawn mask and then paints it slice by slice.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from synthct.build.controls.copy_paste import Copied
from synthct.build.controls.noise_fill import REFERENCE_HU, Noise
from synthct.build.draw import Drawn
from synthct.masks import Mask
from synthct.models.methods import CopyPaste, NoiseFill
from synthct.volume.views import View

__all__ = ["REFERENCE_HU", "Control", "control_for"]


class Control(Protocol):
    """The paint of one drawn mask."""

    @property
    def facts(self) -> dict[str, Any]:
        """What was measured for it, as JSON."""

    def paint(self, flat: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """HU (N,) of the true voxels, in C order, of ``flat``, a slice of the drawn mask."""


def control_for(drawn: Drawn, method: CopyPaste | NoiseFill, view: View) -> Control:
    """The control that a recipe asks for, with what it needs to know of host and donor.

    Raises:
        MaskError: If the donor has no image, or there are no statistics of the label.
    """
    if isinstance(method, CopyPaste):
        return Copied.of(drawn, method)
    return Noise.of(drawn, method, view)
