"""How fast scans are read, and what refusing bad ones costs: run by hand.

    python tests/benchmarks/reading.py ../shared/data/totalsegmentator_v2/s0002

Prints CPU seconds of reading a scan and its label files, beside nibabel reading the same with
``np.asanyarray(image.dataobj)``, and for each damaged copy of the scan the CPU time and the
memory, above that of a process that has read nothing, until it was refused.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from synthct.errors import SourceError
from synthct.volume import read_ct, read_labels

REPEATS = 3


def timed(work: Callable[[], Any]) -> float:
    """Least CPU seconds of some runs."""
    spans = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        spans.append(time.process_time() - start)
    return min(spans)


def by_nibabel(path: Path) -> Any:
    return np.asanyarray(nib.load(path).dataobj)


def _peak_mb() -> float:
    """Of this process; ``ru_maxrss`` would be that of its parent."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def refuse(path: Path) -> None:
    """Child process: read one bad file, print what it cost."""
    before, start = _peak_mb(), time.process_time()
    try:
        read_ct(path)
        said = "READ"
    except SourceError as err:
        said = str(err).split(": ", 1)[1].split("\n")[0]
    spent = time.process_time() - start
    print(f"{path.name:<16}{spent:6.2f} s {_peak_mb() - before:7.1f} MB  {said[:80]}")


def main(case: Path) -> None:
    scan = case / "ct.nii.gz"
    labels = sorted((case / "segmentations").glob("*.nii.gz"))[:12]
    print(f"scan      {timed(lambda: read_ct(scan)):.2f} s, "
          f"nibabel {timed(lambda: by_nibabel(scan)):.2f} s")  # fmt: skip
    ours = timed(lambda: [read_labels(path) and None for path in labels])
    theirs = timed(lambda: [by_nibabel(path) is None for path in labels])
    print(f"{len(labels)} labels {ours:.2f} s, nibabel {theirs:.2f} s")
    good = scan.read_bytes()
    half = len(good) // 2
    flipped = bytearray(good)
    flipped[half] ^= 1
    bad = {
        "cut at half": good[:half],
        "last byte lost": good[:-1],
        "flipped at half": bytes(flipped),
        "flipped at end": good[:-6] + bytes([good[-6] ^ 1]) + good[-5:],
        "rubbish behind": good + b"rubbish",
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, raw in bad.items():
            path = Path(folder) / name
            path.write_bytes(raw)
            subprocess.run([sys.executable, __file__, "--refuse", str(path)], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--refuse":
        refuse(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
