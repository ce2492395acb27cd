"""Neighbouring slices of one painted lesion, brought together as the volume that they are of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.rows import SampleRow, decode
from synthct.errors import VerifyError
from synthct.volume import Affine, Volume, same_grid, shifted
from synthct.volume.views import VIEW_AXIS, View, from_picture, volume_affine

Columns = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Stack:
    """The voxels of neighbouring slices, on the grid of their host, from edge to edge.

    Attributes:
        image: int16 HU (I, J, K), as thick along the view's axis as there are slices.
        mask: Boolean (I, J, K).
        labels: Label values (I, J, K).
        original: int16 HU (I, J, K) of the host; None where the dataset does not keep it.
    """

    image: Volume
    mask: Volume
    labels: Volume
    original: Volume | None


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


def stack(rows: Sequence[Columns]) -> Stack:
    """Decode neighbouring slices and bring them together.

    Args:
        rows: Stored rows, as ``neighbours`` gives them.

    Raises:
        VerifyError: If a picture is damaged, or they do not lie on one grid.
    """
    view: View = rows[0]["view"]
    slices = [decode(row) for row in rows]
    shape = slices[0].image.shape
    first = volume_affine(slices[0].affine, (shape[0], shape[1]), view)
    for number, one in enumerate(slices):
        if one.image.shape != shape or not _continues(first, one, view, number):
            raise VerifyError(
                f"sample '{one.sample_id}' is not on the grid of the slices of '"
                f"{rows[0]['lesion_id']}' beside it; take the dataset from its source again"
            )

    def together(pictures: Iterable[npt.NDArray[Any]]) -> Volume:
        voxels = [from_picture(picture, view) for picture in pictures]
        return Volume(np.concatenate(voxels, axis=VIEW_AXIS[view]), first)

    originals = [one.original for one in slices if one.original is not None]
    return Stack(
        image=together(one.image for one in slices),
        mask=together(one.mask for one in slices),
        labels=together(one.labels for one in slices),
        original=together(originals) if len(originals) == len(slices) else None,
    )


def _runs(rows: Sequence[Columns]) -> Iterator[list[Columns]]:
    run: list[Columns] = []
    for row in rows:
        if run and row["slice_index"] != run[-1]["slice_index"] + 1:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _continues(first: Affine, one: SampleRow, view: View, number: int) -> bool:
    """Whether a slice is the one so many steps after the first."""
    rows, columns = one.image.shape
    start = [0, 0, 0]
    start[VIEW_AXIS[view]] = number
    own = volume_affine(one.affine, (rows, columns), view)
    shape = from_picture(one.mask, view).shape
    return same_grid(shape, own, shifted(first, start))
