"""Does the privacy check find copies of training regions in real CT, and nothing else?

    python tests/benchmarks/privacy.py --data ../shared/data --regions 6000 --independent 1000

draws regions of the scans that the starter was trained on, as an index with its scans at hand, and
looks for (1) 100 changed copies of each kind among them, and whether the right patient is named,
(2) regions of patients who are not in the index, of whom one half sets the thresholds and the other
is counted. ``--judge`` takes other scans for the index, on which the check's filters were not
chosen, and those of the starter among the strangers. ``--attack`` measures what can be made of the
index alone: the correlation of a region with the real region whose key is nearest, and with what a
linear decoder makes of its key.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from yardstick import ellipse, soft_tissue

from synthct.metrics.region_key import bounding_square, region_hash, region_key, search_keys
from synthct.metrics.region_match import Query, correlation
from synthct.models.training_index import keys_of, make_index
from synthct.privacy.nearest import Nearest, TrainingRegions
from synthct.privacy.power import add_noise, blend, blur, deform
from synthct.privacy.regions import Piece
from synthct.privacy.statistics import fit_threshold
from synthct.seeds import generator
from synthct.sources import CaseEntry, Source, index_sources, read_case
from synthct.sources.nifti import Nifti
from synthct.sources.totalsegmentator import TotalSegmentator
from synthct.volume import Volume

#: Half axes of the ellipses, and the least share of one that is soft tissue.
RADIUS_MM, TISSUE_SHARE = (9.0, 24.0), 0.8

TRAINED = {
    "totalsegmentator_v2": ["s0001", "s0002", "s0004"],
    "free": ["hcc_006", "cptac_pda", "tcga_lihc", "acrin_flt", "tcga_thca", "cptac_lscc"],
}
JUDGED = {
    "totalsegmentator_v2": ["s0003"],
    "yardsticks": ["*"],
    "tumours": ["STS_*", "radphantom_*"],
    "free": ["lung4d_tumour"],
}
#: Neighbouring slices so near show nearly the same tissue.
NEAR_MM = 3.0

OTHERS = {
    "totalsegmentator_v2": ["s0003"],
    "yardsticks": ["*"],
    "free/slices": ["*"],
    "tumours": ["radphantom_*", "nsclc_*"],
}
STARTERS = {**TRAINED, "free/slices": ["*"]}

Pixels = npt.NDArray[np.float32]
Change = Callable[["Drawn", np.random.Generator], tuple[Pixels, npt.NDArray[np.bool_]]]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A region of a scan: the slice, the one after it, other tissue at its place, and its row."""

    patient: str
    hu: Pixels
    next_hu: Pixels
    other: Pixels
    mask: npt.NDArray[np.bool_]
    step_mm: float


def cases(data: Path, wanted: dict[str, list[str]], cache: Path) -> list[CaseEntry]:
    """The scans of some folders."""
    entries = []
    for folder, names in wanted.items():
        root = data / folder
        source: Source = (
            TotalSegmentator(layout="totalsegmentator", root=root, cases=names)
            if folder.startswith("totalsegmentator")
            else Nifti(
                layout="nifti", root=root, image="{case}/ct.nii.gz", structures={}, cases=names
            )
        )
        index = index_sources({folder: source}, (), cache_dir=cache)
        entries += list(index.entries(folder))
    return entries


