"""Base class of all mask kinds, and the `Mask` that they build.

A kind is a frozen model with two methods: ``draw`` makes every random decision and returns it as
JSON, ``build`` makes the same mask from that JSON every time. Coordinates in that JSON are RAS+
millimetres of the host, so they do not depend on the grid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from synthct.errors import MaskError, counted
from synthct.volume import Array, Box, Index3, Volume, shifted
from synthct.volume.anatomy import LesionFacts
from synthct.volume.case import Case
from synthct.volume.regions import Region, move

Params = dict[str, Any]
LabelPolicy = Literal["paint", "keep", "ignore", "relabel"]
LesionChange = Literal["added", "removed"]


def _not_falling(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the range {list(limits)} must rise: [least, greatest]")
    return limits


#: Marks a pair of numbers as a range: the first is at most the second.
Rising = AfterValidator(_not_falling)


class SeveralSlices(BaseModel):
    """Which slices of a 3D mask become samples; they share a ``lesion_id``.

    Attributes:
        every_mm: Distance between slices, counted from the one with the largest area; None for
            every slice.
        min_area_mm2: Least area of the mask on a slice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    every_mm: Annotated[float, Field(gt=0)] | None = None
    min_area_mm2: Annotated[float, Field(ge=0)] = 0.0


SliceRule = Literal["random", "largest", "all"] | SeveralSlices


