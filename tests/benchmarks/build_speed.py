"""Processor time of a sample in a build, by this checkout and by another, in turn.

    git worktree add ../before 7cd8c31
    python tests/benchmarks/build_speed.py --data ../shared/data --other ../before

builds blobs of 8 to 20 mm in two abdomens with the starter of each checkout as it is by default (20
steps in release 0.1.0, 2 today), once with few and once with many blobs, with one thread and no
further processes. The difference, which is free of what a build does once, is divided by the
difference in samples. The environment must suit both checkouts; that of this one suits 7cd8c31.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SCANS = ("s0003", "s0004")
#: Blobs in each scan.
FEW, MANY = 8, 40


def build(checkout: Path, data: Path, folder: Path, blobs: int) -> float:
    """Processor seconds of a whole build."""
    root = str((data / "totalsegmentator_v2").resolve())
    hosts = {"layout": "totalsegmentator", "root": root, "cases": list(SCANS)}
    recipe = folder / f"speed-{blobs}.yaml"
    fields = {
        "name": f"speed-{blobs}",
        "version": "1.0.0",
        "sources": {"hosts": hosts},
        "masks_per_case": blobs,
        "masks": [{"name": "blobs", "kind": "blob", "radius_mm": [8, 20]}],
        "inpaint": {"checkpoint": "package:starter-2d"},
        "splits": {"train": 1.0},
    }
    recipe.write_text(json.dumps(fields), encoding="utf-8")
    words = [sys.executable, "-m", "synthct", "build", str(recipe), "--workers", "0"]
    paths = ["--output", str(folder / "out"), "--cache-dir", str(folder / "cache")]
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = {**os.environ, **one, "PYTHONPATH": str(checkout.resolve())}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*words, *paths],
        check=True,
        env=environment,
        cwd=folder,  # the current folder comes before PYTHONPATH
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def per_sample(checkout: Path, data: Path) -> float:
    """Milliseconds of a sample; the caches are filled by the smaller build."""
    with tempfile.TemporaryDirectory() as name:
        build(checkout, data, Path(name), 1)
        few, many = (build(checkout, data, Path(name), blobs) for blobs in (FEW, MANY))
    return 1000 * (many - few) / (len(SCANS) * (MANY - FEW))


def main() -> None:
    """Print each measurement, and the medians with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--other", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    found: dict[Path, list[float]] = {Path(__file__).parents[2]: [], options.other: []}
    for _ in range(options.times):
        for checkout, times in found.items():
            times.append(per_sample(checkout, options.data))
            print(f"{checkout.resolve().name}: {times[-1]:.1f} ms a sample", flush=True)
    own, other = (statistics.median(times) for times in found.values())
    print(f"medians {own:.1f} and {other:.1f} ms: {other / own:.2f} times as fast")


if __name__ == "__main__":
    main()