def draw(
    scan: Volume, count: int, rng: np.random.Generator
) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Ellipses in soft tissue: slice and mask."""
    tissue = soft_tissue(scan.array)
    voxels, drawn = np.argwhere(tissue), []
    for _ in range(50 * count):
        i, j, k = voxels[rng.integers(len(voxels))]
        radii = (rng.uniform(*RADIUS_MM), rng.uniform(*RADIUS_MM))
        mask = ellipse(scan.shape[:2], scan.spacing_mm[:2], (i, j), radii, rng.uniform(0, np.pi))
        if mask.sum() >= 60 and tissue[:, :, k][mask].mean() >= TISSUE_SHARE:
            drawn.append((int(k), mask))
        if len(drawn) == count:
            break
    return drawn


def row_of(
    entry: CaseEntry, scan: Volume, k: int, mask: npt.NDArray[np.bool_]
) -> dict[str, object]:
    """A region as a row of the index."""
    first, second, side = bounding_square(mask)
    hu, affine = scan.array[:, :, k], scan.affine
    grid = [(affine @ [first, second, k, 1])[:3], affine[:3, 0], affine[:3, 1]]
    return {
        "key": region_key(hu, mask).tobytes(),
        "sha256": region_hash(hu, mask),
        "label": None,
        "source": entry.source,
        "case_id": entry.case_id,
        "patient_id": entry.patient_id,
        "fingerprint": entry.fingerprint,
        "side_px": side,
        "grid_mm": np.concatenate(grid).tolist(),
    }


def cropped(hu: Pixels, mask: npt.NDArray[np.bool_], margin: int = 12) -> tuple[slice, slice]:
    """Rows and columns around a mask."""
    cut = []
    for axis, length in ((1, hu.shape[0]), (0, hu.shape[1])):
        hit = np.flatnonzero(mask.any(axis=axis))
        cut.append(slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, length)))
    return cut[0], cut[1]


def drawn_of(
    entry: CaseEntry, scan: Volume, k: int, mask: npt.NDArray[np.bool_], other: Pixels
) -> Drawn:
    """A region with what its changes need."""
    cut = cropped(scan.array[:, :, k], mask)
    after = k + 1 if k + 1 < scan.shape[2] else k - 1
    hu = scan.array[:, :, k][cut].astype(np.float32)
    rows, columns = (
        np.rint(np.linspace(0, theirs - 1, mine)).astype(int)
        for theirs, mine in zip(other.shape, hu.shape, strict=True)
    )
    return Drawn(
        entry.patient_id, hu, scan.array[:, :, after][cut].astype(np.float32),
        other[np.ix_(rows, columns)], mask[cut], scan.spacing_mm[2],
    )  # fmt: skip


CHANGES: dict[str, Change] = {
    "exact": lambda one, rng: (one.hu, one.mask),
    "shift 3 px": lambda one, rng: (
        np.roll(one.hu, tuple(rng.choice([-3, 3], 2)), (0, 1)),
        one.mask,
    ),
    "HU x 1.15 + 20": lambda one, rng: (one.hu * 1.15 + 20, one.mask),
    "flip": lambda one, rng: (one.hu[::-1], one.mask[::-1]),
    "noise 10 HU": lambda one, rng: (add_noise(one.hu, 10, one.other, rng), one.mask),
    "noise 20 HU": lambda one, rng: (add_noise(one.hu, 20, one.other, rng), one.mask),
    "blur 1 px": lambda one, rng: (blur(one.hu, 1, one.other, rng), one.mask),
    "deformation 2 px": lambda one, rng: (deform(one.hu, 2, one.other, rng), one.mask),
    "blend 50 %": lambda one, rng: (blend(one.hu, 0.5, one.other, rng), one.mask),
    "next slice": lambda one, rng: (one.next_hu, one.mask),
}


def piece(hu: Pixels, mask: npt.NDArray[np.bool_], step_mm: float) -> Piece:
    """As a painted slice would be."""
    return Piece(np.clip(np.rint(hu), -1024, 3071).astype(np.int16)[None], mask[None], step_mm)


def collect(
    entries: Sequence[CaseEntry], count: int, name: str
) -> tuple[list[dict[str, object]], list[Drawn]]:
    """Rows of about ``count`` regions of some scans, shared out evenly, and 30 of each drawn."""
    rows, drawn, other = [], [], None
    share = -(-count // len(entries))
    for entry in entries:
        scan = read_case(entry, {}).scan()
        rng = generator(0, "privacy-benchmark", name, entry.case_id)
        for n, (k, mask) in enumerate(draw(scan, share, rng)):
            rows.append(row_of(entry, scan, k, mask))
            here = scan.array[:, :, k][cropped(scan.array[:, :, k], mask)].astype(np.float32)
            if n < 30 or name == "others":
                drawn.append(drawn_of(entry, scan, k, mask, here if other is None else other))
            other = here
    return rows, drawn


#: What is compared with a threshold.
MEASURES: dict[str, Callable[[Nearest], float]] = {
    "train_key": lambda one: one.key_similarity,
    "train_nn_ncc": lambda one: one.ncc or 0.0,
    "train_nn_z": lambda one: one.z or 0.0,
}


def flagged(found: Sequence[Nearest], limits: dict[str, float]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which are flagged by each measure, and by any."""
    by = {
        name: np.array([MEASURES[name](one) > limit for one in found])
        for name, limit in limits.items()
    }
    return {**by, "any": np.any(list(by.values()), axis=0)}


