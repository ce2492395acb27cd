"""What a check could have seen: copies planted at rising strength of a change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from synthct.dataset.privacy.results import Power
from synthct.metrics.region_key import bounding_square, region_key, search_keys
from synthct.metrics.region_match import Query, best_correlation, deviations
from synthct.models.training_index import keys_of
from synthct.privacy.nearest import CANDIDATES, TrainingRegions
from synthct.privacy.regions import Piece
from synthct.privacy.tissue import tissues
from synthct.volume import Volume

FloatArray = npt.NDArray[np.float32]
Change = Callable[[FloatArray, float, FloatArray, np.random.Generator], FloatArray]

#: Copies that are planted, and the smoothness of their deformation in pixels.
PLANTED, _SMOOTH_PX = 24, 8.0


def add_noise(
    hu: FloatArray, strength: float, other: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """White noise of so many HU."""
    del other
    return hu + rng.normal(0, strength, hu.shape).astype(np.float32)


def blur(
    hu: FloatArray, strength: float, other: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """A Gaussian of so many pixels."""
    from scipy.ndimage import gaussian_filter

    del other, rng
    return np.asarray(gaussian_filter(hu, strength), dtype=np.float32)


def deform(
    hu: FloatArray, strength: float, other: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """A smooth random displacement of at most so many pixels."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    del other
    fields = [gaussian_filter(rng.standard_normal(hu.shape), _SMOOTH_PX) for _ in range(2)]
    length = float(np.hypot(*fields).max())
    places = np.mgrid[: hu.shape[0], : hu.shape[1]] + np.stack(fields) * (strength / length)
    return np.asarray(map_coordinates(hu, places, order=1, mode="nearest"), dtype=np.float32)


def blend(
    hu: FloatArray, strength: float, other: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """So large a share of other tissue."""
    del rng
    return (1 - strength) * hu + strength * other


#: Change by name, its unit, and its strengths from hardly changed on.
CHANGES: dict[str, tuple[Change, str, tuple[float, ...]]] = {
    "noise": (add_noise, "HU", (10, 20, 40, 80, 160)),
    "blur": (blur, "px", (0.5, 1, 2, 3, 4)),
    "deformation": (deform, "px", (1, 2, 3, 4, 6)),
    "blend": (blend, "share of other tissue", (0.3, 0.5, 0.6, 0.7, 0.8)),
}


def measure_power(
    pieces: Sequence[Piece],
    training: TrainingRegions,
    limits: Mapping[str, float],
    rng: np.random.Generator,
) -> tuple[Power, ...]:
    """Plant real tissue as if it had been trained on, and look for changed copies of it.

    Args:
        pieces: Real tissue of held-out patients.
        training: The regions among which the copies are looked for.
        limits: Threshold of ``train_key`` and, where pieces are correlated, of ``train_nn_ncc`` and
            ``train_nn_z``.
        rng: Draws pieces, noise and deformations.
    """
    if not pieces:
        return ()
    chosen = rng.permutation(len(pieces))[:PLANTED]
    planted = [_widest(pieces[n]) for n in chosen]
    own = np.stack([region_key(one.hu[0], one.mask[0]) for one in planted])
    keys = np.concatenate([keys_of(training.index), own])
    first = len(keys) - len(own)
    powers = []
    for name, (change, unit, strengths) in CHANGES.items():
        recall = []
        for strength in strengths:
            copies = [_changed(planted, n, change, strength, rng) for n in range(len(planted))]
            rows, cosines = search_keys([(c.hu[0], c.mask[0]) for c in copies], keys, CANDIDATES)
            found = 0
            for n, (copy, near, likeness) in enumerate(zip(copies, rows, cosines, strict=True)):
                at = np.flatnonzero(near == first + n)
                if len(at):
                    by_key = bool(likeness[at[0]] > limits["train_key"])
                    found += by_key or _is_seen(copy, [planted[n], *_others(planted, n)], limits)
            recall.append(found / len(planted))
        lost = next((s for s, r in zip(strengths, recall, strict=True) if r < 0.5), None)
        powers.append(
            Power(
                change=name, unit=unit, strengths=strengths, recall=tuple(recall),
                planted=len(planted), lost_at=lost,
            )
        )  # fmt: skip
    return tuple(powers)


def _others(planted: Sequence[Piece], n: int) -> list[Piece]:
    """Two others, which tell what chance gives."""
    return [one for k in (1, 2) if (one := planted[(n + k) % len(planted)]) is not planted[n]]


def _is_seen(copy: Piece, planted: Sequence[Piece], limits: Mapping[str, float]) -> bool:
    """Whether a copy that was proposed is found by correlation, if that is computed.

    Args:
        copy: The copy.
        planted: What it is a copy of, and others.
        limits: As for ``measure_power``.
    """
    if "train_nn_ncc" not in limits:
        return False
    query = Query.of(copy.hu[0], copy.mask[0])
    matches = []
    for piece in planted:
        row, column, side = bounding_square(piece.mask[0])
        grid = np.array([[row, column, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float64)
        scan = Volume(np.moveaxis(piece.hu, 0, 2), np.eye(4))
        matches.append(best_correlation(query, tissues(scan, grid, side, query)))
    ncc, spread = matches[0].ncc, max(one.spread for one in matches)
    return ncc > limits["train_nn_ncc"] or deviations(ncc, spread) > limits["train_nn_z"]


def _widest(piece: Piece) -> Piece:
    """The slice with most of the mask."""
    n = int(np.argmax(np.count_nonzero(piece.mask, axis=(1, 2))))
    return replace(piece, hu=piece.hu[n : n + 1], mask=piece.mask[n : n + 1])


def _changed(
    planted: Sequence[Piece], n: int, change: Change, strength: float, rng: np.random.Generator
) -> Piece:
    """A changed copy of a planted piece; blended with that of another, at its place."""
    piece = planted[n]
    hu = piece.hu[0].astype(np.float32)
    other = planted[(n + 1) % len(planted)].hu[0]
    places = [
        np.linspace(0, size - 1, wanted) for size, wanted in zip(other.shape, hu.shape, strict=True)
    ]
    tissue = other[np.ix_(*(np.rint(one).astype(int) for one in places))].astype(np.float32)
    changed = np.rint(change(hu, strength, tissue, rng))
    return replace(piece, hu=np.clip(changed, -1024, 3071).astype(np.int16)[None])
