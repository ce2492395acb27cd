"""A stored row back as voxels: what ``make_row`` made, decoded and checked for damage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.digest import sample_digest
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.writer import read_shard
from synthct.errors import VerifyError
from synthct.volume import Affine

Decoder = Callable[[bytes], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class SampleRow:
    """A row with its pictures decoded.

    Attributes:
        image: int16 HU (rows, columns), as pictured.
        mask: Boolean (rows, columns).
        labels: Label values (rows, columns).
        original: int16 HU (rows, columns) of the host, where the dataset keeps it.
        affine: (4, 4) of the picture.
        provenance: Parsed.
        columns: All columns as they are stored.
    """

    image: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[Any]
    original: npt.NDArray[np.int16] | None
    affine: Affine
    provenance: Mapping[str, Any]
    columns: Mapping[str, Any]

    @property
    def sample_id(self) -> str:
        """Its id."""
        return str(self.columns["sample_id"])

    def digest(self) -> str:
        """The sample's digest, computed from what the row holds."""
        return sample_digest(self.image, self.mask, self.labels, self.affine, self.provenance)


def decode(columns: Mapping[str, Any]) -> SampleRow:
    """Decode a row.

    Args:
        columns: As ``arrow_schema`` names them.

    Raises:
        VerifyError: If a picture or the provenance is damaged; says which.
    """
    provenance, affine = parsed(columns)
    return SampleRow(
        image=picture(columns, "image", decode_hu),
        mask=picture(columns, "mask", decode_mask),
        labels=picture(columns, "label_map", decode_labels),
        original=picture(columns, "original", decode_hu) if columns.get("original") else None,
        affine=affine,
        provenance=provenance,
        columns=columns,
    )


def stored_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a shard as they are stored, in order.

    Raises:
        VerifyError: If the shard is damaged.
        ResourceError: If it cannot be opened.
    """
    for batch in read_shard(path).to_batches(max_chunksize=1):
        yield from batch.to_pylist()


def parsed(columns: Mapping[str, Any]) -> tuple[dict[str, Any], Affine]:
    """Provenance and affine (4, 4) of a row.

    Raises:
        VerifyError: If they cannot be read.
    """
    try:
        provenance = json.loads(columns["provenance"])
        affine = np.array(columns["affine"], dtype=np.float64).reshape(4, 4)
    except (ValueError, TypeError, RecursionError) as err:
        raise VerifyError(f"column 'provenance' or 'affine' cannot be read ({err})") from err
    if not isinstance(provenance, dict):
        raise VerifyError("column 'provenance' is no object")
    return provenance, affine


def picture(columns: Mapping[str, Any], name: str, decoder: Decoder) -> npt.NDArray[Any]:
    """A picture of a row, decoded.

    Raises:
        VerifyError: If it is damaged or not there.
    """
    try:
        return decoder(columns[name]["bytes"])
    except VerifyError as err:
        raise VerifyError(f"column '{name}': {err}") from err
    except (KeyError, TypeError) as err:
        raise VerifyError(f"column '{name}' holds no picture") from err