class PlacementError(MaskError):
    """No try gave a mask that keeps all limits.

    Attributes:
        reasons: Reason, such as ``outside_tissue``, to the number of tries that failed for it.
    """

    def __init__(self, message: str, reasons: Counter[str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons.most_common())

    @classmethod
    def after_tries(
        cls, what: str, reasons: Counter[str], advice: str, *, tries: int | None = None
    ) -> Self:
        """The error with its counted reasons and an advice in the message."""
        after = "" if tries is None else f" after {counted(tries, 'try', 'tries')}"
        numbers = ", ".join(f"{name} {number}" for name, number in reasons.most_common())
        return cls(f"{what}{after} ({numbers}); {advice}", reasons)

    @property
    def reason(self) -> str:
        """The most frequent reason, under which the rejection is counted."""
        return next(iter(self.reasons), "unknown")


class MaskSection(BaseModel):
    """The fields that every section of ``masks`` in a recipe may have.

    Class variables describe a kind: ``needs_donor``: it takes shapes from the source that its field
    ``donor_key`` names, from other patients or, with ``donor_is_host``, from the host's own case
    there. ``changes_lesion``: painting adds or removes a lesion. ``values_by_voxel``: its masks
    carry label values. ``default_label_map``: the ``label_map`` where the recipe gives none.
    ``unnamed_paint``: what is painted where the recipe names no label.

    Attributes:
        name: Name of the section in sample ids.
        label: Label that the model paints; None for whatever fits.
        weight: Share of the draws, relative to the other sections.
        slices: Which slices of a 3D mask become 2D samples: ``random`` is one drawn by area among
            those with at least a quarter of the largest area; ``largest``, ``all`` or some.
        max_extent_mm: Paint at most this extent: of larger masks a random part, of the slice or,
            where several slices are taken, of the 3D mask.
        label_map: Label map under the mask: the painted label (``paint``), 255 (``ignore``), as
            before (``keep``), or the output of the user's program on the painted image
            (``relabel``); the default depends on the kind.
        pair: Also give the host's unpainted slice: with the lesion that is removed, or without
            the one that is painted. Both samples have the same ``pair_id``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs_donor: ClassVar[bool] = False
    donor_key: ClassVar[str] = "donors"
    donor_is_host: ClassVar[bool] = False
    changes_lesion: ClassVar[LesionChange | None] = None
    values_by_voxel: ClassVar[bool] = False
    default_label_map: ClassVar[LabelPolicy] = "ignore"
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
            raise ValueError("pair needs a kind that adds or removes a lesion; remove pair")
        return self

    def required_labels(self) -> tuple[str, ...]:
        """The labels that a host must have."""
        return ()

    def optional_labels(self) -> tuple[str, ...]:
        """Further labels that are used where the host has them."""
        return ()

    def all_labels(self) -> tuple[str, ...]:
        """Every label that it requires or can use, in the host or a donor."""
        return (*self.required_labels(), *self.optional_labels(), *self.donor_labels())

    def shape_labels(self) -> tuple[str, ...]:
        """The labels (of the donor, if there is one) that give the mask its shape."""
        return self.donor_labels() or self.required_labels() or self.optional_labels()

    def donor_labels(self) -> tuple[str, ...]:
        """The labels that a donor must have."""
        return ()

    def likely_extent_mm(self, volume_ml: float) -> float:
        """Estimated extent in mm along an axis, for planning.

        Args:
            volume_ml: Volume of ``shape_labels``; 0 if there are none.
        """
        return float(2 * (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3))

    def painted_labels(self) -> tuple[str, ...]:
        """The labels that the model may paint; empty for whatever fits."""
        return () if self.label is None else (self.label,)

    def donor_lesions(self) -> tuple[str, str] | None:
        """The lesion label that donors lend and the organ that it lies in; None without donors."""
        return None

    def eligible_lesions(self, lesions: Sequence[LesionFacts]) -> list[LesionFacts]:
        """The lesions of a donor that this section may use."""
        return list(lesions)

    def accepts_split(self, split: str) -> bool:
        """Whether donors of a split may be used."""
        del split
        return True

    def label_policy(self) -> LabelPolicy:
        """``label_map``, or the default of the kind."""
        return self.label_map or self.default_label_map

    def has_truth(self) -> bool:
        """Whether what was there before is what is to be painted."""
        return self.changes_lesion is None and self.label_policy() != "paint"

    def reaches_beyond(self) -> bool:
        """Whether masks hold more than the structure that is painted."""
        return False

    def leaves_unknown(self) -> bool:
        """Whether label maps get 255 (ignore) somewhere."""
        return self.label_policy() == "ignore"

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Make every random decision, and return them as JSON; only this method uses ``rng``.

        Raises:
            MaskError: If nothing legal can be drawn; a `PlacementError` where tries were counted.
        """
        raise NotImplementedError

    def drawn(
        self, host: Case, donor: Case | None, rng: np.random.Generator
    ) -> tuple[Mask, Params]:
        """A mask that was drawn and built, and the ``params`` of ``draw``; raises what that does.

        For kinds that build the mask to see whether it is legal.
        """
        params = self.draw(host, donor, rng)
        return self.build(host, donor, params), params

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """Build the mask from the ``params`` of ``draw``; the same voxels every time.

        Raises:
            MaskError: If the parameters were drawn for another host or donor.
        """
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Mask:
    """Where the model paints, and what.

    Attributes:
        region: Boolean crop on the host's grid, with the affine of the crop.
        box: Where ``region`` lies in the host, in voxels.
        label: Label that is painted; None for whatever fits.
        facts: Measured numbers as JSON, such as ``volume_ml``.
        values: Label values under the mask, of ``region``'s shape; None for one value everywhere.
        core: Boolean of ``region``'s shape that a slice must show some of, such as a lesion
            without its margin; None for the whole mask.
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

    def restricted_to(self, region: Region) -> Mask | None:
        """The mask cropped to ``region``, boolean of the mask's shape; None if that is empty."""
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
    """A `Mask` cropped to the true voxels of ``region``, with volume and extent among its facts.

    Args:
        host: The case that is painted into.
        region: Boolean (I, J, K) on the host's grid, from voxel ``start_ijk``.
        start_ijk: Host voxel of ``region[0, 0, 0]``.
        label: Label that is painted.
        facts: Further facts of the kind.
        values: Label values, see `Mask`.
        core: See `Mask`.

    Raises:
        MaskError: If no voxel is true.
    """
    whole = Volume(region, shifted(host.labels.affine, start_ijk))
    box = move(Box((0, 0, 0), whole.shape), start_ijk)
    mask = Mask(whole, box, label, facts, values, core).restricted_to(region)
    if mask is None:
        raise MaskError(f"case {host.case_id}: the mask holds no voxel of the scan's grid")
    around = mask.box.grow((1, 1, 1))
    extent = [n * s for n, s in zip(mask.box.shape, host.labels.spacing_mm, strict=True)]
    facts.update(
        voxels=int(np.count_nonzero(mask.region.array)),
        volume_ml=round(mask.volume_ml, 4),
        extent_mm=[round(e, 2) for e in extent],
        touches_border=around.clip(host.labels.shape) != around,
    )
    return mask


def box_around(points_mm: npt.NDArray[np.float64], volume: Volume) -> Box:
    """The voxel box around points (N, 3) in RAS+ mm; it may reach beyond the volume."""
    inverse = np.linalg.inv(volume.affine)
    ijk = points_mm @ inverse[:3, :3].T + inverse[:3, 3]
    (i, j, k), (i2, j2, k2) = np.floor(ijk.min(axis=0)), np.ceil(ijk.max(axis=0)) + 1
    return Box((int(i), int(j), int(k)), (int(i2), int(j2), int(k2)))


def voxel_centres(box: Box, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """RAS+ mm of the voxel centres of ``box``, (I, J, K, 3)."""
    axes = [
        np.arange(a, b, dtype=np.float64) for a, b in zip(box.start_ijk, box.stop_ijk, strict=True)
    ]
    i, j, k = (
        axis.reshape([-1 if n == at else 1 for n in range(3)])[..., None] * affine[:3, at]
        for at, axis in enumerate(axes)
    )
    return np.asarray(i + j + k + affine[:3, 3])


def has_voxels(host: Case, name: str) -> bool:
    """Whether the host knows a structure or union, and has at least one voxel of it."""
    if name not in host.label_names and name not in host.unions:
        return False
    return host.once(
        ("has voxels", name), lambda: bool(np.isin(host.labels.array, host.values_of(name)).any())
    )


def check_drawn_for(params: Params, role: str, case: Case) -> None:
    """Raise a `MaskError` if ``params`` were drawn for another case than ``case``."""
    if params.get(role) != case.case_id:
        raise MaskError(
            f"case {case.case_id}: these parameters were drawn for {role} {params.get(role)}; "
            "replay them with that case"
        )