def attack(rows: Sequence[dict[str, object]], drawn: Sequence[Drawn]) -> None:
    """What the keys alone give away of the regions."""
    table = make_index(rows, None, seed=0)
    keys, half = keys_of(table), len(drawn) // 2
    regions = [Query.of(one.hu, one.mask) for one in drawn]
    own = np.stack([region_key(one.hu, one.mask) for one in drawn])
    near, _ = search_keys([(one.hu, one.mask) for one in drawn[half:]], own[:half], best=1)
    same = [
        correlation(a, Query.of(drawn[int(b)].hu, drawn[int(b)].mask))
        for a, b in zip(regions[half:], near[:, 0], strict=True)
        if a.cells == regions[int(b)].cells
    ]
    print(f"nearest real region by key, correlation: {np.median(same):.2f} (n {len(same)})")
    bits = np.stack([own >> 4, own & 15], axis=-1).reshape(len(own), -1).astype(np.float32) - 8
    whole = [one for one in range(len(regions)) if regions[one].cells == 48]
    train, test = whole[: len(whole) // 2], whole[len(whole) // 2 :]
    target = np.stack(
        [
            (regions[n].hu[0] - regions[n].hu[0][regions[n].mask[0]].mean()) * regions[n].mask[0]
            for n in train
        ]
    )
    gram = bits[train].T @ bits[train] + 100 * np.eye(bits.shape[1])
    decoder = np.linalg.solve(gram, bits[train].T @ target.reshape(len(train), -1))
    found = []
    for n in test:
        made = (bits[n] @ decoder).reshape(48, 48).astype(np.float32)
        true, mask = regions[n].hu[0], regions[n].mask[0]
        found.append(np.corrcoef(made[mask], true[mask])[0, 1])
    print(f"linear decoder, correlation of plain HU: {np.median(found):.2f} (n {len(found)})")
    print(f"{len(keys)} keys")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--regions", type=int, default=6000)
    parser.add_argument("--independent", type=int, default=1000)
    parser.add_argument("--planted", type=int, default=100)
    parser.add_argument("--change", action="append", choices=list(CHANGES))
    parser.add_argument("--cache", type=Path, default=Path(".cache/privacy"))
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--attack", action="store_true")
    given = parser.parse_args()
    known, unknown = (JUDGED, STARTERS) if given.judge else (TRAINED, OTHERS)
    trained = cases(given.data, known, given.cache)
    rows, drawn = collect(trained, given.regions, "trained")
    index: pa.Table = make_index(rows, None, seed=0)
    training = TrainingRegions(index, {one.fingerprint: one for one in trained if one.fingerprint})
    others = cases(given.data, unknown, given.cache)
    _, strangers = collect(others, 2 * given.independent, "others")
    generator(0, "privacy-benchmark", "order").shuffle(strangers)
    if given.attack:
        attack(rows, strangers)
        return
    patients = sorted({one.patient for one in strangers})
    setting = set(patients[::2])
    halves = [
        [one for one in strangers if (one.patient in setting) == is_set] for is_set in (True, False)
    ]
    halves = [half[: given.independent] for half in halves]
    near = []
    for half in halves:
        started, used = time.perf_counter(), time.process_time()
        near.append(training.nearest([piece(o.hu, o.mask, o.step_mm) for o in half]))
        seconds, used = time.perf_counter() - started, time.process_time() - used
        print(f"{len(half)} regions in {seconds:.0f} s, {used:.0f} s of a processor", flush=True)
    who = [one.patient for one in halves[0]]
    fitted = [fit_threshold(name, [of(o) for o in near[0]], who) for name, of in MEASURES.items()]
    limits = {one.measure: one.value for one in fitted}
    print(f"{len(index)} regions of {len(trained)} patients")
    for one in fitted:
        told = f"above {one.value:.3f}, largest {one.largest or 0:.3f}"
        print(f"{one.measure}: {told} of {one.regions} regions of {one.patients} patients")
    print(f"independent: {len(near[1])} regions of {len({o.patient for o in halves[1]})} patients")
    for name, hit in flagged(near[1], limits).items():
        highest = (
            f", the highest has {max(map(MEASURES[name], near[1])):.3f}" if name in limits else ""
        )
        print(f"  {name}: {hit.sum()} flagged{highest}")
    plant(training, drawn, given, limits)


def plant(
    training: TrainingRegions,
    drawn: Sequence[Drawn],
    given: argparse.Namespace,
    limits: dict[str, float],
) -> None:
    """Print how many changed copies are found, and whether the right patient is named."""
    rng = generator(0, "privacy-benchmark", "planted")
    order = [drawn[n] for n in rng.permutation(len(drawn))]
    count = given.planted
    near = [one for one in order if one.step_mm <= NEAR_MM][:count]
    far = [one for one in order if one.step_mm > NEAR_MM][:count]
    groups = [(name, name, order[:count]) for name in CHANGES if name != "next slice"]
    groups += [(f"next slice, up to {NEAR_MM:.0f} mm on", "next slice", near)]
    groups += [("next slice, farther", "next slice", far)]
    for title, change, some in groups:
        if given.change and change not in given.change:
            continue
        pieces = [piece(*CHANGES[change](one, rng), one.step_mm) for one in some]
        found = training.nearest(pieces)
        pairs = zip(found, some, strict=True)
        named = np.mean([training.patient(f.row) == one.patient for f, one in pairs])
        shares = "  ".join(f"{n} {hit.mean():6.1%}" for n, hit in flagged(found, limits).items())
        middle = [np.median([of(one) for one in found]) for of in MEASURES.values()]
        print(
            f"{title:26s} n {len(some):3d}  {shares}  right patient {named:6.1%}  medians "
            + ", ".join(f"{one:.2f}" for one in middle),
            flush=True,
        )


if __name__ == "__main__":
    main()
