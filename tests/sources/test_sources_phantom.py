"""Phantoms as a source: made once, whole or not at all, and laid out like real data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import oblique_affine
from pydantic import TypeAdapter, ValidationError

from synthct.errors import ConflictError, ResourceError
from synthct.sources import (
    Kits,
    PhantomSource,
    Scanner,
    Source,
    TotalSegmentator,
    index_sources,
    label_table,
    read_case,
    write_phantoms,
)
from synthct.sources.phantoms import PHANTOM_LABELS
from synthct.storage import files

SHAPE = (24, 20, 12)


def blocks(seed: int, patient: int, **_: Any) -> SimpleNamespace:
    """A stand-in for a phantom: every structure a block of its own, noise for a CT."""
    rng = np.random.default_rng([seed, patient])
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for n, value in enumerate(PHANTOM_LABELS.values()):
        i, j = divmod(n, 6)
        labels[4 * i : 4 * i + 3, 3 * j : 3 * j + 2, 2:9] = value
    ct = rng.integers(-100, 200, SHAPE).astype(np.int16)
    return SimpleNamespace(ct=ct, labels=labels, affine=oblique_affine(), facts={})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Replaces the phantoms by blocks; lists what was made."""
    calls: list[tuple[int, int]] = []

    def make(seed: int, patient: int, **look: Any) -> SimpleNamespace:
        calls.append((seed, patient))
        return blocks(seed, patient, **look)

    monkeypatch.setattr("synthct.sources.phantoms.make_phantom", make)
    return calls


def test_phantoms_are_made_once(made: list[tuple[int, int]], tmp_path: Path) -> None:
    for patients in (2, 2, 3):
        source = PhantomSource(patients=patients, seed=5)
        index = index_sources({"hosts": source}, ["kidney"], cache_dir=tmp_path)
    assert sorted(made) == [(5, 0), (5, 1), (5, 2)]
    entries = index.entries("hosts")
    assert [e.case_id for e in entries] == ["phantom-5-0000", "phantom-5-0001", "phantom-5-0002"]
    assert len({entry.voxel_sha256 for entry in entries}) == 3


def test_phantom_is_read_as_it_was_made(made: list[tuple[int, int]], tmp_path: Path) -> None:
    sources = {"hosts": PhantomSource(patients=1)}
    entry = index_sources(sources, [], cache_dir=tmp_path).entries("hosts")[0]
    table = label_table(sources, ["tumor", "kidney"])
    assert table == dict(PHANTOM_LABELS)
    case = read_case(entry, table)
    truth = blocks(0, 0)
    assert np.array_equal(case.scan().array, truth.ct)
    assert np.array_equal(case.labels.array, truth.labels)
    tumor = [PHANTOM_LABELS["kidney_tumor"], PHANTOM_LABELS["liver_tumor"]]
    assert np.array_equal(case.region("tumor"), np.isin(truth.labels, tumor))
    assert case.region("lung").any()
    assert entry.labels["kidney"].voxels == case.region("kidney").sum()


def test_excluded_phantoms_are_not_made(made: list[tuple[int, int]], tmp_path: Path) -> None:
    source = PhantomSource(patients=3, exclude=("*-0001",))
    index = index_sources({"hosts": source}, [], cache_dir=tmp_path)
    assert sorted(made) == [(0, 0), (0, 2)]
    assert index.notes == ()


def test_another_look_is_another_folder(tmp_path: Path) -> None:
    one = PhantomSource(patients=1)
    others = [
        PhantomSource(patients=1, seed=1),
        PhantomSource(patients=1, region="chest"),
        PhantomSource(patients=1, tumours=True),
    ]
    folders = [source.folder(tmp_path) for source in (one, *others)]
    assert len(set(folders)) == 4
    assert PhantomSource(patients=9, licence="x").folder(tmp_path) == folders[0]


def test_failed_phantom_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError(path)

    monkeypatch.setattr("synthct.sources.phantoms.make_phantom", blocks)
    monkeypatch.setattr("synthct.sources.scanner.write_volume", lambda volume, path: broken(path))
    source = PhantomSource(patients=1)
    with pytest.raises(RuntimeError):
        index_sources({"hosts": source}, [], cache_dir=tmp_path)
    assert list(source.folder(tmp_path).iterdir()) == []


