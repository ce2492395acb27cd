"""What all kinds of masks share: the fields of their recipe section, and the `Mask` they build.

A kind is a frozen model with two methods: ``draw`` makes every random decision and returns it as
JSON, ``build`` turns that JSON into the very same mask again. Coordinates in that JSON are RAS+
millimetres of the host, so they mean the same on any grid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from synthct.errors import MaskError
from synthct.volume import Array, Box, Index3, Volume, shifted
from synthct.volume.anatomy import LesionFacts
from synthct.volume.case import Case
from synthct.volume.regions import Region, move

Params = dict[str, Any]
LabelPolicy = Literal["paint", "keep", "ignore", "relabel"]
LesionChange = Literal["added", "removed"]


class SeveralSlices(BaseModel):
    """Which slices of a 3D mask become samples; they share a ``lesion_id``.

    Attributes:
        every_mm: Distance from one to the next, counted from the largest; every slice if None.
        min_area_mm2: Slices that show less of the mask are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    every_mm: Annotated[float, Field(gt=0)] | None = None
    min_area_mm2: Annotated[float, Field(ge=0)] = 0.0


SliceRule = Literal["random", "largest", "all"] | SeveralSlices


class PlacementError(MaskError):
    """No legal mask was found within the allowed tries.

    Attributes:
        reasons: How often each reason, such as ``outside_tissue``, ended a try.
    """

    def __init__(self, message: str, reasons: Counter[str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons.most_common())

    @classmethod
    def after_tries(cls, what: str, reasons: Counter[str], advice: str) -> Self:
        """Nothing was found: what, how often each reason ended a try, and what to change."""
        counted = ", ".join(f"{name} {number}" for name, number in reasons.most_common())
        return cls(f"{what} ({counted}); {advice}", reasons)

    @property
    def reason(self) -> str:
        """The commonest reason: what the rejection is counted under."""
        return next(iter(self.reasons), "unknown")


class MaskSection(BaseModel):
    """The fields that every section of ``masks`` in a recipe may have.

    A kind that ``needs_donor`` takes shapes from another source, which its field ``donor_key``
    names: from other patients or, where ``donor_is_host``, from what that source says of the
    host's own case. It says with ``changes_lesion`` whether painting adds or removes a lesion, with
    ``values_by_voxel`` that its masks carry what the label map gets, and with ``unnamed_paint``
    what is painted where the recipe names no label.

    Attributes:
        name: Names the section in sample ids.
        label: What the model is asked to paint; None for whatever fits.
        weight: Share of the draws, relative to the other sections.
        slices: Which slice of a 3D mask a 2D sample shows: one drawn by area among those with at
            least a quarter of the largest area, or the largest; or several, each a sample.
        max_extent_mm: Paint only a random part of at most this extent where the whole is larger:
            of the slice, or of the 3D mask where several slices are taken.
        label_map: What the label map gets under the mask: the painted label (``paint``), 255
            (``ignore``), what was there (``keep``), or what a program of the user's says of the
            painted picture (``relabel``); by default what suits the kind.
        pair: Also give the host's own slice, unpainted: with the lesion that is removed, or
            without the one that is painted. Both have the same ``pair_id``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs_donor: ClassVar[bool] = False
    donor_key: ClassVar[str] = "donors"
    donor_is_host: ClassVar[bool] = False
    changes_lesion: ClassVar[LesionChange | None] = None
    values_by_voxel: ClassVar[bool] = False
    unnamed_paint: ClassVar[str] = "whatever fits"

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$", max_length=40)]
    label: str | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    slices: SliceRule = "random"
    max_extent_mm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    label_map: LabelPolicy | None = None
    pair: bool = False

    @model_validator(mode="after")
    def _pairs_differ_in_a_lesion(self) -> Self:
        if self.pair and self.changes_lesion is None:
            raise ValueError("pair is for kinds that add or remove a lesion; remove it")
        return self

    def wanted_labels(self) -> tuple[str, ...]:
        """The labels without which a host is of no use to this section."""
        return ()

    def useful_labels(self) -> tuple[str, ...]:
        """Further labels that are obeyed where the host has them."""
        return ()

    def shape_labels(self) -> tuple[str, ...]:
        """The labels, of the donor if there is one, that the mask's extent follows."""
        return self.donor_labels() or self.wanted_labels() or self.useful_labels()

    def donor_labels(self) -> tuple[str, ...]:
        """The labels that a donor must have."""
        return ()

    def likely_extent_mm(self, volume_ml: float) -> float:
        """About how many mm a mask reaches along an axis; for planning, before any is drawn.

        Args:
            volume_ml: Volume of the labels that the shape comes from; 0 if there is none.
        """
        return float(2 * (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3))

    def painted_labels(self) -> tuple[str, ...]:
        """The labels that the recipe lets the model paint; empty for whatever fits."""
        return () if self.label is None else (self.label,)

    def donor_lesions(self) -> tuple[str, str] | None:
        """The label whose connected parts donors lend, and the organ that these lie in."""
        return None

    def takes(self, lesions: Sequence[LesionFacts]) -> list[LesionFacts]:
        """Those of a donor's lesions that can be lent."""
        return list(lesions)

    def takes_split(self, split: str) -> bool:
        """Whether donors of a split are wanted."""
        del split
        return True

    def label_policy(self) -> LabelPolicy:
        """``label_map``, or what suits the kind where the recipe leaves it open."""
        return self.label_map or "ignore"

    def leaves_unknown(self) -> bool:
        """Whether label maps get 255 somewhere."""
        return self.label_policy() == "ignore"

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Make every random decision; the only place where ``rng`` is used.

        Raises:
            MaskError: If nothing legal can be drawn; a `PlacementError` where tries were counted.
        """
        raise NotImplementedError

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The mask that ``params`` of ``draw`` describe; the same voxels every time.

        Raises:
            MaskError: If host or donor are not the ones the parameters were drawn for.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Mask:
    """Where the model paints, and what.

    Attributes:
        region: Boolean crop on the host's grid, with the affine of the crop.
        box: Where ``region`` lies in the host, in voxels.
        label: What is painted; None for whatever fits.
        facts: Measured numbers as JSON, such as ``volume_ml`` and those of ``accept``.
        values: What the label map gets under the mask, of ``region``'s shape, where a kind decides
            that voxel by voxel; None where one value goes for all.
        core: Boolean of ``region``'s shape: what a slice must show, such as a lesion without its
            margin; None for any of the mask.
    """

    region: Volume
    box: Box
    label: str | None
    facts: dict[str, Any] = field(default_factory=dict)
    values: Array | None = None
    core: Region | None = None

    def __post_init__(self) -> None:
        if self.region.shape != self.box.shape or self.region.array.dtype != bool:
            raise ValueError(
                f"a mask of {self.region.array.dtype} {self.region.shape} is not its box's "
                f"{self.box.shape} booleans"
            )
        for other in (self.values, self.core):
            if other is not None and other.shape != self.box.shape:
                raise ValueError(f"values or core {other.shape} are not of {self.box.shape}")

    @property
    def volume_ml(self) -> float:
        """Volume of the true voxels in ml."""
        return int(np.count_nonzero(self.region.array)) * self.region.voxel_volume_ml

    def only(self, region: Region) -> Mask | None:
        """The mask with the voxels of ``region`` only, tightly boxed; None if there is none.

        Args:
            region: Boolean of the mask's shape.
        """
        tight = Box.around(region)
        if tight is None:
            return None
        crop = Volume(region, self.region.affine).crop(tight)
        values, core = (
            None if array is None else np.ascontiguousarray(array[tight.slices])
            for array in (self.values, self.core)
        )
        return Mask(
            Volume(np.ascontiguousarray(crop.array), crop.affine),
            move(tight, self.box.start_ijk),
            self.label,
            self.facts,
            values,
            core,
        )

    def in_host(self, shape: Index3) -> Region:
        """The mask as a boolean array of the host's ``shape`` (I, J, K)."""
        whole = np.zeros(shape, dtype=bool)
        whole[self.box.slices] = self.region.array
        return whole


def make_mask(
    host: Case,
    region: Region,
    start_ijk: Index3,
    label: str | None,
    facts: dict[str, Any],
    values: Array | None = None,
    core: Region | None = None,
) -> Mask:
    """A mask tightly around the true voxels of ``region``, with the facts that all masks have.

    Args:
        host: The case that is painted into.
        region: Boolean (I, J, K), a box of the host's grid.
        start_ijk: Host voxel of ``region[0, 0, 0]``.
        label: What is painted.
        facts: Numbers of the kind, added to volume and extent.
        values: Label values of ``region``'s shape, see `Mask`.
        core: Boolean of ``region``'s shape, see `Mask`.

    Raises:
        MaskError: If no voxel is true.
    """
    whole = Volume(region, shifted(host.labels.affine, start_ijk))
    box = move(Box((0, 0, 0), whole.shape), start_ijk)
    mask = Mask(whole, box, label, facts, values, core).only(region)
    if mask is None:
        raise MaskError(f"case {host.case_id}: the mask holds no voxel of the scan's grid")
    around = mask.box.grow((1, 1, 1))
    extent = [n * s for n, s in zip(mask.box.shape, host.labels.spacing_mm, strict=True)]
    common = {
        "voxels": int(np.count_nonzero(mask.region.array)),
        "volume_ml": round(mask.volume_ml, 4),
        "extent_mm": [round(e, 2) for e in extent],
        "touches_border": around.clip(host.labels.shape) != around,
    }
    facts.update(common)
    return mask


def box_around(points_mm: npt.NDArray[np.float64], volume: Volume) -> Box:
    """The box of voxels of ``volume`` that covers points (N, 3) in RAS+ mm; may leave it."""
    inverse = np.linalg.inv(volume.affine)
    ijk = points_mm @ inverse[:3, :3].T + inverse[:3, 3]
    (i, j, k), (i2, j2, k2) = np.floor(ijk.min(axis=0)), np.ceil(ijk.max(axis=0)) + 1
    return Box((int(i), int(j), int(k)), (int(i2), int(j2), int(k2)))


def voxel_centres(box: Box, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """RAS+ mm of the voxel centres of ``box``, as (I, J, K, 3); the box may leave the volume."""
    axes = [
        np.arange(a, b, dtype=np.float64) for a, b in zip(box.start_ijk, box.stop_ijk, strict=True)
    ]
    i, j, k = (
        axis.reshape([-1 if n == at else 1 for n in range(3)])[..., None] * affine[:3, at]
        for at, axis in enumerate(axes)
    )
    return np.asarray(i + j + k + affine[:3, 3])


def check_drawn_for(params: Params, role: str, case: Case) -> None:
    """Check that ``params`` were drawn for ``case``.

    Raises:
        MaskError: If they name another one.
    """
    if params.get(role) != case.case_id:
        raise MaskError(
            f"case {case.case_id}: these parameters were drawn for {role} {params.get(role)}; "
            "replay them with that case"
        )
