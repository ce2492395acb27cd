"""The privacy index of a checkpoint: which regions it was trained on, as hashes and small keys.

It proposes the training regions that a painting may have copied (``metrics.region_key``) and names
their patients and where in the scans they lie; no voxel is in it. A checkpoint without it has not
been assessed, which says nothing about copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthct import seeds
from synthct.errors import CheckpointError
from synthct.metrics.region_key import HASH_BYTES, KEY_BYTES, Keys
from synthct.models.folder import TRAINING_INDEX
from synthct.models.network import CheckpointFiles
from synthct.storage.files import atomic_write

#: Regions in an index at most; of more, that many are drawn.
LIMIT = 15_000

_NAME = pa.dictionary(pa.int32(), pa.string())
_FORMAT = {b"synthct.training_index": b"2"}

#: One row per region: key and hash of its tissue, its label (null for whatever fits), its case, and
#: where it lies: the side of the square around it, the centre of that square's first pixel in the
#: scan (RAS+ mm), and the steps to the next row and to the next column (null where not known).
SCHEMA = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("sha256", pa.binary(HASH_BYTES)),
        ("label", _NAME),
        ("source", _NAME),
        ("case_id", _NAME),
        ("patient_id", _NAME),
        ("fingerprint", _NAME),
        ("side_px", pa.int32()),
        ("grid_mm", pa.list_(pa.float32(), 9)),
    ],
    metadata=_FORMAT,
)
_NAMES = [field.name for field in SCHEMA if field.type == _NAME]
_MAY_BE_NULL = {"label", "fingerprint", "side_px", "grid_mm"}


def make_index(rows: Sequence[Mapping[str, object]], base: pa.Table | None, seed: int) -> pa.Table:
    """An index of regions and of those of the checkpoint that training started from.

    Args:
        rows: Values of ``SCHEMA``.
        base: The other checkpoint's index, if there is one.
        seed: Of the choice, if there are more than ``LIMIT``.
    """
    own = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    tables = [own] if base is None else [base, own]
    whole = pa.concat_tables(tables).combine_chunks().unify_dictionaries()
    if len(whole) > LIMIT:
        chosen = seeds.generator(seed, "training-index").permutation(len(whole))[:LIMIT]
        whole = whole.take(pa.array(np.sort(chosen)))
    return whole.replace_schema_metadata(_FORMAT)


def write_index(table: pa.Table, folder: Path) -> None:
    """Write an index into a checkpoint's folder, before its sums.

    Raises:
        ResourceError: If it cannot be written.
    """
    sink = pa.BufferOutputStream()
    # Keys and hashes hardly repeat, so that a dictionary of them is longer than they are.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=19,
        use_dictionary=_NAMES,
        write_statistics=False,
    )
    atomic_write(folder / TRAINING_INDEX, sink.getvalue().to_pybytes())


def read_index(files: CheckpointFiles) -> pa.Table | None:
    """The index of a checkpoint; None if it has none, which is no sign of anything.

    Raises:
        CheckpointError: If the file is damaged or of another format.
    """
    path = files.folder / TRAINING_INDEX
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, read_dictionary=_NAMES)
        table.validate(full=True)
    except (OSError, pa.ArrowException) as err:
        raise _damaged(files, str(err)) from err
    if not table.schema.equals(SCHEMA) or table.schema.metadata != _FORMAT:
        raise _damaged(files, f"its columns are {', '.join(table.schema.names)}")
    for name in SCHEMA.names:
        if name not in _MAY_BE_NULL and table[name].null_count:
            raise _damaged(files, f"a region has no {name}")
    return table


def keys_of(table: pa.Table) -> Keys:
    """The keys of an index: (N, ``KEY_BYTES``)."""
    joined = b"".join(table["key"].to_pylist())
    return np.frombuffer(joined, np.uint8).reshape(-1, KEY_BYTES)


def _damaged(files: CheckpointFiles, reason: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint '{files.name}': {TRAINING_INDEX} is damaged or of another version of synthct "
        f"({reason}); fetch it again"
    )
