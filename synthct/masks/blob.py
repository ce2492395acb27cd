"""Blob masks: smooth random lumps anywhere in tissue, for training and for yardsticks."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from synthct.masks.base import (
    Mask,
    MaskSection,
    Params,
    PlacementError,
    box_around,
    check_drawn_for,
    make_mask,
    voxel_centres,
)
from synthct.masks.shape import WavyShape, draw_rotation, draw_waves
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.regions import Region, largest_part, seen_through, structure

#: Below this is air or lung, not tissue.
TISSUE_HU = -200


class Blob(MaskSection):
    """A wavy ellipsoid around a random place.

    Attributes:
        within: Structure that holds the blob's centre and to which the blob is cut; None for
            anywhere in tissue (above -200 HU), not cut.
        radius_mm: The three semi-axes are drawn from this range, each at least ``flatness`` times
            the longest.
        flatness: Least ratio of the shortest to the longest semi-axis.
        roughness: Height of the waves as a share of the radius; 0 gives a plain ellipsoid.
        tissue_fraction: Least share of the blob above -200 HU; not asked for with ``within``.
        tries: So many places are tried.
    """

    kind: Literal["blob"] = "blob"
    within: str | None = None
    radius_mm: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=150)]] = (8.0, 30.0)
    flatness: Annotated[float, Field(gt=0, le=1)] = 0.5
    roughness: Annotated[float, Field(ge=0, le=0.6)] = 0.3
    tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.8
    tries: Annotated[int, Field(ge=1, le=200)] = 30

    @field_validator("radius_mm")
    @classmethod
    def _range_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the range {list(value)} must rise: [least, greatest]")
        return value

    def wanted_labels(self) -> tuple[str, ...]:
        """The structure that holds the blob, if there is one."""
        return () if self.within is None else (self.within,)

    def likely_extent_mm(self, volume_ml: float) -> float:
        """The mean diameter; the structure that holds the blob says nothing of its size."""
        del volume_ml
        return sum(self.radius_mm)

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw a place and a shape until the blob lies in tissue.

        Raises:
            PlacementError: If it never does.
        """
        del donor
        organ = None if self.within is None else structure(host, [self.within])
        places = None if organ is None else np.argwhere(organ[0]) + organ[1].start_ijk
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            if places is not None:
                voxel = places[rng.integers(len(places))]
            else:
                voxel = _place_in_tissue(host, rng)
            if voxel is None:
                reasons["no_tissue"] += 1
                continue
            shape = self._draw_shape(host, voxel, rng)
            region, box = self._solid(host, shape, organ)
            if self._is_legal(host, region, box):
                return {
                    "kind": self.kind,
                    "host": host.case_id,
                    "within": self.within,
                    "shape": shape.as_json(),
                    "attempt": attempt,
                }
            reasons["outside_tissue"] += 1
        raise PlacementError.after_tries(
            f"case {host.case_id}: no place for a blob of {self.radius_mm[0]:g}.."
            f"{self.radius_mm[1]:g} mm after {self.tries} tries",
            reasons,
            "allow smaller radii or more tries",
        )

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The blob, cut to its organ and to the scan."""
        del donor
        check_drawn_for(params, "host", host)
        organ = None if params["within"] is None else structure(host, [params["within"]])
        region, box = self._solid(host, WavyShape.from_json(params["shape"]), organ)
        return make_mask(host, region, box.start_ijk, self.label, {"attempt": params["attempt"]})

    def _draw_shape(
        self, host: Case, voxel: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> WavyShape:
        low, high = self.radius_mm
        longest = float(rng.uniform(low, high))
        others = rng.uniform(max(low, self.flatness * longest), longest, 2)
        affine = host.labels.affine
        centre = affine[:3, :3] @ (voxel + rng.uniform(-0.5, 0.5, 3)) + affine[:3, 3]
        x, y, z = centre.round(3).tolist()
        b, c = others.round(3).tolist()
        return WavyShape(
            (x, y, z),
            (round(longest, 3), b, c),
            draw_rotation(rng, 180),
            draw_waves(rng, longest, self.roughness),
        )

    def _solid(
        self, host: Case, shape: WavyShape, organ: tuple[Region, Box] | None
    ) -> tuple[Region, Box]:
        """The blob on the host's grid, its largest part, cut to the organ."""
        box = box_around(shape.corners_mm(), host.labels).clip(host.labels.shape)
        if 0 in box.shape:
            return np.zeros((1, 1, 1), dtype=bool), Box((0, 0, 0), (1, 1, 1))
        region = shape.contains(voxel_centres(box, host.labels.affine))
        if organ is not None:
            region &= seen_through(box, *organ)
        return largest_part(region), box

    def _is_legal(self, host: Case, region: Region, box: Box) -> bool:
        if not region.any():
            return False
        if self.within is not None:
            return True
        hu = host.scan().array[box.slices][region]
        return float((hu > TISSUE_HU).mean()) >= self.tissue_fraction


def _place_in_tissue(host: Case, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
    """A voxel of tissue from a few hundred random ones; None if the scan has hardly any."""
    voxels = rng.integers(host.labels.shape, size=(256, 3))
    i, j, k = voxels.T
    found = np.flatnonzero(host.scan().array[i, j, k] > TISSUE_HU)
    return voxels[found[0]] if found.size else None
