"""The files beside the shards: the resolved recipe, and what was rejected."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.schema import FORMAT_VERSION, flat_schema
from synthct.dataset.writer import Rejection, read_shard
from synthct.errors import VerifyError
from synthct.storage.files import atomic_write

RECIPE, REJECTED = "recipe.yaml", "rejected.parquet"

#: What ``rejected.parquet`` says of each sample, with the types.
_OWN = {
    "sample_id": pa.string(),
    "reason": pa.string(),
    "measure": pa.string(),
    "value": pa.float64(),
}


def write_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write ``recipe.yaml``: the resolved recipe, as JSON-able values, keys in their order."""
    head = "# The recipe as it was resolved: defaults filled in, comments gone.\n"
    atomic_write(folder / RECIPE, (head + yaml_text(recipe)).encode())


def write_rejected(folder: Path, rejections: Sequence[Rejection], *, volume: bool = False) -> None:
    """Write ``rejected.parquet``: the planned samples that were not accepted, and why.

    What was painted and then broke a limit has all columns of an accepted row but its pictures.
    """
    rows = [{**one.columns, **{name: getattr(one, name) for name in _OWN}} for one in rejections]
    table = pa.Table.from_pylist(rows, schema=rejected_schema(volume=volume))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    atomic_write(folder / REJECTED, sink.getvalue().to_pybytes())


def rejected_schema(*, volume: bool = False, of_format: str = FORMAT_VERSION) -> pa.Schema:
    """The columns of ``rejected.parquet``: its own, and the flat ones of a row."""
    flat = flat_schema(volume=volume, of_format=of_format)
    return pa.schema([*_OWN.items(), *(field for field in flat if field.name not in _OWN)])


def read_rejected(folder: Path) -> list[Rejection]:
    """What ``write_rejected`` wrote.

    Raises:
        VerifyError: If it is damaged.
        ResourceError: If it cannot be read.
    """
    rejections = []
    for row in read_shard(folder / REJECTED).to_pylist():
        first = {name: row.pop(name, None) for name in _OWN}
        # the id is a column of the row too; without a row there is nothing in the others
        painted = any(value is not None for value in row.values())
        columns = {**row, "sample_id": first["sample_id"]} if painted else {}
        rejections.append(Rejection(**first, columns=columns))
    return rejections


def yaml_text(value: Mapping[str, Any]) -> str:
    """JSON-able values as YAML, in block style, keys in their order."""
    from ruamel.yaml import YAML

    dumper = YAML(typ="safe", pure=True)
    dumper.default_flow_style = False
    dumper.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    dumper.allow_unicode = True
    dumper.width = 100
    stream = io.StringIO()
    dumper.dump(_plain(value), stream)
    return stream.getvalue()


def front_matter(page: str) -> dict[str, Any]:
    """The YAML header of a card; empty if it has none.

    Raises:
        VerifyError: If it is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not page.startswith("---\n"):
        return {}
    try:
        header = YAML(typ="safe", pure=True).load(page[4:].partition("\n---\n")[0])
    except YAMLError as err:
        raise VerifyError(f"the header of the card is no YAML ({err})") from err
    return header if isinstance(header, dict) else {}


def _plain(value: Any) -> Any:
    """The value in the types that YAML writes without tags."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
