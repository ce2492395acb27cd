"""Controls: paints without a network, which a network must beat on the same masks.

A control is made once for a drawn mask and then paints it slice by slice.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from synthct.build.controls.copy_paste import Copied
from synthct.build.controls.noise_fill import REFERENCE_HU, Noise
from synthct.build.draw import DrawnMask
from synthct.masks.base import Mask
from synthct.models.methods import CopyPaste, Inpaint, NoiseFill
from synthct.recipe.plan import Plan
from synthct.recipe.recipe import Recipe
from synthct.volume.views import Plane

__all__ = ["REFERENCE_HU", "Control", "control_for", "require_paint"]


class Control(Protocol):
    """The paint of one drawn mask."""

    @classmethod
    def require(cls, recipe: Recipe, method: Any, plan: Plan) -> None:
        """Make sure that the planned scans hold what it paints with.

        Raises:
            RecipeError: If they do not; says which.
        """

    @classmethod
    def of(cls, drawn: DrawnMask, method: Any, view: Plane) -> "Control":
        """Measure host and donor of a drawn mask.

        Raises:
            MaskError: If the donor has no image, or there are no statistics of the label.
        """

    @property
    def facts(self) -> dict[str, Any]:
        """Its measurements, as JSON."""

    def sized(self, mask: Mask) -> "Control":
        """The same paint for the drawn mask in another size."""

    def paint(self, flat: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """HU (N,) of the true voxels, in C order, of ``flat``, a slice of the drawn mask."""


#: The control of each method of a recipe that needs no network.
CONTROLS: dict[type, type[Control]] = {CopyPaste: Copied, NoiseFill: Noise}


def control_for(drawn: DrawnMask, method: Inpaint, view: Plane) -> Control | None:
    """The control that a recipe asks for; None where a network paints.

    Raises:
        MaskError: If the donor has no image, or there are no statistics of the label.
    """
    control = CONTROLS.get(type(method))
    return None if control is None else control.of(drawn, method, view)


def require_paint(recipe: Recipe, plan: Plan) -> None:
    """Make sure that the planned scans hold what a control paints with.

    Raises:
        RecipeError: If donors whose voxels are to be pasted have no image, or no source shows a
            label that a host does not have.
    """
    if (control := CONTROLS.get(type(recipe.inpaint))) is not None:
        control.require(recipe, recipe.inpaint, plan)
