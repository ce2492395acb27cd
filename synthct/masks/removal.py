"""Lesion removal: a lesion of the host and a margin, painted as the organ around it.

In the label map, each voxel of the lesion becomes the nearest organ value. Other structures and
other lesions are never painted over.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from synthct.errors import MaskError, counted
from synthct.masks.base import (
    LabelPolicy,
    LesionChange,
    Mask,
    MaskSection,
    Params,
    PlacementError,
    Rising,
    check_drawn_for,
    has_voxels,
    make_mask,
)
from synthct.masks.grow import grow_within
from synthct.volume import Array, Box, nearest_outside, plane_spacing_mm
from synthct.volume.anatomy import exophytic_share, lesion_parts
from synthct.volume.case import Case
from synthct.volume.regions import Region, move
from synthct.volume.views import IGNORE

#: The organ around a lesion is the most frequent structure within this distance (or one voxel).
NEIGHBOURHOOD_MM = 3.0

#: Names of lesions, which are not painted as an organ; the part before may name the organ.
_LESION_NAME = re.compile(r"(^|_)(tumou?r|cyst|lesion|nodule|metastas[ie]s|mass|gtv)s?(_|$)")

#: Organs that are read to find the one around a lesion, in sources with a file per structure.
ORGANS = (
    "adrenal_gland", "brain", "colon", "kidney", "liver", "lung", "pancreas", "prostate",
    "spleen", "stomach", "urinary_bladder",
)  # fmt: skip


class Removal(MaskSection):
    """A lesion of the host, to be painted as healthy tissue.

    Attributes:
        lesion: Structure or union whose connected parts are removed.
        label: Organ that is painted and written to the label map; by default the one in the
            lesion's name (``kidney_tumor``), else the most frequent structure within 3 mm.
        part: One random lesion, the largest, or all those in the largest one's organ.
        margin_mm: Margin of the mask around the lesion; never into other structures.
        margin_into: ``organ``: the margin lies in the organ only, which keeps its outline;
            ``surroundings``: also in unlabelled surroundings, where the label map gets 255
            ("ignore"), since the painted organ's border is unknown.
        volume_ml: Least and greatest volume of a lesion that is removed.
        max_exophytic_share: Greatest share of the lesion's surface that does not border on the
            organ: a lesion that is attached by little would leave a bump of organ.
    """

    changes_lesion: ClassVar[LesionChange | None] = "removed"
    values_by_voxel: ClassVar[bool] = True
    default_label_map: ClassVar[LabelPolicy] = "paint"
    unnamed_paint: ClassVar[str] = "the organ around it"

    kind: Literal["removal"] = "removal"
    lesion: str
    part: Literal["random", "largest", "all"] = "random"
    margin_mm: Annotated[float, Field(ge=0, le=30)] = 3.0
    margin_into: Literal["organ", "surroundings"] = "organ"
    volume_ml: Annotated[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0, le=5000)]], Rising
    ] = (0.05, 5000.0)
    max_exophytic_share: Annotated[float, Field(gt=0, le=1)] = 0.7

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.label == self.lesion:
            raise ValueError(f"label is the organ to paint, not the lesion '{self.lesion}' itself")
        if self.max_extent_mm is not None:
            raise ValueError("a lesion is removed as a whole; remove max_extent_mm")
        return self

    def required_labels(self) -> tuple[str, ...]:
        """The lesion, and the organ if the recipe names it."""
        return (self.lesion, *super().painted_labels())

    def optional_labels(self) -> tuple[str, ...]:
        """Organs that may be around the lesion, if the recipe names none."""
        return ORGANS if self.label is None else ()

    def shape_labels(self) -> tuple[str, ...]:
        """The lesion."""
        return (self.lesion,)

    def leaves_unknown(self) -> bool:
        """Whether label maps get 255 (ignore): by the policy, or in unlabelled margins."""
        margins = self.margin_mm > 0 and self.margin_into == "surroundings"
        return super().leaves_unknown() or (margins and self.label_policy() == "paint")

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Choose the lesion and find the organ around it.

        Raises:
            MaskError: If the host has no such lesion.
            PlacementError: If no lesion is within ``volume_ml``, or none lies in an organ.
        """
        del donor
        lesions = _Lesions(host, self.lesion)
        least, most = self.volume_ml
        reasons: Counter[str] = Counter()
        organs: dict[int, str] = {}
        for number, volume_ml in enumerate(lesions.volumes_ml, start=1):
            if not least <= volume_ml <= most:
                reasons["too_small" if volume_ml < least else "too_large"] += 1
                continue
            organ = self.label or lesions.organ_of(number)
            if organ is None:
                reasons["no_organ"] += 1
            elif lesions.exophytic_share([number], organ) > self.max_exophytic_share:
                reasons["exophytic"] += 1
            else:
                organs[number] = organ
        if not organs:
            raise PlacementError.after_tries(
                f"case {host.case_id}: no '{self.lesion}' of {least:g} to {most:g} ml in an organ",
                reasons,
                "widen volume_ml or max_exophytic_share, or name the organ as label",
            )
        first = min(organs)
        if self.part == "random":
            first = list(organs)[int(rng.integers(len(organs)))]
        chosen = [first]
        if self.part == "all":
            chosen = [n for n, organ in organs.items() if organ == organs[first]]
        return {
            "kind": self.kind,
            "host": host.case_id,
            "lesion": self.lesion,
            "parts": chosen,
            "organ": organs[first],
            "margin_mm": self.margin_mm,
            "margin_into": self.margin_into,
        }

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The lesion and its margin, with the new label value of each voxel.

        Raises:
            MaskError: If the parameters are another host's, or its label map has changed.
        """
        del donor
        check_drawn_for(params, "host", host)
        lesions = _Lesions(host, params["lesion"])
        inner, start = lesions.crop(params["parts"])
        organ = host.values_of(params["organ"])
        region, lesion, box = grow_within(host.labels, inner, start, params["margin_mm"])
        labels = host.labels.array[box.slices]
        free = np.isin(labels, organ)
        values = np.where(lesion, _nearest_organ(host, lesion, box, organ), labels)
        if params["margin_into"] == "surroundings":
            free |= labels == 0
            values[labels == 0] = IGNORE
        region = lesion | (region & free)
        count = int(np.count_nonzero(lesion))
        facts = {
            "organ": params["organ"],
            "lesion_volume_ml": round(count * host.labels.voxel_volume_ml, 4),
            "lesion_fraction": round(count / int(np.count_nonzero(region)), 4),
            "exophytic_share": lesions.exophytic_share(params["parts"], params["organ"]),
            "lesions": len(params["parts"]),
            "lesions_left": len(lesions.volumes_ml) - len(params["parts"]),
        }
        label = _general_name(host, params["organ"])
        return make_mask(host, region, box.start_ijk, label, facts, values, lesion)


class _Lesions:
    """The connected parts of a host's lesion label, the largest first."""

    def __init__(self, host: Case, lesion: str) -> None:
        self.host, self.lesion = host, lesion
        self.numbers, counts, self.box = lesion_parts(host, lesion)
        self.volumes_ml = [count * host.labels.voxel_volume_ml for count in counts]

    def crop(self, parts: list[int]) -> tuple[Region, Box]:
        """Parts as a tight boolean crop, and its box in the host.

        Raises:
            MaskError: If there is no such part.
        """
        if not parts or not set(parts) <= set(range(1, len(self.volumes_ml) + 1)):
            has = f"has {counted(len(self.volumes_ml), 'part')}"
            raise MaskError(
                f"case {self.host.case_id}: '{self.lesion}' {has} but "
                f"parts {parts} were drawn; was its label map changed?"
            )
        region = np.isin(self.numbers, parts)
        tight = Box.around(region)
        assert tight is not None
        return region[tight.slices], move(tight, self.box.start_ijk)

    def exophytic_share(self, parts: list[int], organ: str) -> float:
        """Share of the surface of some parts that does not border on the organ."""
        host = self.host
        inner, start = self.crop(parts)
        _, lesion, box = grow_within(host.labels, inner, start, 0.0)
        in_organ = np.isin(host.labels.array[box.slices], host.values_of(organ))
        return round(exophytic_share(lesion, in_organ, plane_spacing_mm(host.labels.affine)), 4)

    def organ_of(self, number: int) -> str | None:
        """The organ in a part's name, else the one around it; None if there is none."""
        host = self.host
        inner, start = self.crop([number])
        reach_mm = max(NEIGHBOURHOOD_MM, *host.labels.spacing_mm)
        near, lesion, box = grow_within(host.labels, inner, start, reach_mm)
        labels = host.labels.array[box.slices]
        own = np.bincount(labels[lesion]).argmax()
        structure_of = {value: name for name, value in host.label_names.items()}
        organ = _LESION_NAME.split(structure_of[int(own)])[0]
        if has_voxels(host, organ):
            return organ
        counts = np.bincount(labels[near & ~lesion], minlength=1)
        voxels = {
            name: int(counts[value])
            for value, name in structure_of.items()
            if value < counts.size and counts[value] and not _LESION_NAME.search(name)
        }
        return max(voxels, key=voxels.__getitem__, default=None)


