"""The columns of a dataset and their types; ``rows`` makes rows of samples, and back.

A new column is a field of ``Facts`` or a measure of ``metrics.MEASURES``, a line in ``added``, and
a higher ``FORMAT_VERSION`` (minor, if readers of the old layout can ignore it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from synthct.dataset.added import added_since
from synthct.metrics.measure import Measures
from synthct.metrics.table import MEASURES
from synthct.volume.views import View

if TYPE_CHECKING:
    from datasets import Features

#: Version of the layout of datasets: of columns, files and their meaning.
FORMAT_VERSION = "1.4.0"


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
        view: The plane of the slice, or ``volume``.
        slice_index: Index of the slice along the view's axis of the host's canonical volume; of a
            volume, that of its first axial slice.
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


#: Column type by the annotation of a field of ``Facts``.
_SCALARS = {
    "str": "string",
    "View": "string",
    "int": "int32",
    "float": "float64",
    "bool": "bool",
}


def facts_of(columns: Mapping[str, Any]) -> Facts:
    """The facts of a stored row; None where its format has no such column yet."""
    values: dict[str, Any] = {field.name: columns.get(field.name) for field in fields(Facts)}
    return Facts(**values)


def measures_of(columns: Mapping[str, Any]) -> Measures:
    """The measures of a stored row; None where its format has no such column yet."""
    return {name: columns.get(name) for name in MEASURES}


class Column(NamedTuple):
    """One column: its Arrow type, and its feature as ``datasets`` spells it in JSON."""

    type: pa.DataType
    feature: dict[str, Any]


def columns(
    keep_original: bool, *, volume: bool = False, of_format: str = FORMAT_VERSION
) -> dict[str, Column]:
    """All columns by name, in the order in which they are stored.

    Args:
        keep_original: Whether rows hold what was there before painting.
        volume: Whether rows are volumes, which have measures of their own.
        of_format: The format of the dataset.
    """
    facts = {f.name: _value(_SCALARS[str(f.type).removesuffix(" | None")]) for f in fields(Facts)}
    picture = Column(pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"_type": "Image"})
    names = ["image", "mask", "label_map", *(["original"] if keep_original else [])]
    measures = {n: m for n, m in MEASURES.items() if volume or not m.of_volumes}
    of_today = {
        "sample_id": facts.pop("sample_id"),
        "preview": picture,
        **dict.fromkeys(names, picture._replace(feature={"_type": "Nifti"}) if volume else picture),
        **facts,
        "spacing_mm": _list("float64", 3 if volume else 2),
        "affine": _list("float64", 16),
        **{name: _value(measure.dtype) for name, measure in measures.items()},
        "sample_digest": _value("string"),
        "provenance": Column(pa.json_(), {"_type": "Json"}),
    }
    later = added_since(of_format)
    return {name: column for name, column in of_today.items() if name not in later}


def arrow_schema(
    keep_original: bool, *, volume: bool = False, of_format: str = FORMAT_VERSION
) -> pa.Schema:
    """The Arrow schema of a shard, with the metadata from which ``datasets`` decodes it."""
    return schema_of(columns(keep_original, volume=volume, of_format=of_format))


def is_of_volumes(schema: pa.Schema) -> bool:
    """Whether rows with these columns are volumes."""
    return bool(schema.field("spacing_mm").type.list_size == 3)


def schema_of(columns: Mapping[str, Column]) -> pa.Schema:
    """The Arrow schema of some columns by name."""
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    info = {"info": {"features": {name: column.feature for name, column in columns.items()}}}
    return schema.with_metadata({"huggingface": json.dumps(info)})


def features(keep_original: bool, *, volume: bool = False) -> Features:
    """The columns as ``datasets.Features``."""
    from datasets import Features

    return Features.from_arrow_schema(arrow_schema(keep_original, volume=volume))


def flat_schema(*, volume: bool = False, of_format: str = FORMAT_VERSION) -> pa.Schema:
    """The columns that hold one string, number or truth value per row."""
    schema = arrow_schema(keep_original=False, volume=volume, of_format=of_format)
    return pa.schema([schema.field(name) for name in flat_columns(schema)])


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