def test_phantoms_as_kits_are_read_like_kits(made: list[tuple[int, int]], tmp_path: Path) -> None:
    names = write_phantoms(tmp_path / "kits", "kits23", 2, seed=3)
    assert names == ("case_00000", "case_00001")
    source = Kits(root=tmp_path / "kits")
    index = index_sources({"hosts": source}, [], cache_dir=tmp_path / "cache")
    case = read_case(index.entry("hosts", "case_00001"), label_table({"hosts": source}, []))
    truth = blocks(3, 1)
    assert np.array_equal(case.scan().array, truth.ct)
    assert np.array_equal(case.region("tumor"), truth.labels == PHANTOM_LABELS["kidney_tumor"])
    kidneys = [PHANTOM_LABELS["kidney_left"], PHANTOM_LABELS["kidney_right"]]
    assert np.array_equal(case.region("kidney"), np.isin(truth.labels, kidneys))
    np.testing.assert_allclose(case.scan().affine, truth.affine, atol=1e-4)


def test_phantoms_as_kits21_have_its_aggregated_label_maps(
    made: list[tuple[int, int]], tmp_path: Path
) -> None:
    write_phantoms(tmp_path / "kits", "kits21", 1)
    names = {path.name for path in (tmp_path / "kits/case_00000").iterdir()}
    assert names == {
        "imaging.nii.gz", *(f"aggregated_{how}_seg.nii.gz" for how in ("MAJ", "AND", "OR"))
    }  # fmt: skip
    source = Kits(layout="kits21", root=tmp_path / "kits")
    (entry,) = index_sources({"hosts": source}, [], cache_dir=tmp_path / "cache").entries("hosts")
    assert "kidney" in entry.labels


def test_phantoms_as_totalsegmentator_are_read_like_it(
    made: list[tuple[int, int]], tmp_path: Path
) -> None:
    root = tmp_path / "ts"
    write_phantoms(root, "totalsegmentator", 1, scanner=Scanner(region="chest"))
    sources = {"hosts": TotalSegmentator(root=root)}
    labels = ["lung", "liver", "kidney_tumor"]
    entry = index_sources(sources, labels, cache_dir=tmp_path / "cache").entries("hosts")[0]
    assert entry.split == "train"
    case = read_case(entry, label_table(sources, labels))
    truth = blocks(0, 0).labels
    lungs = [PHANTOM_LABELS["lung_left"], PHANTOM_LABELS["lung_right"]]
    assert np.array_equal(case.region("lung"), np.isin(truth, lungs))
    assert np.array_equal(case.region("liver"), truth == PHANTOM_LABELS["liver"])


def test_phantoms_overwrite_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConflictError, match="is not empty"):
        write_phantoms(tmp_path, "kits23", 1)


@pytest.mark.parametrize(
    "fields", [{"patients": 0}, {"region": "head"}, {"shape": [8, 8]}, {"spacing_mm": [0, 1, 1]}]
)
def test_bad_phantom_section_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Source).validate_python({"layout": "phantom", **fields})


def test_real_phantom_has_what_recipes_ask_for(tmp_path: Path) -> None:
    source = PhantomSource(patients=1, shape=(64, 48, 24), tumours=True, oblique=True)
    labels = ["kidney", "tumor", "liver", "spleen"]
    entry = index_sources({"hosts": source}, labels, cache_dir=tmp_path).entries("hosts")[0]
    assert set(labels) <= set(entry.labels)
    assert entry.shape == (64, 48, 24)
    assert entry.licence == "CC0-1.0"


@pytest.mark.parametrize("name", ["ct.nii.gz", "labels.nii.gz", "digests"])
def test_a_damaged_phantom_is_made_anew_and_told(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    monkeypatch.setattr("synthct.sources.phantoms.make_phantom", blocks)
    source = PhantomSource(patients=1)
    cases = source.find(tmp_path).cases
    source.prepare(cases)
    folder = source.folder(tmp_path) / cases[0].case_id
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    for content in (good[name][:-1], None):
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        caplog.clear()
        source.prepare(cases)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == good
        (message,) = (one.getMessage() for one in caplog.records if one.levelname == "WARNING")
        assert message.startswith(f"{folder} is damaged and made anew ({name}: ")


@pytest.mark.parametrize("way", ["folder", "source"])
def test_a_disk_that_cannot_be_written_is_told_before_a_phantom_is_made(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(*_: object) -> None:
        pytest.fail("a phantom was made")

    def full(path: Path, data: bytes) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Scanner, "scan", scan)
    monkeypatch.setattr(files, "_write_new", full)

    def make() -> None:
        if way == "folder":
            write_phantoms(tmp_path / "kits", "kits23", 1)
        else:
            index_sources({"hosts": PhantomSource(patients=1)}, [], cache_dir=tmp_path)

    with pytest.raises(ResourceError, match="Read-only file system"):
        make()
