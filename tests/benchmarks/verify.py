"""How fast ``synthct verify --level 0`` hashes: run by hand.

    python tests/benchmarks/verify.py [--mb 1024]

Prints MB per second of processor time (that of one core) and of wall time, best of some runs; the
files were just written, so that the disk is not what is measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from synthct.dataset.integrity import check_bytes
from synthct.dataset.manifest import FileEntry, Manifest, Release
from synthct.storage.files import sha256_of

RUNS, FILES = 5, 16


def made(folder: Path, mb: int) -> Manifest:
    """The manifest of as many random bytes, in files as large as shards."""
    entries = []
    for number in range(FILES):
        path = folder / f"data/train-{number:05}-of-{FILES:05}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(mb * 1_000_000 // FILES))
        name = path.relative_to(folder).as_posix()
        entries.append(FileEntry(path=name, bytes=path.stat().st_size, sha256=sha256_of(path)))
    nothing = Release(name="x", version="1.0.0", content_id="0" * 64, plan_id="x", splits=())
    return Manifest.of(nothing, entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--mb", type=int, default=1024)
    mb = parser.parse_args().mb
    with tempfile.TemporaryDirectory() as name:
        manifest = made(Path(name), mb)
        spans = []
        for _ in range(RUNS):
            wall, cpu = time.perf_counter(), time.process_time()
            found = check_bytes(Path(name), manifest)
            spans.append((time.process_time() - cpu, time.perf_counter() - wall))
            if found:
                raise SystemExit(f"a fresh file is said to be damaged: {found[0]}")
    cpu, wall = (min(column) for column in zip(*spans, strict=True))
    print(f"level 0: {mb / cpu:.0f} MB/s of processor time, {mb / wall:.0f} MB/s of wall time")


if __name__ == "__main__":
    main()
