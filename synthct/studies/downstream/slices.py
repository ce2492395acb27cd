"""Scans as stacks of axial slices of one pixel size, with the classes that are segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from synthct import seeds
from synthct.errors import MaskError
from synthct.volume import Spacing
from synthct.volume.case import Case
from synthct.volume.views import IGNORE

#: So many places of each class are kept for a scan, to centre patches on.
_PLACES = 4000


@dataclass(frozen=True, eq=False)
class Stack:
    """A training scan; voxels stay in its files until they are needed.

    Attributes:
        name: Of the case.
        is_real: Whether nothing in it was painted.
        hu: int16 (K, I, J).
        classes: uint8 (K, I, J), 255 where nobody knows.
        places: By class the places (N, 3) of some of its voxels; empty arrays if there are none.
    """

    name: str
    is_real: bool
    hu: npt.NDArray[np.int16]
    classes: npt.NDArray[np.uint8]
    places: tuple[npt.NDArray[np.int64], ...]


def classes_of(case: Case, labels: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Classes (I, J, K) of a label map: the n-th label is n, later ones lie over earlier ones.

    Args:
        case: Knows the values of the labels; one that it does not know is nowhere.
        labels: Its label map, or that of a painted scan of it.
        names: The labels.
    """
    classes = np.zeros(labels.shape, np.uint8)
    for number, name in enumerate(names, 1):
        try:
            values = case.values_of(name)
        except MaskError:
            continue
        classes[np.isin(labels, values)] = number
    classes[labels == IGNORE] = IGNORE
    return classes


def write_stack(
    folder: Path,
    name: str,
    hu: npt.NDArray[np.int16],
    classes: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    pixel_mm: float,
    *,
    is_real: bool,
    slice_mm: float | None = None,
) -> Stack:
    """Write a scan for training into a folder, resampled in plane and, if asked, along k.

    Args:
        folder: Where its two files go.
        name: Of the case, and of the files.
        hu: (I, J, K).
        classes: (I, J, K).
        spacing_mm: Of these.
        pixel_mm: In-plane spacing of the stack.
        is_real: Whether nothing in it was painted.
        slice_mm: Spacing of the stack along k; None for that of the scan.
    """
    size = size_of(hu.shape, spacing_mm, pixel_mm, slice_mm)
    stacks: dict[str, npt.NDArray[Any]] = {
        "hu": resample(hu.transpose(2, 0, 1), size, linear=True).round().astype(np.int16),
        "classes": resample(classes.transpose(2, 0, 1), size, linear=False).astype(np.uint8),
    }
    mapped = {}
    for what, array in stacks.items():
        path = folder / f"{name}.{what}.npy"
        np.save(path, array)
        mapped[what] = np.load(path, mmap_mode="r")
    known = sorted(set(np.unique(stacks["classes"]).tolist()) - {0, IGNORE})
    places = [np.zeros((0, 3), np.int64)] * (max(known, default=0) + 1)
    for number in known:
        found = np.argwhere(stacks["classes"] == number)
        chosen = seeds.generator(0, "places", name, str(number)).permutation(len(found))[:_PLACES]
        places[number] = found[chosen]
    return Stack(name, is_real, mapped["hu"], mapped["classes"], tuple(places))


def size_of(
    shape: Sequence[int], spacing_mm: Spacing, pixel_mm: float, slice_mm: float | None = None
) -> tuple[int, int, int]:
    """Size (K, I, J) of a scan (I, J, K) that is resampled; slices stay without ``slice_mm``."""
    wanted_mm = pixel_mm, pixel_mm, slice_mm or spacing_mm[2]
    rows, columns, slices = (
        max(1, round(n * s / mm)) for n, s, mm in zip(shape, spacing_mm, wanted_mm, strict=True)
    )
    return slices, rows, columns


def resample(
    stack: npt.NDArray[Any], size: tuple[int, int, int], *, linear: bool
) -> npt.NDArray[Any]:
    """A stack (K, I, J) resampled to another size, as float32: in plane, and then along k."""
    slices, rows, columns = size
    planes = resize(stack, (rows, columns), linear=linear)
    return resize(planes.transpose(1, 0, 2), (slices, columns), linear=linear).transpose(1, 0, 2)


def resize(stack: npt.NDArray[Any], size: tuple[int, int], *, linear: bool) -> npt.NDArray[Any]:
    """Slices (K, I, J) resampled to another size, as float32; linear, or the nearest pixel."""
    if stack.shape[1:] == size:
        return stack.astype(np.float32)
    given = torch.from_numpy(np.ascontiguousarray(stack, dtype=np.float32))[None]
    if linear:
        made = functional.interpolate(given, size, mode="bilinear", antialias=True)
    else:
        made = functional.interpolate(given, size, mode="nearest-exact")
    return made[0].numpy()
