"""Hand-made tumours: ellipsoids of four sizes with an elastic surface, inside an organ.

The shape of SyntheticTumors (Hu et al., "Label-Free Liver Tumor Segmentation", CVPR 2023), which
needs no donor: a control arm for transplanted lesions. Unlike there, it is deformed by the flow of
a smooth velocity field instead of a random grid, so that it never folds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field

from synthct.errors import MaskError
from synthct.masks.base import (
    LabelPolicy,
    LesionChange,
    Mask,
    MaskSection,
    Params,
    PlacementError,
    box_around,
    check_drawn_for,
    make_mask,
    voxel_centres,
)
from synthct.masks.deform import Displacement, Velocity, draw_velocity, flow
from synthct.masks.shape import draw_rotation, rotation_matrix
from synthct.volume import Box, distances_mm, voxels_within
from synthct.volume.anatomy import lesion_parts
from synthct.volume.case import Case
from synthct.volume.regions import Region, largest_part, seen_through

Size = Literal["tiny", "small", "medium", "large"]

#: Mean semi-axis of each size; each of the three is drawn from 0.75 to 1.25 of it.
RADIUS_MM: dict[Size, float] = {"tiny": 4.0, "small": 8.0, "medium": 16.0, "large": 32.0}
AXIS_RANGE = (0.75, 1.25)


class Ellipsoid(MaskSection):
    """An elastic ellipsoid in an organ, painted as a lesion.

    Attributes:
        label: Label that is painted, such as ``tumor``.
        into: The host's organ; the mask is cut to the connected part that holds its centre.
        sizes: Size classes, drawn with equal chance; tiny, small, medium and large have a mean
            semi-axis of 4, 8, 16 and 32 mm.
        elastic: Greatest displacement as a share of the mean semi-axis; 0 for a plain ellipsoid.
        inside_fraction: Least share of the ellipsoid in the organ before it is cut to it.
        organ_fraction: Greatest volume, as a share of the connected organ's.
        clearance_mm: Least distance to the structures of ``avoid`` and to others of ``label``.
        avoid: Structures to keep clear of, where the host has them.
        min_volume_ml: Least volume.
        tries: Number of places and shapes that are tried.
    """

    changes_lesion: ClassVar[LesionChange | None] = "added"
    default_label_map: ClassVar[LabelPolicy] = "paint"

    kind: Literal["ellipsoid"] = "ellipsoid"
    label: str
    into: str
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = get_args(Size)
    elastic: Annotated[float, Field(ge=0, le=1 / 3)] = 0.3
    inside_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    organ_fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    clearance_mm: Annotated[float, Field(ge=0, le=50)] = 3.0
    avoid: tuple[str, ...] = ("tumor", "cyst", "lesion")
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.05
    tries: Annotated[int, Field(ge=1, le=200)] = 30

    def required_labels(self) -> tuple[str, ...]:
        """The organ."""
        return (self.into,)

    def optional_labels(self) -> tuple[str, ...]:
        """The structures to keep clear of."""
        return tuple(dict.fromkeys((self.label, *self.avoid)))

    def likely_extent_mm(self, volume_ml: float) -> float:
        """The mean diameter over ``sizes``, whatever the organ's volume."""
        del volume_ml
        return sum(2 * RADIUS_MM[size] for size in self.sizes) / len(self.sizes)

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw sizes, shapes and places until one try keeps all limits.

        Raises:
            MaskError: If the host has no such organ.
            PlacementError: If no try keeps all limits; counts which limit each one broke.
        """
        del donor
        site = _OrganSite(host, self)
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            shape, bend = self._draw_shape(site, rng)
            params = {"kind": self.kind, "host": host.case_id, **shape, "attempt": attempt}
            reason = site.place(params, bend).reason
            if reason is None:
                return params
            reasons[reason] += 1
        raise PlacementError.after_tries(
            f"case {host.case_id}: no legal place in {self.into} for a {' or '.join(self.sizes)} "
            "ellipsoid",
            reasons,
            "allow smaller sizes, wider limits or more tries",
            tries=self.tries,
        )

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The ellipsoid, cut to its part of the organ; every limit is checked again.

        Raises:
            MaskError: If the host is not the drawn one, or a limit is broken.
        """
        del donor
        check_drawn_for(params, "host", host)
        bend = None
        if params["velocity"] is not None:
            bend = flow(Velocity.from_json(params["velocity"]), float(params["reach_mm"]))
        solid = _OrganSite(host, self).place(params, bend)
        if solid.reason is not None:
            raise MaskError(
                f"case {host.case_id}: the recorded ellipsoid breaks the limit {solid.reason}; "
                "draw it anew with the present limits"
            )
        facts = {"size": params["size"], **solid.facts, "attempt": params["attempt"]}
        return make_mask(host, solid.region, solid.box.start_ijk, self.label, facts)

    def _draw_shape(
        self, site: _OrganSite, rng: np.random.Generator
    ) -> tuple[Params, Displacement | None]:
        """Size, semi-axes, rotation, velocity and centre as JSON; and the velocity's flow."""
        size = self.sizes[int(rng.integers(len(self.sizes)))]
        radius = RADIUS_MM[size]
        radii = (radius * rng.uniform(*AXIS_RANGE, 3)).round(3)
        reach = round(float(radii.max()) + radius * self.elastic, 3)
        velocity, bend = draw_velocity(rng, radius, reach, radius * self.elastic) or (None, None)
        voxel = site.places[rng.integers(len(site.places))] + rng.uniform(-0.49, 0.49, 3)
        affine = site.host.labels.affine
        shape = {
            "size": size,
            "radii_mm": radii.tolist(),
            "reach_mm": reach,
            "rotation": list(draw_rotation(rng, 180)),
            "velocity": None if velocity is None else velocity.as_json(),
            "centre_mm": (affine[:3, :3] @ voxel + affine[:3, 3]).round(3).tolist(),
        }
        return shape, bend


