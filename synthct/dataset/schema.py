"""What a row of a dataset is: its columns, their types, and how a sample becomes one.

A new column is a field of ``Facts`` or a measure of ``metrics.MEASURES``, and a higher
``FORMAT_VERSION`` (minor, if readers of the old layout can ignore it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthct.dataset.digest import canonical_json, sample_digest
from synthct.dataset.png import encode_hu, encode_labels, encode_mask, encode_preview
from synthct.metrics import MEASURES, Measures
from synthct.volume import Array, Volume
from synthct.volume.intensity import SOFT_TISSUE, Window
from synthct.volume.views import View, picture_affine, to_picture

if TYPE_CHECKING:
    from datasets import Features

#: Version of the layout of datasets: of columns, files and their meaning.
FORMAT_VERSION = "1.1.0"


@dataclass(frozen=True, eq=False)
class Slices:
    """The voxels of one sample: arrays on one canonical grid, one voxel thick along the view.

    Attributes:
        painted: int16 HU (I, J, K) within -1024..3071, and the affine of the slice.
        original: int16 HU (I, J, K) of the host, equal to ``painted`` outside of the mask.
        mask: bool (I, J, K); what was painted.
        labels: uint8 or uint16 (I, J, K); the label map after painting.
    """

    painted: Volume
    original: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[Any]

    def __post_init__(self) -> None:
        for name in ("original", "mask", "labels"):
            array: Array = getattr(self, name)
            if array.shape != self.painted.shape:
                raise ValueError(f"{name} is {array.shape}, the slice {self.painted.shape}")
        types = self.painted.array.dtype, self.original.dtype, self.mask.dtype
        if types != (np.dtype(np.int16), np.dtype(np.int16), np.dtype(np.bool_)):
            raise ValueError(f"painted, original and mask are int16, int16 and bool, not {types}")
        if not np.array_equal(self.painted.array[~self.mask], self.original[~self.mask]):
            raise ValueError("voxels outside of the mask differ from the original")


@dataclass(frozen=True)
class Facts:
    """What people filter samples by; names and numbers of the plan.

    Attributes:
        sample_id: Unique in the dataset.
        mask_id: Equal for the variants of one mask on one slice.
        lesion_id: Equal for the slices and variants of one 3D mask, such as a transplanted lesion.
        case_id: The host, whose voxels surround the mask.
        patient_id: The host's patient.
        donor_case_id: The case whose structure was carried over, if any.
        donor_patient_id: The donor's patient, if any.
        pair_id: Equal for the host's own slice and its paintings; None where there is no pair.
        is_painted: Whether the model painted; False for the host's own slice in a pair.
        has_lesion: Whether the lesion that the mask is about is there: True where it was painted
            or not yet removed. None for masks that are about no lesion.
        mask_name: Name of the recipe's mask section.
        mask_kind: Kind of that section.
        label: What the model was asked to paint; None is whatever fits.
        view: The plane of the slice.
        slice_index: Index of the slice along the view's axis of the host's canonical volume.
        variant: 0-based number of this painting of the mask; None for the host's own slice.
        host_in_training: Whether the checkpoint was trained on the host; None if it does not say.
    """

    sample_id: str
    mask_id: str
    lesion_id: str
    case_id: str
    patient_id: str
    donor_case_id: str | None
    donor_patient_id: str | None
    pair_id: str | None
    is_painted: bool
    has_lesion: bool | None
    mask_name: str
    mask_kind: str
    label: str | None
    view: View
    slice_index: int
    variant: int | None
    host_in_training: bool | None


class StoredRow(Protocol):
    """A row of a shard, whatever its release holds of a sample."""

    @property
    def facts(self) -> Facts:
        """Names and numbers of the plan."""

    @property
    def metrics(self) -> Measures:
        """Measures of the whole sample."""

    def values(self) -> dict[str, Any]:
        """The row by column, as the schema of its release names them."""


@dataclass(frozen=True)
class Row:
    """One whole row as it is stored; pictures are PNG bytes (see ``make_row``).

    Attributes:
        facts: Names and numbers of the plan.
        metrics: Measures of the sample.
        preview: 8-bit, windowed, the mask outlined; for eyes only.
        image: 16-bit, HU + 1024.
        mask: 8-bit, 255 where painted.
        label_map: 8- or 16-bit label values.
        original: 16-bit, HU + 1024 of the host; None where the recipe does not keep it.
        spacing_mm: Size of a pixel along rows' and along columns' index.
        affine: (row, column, 0, 1) to RAS+ mm, 4 x 4 by rows.
        sample_digest: SHA-256 of the content; see ``digest.sample_digest``.
        provenance: Canonical JSON. (``datasets`` parses it with ujson, which may miss the last
            bit of a float; the stored text is exact.)
    """

    facts: Facts
    metrics: Measures
    preview: bytes
    image: bytes
    mask: bytes
    label_map: bytes
    original: bytes | None
    spacing_mm: tuple[float, float]
    affine: tuple[float, ...]
    sample_digest: str
    provenance: str

    def values(self) -> dict[str, Any]:
        """The row by column, as ``arrow_schema`` names them."""
        pictures = {
            name: None if png is None else {"bytes": png, "path": None}
            for name in ("preview", "image", "mask", "label_map", "original")
            for png in (getattr(self, name),)
        }
        measures = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in self.metrics.items()
        }
        return {
            **asdict(self.facts),
            **pictures,
            **measures,
            "spacing_mm": list(self.spacing_mm),
            "affine": list(self.affine),
            "sample_digest": self.sample_digest,
            "provenance": self.provenance,
        }


def make_row(
    slices: Slices,
    facts: Facts,
    metrics: Measures,
    provenance: Mapping[str, Any],
    *,
    window: Window = SOFT_TISSUE,
    keep_original: bool = False,
) -> Row:
    """Turn a finished sample into a row.

    Args:
        slices: The voxels, canonical and one voxel thick along ``facts.view``.
        facts: Names and numbers of the plan.
        metrics: Measures of the sample.
        provenance: JSON-able; how the sample came about. Its top-level keys
            ``digest.NOT_CONTENT`` do not count for the sample's digest. ``facts`` are added to
            it, so that the digest covers them too, and the window of the preview.
        window: Window of the preview.
        keep_original: Whether the row carries the host's slice as it was.

    Raises:
        ValueError: If an array has another type than ``Slices`` says, or the provenance is not
            JSON (says where).
    """
    view = facts.view
    image = to_picture(slices.painted.array, view)
    mask = to_picture(slices.mask, view)
    labels = to_picture(slices.labels, view)
    original = to_picture(slices.original, view)
    affine = picture_affine(slices.painted.affine, slices.painted.shape, view)
    told = {**asdict(facts), **provenance, "preview": window.model_dump()}
    rows_mm, columns_mm = np.linalg.norm(affine[:3, :2], axis=0)
    return Row(
        facts=facts,
        metrics=metrics,
        preview=encode_preview(image, window, mask),
        image=encode_hu(image),
        mask=encode_mask(mask),
        label_map=encode_labels(labels),
        original=encode_hu(original) if keep_original else None,
        spacing_mm=(float(rows_mm), float(columns_mm)),
        affine=tuple(float(x) for x in affine.ravel()),
        sample_digest=sample_digest(image, mask, labels, affine, told),
        provenance=canonical_json(told),
    )


#: Column type by the annotation of a field of ``Facts``.
_SCALARS = {
    "str": "string",
    "View": "string",
    "int": "int32",
    "bool": "bool",
}


def facts_of(stored: Mapping[str, Any]) -> Facts:
    """The facts of a stored row."""
    return Facts(**{field.name: stored[field.name] for field in fields(Facts)})


def measures_of(stored: Mapping[str, Any]) -> Measures:
    """The measures of a stored row."""
    return {name: stored[name] for name in MEASURES}


class Column(NamedTuple):
    """One column: its Arrow type, and its feature as ``datasets`` spells it in JSON."""

    type: pa.DataType
    feature: dict[str, Any]


def columns(keep_original: bool) -> dict[str, Column]:
    """All columns by name, in the order in which they are stored."""
    facts = {
        field.name: _value(_SCALARS[str(field.type).removesuffix(" | None")])
        for field in fields(Facts)
    }
    picture = Column(pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"})
    names = ["preview", "image", "mask", "label_map", *(["original"] if keep_original else [])]
    return {
        "sample_id": facts.pop("sample_id"),
        **dict.fromkeys(names, picture),
        **facts,
        "spacing_mm": _list("float64", 2),
        "affine": _list("float64", 16),
        **{name: _value(measure.dtype) for name, measure in MEASURES.items()},
        "sample_digest": _value("string"),
        "provenance": Column(pa.json_(), {"_type": "Json"}),
    }


def arrow_schema(keep_original: bool) -> pa.Schema:
    """The Arrow schema of a shard, with the metadata from which ``datasets`` decodes it."""
    return schema_of(columns(keep_original))


def schema_of(named: Mapping[str, Column]) -> pa.Schema:
    """The Arrow schema of some columns."""
    schema = pa.schema([(name, column.type) for name, column in named.items()])
    info = {"info": {"features": {name: column.feature for name, column in named.items()}}}
    return schema.with_metadata({"huggingface": json.dumps(info)})


def features(keep_original: bool) -> Features:
    """The columns as ``datasets.Features``."""
    from datasets import Features

    return Features.from_arrow_schema(arrow_schema(keep_original))


def flat_columns(schema: pa.Schema) -> list[str]:
    """Names of the columns that hold one string, number or truth value per row."""
    return [field.name for field in schema if _is_scalar(field.type)]


def _is_scalar(type_: pa.DataType) -> bool:
    return not (pa.types.is_nested(type_) or isinstance(type_, pa.BaseExtensionType))


def _value(dtype: str) -> Column:
    return Column(pa.type_for_alias(dtype), {"dtype": dtype, "_type": "Value"})


def _list(dtype: str, length: int) -> Column:
    item = _value(dtype)
    return Column(
        pa.list_(item.type, length), {"feature": item.feature, "length": length, "_type": "List"}
    )
