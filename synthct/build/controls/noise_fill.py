"""Noise at the level and with the grain of what is to be painted, measured on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.build.controls.border import Border
from synthct.build.controls.grain import Grain, measure_grain
from synthct.build.controls.tissue import median_hu, shift_hu, tissue_around, tissue_of
from synthct.build.draw import DrawnMask
from synthct.errors import MaskError
from synthct.masks.base import Mask
from synthct.masks.transplant import Transplant
from synthct.models.methods import NoiseFill
from synthct.recipe.plan import Plan
from synthct.recipe.recipe import Recipe
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.regions import Region
from synthct.volume.views import VIEW_AXIS, Plane

#: HU of what a host may not have. Organs: the middle of the range of their medians over many
#: scans (NV-Generate-CT). Tumours: the middle of what homogeneous papillary renal carcinomas show
#: in the portal venous phase, 41 to 95. Cysts: water, as Bosniak's classification has it.
REFERENCE_HU = {
    "bone": 344.0,
    "cyst": 10.0,
    "kidney": 107.0,
    "lesion": 68.0,
    "liver": 85.0,
    "lung": -652.0,
    "pancreas": 58.0,
    "spleen": 100.0,
    "tumor": 68.0,
}

#: Slices are measured, from the mask's own outwards, until there are so many voxels.
ENOUGH_VOXELS = 5000


@dataclass(frozen=True, eq=False)
class Noise:
    """The texture that fills a mask.

    Attributes:
        host: The case that is painted into.
        grain: Its level, spread and autocorrelation.
        axis: Along which slices are one voxel thick.
        source: Whose level it has: ``host``, ``around``, ``recipe``, ``donor``, ``reference``.
        border: Where the host fades into it.
    """

    host: Case
    grain: Grain
    axis: int
    source: str
    border: Border

    @classmethod
    def require(cls, recipe: Recipe, method: NoiseFill, plan: Plan) -> None:
        """As in ``Control``: every label needs a host, a donor or a reference that shows it."""
        known = REFERENCE_HU | method.reference_hu
        for spec in plan.specs:
            shown = known.keys() | spec.host.labels.keys()
            if spec.donors and all(donor.image is not None for donor in spec.donors):
                shown |= spec.donors[0].labels.keys()
            for label in spec.section.painted_labels():
                if label not in shown:
                    message = (
                        f"nothing says what '{label}' looks like: host {spec.host.case_id} has "
                        "none, and not all of its donors have an image; add it, as in "
                        f"reference_hu: {{{label}: 60}}"
                    )
                    raise recipe.error(("inpaint", "method"), message)

    @classmethod
    def of(cls, drawn: DrawnMask, method: NoiseFill, view: Plane) -> Noise:
        """Measure what is to be painted.

        Raises:
            MaskError: If there is nothing to measure, and no reference.
        """
        host, mask = drawn.host, drawn.mask
        tissue = None if mask.label is None else tissue_of(host, mask.label, mask, view)
        border = Border(mask, method.border_mm)
        if tissue is not None:
            grain = _grain_of(host, tissue, mask, view)
            return cls(host, grain, VIEW_AXIS[view], "host", border)
        grain = _grain_of(host, tissue_around(host, mask), mask, view)
        if mask.label is None:
            return cls(host, grain, VIEW_AXIS[view], "around", border)
        level, source = _level_elsewhere(drawn, mask.label, method)
        return cls(host, replace(grain, median_hu=level), VIEW_AXIS[view], source, border)

    @property
    def facts(self) -> dict[str, Any]:
        """What was measured, and where."""
        return {
            "fill_hu": round(self.grain.median_hu, 2),
            "fill_of": self.source,
            "grain_std_hu": round(self.grain.std_hu, 2),
            "grain_voxels": self.grain.voxels,
        }

    def sized(self, mask: Mask) -> Noise:
        """The same paint for the drawn mask in another size."""
        return replace(self, border=self.border.of(mask))

    def paint(self, flat: Mask, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """HU (N,) of the true voxels of ``flat``; another stream, another noise."""
        inside = flat.region.array.squeeze(self.axis)
        rows, columns = inside.shape
        field = self.grain.median_hu + self.grain.field((rows, columns), rng)
        return self.border.blend(self.host, flat, field[inside].astype(np.float32))


def _grain_of(host: Case, tissue: tuple[Region, Box], mask: Mask, view: Plane) -> Grain:
    """The grain of a tissue, in the slices nearest to the middle of the mask."""
    region, box = tissue
    axis = VIEW_AXIS[view]
    middle = (mask.box.start_ijk[axis] + mask.box.stop_ijk[axis]) / 2 - box.start_ijk[axis]
    order = np.argsort(np.abs(np.arange(region.shape[axis]) + 0.5 - middle), kind="stable")
    hu = host.scan().array[box.slices]
    planes, regions, voxels = [], [], 0
    for index in order.tolist():
        here = region.take(index, axis=axis)
        count = int(np.count_nonzero(here))
        if count:
            planes.append(hu.take(index, axis=axis))
            regions.append(here)
        voxels += count
        if voxels >= ENOUGH_VOXELS:
            break
    spacing = [s for a, s in enumerate(host.labels.spacing_mm) if a != axis]
    return measure_grain(planes, regions, (spacing[0], spacing[1]))


def _level_elsewhere(drawn: DrawnMask, label: str, method: NoiseFill) -> tuple[float, str]:
    """HU of a label that the host does not have, and whose they are.

    Raises:
        MaskError: If neither the recipe, the donor's image nor a reference says it.
    """
    if label in method.reference_hu:
        return method.reference_hu[label], "recipe"
    section, donor = drawn.section, drawn.donor
    organ = section.into if isinstance(section, Transplant) else None
    own = None if organ is None else median_hu(drawn.host, organ)
    if donor is not None and (level := median_hu(donor, label)) is not None:
        other = None if organ is None else median_hu(donor, organ)
        return level + (shift_hu(level, own, other) or 0.0), "donor"
    if label not in REFERENCE_HU:
        raise MaskError(
            f"case {drawn.host.case_id}: nothing says what '{label}' looks like, which neither the "
            f"host nor a donor with an image has; give inpaint.reference_hu: {{{label}: HU}}"
        )
    level = REFERENCE_HU[label]
    other = None if organ is None else REFERENCE_HU.get(organ)
    return level + (shift_hu(level, own, other) or 0.0), "reference"
