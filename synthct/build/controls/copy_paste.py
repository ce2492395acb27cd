"""The donor's own voxels, carried into the host with the shape they fill (TumorCP, 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.build.controls.border import Border
from synthct.build.controls.tissue import median_hu, shift_hu
from synthct.build.draw import DrawnMask
from synthct.errors import MaskError
from synthct.masks.base import Mask, voxel_centres
from synthct.masks.transplant import Transplant
from synthct.models.methods import CopyPaste
from synthct.recipe.plan import Plan
from synthct.recipe.recipe import Recipe
from synthct.volume import Affine, Box, nearest_outside, shifted
from synthct.volume.case import Case
from synthct.volume.regions import structure
from synthct.volume.views import Plane

FloatArray = npt.NDArray[np.float32]

#: Voxels around the lesions; far from them, a cubic spline's end does not matter any more.
MARGIN = (4, 4, 4)


@dataclass(frozen=True, eq=False)
class Copied:
    """The voxels of a donor's lesion, as the host would have shown them.

    Attributes:
        drawn: The transplant.
        section: Its section of the recipe.
        donor: The case that the voxels are of.
        spline: (I, J, K) float32, cubic spline coefficients of the donor's HU around the lesion.
        affine: (4, 4), from voxels of ``spline`` to RAS+ mm of the donor.
        range_hu: Least and greatest HU in the lesion.
        shift_hu: Added to the donor's HU; None where the organs could not be compared.
        border: Where the host fades into them.
    """

    drawn: DrawnMask
    section: Transplant
    donor: Case
    spline: FloatArray
    affine: Affine
    range_hu: tuple[float, float]
    shift_hu: float | None
    border: Border

    @classmethod
    def require(cls, recipe: Recipe, method: CopyPaste, plan: Plan) -> None:
        """As in ``Control``: every donor needs an image."""
        del method
        donors = {d.case_id: d for spec in plan.specs for d in spec.donors}
        if bare := [name for name, donor in sorted(donors.items()) if donor.image is None]:
            more = f" and {len(bare) - 6} more" if len(bare) > 6 else ""
            message = (
                f"copy_paste pastes the donors' own voxels, and {len(bare)} of {len(donors)} have "
                f"no image: {', '.join(bare[:6])}{more}; add their images, leave them out with "
                "'exclude' in their source (in all arms, so that the masks stay the same), or use "
                "noise_fill"
            )
            raise recipe.error(("inpaint", "method"), message)

    @classmethod
    def of(cls, drawn: DrawnMask, method: CopyPaste, view: Plane) -> Copied:
        """Take the lesion from the donor's image, and compare the two patients' organs.

        Raises:
            MaskError: If there is no donor, or it has no image.
        """
        from scipy.ndimage import spline_filter

        del view
        if drawn.section.kind != "transplant" or drawn.donor is None:
            raise MaskError(
                f"mask '{drawn.section.name}' has no donor whose voxels could be pasted"
            )
        donor, section = drawn.donor, drawn.section
        hu, affine = _lesion_hu(donor, section.label)
        return cls(
            drawn=drawn,
            section=section,
            donor=donor,
            spline=spline_filter(hu, order=3, output=np.float32),
            affine=affine,
            range_hu=(float(hu.min()), float(hu.max())),
            shift_hu=shift_hu(
                float(np.median(donor.scan().array[donor.region(section.label)])),
                median_hu(drawn.host, section.into),
                median_hu(donor, section.into),
            ),
            border=Border(drawn.mask, method.border_mm),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """By what the donor's HU were shifted."""
        return {"shift_hu": self.shift_hu}

    def sized(self, mask: Mask) -> Copied:
        """The same paint for the drawn mask in another size."""
        return replace(self, border=self.border.of(mask))

    def paint(self, flat: Mask, rng: np.random.Generator) -> FloatArray:
        """HU (N,) of the true voxels of ``flat``; nothing is random in it."""
        from scipy.ndimage import map_coordinates

        del rng
        whole = Box((0, 0, 0), flat.box.shape)
        points = voxel_centres(whole, flat.region.affine)[flat.region.array]
        origins = self.section.origins(self.donor, self.drawn.params, points)
        inverse = np.linalg.inv(self.affine)
        places = (origins @ inverse[:3, :3].T + inverse[:3, 3]).T
        hu = map_coordinates(self.spline, places, order=3, mode="nearest", prefilter=False)
        # A spline overshoots at edges; tissue does not.
        hu = np.clip(hu, *self.range_hu) + np.float32(self.shift_hu or 0.0)
        return self.border.blend(self.drawn.host, flat, hu)


def _lesion_hu(donor: Case, label: str) -> tuple[FloatArray, Affine]:
    """HU around a donor's lesions, in which everything else is as the nearest voxel of a lesion.

    A carried lesion is smooth where the donor's voxels are coarse, so its rim lies between lesion
    and surroundings; and those are not to be pasted.

    Returns:
        (I, J, K) float32, and the affine of that crop.
    """
    region, box = structure(donor, [label])
    padded = np.pad(region, [(n, n) for n in MARGIN])
    nearest = nearest_outside(~padded, donor.labels.affine)
    hu = np.pad(donor.scan().array[box.slices], [(n, n) for n in MARGIN], mode="edge")
    crop = shifted(donor.labels.affine, box.grow(MARGIN).start_ijk)
    return hu[tuple(nearest)].astype(np.float32), crop
