"""The training region that a painting is most like: proposed by keys, confirmed by correlation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from synthct.metrics.region_key import Keys, bounding_square, region_hash, region_key, search_keys
from synthct.metrics.region_match import (
    BLOCK_PX,
    FloatArray,
    Query,
    best_correlation,
    blocks,
    deviations,
)
from synthct.models.training_index import keys_of
from synthct.privacy.places import likely_places
from synthct.privacy.regions import Piece
from synthct.privacy.statistics import DEFAULTS
from synthct.privacy.tissue import Points, slab_around, tissues
from synthct.sources import CaseEntry, read_case
from synthct.volume import Volume

#: Training regions that are proposed for each painting, and slices of a volume that propose.
CANDIDATES, _SLICES = 16, 3


@dataclass(frozen=True)
class Nearest:
    """The training region that a piece is most like.

    Attributes:
        row: Its row in the index: of the largest correlation, else of the most similar key.
        key_row: The row of the most similar key.
        key_similarity: The largest cosine of the keys.
        ncc: The largest correlation of a slice; None where no training scan was at hand.
        proposed_ncc: The same among the regions that keys proposed.
        spread: The largest of what chance gives with one of these (``region_match.Match``).
        ncc_3d: The same of all slices together, where they are several.
        is_compared: Whether the scans of all candidates were at hand.
        is_same: Whether the hash of a training region is that of a slice.
        block_copy: Share of the blocks that are in the nearest region voxel for voxel; None where
            it was not looked at.
    """

    row: int
    key_row: int
    key_similarity: float
    ncc: float | None = None
    proposed_ncc: float | None = None
    spread: float = 0.0
    ncc_3d: float | None = None
    is_compared: bool = True
    is_same: bool = False
    block_copy: float | None = None

    @property
    def z(self) -> float | None:
        """``proposed_ncc`` in standard deviations of chance."""
        return None if self.proposed_ncc is None else deviations(self.proposed_ncc, self.spread)


class _Candidate(NamedTuple):
    """A place in a training scan that a slice of a piece is compared with.

    Attributes:
        piece: Number of the piece.
        one: Its slice.
        row: The training region of the index that is nearest.
        grid_mm: (3, 3): centre of the first pixel, steps to the next row and column.
        side_px: Side of the square.
        is_proposed: Whether keys proposed it; else it is the best of all places of a slice.
    """

    piece: int
    one: int
    row: int
    grid_mm: Points
    side_px: int
    is_proposed: bool = True


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
        self._grids = [
            None if grid is None else np.array(grid, dtype=np.float64).reshape(3, 3)
            for grid in self.index["grid_mm"].to_pylist()
        ]
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
        wanted: dict[str, list[_Candidate]] = defaultdict(list)
        found = self._by_key(pieces, wanted)
        self._by_place(pieces, wanted)
        for case in sorted(wanted):
            scan = read_case(self.entries[case], {}).scan()
            for one in wanted[case]:
                found[one.piece] = self._compared(found[one.piece], pieces[one.piece], one, scan)
        return [found[number] for number in range(len(pieces))]

    def _by_key(
        self, pieces: Sequence[Piece], wanted: dict[str, list[_Candidate]]
    ) -> dict[int, Nearest]:
        """The most similar keys of each piece; adds the regions that can be compared."""
        slices = [(n, one) for n, piece in enumerate(pieces) for one in _widest(piece)]
        regions = [(pieces[n].hu[one], pieces[n].mask[one]) for n, one in slices]
        rows, cosines = search_keys(regions, self.keys, CANDIDATES)
        found: dict[int, Nearest] = {}
        for (number, one), near, cosine in zip(slices, rows, cosines, strict=True):
            first, likest = int(near[0]), float(cosine[0])
            best = found.get(number, Nearest(first, first, likest))
            if likest > best.key_similarity:
                best = replace(best, row=first, key_row=first, key_similarity=likest)
            if region_hash(pieces[number].hu[one], pieces[number].mask[one]) in self._hashes:
                best = replace(best, is_same=True, block_copy=1.0)
            for row in near.tolist():
                if self._case[row] not in self.entries:
                    best = replace(best, is_compared=False)
                elif (grid := self._grids[row]) is not None:
                    side = self.index["side_px"][row].as_py()
                    wanted[self._case[row]].append(_Candidate(number, one, row, grid, side))
            found[number] = best
        return found

    def _by_place(self, pieces: Sequence[Piece], wanted: dict[str, list[_Candidate]]) -> None:
        """Adds the likeliest places of the widest slice of each piece."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, case in enumerate(self._case):
            rows[case].append(row)
        widest = [_widest(piece)[0] for piece in pieces]
        regions = [(p.hu[one], p.mask[one]) for p, one in zip(pieces, widest, strict=True)]
        grids = {case: [self._grids[row] for row in known] for case, known in rows.items()}
        found = likely_places(regions, self.entries, grids)
        for number, (one, places) in enumerate(zip(widest, found, strict=True)):
            side = bounding_square(pieces[number].mask[one])[2]
            for case, grid in places:
                row = min(rows[case], key=lambda n: _apart(self._grids[n], grid))
                wanted[case].append(_Candidate(number, one, row, grid, side, is_proposed=False))

    def _compared(
        self, so_far: Nearest, piece: Piece, candidate: _Candidate, scan: Volume
    ) -> Nearest:
        """The nearer of what was found so far and a candidate."""
        one, grid, side = candidate.one, candidate.grid_mm, candidate.side_px
        query = Query.of(piece.hu[one], piece.mask[one])
        match = best_correlation(query, tissues(scan, grid, side, query))
        if candidate.is_proposed:
            before = -1.0 if so_far.proposed_ncc is None else so_far.proposed_ncc
            spread = max(match.spread, so_far.spread)
            so_far = replace(so_far, proposed_ncc=max(match.ncc, before), spread=spread)
        elif deviations(match.ncc, match.spread) < DEFAULTS["train_nn_z"]:
            return so_far  # a place is the best of millions, so it must stand out from chance, too
        if so_far.ncc is not None and match.ncc <= so_far.ncc:
            return so_far
        better = replace(so_far, row=candidate.row, ncc=match.ncc)
        if len(piece.hu) > 1:
            whole = Query.of(piece.hu, piece.mask)
            turned = (
                tissues(scan, grid, side, whole, step_mm=step, middle=one)
                for step in (piece.step_mm, -piece.step_mm)
            )
            better = replace(better, ncc_3d=max(best_correlation(whole, t).ncc for t in turned))
        if so_far.is_same:
            return better
        theirs = slab_around(scan, grid, side)
        mine = blocks(piece.hu[one], piece.mask[one], step=BLOCK_PX // 2)
        known = blocks(theirs, np.ones(theirs.shape, dtype=bool))
        share = float(np.isin(mine, known).mean()) if len(mine) else None
        return replace(better, block_copy=share)


def _apart(grid_mm: Points | None, other: Points) -> float:
    """Distance in mm of the first pixels of two regions; that of an unknown place is infinite."""
    return np.inf if grid_mm is None else float(np.linalg.norm(grid_mm[0] - other[0]))


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
