"""Limits of accepted transplants, and the reasons for rejecting one."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

Fraction = Annotated[float, Field(gt=0, le=1)]

#: Why a voxel may not belong to a lesion, in the order of the codes; 0 is free.
Obstacle = Literal["free", "field_of_view", "other_structure", "clearance", "air", "bone"]
OBSTACLES: tuple[Obstacle, ...] = get_args(Obstacle)
FIELD_OF_VIEW, OTHER_STRUCTURE, CLEARANCE, AIR, BONE = range(1, len(OBSTACLES))

#: Why a transplant is rejected: an obstacle, or a limit that is broken.
Reason = Literal[
    "no_lesion", "no_organ", "field_of_view", "other_structure", "clearance", "air", "bone",
    "soft_tissue", "inside_fraction", "centre_outside", "organ_fraction", "too_small", "torn",
    "folded",
]  # fmt: skip


class Accept(BaseModel):
    """Limits that every accepted transplant keeps.

    A third to a half of a real kidney tumour bulges out of the kidney, so part of a lesion may lie
    outside of the organ: in fat, and a little in soft tissue that has no label, but not in another
    labelled structure, in bone or in air.

    Attributes:
        inside_fraction: Least share of the volume inside the organ; its centre always is.
        organ_fraction: Greatest volume, as a share of the connected organ part's.
        clearance_mm: Least distance to the structures of ``avoid``.
        avoid: Structures to keep clear of, where the host has them: lesions and vessels.
        outside_hu: Range of HU allowed outside of the organ. Unlabelled voxels below it count as
            air, those above it as bone (or contrast).
        soft_tissue_fraction: Greatest share of the volume in soft tissue without a label; 0 allows
            fat only.
        rim_mm: Within this distance of the organ (or one voxel, if that is larger), soft tissue
            and bright voxels count as the organ's blurred edge.
        clipped_fraction: Greatest share that may be cut off where an obstacle is touched.
        min_volume_ml: Least volume.
        min_slices: Least number of slices, along each axis of the scan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    inside_fraction: Fraction = 0.4
    organ_fraction: Fraction = 0.25
    clearance_mm: Annotated[float, Field(ge=0, le=50)] = 3.0
    avoid: tuple[str, ...] = (
        "tumor", "cyst", "lesion", "aorta", "inferior_vena_cava", "portal_vein_and_splenic_vein",
    )  # fmt: skip
    outside_hu: tuple[float, float] = (-200.0, 200.0)
    soft_tissue_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    rim_mm: Annotated[float, Field(ge=0, le=5)] = 2.0
    clipped_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.2
    min_slices: Annotated[int, Field(ge=1)] = 2

    @field_validator("outside_hu")
    @classmethod
    def _range_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"the range {list(value)} must rise: [least, greatest]")
        return value