def _nearest_organ(
    host: Case, lesion: Region, box: Box, organ: tuple[int, ...]
) -> npt.NDArray[np.integer]:
    """For each voxel of ``box`` the nearest value of the organ, which may have several values."""
    labels: Array = host.labels.array
    if len(organ) == 1:
        return np.full(lesion.shape, organ[0], dtype=labels.dtype)
    wide = box.grow([2 * n for n in box.shape]).clip(labels.shape)
    near = labels[wide.slices]
    if not np.isin(near, organ).any():
        wide, near = Box((0, 0, 0), host.labels.shape), labels
    away = ~np.isin(near, organ)
    if away.all():
        return np.full(lesion.shape, organ[0], dtype=labels.dtype)
    places = nearest_outside(away, host.labels.affine)
    offset = [a - b for a, b in zip(box.start_ijk, wide.start_ijk, strict=True)]
    inside = tuple(slice(o, o + n) for o, n in zip(offset, box.shape, strict=True))
    i, j, k = (axis[inside] for axis in places)
    return np.asarray(near[i, j, k])


def _general_name(host: Case, organ: str) -> str:
    """The largest union that contains an organ (a side or lobe), since checkpoints know unions."""
    unions = [name for name, parts in host.unions.items() if organ in parts]
    return max(unions, key=lambda name: len(host.unions[name]), default=organ)
