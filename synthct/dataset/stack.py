"""Neighbouring slices of one painted lesion brought together as a volume, and volumes as slices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from synthct.dataset.rows import Columns, decode
from synthct.dataset.sample import Sample
from synthct.errors import VerifyError
from synthct.volume import Box, same_grid, shifted
from synthct.volume.views import PLANES, VIEW_AXIS, Plane


def neighbours(rows: Iterable[Columns]) -> Iterator[list[Columns]]:
    """The slices of each painting of each lesion, as far as they follow each other.

    Args:
        rows: Stored rows; those of one lesion come one after the other, as a dataset has them.

    Yields:
        Rows of rising ``slice_index`` without a gap; of a lesion first those of its first variant,
        and the host's own slices last.
    """
    for _, lesion in groupby(rows, key=lambda row: row["lesion_id"]):
        variants: dict[int | None, list[Columns]] = {}
        for row in lesion:
            variants.setdefault(row["variant"], []).append(row)
        for variant in sorted(variants, key=lambda v: (v is None, v)):
            yield from _runs(sorted(variants[variant], key=lambda row: row["slice_index"]))


def stack(rows: Sequence[Columns]) -> Sample:
    """Decode neighbouring slices and bring them together, on the grid of their host.

    Args:
        rows: Stored rows, as ``neighbours`` gives them.

    Returns:
        A sample as thick along the view's axis as there are slices; its facts, measures and
        provenance are those of the first. A volume stays as it is.

    Raises:
        VerifyError: If a picture is damaged, or they do not lie on one grid.
    """
    slices = [decode(row) for row in rows]
    first = slices[0]
    if first.view == "volume":
        return first
    for number, one in enumerate(slices):
        if not _continues(first, one, number):
            raise VerifyError(
                f"sample '{one.sample_id}' is not on the grid of the slices of '"
                f"{first.facts.lesion_id}' beside it; take the dataset from its source again"
            )
    axis = VIEW_AXIS[first.plane]
    originals = [one.original for one in slices if one.original is not None]
    return replace(
        first,
        original=np.concatenate(originals, axis) if len(originals) == len(slices) else None,
        image=np.concatenate([one.image for one in slices], axis),
        mask=np.concatenate([one.mask for one in slices], axis),
        labels=np.concatenate([one.labels for one in slices], axis),
    )


def unstack(sample: Sample) -> Iterator[Sample]:
    """The slices of a volume that show some of its mask, as samples; a slice as it is.

    Their facts are the volume's but for the view and the index, and so is what was measured.
    """
    if sample.view != "volume":
        yield sample
        return
    for index in np.flatnonzero(_areas(sample)):
        yield _slice(sample, int(index))


def widest_slice(sample: Sample) -> Sample:
    """The slice of a volume that shows most of its mask; a slice as it is."""
    return _slice(sample, int(np.argmax(_areas(sample)))) if sample.view == "volume" else sample


def three_planes(sample: Sample) -> list[Sample]:
    """Of a volume the widest slice of its mask in each plane; a slice as it is."""
    if sample.view != "volume":
        return [sample]
    return [_slice(sample, int(np.argmax(_areas(sample, plane))), plane) for plane in PLANES]


def _areas(sample: Sample, plane: Plane | None = None) -> npt.NDArray[np.int64]:
    """Voxels of the mask in each slice, of a plane other than the sample's if there is one."""
    axis = VIEW_AXIS[plane or sample.plane]
    across = tuple(n for n in range(3) if n != axis)
    return np.asarray(np.count_nonzero(sample.mask, axis=across), dtype=np.int64)


def _slice(sample: Sample, index: int, plane: Plane | None = None) -> Sample:
    """A slice of a volume."""
    plane = plane or sample.plane
    axis, box = VIEW_AXIS[plane], sample.provenance["host"]["box"]
    facts = replace(sample.facts, view=plane, slice_index=box[0][axis] + index)
    flat = sample.crop(Box.whole(sample.shape).slab(axis, index))
    return replace(flat, facts=facts)


def _runs(rows: Sequence[Columns]) -> Iterator[list[Columns]]:
    run: list[Columns] = []
    for row in rows:
        follows = run and row["slice_index"] == run[-1]["slice_index"] + 1
        if run and (row.get("view") == "volume" or not follows):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _continues(first: Sample, one: Sample, number: int) -> bool:
    """Whether a slice is the one so many steps after the first."""
    start = [0, 0, 0]
    start[VIEW_AXIS[first.plane]] = number
    return one.shape == first.shape and same_grid(
        one.shape, one.affine, shifted(first.affine, start)
    )
