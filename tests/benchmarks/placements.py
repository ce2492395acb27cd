"""The yardstick of transplants: 500 placements of real tumours in real and procedural hosts.

    python tests/benchmarks/placements.py --data ../shared/data/kits23/dataset

places the tumours of the KiTS23 donors (label maps without images) into the three real hosts and
ten phantoms at the default limits, and prints how many were accepted and why the others were not,
how far matched places are from the donors' own, time and memory. Every accepted mask is checked
by ``broken_limits`` and every deformation by ``least_determinant``, which share no code with the
placement: they look at the mask's voxels and at the recorded numbers only. Exits with 1 if a
figure that is required is missed. Times are those of the processor; with OMP_NUM_THREADS=1 it is
one core.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from synthct.masks.accept import Accept
from synthct.masks.base import PlacementError
from synthct.masks.lesion import find_lesion
from synthct.masks.transplant import Transplant
from synthct.seeds import generator
from synthct.sources.phantom import PHANTOM_UNIONS
from synthct.sources.phantoms import PHANTOM_LABELS, make_phantom
from synthct.volume import Volume, canonical, read_ct, read_labels
from synthct.volume.anatomy import lesions_of
from synthct.volume.case import Case

KITS_LABELS = {"kidney": 1, "tumor": 2, "cyst": 3}
PHANTOMS, SEED = 10, 0
#: What is required: share placed of those that fit, ms in the median, MB.
LEAST_PLACED, MOST_MS, MOST_MB = 0.9, 150.0, 1500.0
TIMED_SHAPE = (512, 512, 133)

Region = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


@dataclass
class Figures:
    """What is counted and measured over all placements."""

    reasons: Counter[str] = field(default_factory=Counter)
    failed_tries: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    placed: int = 0
    tries: list[int] = field(default_factory=list)
    times_s: dict[str, list[float]] = field(default_factory=dict)
    looks_s: list[float] = field(default_factory=list)
    determinants: list[float] = field(default_factory=list)
    off_place: list[float] = field(default_factory=list)
    off_share: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)


def read_kits(folder: Path) -> Case:
    image = folder / "imaging.nii.gz"
    ct = read_ct(image) if image.exists() else None
    labels = read_labels(folder / "segmentation.nii.gz")
    return Case(folder.name, folder.name, "kits", ct, labels, KITS_LABELS)


def phantom(patient: int) -> Case:
    made = make_phantom(SEED, patient, tumours=False)
    ct, labels = (canonical(Volume(a, made.affine)) for a in (made.ct, made.labels))
    name = f"phantom_{patient}"
    return Case(name, name, "phantoms", ct, labels, dict(PHANTOM_LABELS), dict(PHANTOM_UNIONS))


# --- the checks: nothing of synthct.masks ---


@dataclass(frozen=True, eq=False)
class Truth:
    """What the checks know of a host, found once.

    Attributes:
        host: The case.
        accept: The limits.
        organ: Boolean on the host's grid.
        parts: Connected parts of the organ, numbered.
        sizes: Voxels of each part.
        avoided: Places in mm of what is kept clear of; None where there is nothing.
    """

    host: Case
    accept: Accept
    organ: Region
    parts: npt.NDArray[np.integer]
    sizes: npt.NDArray[np.integer]
    avoided: cKDTree | None

    @classmethod
    def of(cls, host: Case, kind: Transplant) -> Truth:
        organ = np.isin(host.labels.array, host.values_of(kind.into))
        parts, _ = ndimage.label(organ)
        known = {*host.label_names, *host.unions}
        names = known.intersection((kind.label, *kind.accept.avoid))
        values = {value for name in names for value in host.values_of(name)}
        others = np.argwhere(np.isin(host.labels.array, sorted(values))).astype(np.float32)
        tree = cKDTree(others * host.labels.spacing_mm) if len(others) else None
        return cls(host, kind.accept, organ, parts, np.bincount(parts.ravel()), tree)


def broken_limits(truth: Truth, mask: Region, start: npt.NDArray[np.int64]) -> list[str]:
    """The limits that a mask, a crop that begins at a voxel of the host, does not keep."""
    accept, spacing = truth.accept, np.asarray(truth.host.labels.spacing_mm)
    voxels = np.argwhere(mask) + start
    at = tuple(voxels.T)
    inside = truth.organ[at]
    part = truth.parts[tuple(np.rint(voxels.mean(axis=0)).astype(int))]
    volume_ml = len(voxels) * float(np.prod(spacing)) / 1000
    limits = {
        "field_of_view": (voxels < 1).any() or (voxels >= np.array(truth.organ.shape) - 1).any(),
        "centre_outside": part == 0,
        "organ_fraction": len(voxels) > accept.organ_fraction * truth.sizes[part],
        "inside_fraction": (truth.parts[at] == part).mean() < accept.inside_fraction,
        "not one component": ndimage.label(mask)[1] != 1,
        "too_small": volume_ml < accept.min_volume_ml
        or (np.ptp(voxels, axis=0) + 1).min() < accept.min_slices,
        "other_structure": ((truth.host.labels.array[at] != 0) & ~inside).any(),
    }
    broken = [name for name, is_broken in limits.items() if is_broken]
    broken += broken_outside(truth.host, voxels[~inside], truth.organ, accept, len(voxels))
    if truth.avoided is not None:
        nearest = np.min(truth.avoided.query(voxels * spacing, workers=1)[0])
        broken += ["clearance"] if nearest <= accept.clearance_mm - 1e-3 else []
    return broken


def broken_outside(
    host: Case, out: npt.NDArray[np.int64], kidney: Region, accept: Accept, size: int
) -> list[str]:
    """The limits that the voxels (N, 3) of a mask of so many voxels outside the organ break."""
    if not len(out):
        return []
    assert host.ct is not None
    hu, spacing = host.ct.array[tuple(out.T)], np.asarray(host.labels.spacing_mm)
    # The rim: within rim_mm of the organ, a voxel counting as no longer than that.
    short = np.minimum(spacing, accept.rim_mm)
    reach = np.ceil(accept.rim_mm / short).astype(int) + 1
    start = np.maximum(out.min(axis=0) - reach, 0)
    stop = out.max(axis=0) + reach + 1
    window = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    near = np.argwhere(kidney[window]) + start
    beyond = np.ones(len(out), dtype=bool)
    if len(near):
        distances_mm = np.asarray(cKDTree(near * short).query(out * short)[0])
        beyond = distances_mm > accept.rim_mm + 1e-9
    low, high = accept.outside_hu
    soft = beyond & (hu > -30) & (hu <= high)
    limits = {
        "air": (hu < low).any(),
        "bone": (hu[beyond] > high).any(),
        "soft_tissue": soft.sum() > accept.soft_tissue_fraction * size,
    }
    return [name for name, is_broken in limits.items() if is_broken]


def least_determinant(velocity: Mapping[str, Any], reach_mm: float) -> float:
    """Least signed volume, relative to rest, of the tetrahedra of a lattice that the flow moves.

    The flow is followed by Runge-Kutta steps through the recorded sine waves.
    """
    frequencies, phases, amplitudes = (
        np.asarray(velocity[name]) for name in ("frequencies", "phases", "amplitudes_mm")
    )

    def speed(points: Points) -> Points:
        return np.asarray(np.sin(points @ frequencies.T + phases) @ amplitudes)

    count, steps = 17, 12
    axis = np.linspace(-reach_mm, reach_mm, count)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    for _ in range(steps):
        one = speed(points)
        two = speed(points + one / (2 * steps))
        three = speed(points + two / (2 * steps))
        four = speed(points + three / steps)
        points = points + (one + 2 * two + 2 * three + four) / (6 * steps)
    cell = (axis[1] - axis[0]) ** 3
    least = np.inf
    here, there = slice(0, -1), slice(1, None)
    for first, second, third in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0)):
        corners = []
        offset = [0, 0, 0]
        for step in (None, first, second, third):
            if step is not None:
                offset[step] = 1
            corners.append(points[tuple(there if n else here for n in offset)])
        a, b, c = (corners[n] - corners[0] for n in (1, 2, 3))
        sign = 1 if (second - first) % 3 == 1 else -1
        least = min(least, float((sign * np.einsum("...d,...d", a, np.cross(b, c)) / cell).min()))
    return least


# --- the run ---


def place(truth: Truth, donor: Case, kind: Transplant, figures: Figures) -> None:
    """Place one tumour, check it, and count."""
    host = truth.host
    rng = generator(SEED, "benchmark", host.case_id, donor.case_id)
    # What is found once per case: a donor's lesions. The host's organ is found with its first.
    start = time.process_time()
    for lesion in lesions_of(donor, kind.label, kind.into):
        if kind.query.matches(lesion):
            find_lesion(donor, kind.label, lesion.number)
    figures.looks_s.append(time.process_time() - start)
    start = time.process_time()
    try:
        params = kind.draw(host, donor, rng)
        mask = kind.build(host, donor, params)
    except PlacementError as err:
        figures.reasons[err.reason] += 1
        if err.reasons != {"organ_fraction": 1}:
            figures.failed_tries.update(err.reasons)
        return
    shape = "x".join(str(n) for n in host.labels.shape)
    figures.times_s.setdefault(shape, []).append(time.process_time() - start)
    figures.placed += 1
    figures.tries.append(params["attempt"])
    figures.failed_tries.update(params["failed"])
    broken = broken_limits(truth, mask.region.array, np.asarray(mask.box.start_ijk))
    if params["velocity"] is not None:
        lesion = mask.facts["donor_lesion"]
        least = least_determinant(params["velocity"], 0.6 * lesion["diameter_mm"] * params["scale"])
        figures.determinants.append(min(least, mask.facts["jacobian_min"]))
        broken += ["folded"] if least <= 0 or mask.facts["jacobian_min"] <= 0 else []
    again = kind.build(host, donor, params)
    if again.box != mask.box or not np.array_equal(again.region.array, mask.region.array):
        broken.append("replay differs")
    figures.broken += [f"{host.case_id} < {donor.case_id}: {name}" for name in broken]
    seat = mask.facts["donor_lesion"]["seat"]
    sign = np.array([1 if seat["side"] == mask.facts["organ_side"] else -1, 1, 1])
    figures.off_place.append(
        float(np.linalg.norm(np.asarray(mask.facts["place"]) - sign * seat["place"]))
    )
    figures.off_share.append(mask.facts["exophytic_share"] - seat["exophytic_share"])
    figures.shares.append(mask.facts["exophytic_share"])


def peak_mb(host: Path, donors: Sequence[Path], kind: Transplant) -> float:
    """Peak memory of this process, which does nothing but read a host and donors and place."""
    case = read_kits(host)
    for donor in donors:
        with suppress(PlacementError):
            lender = read_kits(donor)
            rng = generator(SEED, "benchmark", case.case_id, lender.case_id)
            kind.build(case, lender, kind.draw(case, lender, rng))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(figures: Figures, count: int, memory_mb: float) -> bool:
    """Print the figures; whether all that are required are met."""
    apart = figures.reasons.get("organ_fraction", 0)
    fitting = count - apart
    share = figures.placed / fitting
    print(f"placements {count}: accepted {figures.placed}, rejected {count - figures.placed}")
    print(f"lesion larger than its share of the organ at the least scale: {apart}")
    print(f"of the {fitting} others placed: {figures.placed} = {share:.1%}")
    rejected = {name: n for name, n in figures.reasons.items() if name != "organ_fraction"}
    print(f"reasons of rejections: {rejected or 'none'}")
    print(f"reasons of failed tries: {dict(figures.failed_tries.most_common())}")
    at_once = np.mean(np.equal(figures.tries, 1))
    print(f"tries: mean {np.mean(figures.tries):.2f}, at once {at_once:.1%}")
    print(
        f"least determinant of {len(figures.determinants)} flows: {min(figures.determinants):.3f}"
    )
    print(f"broken limits: {len(figures.broken)}", *figures.broken, sep="\n  ")
    quantiles = [10, 25, 50, 75, 90]
    for name, values in (
        ("exophytic share", figures.shares),
        ("exophytic share minus the donor's", figures.off_share),
        ("distance from the donor's place (2.2 is centre to surface)", figures.off_place),
    ):
        numbers = " ".join(f"{value:+.2f}" for value in np.percentile(values, quantiles))
        print(f"{name}, percentiles {quantiles}: {numbers}")
    timed = 0.0
    for shape, seconds in sorted(figures.times_s.items(), key=lambda item: -len(item[1])):
        middle, late = np.percentile(seconds, [50, 95]) * 1000
        print(f"host {shape}: {len(seconds)} placed, median {middle:.0f} ms, 95 % {late:.0f} ms")
        timed = middle if shape == "x".join(map(str, TIMED_SHAPE)) else timed
    look_ms = np.median(figures.looks_s) * 1000
    print(f"first look at a donor: median {look_ms:.0f} ms, once per case")
    print(f"peak memory of a process that places into the largest host: {memory_mb:.0f} MB")
    met = {
        f"{LEAST_PLACED:.0%} placed": share >= LEAST_PLACED,
        "no limit broken, no deformation folded": not figures.broken,
        f"median below {MOST_MS:g} ms": 0 < timed < MOST_MS,
        f"peak below {MOST_MB:g} MB": memory_mb < MOST_MB,
    }
    for name, is_met in met.items():
        print(f"{'met   ' if is_met else 'MISSED'} {name}")
    return all(met.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/kits23/dataset"))
    parser.add_argument("--placements", type=int, default=500)
    parser.add_argument("--placement", choices=["matched", "random"], default="matched")
    args = parser.parse_args()
    folders = sorted(args.data.iterdir())
    donors = [f for f in folders if not (f / "imaging.nii.gz").exists()]
    hosts = [f for f in folders if (f / "imaging.nii.gz").exists()]
    pairs = [(h, d) for h in range(len(hosts) + PHANTOMS) for d in range(len(donors))]
    chosen = np.random.default_rng(SEED).permutation(len(pairs))[: args.placements]
    by_host: dict[int, list[int]] = {}
    for number in sorted(chosen):
        host, donor = pairs[number]
        by_host.setdefault(host, []).append(donor)
    kind = Transplant.model_validate(
        {
            "name": "benchmark",
            "kind": "transplant",
            "label": "tumor",
            "into": "kidney",
            "placement": args.placement,
        }
    )
    # First and in a process of its own: making phantoms and checking masks take more memory than
    # placing them, and a process is charged with what its parent had.
    largest = max(hosts, key=lambda folder: (folder / "imaging.nii.gz").stat().st_size)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        memory_mb = alone.submit(peak_mb, largest, donors[:8], kind).result()
    figures = Figures()
    for number, mine in by_host.items():
        host = read_kits(hosts[number]) if number < len(hosts) else phantom(number - len(hosts))
        truth = Truth.of(host, kind)
        for donor in mine:
            place(truth, read_kits(donors[donor]), kind, figures)
        print(f"{host.case_id}: {len(mine)} done, {figures.placed} placed so far", flush=True)
    raise SystemExit(0 if report(figures, len(chosen), memory_mb) else 1)


if __name__ == "__main__":
    main()
