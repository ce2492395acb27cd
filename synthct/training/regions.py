"""The regions that a training painted, for the privacy index of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from synthct import seeds
from synthct.metrics.region_key import bounding_square, region_hash, region_key
from synthct.models.network import CheckpointFiles
from synthct.models.patch import PatchRules
from synthct.models.training_index import LIMIT, make_index, read_index
from synthct.sources import CaseEntry
from synthct.training.rows import PatchCache

#: Of millimetres: a region 100 pixels wide is placed to a hundredth of a pixel.
_DECIMALS = 4


def index_regions(
    patches: PatchCache,
    cases: Sequence[CaseEntry],
    rules: PatchRules,
    base: CheckpointFiles | None,
    seed: int,
) -> pa.Table:
    """The index of what is painted in the patches of a training (``models.training_index``).

    Args:
        patches: What was trained on.
        cases: The cases that they were cut from.
        rules: Labels and codecs of the network.
        base: The checkpoint that training started from; its regions stay in the index.
        seed: Of the choice, if there are too many.

    Raises:
        CheckpointError: If the index of ``base`` is damaged.
    """
    entries = {(entry.source, entry.case_id): entry for entry in cases}
    chosen = seeds.generator(seed, "training-index", "own").permutation(len(patches))[:LIMIT]
    rows = [_region(patches, int(row), entries, rules) for row in sorted(chosen)]
    return make_index(rows, read_index(base) if base is not None else None, seed)


def _region(
    patches: PatchCache,
    row: int,
    entries: Mapping[tuple[str, str], CaseEntry],
    rules: PatchRules,
) -> dict[str, object]:
    """A patch as a row of the index."""
    patch = patches.patch(row)
    entry = entries[patch.source, patch.case_id]
    label = rules.labels[patch.label - 1] if patch.label else None
    hu, mask = patch.image if patch.target is None else patch.target, patch.mask
    widest = 0
    if mask.ndim == 3:  # the slice that shows most of the mask
        widest = int(np.argmax(mask.sum(axis=(0, 1))))
        hu, mask = hu[..., widest], mask[..., widest]
    hu = rules.codec(label).decode(hu)
    row_px, column_px, side = bounding_square(mask)
    grid = np.asarray(patch.grid_mm, dtype=np.float64).reshape(4, 3)
    first = grid[0] + row_px * grid[1] + column_px * grid[2] + widest * grid[3]
    return {
        "key": region_key(hu, mask).tobytes(),
        "sha256": region_hash(hu, mask),
        "label": label,
        "source": entry.source,
        "case_id": entry.case_id,
        "patient_id": entry.patient_id,
        "fingerprint": entry.fingerprint,
        "side_px": side,
        "grid_mm": np.round([first, *grid[1:3]], _DECIMALS).ravel().tolist(),
    }
