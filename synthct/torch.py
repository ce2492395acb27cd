"""Samples as torch tensors, for any ``DataLoader``: what ``with_transform`` of a dataset takes.

    dataset = load_dataset(folder).with_transform(synthct.torch.Tensors(size=256))
    batch = next(iter(DataLoader(dataset["train"], batch_size=8)))

The pictures of a dataset are 16-bit PNG, of which torch has no type to subtract 1024 from, and a
column may be null, which the default collation refuses. Here pictures are HU, and nothing is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from synthct.dataset.lockfile import read_lock
from synthct.dataset.png import HU_OFFSET
from synthct.dataset.schema import columns
from synthct.errors import VerifyError
from synthct.volume import HU_MIN
from synthct.volume.intensity import Window

#: What stands for a null: in numbers with a fraction, whole numbers and truth values, and text.
NO_NUMBER, NO_COUNT, NO_TEXT = float("nan"), -1, ""

_HU = ("image", "original")
#: Columns of a patch-only release in place of the pictures.
_PATCH = "paint"


#: The part of a picture, and where it goes in the crop.
_Place = tuple[tuple[slice, slice], tuple[slice, slice]]


class Tensors:
    """Turns rows into tensors; give it to ``with_transform`` of a dataset.

    A picture is (1, rows, columns), as MONAI wants it, a volume (1, I, J, K):

    - ``image`` and ``original``: float32 HU, or the window's -1..1;
    - ``mask``: boolean, where something was painted;
    - ``label_map``: int64; 255 is unknown, for ``CrossEntropyLoss(ignore_index=255)``;
    - ``affine``: float64 (4, 4), from (row, column, 0, 1) of the pictures to RAS+ mm, also of a
      crop; ``spacing_mm``: float64 (2,);
    - ``provenance``: JSON as text; all other columns as they are.

    No value is null: an unknown number is NaN, an unknown whole number or truth value -1 (such
    truth values are 1 and 0), an unknown text empty.

    Args:
        names: Key of the output to column, such as ``{"image": "image", "label": "label_map"}`` for
            MONAI's dictionary transforms; by default all columns but the preview.
        window: Scales HU to -1..1; None for HU.
        size: Rows and columns to which pictures are cropped around the mask, or padded with air and
            0, so that slices of different scans make a batch; None for whole slices.

    Raises:
        VerifyError: When it meets a patch-only release.

    Example:
        >>> from synthct.torch import Tensors
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> train = synthct.load(folder)["train"].with_transform(Tensors(size=48))
        >>> train[0]["image"].shape, train[0]["image"].dtype
        (torch.Size([1, 48, 48]), torch.float32)
    """

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        *,
        window: Window | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> None:
        self.names = names
        self.window = window
        self.size = (size, size) if isinstance(size, int) else size

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The rows of a batch: column to values, in and out."""
        if _PATCH in batch:
            raise VerifyError(
                "this is a patch-only release, without whole slices; run synthct compose first"
            )
        names = self.names or {name: name for name in batch if name != "preview"}
        wanted = {*names.values(), *(("mask", "affine") if self.size else ())}
        if missing := sorted(set(wanted) - batch.keys()):
            there = ", ".join(batch)
            raise KeyError(f"the dataset has no column '{missing[0]}'; it has {there}")
        if self.size and "volume" in batch.get("view", ()):
            raise VerifyError("size crops slices, and these are volumes; crop them in your loader")
        count = len(next(iter(batch.values())))
        rows = [self._row({name: batch[name][n] for name in wanted}) for n in range(count)]
        return {key: [row[column] for row in rows] for key, column in names.items()}

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        corner, place = (0, 0), None
        if self.size is not None:
            mask = np.asarray(row["mask"])
            corner = _corner(mask, self.size)
            place = _place(corner, self.size, mask.shape)
        values = {name: self._value(name, value, place) for name, value in row.items()}
        if "affine" in values:
            affine = values["affine"]
            affine[:3, 3] += affine[:3, :2] @ torch.tensor(corner, dtype=affine.dtype)
        return values

    def _value(self, name: str, value: Any, place: _Place | None) -> Any:
        if name in _HU:
            offset = 0 if _is_volume(value) else HU_OFFSET
            hu = _array(value).astype(np.float32) - offset
            hu = _cut(hu, place, self.size, HU_MIN)
            return torch.from_numpy(hu if self.window is None else self.window.encode(hu))[None]
        if name == "mask":
            return torch.from_numpy(_cut(_array(value) > 0, place, self.size, False))[None]
        if name == "label_map":
            return torch.from_numpy(_cut(_array(value).astype(np.int64), place, self.size, 0))[None]
        if name == "affine":
            return torch.tensor(value, dtype=torch.float64).reshape(4, 4)
        if name == "spacing_mm":
            return torch.tensor(value, dtype=torch.float64)
        if name == "provenance":
            return value if isinstance(value, str) else json.dumps(value)
        return _not_null(name, value)


def _is_volume(value: Any) -> bool:
    """Whether a column holds a NIfTI image, as ``datasets`` gives it."""
    return hasattr(value, "dataobj")


def _array(value: Any) -> npt.NDArray[Any]:
    return np.asanyarray(value.dataobj) if _is_volume(value) else np.asarray(value)


def label_names(folder: str | Path) -> dict[int, str]:
    """The structure of each value in a dataset's label maps, as its lock has them.

    Args:
        folder: The folder of a version.

    Raises:
        VerifyError: If it is no finished dataset.
    """
    return {value: name for name, value in read_lock(Path(folder)).labels.items()}


def _corner(mask: npt.NDArray[Any], size: tuple[int, int]) -> tuple[int, int]:
    """The first pixel of a crop with the mask in its middle, moved into the picture if it fits."""
    corner = []
    for axis in (0, 1):
        hit = np.flatnonzero(mask.any(axis=1 - axis))
        middle = (int(hit[0]) + int(hit[-1]) + 1) // 2 if hit.size else mask.shape[axis] // 2
        start, most = middle - size[axis] // 2, mask.shape[axis] - size[axis]
        corner.append(min(max(start, 0), most) if most >= 0 else most // 2)
    return corner[0], corner[1]


def _place(corner: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> _Place:
    own, into = [], []
    for first, wanted, length in zip(corner, size, shape, strict=True):
        start, stop = max(first, 0), min(first + wanted, length)
        own.append(slice(start, stop))
        into.append(slice(start - first, stop - first))
    return (own[0], own[1]), (into[0], into[1])


def _cut(
    picture: npt.NDArray[Any], place: _Place | None, size: tuple[int, int] | None, fill: Any
) -> npt.NDArray[Any]:
    if place is None or size is None:
        return picture
    out = np.full(size, fill, picture.dtype)
    out[place[1]] = picture[place[0]]
    return out


#: Kind of each column's values, as Arrow names it.
_KINDS = {name: str(column.type) for name, column in columns(keep_original=True).items()}
#: The only truth value that is never null.
_KNOWN = "is_painted"


def _not_null(name: str, value: Any) -> Any:
    kind = _KINDS.get(name, "string")
    if kind == "bool" and name != _KNOWN:
        return NO_COUNT if value is None else int(value)
    if value is not None:
        return value
    return {"double": NO_NUMBER, "float": NO_NUMBER, "string": NO_TEXT}.get(kind, NO_COUNT)
