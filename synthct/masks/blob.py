"""Blob masks: smooth random shapes anywhere in tissue, for training and as a baseline."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from synthct.masks.base import (
    Mask,
    MaskSection,
    Params,
    PlacementError,
    Rising,
    box_around,
    check_drawn_for,
    make_mask,
    voxel_centres,
)
from synthct.masks.shape import WavyShape, draw_rotation, draw_waves
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.regions import Region, largest_part, seen_through, structure

#: Voxels below are air or lung, not tissue.
TISSUE_HU = -200


class Blob(MaskSection):
    """An ellipsoid with a wavy surface at a random place.

    Attributes:
        within: Structure that holds the blob's centre and to which the blob is cut; None for
            anywhere in tissue (above -200 HU), not cut.
        radius_mm: Range of the three semi-axes, each at least ``flatness`` times the longest.
        flatness: Least ratio of the shortest to the longest semi-axis.
        roughness: Height of the waves as a share of the radius; 0 gives a plain ellipsoid.
        tissue_fraction: Least share of the blob above -200 HU; ignored with ``within``.
        tries: Number of places that are tried.
    """

    kind: Literal["blob"] = "blob"
    within: str | None = None
    radius_mm: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=150)]], Rising
    ] = (8.0, 30.0)
    flatness: Annotated[float, Field(gt=0, le=1)] = 0.5
    roughness: Annotated[float, Field(ge=0, le=0.6)] = 0.3
    tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.8
    tries: Annotated[int, Field(ge=1, le=200)] = 30

    def required_labels(self) -> tuple[str, ...]:
        """``within``, if it is given."""
        return () if self.within is None else (self.within,)

    def likely_extent_mm(self, volume_ml: float) -> float:
        """The mean diameter, whatever the structure's volume."""
        del volume_ml
        return sum(self.radius_mm)

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw a place and a shape until the blob lies in tissue.

        Raises:
            PlacementError: If it never does.
        """
        return self.drawn(host, donor, rng)[1]

    def drawn(
        self, host: Case, donor: Case | None, rng: np.random.Generator
    ) -> tuple[Mask, Params]:
        """As ``draw``, with the blob that was looked at."""
        del donor
        organ = None if self.within is None else structure(host, [self.within])
        places = None if organ is None else np.argwhere(organ[0]) + organ[1].start_ijk
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            if places is not None:
                voxel = places[rng.integers(len(places))]
            else:
                voxel = place_in_tissue(host, rng)
            if voxel is None:
                reasons["no_tissue"] += 1
                continue
            shape = self._draw_shape(host, voxel, rng)
            region, box = self._solid(host, shape, organ)
            if self._is_legal(host, region, box):
                return self._mask(host, region, box, attempt), {
                    "kind": self.kind,
                    "host": host.case_id,
                    "within": self.within,
                    "shape": shape.as_json(),
                    "attempt": attempt,
                }
            reasons["outside_tissue"] += 1
        raise PlacementError.after_tries(
            f"case {host.case_id}: no place for a blob of {self.radius_mm[0]:g}.."
            f"{self.radius_mm[1]:g} mm",
            reasons,
            "allow smaller radii or more tries",
            tries=self.tries,
        )

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The blob, cut to its organ and to the scan."""
        del donor
        check_drawn_for(params, "host", host)
        organ = None if params["within"] is None else structure(host, [params["within"]])
        region, box = self._solid(host, WavyShape.from_json(params["shape"]), organ)
        return self._mask(host, region, box, params["attempt"])

    def _mask(self, host: Case, region: Region, box: Box, attempt: int) -> Mask:
        return make_mask(host, region, box.start_ijk, self.label, {"attempt": attempt})

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
        if self.within is not None or not region.any():
            return bool(region.any())
        hu = host.scan().array[box.slices][region]
        return float((hu > TISSUE_HU).mean()) >= self.tissue_fraction


def place_in_tissue(host: Case, rng: np.random.Generator) -> npt.NDArray[np.int64] | None:
    """The first of 256 random voxels that is tissue; None if none is."""
    voxels = rng.integers(host.labels.shape, size=(256, 3))
    i, j, k = voxels.T
    in_tissue = np.flatnonzero(host.scan().array[i, j, k] > TISSUE_HU)
    return voxels[in_tissue[0]] if in_tissue.size else None