@dataclass(frozen=True, eq=False)
class _PlacedEllipsoid:
    """An ellipsoid on the host's voxels, its measurements, and the limit it breaks, if any."""

    region: Region
    box: Box
    facts: dict[str, Any]
    reason: str | None


class _OrganSite:
    """The organ in the host, and the structures that the ellipsoid must keep clear of."""

    def __init__(self, host: Case, section: Ellipsoid) -> None:
        self.host, self.section = host, section
        self.parts, self.counts, self.box = lesion_parts(host, section.into)
        self.avoid = [
            value
            for name in dict.fromkeys((section.label, *section.avoid))
            if name in host.label_names or name in host.unions
            for value in host.values_of(name)
            if value not in host.values_of(section.into)
        ]

    @cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """The organ's voxels (N, 3), in the host."""
        return np.argwhere(self.parts > 0) + self.box.start_ijk

    def place(self, params: Params, bend: Displacement | None) -> _PlacedEllipsoid:
        """Put the ellipsoid on the host's voxels, cut it to the organ, and check all limits."""
        section, labels = self.section, self.host.labels
        whole, outer = self._voxels(params, bend)
        box = outer.clip(labels.shape)
        seen = seen_through(box, whole, outer)
        part = self._part_at(params["centre_mm"])
        organ = seen_through(box, (self.parts == part) & (part > 0), self.box)
        region = largest_part(seen & organ)
        count, before = int(np.count_nonzero(region)), int(np.count_nonzero(whole))
        inside = count / max(before, 1)
        share = count / self.counts[max(part, 1) - 1]
        limits = {
            "centre_outside": part == 0,
            "field_of_view": int(np.count_nonzero(seen)) < before,
            "inside_fraction": inside < section.inside_fraction,
            "organ_fraction": share > section.organ_fraction,
            "too_small": count * labels.voxel_volume_ml < section.min_volume_ml or count == 0,
            "clearance": self._is_too_near(region, box),
        }
        facts = {
            "inside_fraction": round(inside, 4),
            "organ_fraction": round(share, 4),
            "jacobian_min": 1.0 if bend is None else round(bend.jacobian_min, 4),
            "jacobian_max": 1.0 if bend is None else round(bend.jacobian_max, 4),
        }
        return _PlacedEllipsoid(
            region, box, facts, next((n for n, broken in limits.items() if broken), None)
        )

    def _voxels(self, params: Params, bend: Displacement | None) -> tuple[Region, Box]:
        """The whole ellipsoid on the host's grid, even beyond the scan."""
        centre, reach = np.asarray(params["centre_mm"]), float(params["reach_mm"])
        corners = np.array(np.meshgrid(*[(-reach, reach)] * 3, indexing="ij")).reshape(3, -1).T
        box = box_around(centre + corners, self.host.labels)
        points = voxel_centres(box, self.host.labels.affine) - centre
        if bend is not None:
            points = bend.move(points)
        w, x, y, z = params["rotation"]
        local = points @ rotation_matrix((w, x, y, z)) / np.asarray(params["radii_mm"])
        return np.asarray(np.einsum("...d,...d->...", local, local) <= 1.0), box

    def _part_at(self, centre_mm: list[float]) -> int:
        """Number of the organ's part that holds the centre; 0 if none does."""
        affine = self.host.labels.affine
        voxel = np.linalg.solve(affine[:3, :3], np.asarray(centre_mm) - affine[:3, 3])
        i, j, k = (np.rint(voxel).astype(int) - self.box.start_ijk).tolist()
        if min(i, j, k) < 0 or any(
            n >= m for n, m in zip((i, j, k), self.parts.shape, strict=True)
        ):
            return 0
        return int(self.parts[i, j, k])

    def _is_too_near(self, region: Region, box: Box) -> bool:
        """Whether a structure to avoid lies within the clearance."""
        labels = self.host.labels
        clearance_mm = self.section.clearance_mm
        wide = box.grow(voxels_within(clearance_mm, labels.affine))
        wide = wide.clip(labels.shape)
        near = np.isin(labels.array[wide.slices], self.avoid)
        if not near.any() or not region.any():
            return False
        distance = distances_mm(~near, labels.affine, reach_mm=clearance_mm)
        region_in_wide = seen_through(wide, region, box)
        return bool(distance[region_in_wide].min() <= clearance_mm)
