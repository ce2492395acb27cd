"""Columns that formats after the first have added, so that rows of any format read as today's.

A new column's name stands here with the format that has it first.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

#: Columns with their types, by format. Before 1.1.0 every sample was painted, and a mask was
#: painted on one slice only.
ADDED: dict[str, dict[str, pa.DataType]] = {
    "1.1.0": {
        **dict.fromkeys(("lesion_id", "pair_id"), pa.string()),
        **dict.fromkeys(("is_painted", "has_lesion"), pa.bool_()),
        **dict.fromkeys(("seam_overshoot", "spectrum_distance", "hu_wasserstein"), pa.float64()),
        **dict.fromkeys(("mask_adherence", "variant_diversity"), pa.float64()),
        **dict.fromkeys(("mae_hu", "psnr_db", "ssim"), pa.float64()),
    },
    "1.4.0": {"grain_ratio": pa.float64()},
}


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, which compare as the version does.

    Raises:
        ValueError: If it has none.
    """
    return tuple(int(number) for number in version.split("."))


def added_since(version: str) -> dict[str, pa.DataType]:
    """The columns, with their types, that datasets of a format have not got yet."""
    later = [one for one in ADDED if numbers(one) > numbers(version)]
    return {name: type_ for one in later for name, type_ in ADDED[one].items()}


#: Every column that some format lacks.
OPTIONAL = added_since("0")


def with_added_columns(table: pa.Table, names: Collection[str] | None) -> pa.Table:
    """Rows of a shard, those of an earlier format with the columns that were added since.

    Args:
        table: Rows of any format.
        names: The columns that were asked for; None is all of them.
    """
    if names is None and not {"mask_id", "sample_digest"} <= set(table.column_names):
        return table  # no shard
    for name, type_ in OPTIONAL.items():
        if name in table.column_names or (names is not None and name not in names):
            continue
        if name == "lesion_id":
            values = table["mask_id"]
        elif name == "is_painted":
            values = pa.array([True] * table.num_rows)
        else:
            values = pa.nulls(table.num_rows, type_)
        table = table.append_column(name, values)
    return table
