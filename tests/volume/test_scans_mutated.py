"""Scans damaged at random: each is refused, or read as the very scan that it was.

Of a gzipped file every byte is covered by a checksum but those of the gzip header that say when
and where it was made (time stamp, extra flags, system, file name): damage there changes nothing
that is read, and is let pass. A plain .nii has no checksum: by itself it can only be refused for
what cannot be; against the hash that the index keeps, every damage is found.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import oblique_affine

from synthct.errors import SourceError
from synthct.volume import Volume, nifti_bytes, read_ct, read_labels

X, Y, Z = np.indices((24, 20, 12))
#: Smooth, so that its gzip stream has real structure, not one stored block.
SCAN = Volume(
    (200 * np.sin(X / 5) * np.cos(Y / 4) + 9 * Z - 150).astype(np.int16), oblique_affine()
)
LABELS = Volume((((X - 12) ** 2 + (Y - 10) ** 2 + (Z - 6) ** 2) < 30).astype(np.uint8) * 3,
                oblique_affine())  # fmt: skip


def named(raw: bytes) -> bytes:
    """Gzipped as by the command line: with a time stamp and the file's name in the header."""
    out = io.BytesIO()
    with gzip.GzipFile("ct.nii", "wb", fileobj=out, mtime=1.6e9) as file:
        file.write(raw)
    return out.getvalue()


FILES = {
    "ours": nifti_bytes(SCAN, compress=True),
    "zlib": gzip.compress(nifti_bytes(SCAN, compress=False), 9),
    "named": named(nifti_bytes(SCAN, compress=False)),
    "labels": nifti_bytes(LABELS, compress=True),
}


def mutate(good: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """One kind of damage that disks, cables and people do."""
    raw = bytearray(good)
    size = len(raw)
    at = int(rng.integers(size))
    length = int(rng.integers(1, min(600, size)))
    kind = str(rng.choice(["bit", "bit", "bit", "bits", "byte", "cut", "cut", "hole", "zeros",
                           "twice", "rubbish", "swap"]))  # fmt: skip
    if kind == "bit":
        raw[at] ^= 1 << int(rng.integers(8))
    elif kind == "bits":
        for place in rng.integers(size, size=int(rng.integers(2, 9))):
            raw[place] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        raw[at] = int(rng.integers(256))
    elif kind == "cut":
        del raw[at:]
    elif kind == "hole":
        del raw[at : at + length]
    elif kind == "zeros":
        raw[at : at + length] = bytes(len(raw[at : at + length]))
    elif kind == "twice":
        raw[at:at] = raw[at : at + length]
    elif kind == "rubbish":
        raw += rng.bytes(length)
    else:
        there = int(rng.integers(size))
        raw[at : at + length], raw[there : there + length] = (
            raw[there : there + length],
            raw[at : at + length],
        )
    return kind, bytes(raw)


@pytest.mark.long
@pytest.mark.parametrize(
    "count", [1_000, pytest.param(20_000, marks=pytest.mark.full)], ids=["1000", "20000"]
)
def test_no_damaged_scan_gives_a_wrong_voxel(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    refused: Counter[str] = Counter()
    read: Counter[str] = Counter()
    path = tmp_path / "a.nii.gz"
    for number in range(count):
        name = list(FILES)[number % len(FILES)]
        kind, raw = mutate(FILES[name], rng)
        path.write_bytes(raw)
        good = LABELS if name == "labels" else SCAN
        try:
            found = (read_labels if name == "labels" else read_ct)(path)
        except SourceError:
            refused[kind] += raw != FILES[name]
            continue
        assert np.array_equal(found.array, good.array), (number, name, kind)
        assert np.array_equal(found.affine, read_whole(path, FILES[name]).affine)
        read[kind] += raw != FILES[name]
    assert sum(refused.values()) > 0.9 * count
    assert all(refused[kind] > 0 for kind in ("bit", "bits", "byte", "cut", "hole", "zeros"))
    assert read["cut"] == read["rubbish"] == read["hole"] == 0


def read_whole(path: Path, raw: bytes) -> Volume:
    path.write_bytes(raw)
    return read_ct(path) if raw is not FILES["labels"] else read_labels(path)


@pytest.mark.parametrize("name", ["ours", "named"])
def test_a_flip_that_is_let_pass_is_in_what_gzip_says_of_itself_or_fills_up_with(
    tmp_path: Path, name: str
) -> None:
    good, path = FILES[name], tmp_path / "a.nii.gz"
    header = 10 + (len(b"ct.nii\0") if name == "named" else 0)
    passed = set()
    for bit in [*range(8 * (header + 40)), *range(8 * len(good) - 128, 8 * len(good))]:
        raw = bytearray(good)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        try:
            found = read_ct(path)
        except SourceError:
            continue
        assert np.array_equal(found.array, SCAN.array)
        passed.add(bit // 8)
    assert passed <= {*range(3, header), len(good) - 9}


def test_no_cut_anywhere_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    good = FILES["zlib"]
    for length in [
        *range(0, len(good), max(1, len(good) // 200)),
        *range(len(good) - 20, len(good)),
    ]:
        path.write_bytes(good[:length])
        with pytest.raises(SourceError):
            read_ct(path)


@pytest.mark.long
def test_every_flip_of_a_plain_file_is_found_by_its_hash(tmp_path: Path) -> None:
    good = nifti_bytes(SCAN, compress=False)
    sha256 = hashlib.sha256(good).hexdigest()
    path = tmp_path / "a.nii"
    path.write_bytes(good)
    read_ct(path, sha256=sha256)
    rng = np.random.default_rng(3)
    for bit in [*range(0, 8 * 352, 7), *rng.integers(8 * 352, 8 * len(good), 300)]:
        raw = bytearray(good)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        with pytest.raises(SourceError):
            read_ct(path, sha256=sha256)


@pytest.mark.long
@pytest.mark.parametrize(
    "count", [500, pytest.param(10_000, marks=pytest.mark.full)], ids=["500", "10000"]
)
def test_whatever_a_header_says_it_is_read_or_refused(tmp_path: Path, count: int) -> None:
    """Headers that are odd but were written so, with a right checksum: never another error."""
    rng = np.random.default_rng(count)
    good = nifti_bytes(SCAN, compress=False)
    path, odd = tmp_path / "a.nii.gz", [0, 1, -1, 2, 7, 8, 255, 2**15 - 1, -(2**15), 64, 512]
    refused = 0
    for number in range(count):
        raw = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            at = 2 * int(rng.integers(174))
            if rng.random() < 0.5:
                struct.pack_into("<h", raw, at, int(rng.choice(odd)))
            else:
                raw[at : at + 4] = rng.bytes(4)
        path.write_bytes(gzip.compress(raw, 1) if number % 2 else raw)
        try:
            found = read_ct(path)
        except SourceError:
            refused += 1
        else:
            assert np.isfinite(found.affine).all()
            assert found.array.dtype == np.int16
    assert 0.3 * count < refused < count
