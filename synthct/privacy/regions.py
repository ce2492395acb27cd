"""The painted regions of a dataset, and the real tissue that was there before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from synthct.dataset.sample import Sample
from synthct.dataset.schema import Facts
from synthct.evaluate.stream import Dataset, HostScans
from synthct.metrics.region_match import Query, correlation
from synthct.privacy.field import Anatomy
from synthct.privacy.shapes import DonorShapes
from synthct.volume.views import VIEW_AXIS, from_picture

#: Pixels around the box of a mask that are kept, and that share of its side.
_MARGIN_PX, _MARGIN_SHARE = 8, 0.2

Hu = npt.NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class Piece:
    """Tissue around a mask, cropped: a slice, or the slices of a volume.

    Attributes:
        hu: int16 (N, rows, columns); rows and columns are two axes of the scan, in their order, as
            in the patches of a training.
        mask: Boolean (N, rows, columns).
        step_mm: Distance of neighbouring slices.
    """

    hu: Hu
    mask: npt.NDArray[np.bool_]
    step_mm: float


@dataclass(frozen=True, eq=False)
class PaintedRegion:
    """One painting of one mask.

    Attributes:
        facts: Of the sample.
        painted: What was painted.
        original: What was there before; None where it is not known.
        real_voxel_fraction: Share of the shown voxels that are the host's.
        recognisable: Whether a head or face is in the field; None if that is not known.
        donor_shape_dice: How much its mask has the shape of the donor's lesion; None if it has no
            donor, or that is not at hand.
    """

    facts: Facts
    painted: Piece
    original: Piece | None
    real_voxel_fraction: float
    recognisable: bool | None
    donor_shape_dice: float | None

    @property
    def self_recon_ncc(self) -> float | None:
        """High-passed correlation with the tissue that was there before, in place."""
        if self.original is None:
            return None
        one, other = (Query.of(p.hu, p.mask) for p in (self.painted, self.original))
        return correlation(one, other)


def painted_regions(
    dataset: Dataset, scans: HostScans | None, shapes: DonorShapes | None, anatomy: Anatomy
) -> Iterator[PaintedRegion]:
    """All painted regions of a dataset, in order.

    Args:
        dataset: The dataset.
        scans: The hosts, for originals that the dataset does not keep.
        shapes: The lesions of its donors.
        anatomy: Tells what of the body is shown.

    Raises:
        VerifyError: If the dataset is damaged.
        SourceError: If a scan is not the one that was painted into.
    """
    for _, slices in groupby(dataset.slices(), key=lambda sample: sample.sample_id):
        stack = list(slices)
        if stack[0].facts.is_painted:
            yield _region(stack, scans, shapes, anatomy)


def _region(
    stack: list[Sample], scans: HostScans | None, shapes: DonorShapes | None, anatomy: Anatomy
) -> PaintedRegion:
    axis = VIEW_AXIS[stack[0].plane]
    mask = np.stack([one.mask.squeeze(axis) for one in stack])
    image = np.stack([one.image.squeeze(axis) for one in stack])
    step = float(np.linalg.norm(stack[0].affine[:3, axis]))
    crop = _around(np.asarray(mask.any(axis=0)))
    originals = [_original(one, scans) for one in stack]
    known = [one for one in originals if one is not None]
    widest = stack[int(np.argmax(np.count_nonzero(mask, axis=(1, 2))))]
    return PaintedRegion(
        facts=stack[0].facts,
        painted=Piece(image[crop], mask[crop], step),
        original=Piece(np.stack(known)[crop], mask[crop], step)
        if len(known) == len(stack)
        else None,
        real_voxel_fraction=1 - float(mask.mean()),
        recognisable=anatomy.is_recognisable(stack[len(stack) // 2]),
        donor_shape_dice=shapes.dice(widest) if shapes is not None else None,
    )


def _original(sample: Sample, scans: HostScans | None) -> Hu | None:
    if sample.original is not None:
        return sample.original.squeeze(VIEW_AXIS[sample.plane])
    if scans is None:
        return None
    picture = scans.original(sample)
    return from_picture(picture, sample.plane).squeeze(VIEW_AXIS[sample.plane])


def _around(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    cuts = []
    for axis in (1, 0):
        hit = np.flatnonzero(mask.any(axis=axis))
        margin = _MARGIN_PX + int(_MARGIN_SHARE * (hit[-1] - hit[0] + 1))
        cuts.append(slice(max(int(hit[0]) - margin, 0), int(hit[-1]) + 1 + margin))
    return slice(None), cuts[0], cuts[1]
