"""The training region that a painting is most like: proposed by keys, confirmed by correlation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from synthct.metrics.region_key import Keys, region_hash, region_key, search_keys
from synthct.metrics.region_match import BLOCK_PX, FloatArray, Query, best_correlation, blocks
from synthct.models.training_index import keys_of
from synthct.privacy.regions import Piece
from synthct.privacy.tissue import slab_around, tissues
from synthct.sources import CaseEntry, read_case
from synthct.volume import Volume

#: Training regions that are proposed for each painting, and slices of a volume that propose.
CANDIDATES, _SLICES = 12, 3


@dataclass(frozen=True)
class Nearest:
    """The training region that a piece is most like.

    Attributes:
        row: Its row in the index: of the largest correlation, else of the most similar key.
        key_row: The row of the most similar key.
        key_similarity: The largest cosine of the keys.
        ncc: The largest correlation of a slice; None where no training scan was at hand.
        ncc_3d: The same of all slices together, where they are several.
        is_compared: Whether the scans of all candidates were at hand, and their places known.
        is_same: Whether the hash of a training region is that of a slice.
        block_copy: Share of the blocks that are in the nearest region voxel for voxel; None where
            it was not looked at.
    """

    row: int
    key_row: int
    key_similarity: float
    ncc: float | None = None
    ncc_3d: float | None = None
    is_compared: bool = True
    is_same: bool = False
    block_copy: float | None = None


@dataclass(eq=False)
class TrainingRegions:
    """The index of a checkpoint, with those of its scans that are at hand.

    Attributes:
        index: The table of ``models.training_index``.
        entries: The cases of the scans that are at hand, by their key.
    """

    index: pa.Table
    entries: Mapping[str, CaseEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = keys_of(self.index)
        self._is_placed = self.index["grid_mm"].is_valid().to_pylist()
        self._hashes = set(self.index["sha256"].to_pylist())
        self._case = [
            fingerprint or f"{source}/{case}"
            for fingerprint, source, case in zip(
                self.index["fingerprint"].to_pylist(),
                self.index["source"].to_pylist(),
                self.index["case_id"].to_pylist(),
                strict=True,
            )
        ]

    @property
    def cases(self) -> set[str]:
        """Keys of all cases: the fingerprint of the scan, or source and name where it has none."""
        return set(self._case)

    @property
    def patients(self) -> set[str]:
        """All patients."""
        return set(self.index["patient_id"].to_pylist())

    def patient(self, row: int) -> str:
        """The patient of a region."""
        return str(self.index["patient_id"][row].as_py())

    def case(self, row: int) -> str:
        """The case of a region."""
        return str(self.index["case_id"][row].as_py())

    def nearest(self, pieces: Sequence[Piece]) -> list[Nearest]:
        """What each piece is most like."""
        if not pieces or not len(self.index):
            return []
        slices = [(n, one) for n, piece in enumerate(pieces) for one in _widest(piece)]
        regions = [(pieces[n].hu[one], pieces[n].mask[one]) for n, one in slices]
        rows, cosines = search_keys(regions, self.keys, CANDIDATES)
        found: dict[int, Nearest] = {}
        wanted: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for (number, one), near, cosine in zip(slices, rows, cosines, strict=True):
            first, likest = int(near[0]), float(cosine[0])
            best = found.get(number, Nearest(first, first, likest))
            if likest > best.key_similarity:
                best = replace(best, row=first, key_row=first, key_similarity=likest)
            if region_hash(pieces[number].hu[one], pieces[number].mask[one]) in self._hashes:
                best = replace(best, is_same=True, block_copy=1.0)
            for row in near.tolist():
                if self._case[row] in self.entries and self._is_placed[row]:
                    wanted[self._case[row]].append((number, one, row))
                else:
                    best = replace(best, is_compared=False)
            found[number] = best
        for case in sorted(wanted):
            scan = read_case(self.entries[case], {}).scan()
            for number, one, row in wanted[case]:
                found[number] = self._compared(found[number], pieces[number], one, row, scan)
        return [found[number] for number in range(len(pieces))]

    def _compared(self, so_far: Nearest, piece: Piece, one: int, row: int, scan: Volume) -> Nearest:
        """The nearer of what was found so far and a training region."""
        grid = np.array(self.index["grid_mm"][row].as_py(), dtype=np.float64).reshape(3, 3)
        side = self.index["side_px"][row].as_py()
        query = Query.of(piece.hu[one], piece.mask[one])
        ncc = best_correlation(query, tissues(scan, grid, side, query))
        if so_far.ncc is not None and ncc <= so_far.ncc:
            return so_far
        better = replace(so_far, row=row, ncc=ncc)
        if len(piece.hu) > 1:
            whole = Query.of(piece.hu, piece.mask)
            turned = (
                tissues(scan, grid, side, whole, step_mm=step, middle=one)
                for step in (piece.step_mm, -piece.step_mm)
            )
            better = replace(better, ncc_3d=max(best_correlation(whole, t) for t in turned))
        if so_far.is_same:
            return better
        theirs = slab_around(scan, grid, side)
        mine = blocks(piece.hu[one], piece.mask[one], step=BLOCK_PX // 2)
        known = blocks(theirs, np.ones(theirs.shape, dtype=bool))
        share = float(np.isin(mine, known).mean()) if len(mine) else None
        return replace(better, block_copy=share)


def key_of(piece: Piece) -> Keys:
    """The key of the slice with most of the mask."""
    widest = _widest(piece)[0]
    return region_key(piece.hu[widest], piece.mask[widest])


def likeness(pieces: Sequence[Piece], keys: Keys) -> FloatArray:
    """The largest similarity of each piece's widest slice to some keys."""
    widest = [(piece, _widest(piece)[0]) for piece in pieces]
    return search_keys([(p.hu[n], p.mask[n]) for p, n in widest], keys, best=1)[1][:, 0]


def _widest(piece: Piece) -> list[int]:
    """The slices with most of the mask."""
    areas = np.count_nonzero(piece.mask, axis=(1, 2))
    return [int(n) for n in np.argsort(-areas, kind="stable")[:_SLICES] if areas[n]]
