"""What is learnt from real tissue: of whom, from whom it is kept, and that it is kept."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import KIDNEY_HU, TINY_LABELS, make_tiny_case, write_kits

from synthct.build.references import References, learn_references, learn_tissue, shipped_quantiles
from synthct.metrics.distribution import hu_wasserstein
from synthct.sources import Index, index_sources
from synthct.sources.kits import Kits
from synthct.sources.phantom import PhantomSource
from synthct.sources.scanner import Scanner

#: By its path: ``synthct.build`` as an attribute is the function.
references_module = import_module("synthct.build.references")

NAMES = {"kidney": 1, "tumor": 2, "cyst": 3}


def kits_index(folder: Path, count: int) -> Index:
    for n in range(count):
        write_kits(folder / "dataset", make_tiny_case(f"case_{n:05d}", noise_seed=n))
    source = Kits(layout="kits23", root=folder / "dataset")
    return index_sources({"hosts": source}, ["kidney"], cache_dir=folder / "cache")


def learn(index: Index, folder: Path, *labels: str) -> References:
    return learn_references(index, labels, NAMES, "axial", cache_dir=folder / "cache")


def test_a_patient_is_judged_by_what_others_have_taught(tmp_path: Path) -> None:
    index = kits_index(tmp_path, 3)
    references = learn(index, tmp_path, "kidney", "tumor")
    mine = references.of("kidney", "case_00000")
    assert mine.segmenter is not None
    assert mine.segmenter is not references.of("kidney", "case_00001").segmenter
    assert references.of("kidney", "a stranger").segmenter is not mine.segmenter
    assert references.of(None, "case_00000").quantiles is None
    assert references.of("spleen", "case_00000").quantiles is None

    case = make_tiny_case("case_00000")
    hu, kidney = case.scan().array[:, :, 12], case.region("kidney")[:, :, 12]
    spacing = case.scan().spacing_mm[:2]
    assert mine.segmenter.adherence(hu, kidney, spacing) > 0.9
    moved = np.roll(kidney, 12, axis=0)
    assert mine.segmenter.adherence(hu, moved, spacing) < 0.5


def test_hu_of_all_patients_are_learnt(tmp_path: Path) -> None:
    references = learn(kits_index(tmp_path, 2), tmp_path, "kidney")
    found = references.of("kidney", "case_00000")
    assert found.quantiles is not None
    assert found.quantiles.mean() == pytest.approx(KIDNEY_HU, abs=1)
    assert found.segmenter is None  # one other patient is not enough
    tissue = np.random.default_rng(3).normal(KIDNEY_HU, 5, 500)
    assert hu_wasserstein(tissue, found.quantiles) < 1
    assert hu_wasserstein(tissue + 30, found.quantiles) == pytest.approx(30, abs=1)


def test_what_was_learnt_is_kept_and_damage_to_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = kits_index(tmp_path, 3)
    first = learn(index, tmp_path, "kidney").of("kidney", "case_00000")
    kept = sorted((tmp_path / "cache/tissue").iterdir())
    assert len(kept) == 3
    with monkeypatch.context() as patch:
        patch.setattr(references_module, "read_case", lambda *_: pytest.fail("a scan was read"))
        again = learn(index, tmp_path, "kidney").of("kidney", "case_00000")
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    mended = learn(index, tmp_path, "kidney").of("kidney", "case_00000")
    for one in (again, mended):
        assert first.segmenter is not None
        assert one.segmenter is not None
        assert np.array_equal(one.segmenter.weights, first.segmenter.weights)


def test_labels_that_nobody_has_are_simply_unknown(tmp_path: Path) -> None:
    references = learn(kits_index(tmp_path, 2), tmp_path, "cyst")
    assert references.of("cyst", "case_00000").quantiles is None


@pytest.mark.long
def test_the_hu_of_phantoms_ship_with_the_package(tmp_path: Path) -> None:
    source = PhantomSource(patients=1, shape=(96, 96, 24), region="abdomen")
    index = index_sources({"hosts": source}, ["kidney"], cache_dir=tmp_path)
    names = source.native_labels()
    references = learn_references(index, ["kidney"], names, "axial", cache_dir=tmp_path)
    found = references.of("kidney", "phantom-0-0000").quantiles
    assert found is not None
    assert np.array_equal(found, shipped_quantiles()["kidney"])


@pytest.mark.long
def test_the_shipped_hu_are_those_of_the_phantoms() -> None:
    ct, labels = Scanner(shape=(160, 160, 32), tumours=True).scan(4, 0)
    values = PhantomSource().native_labels()
    for name in ("kidney_left", "liver", "spleen"):
        hu = ct.array[labels.array == values[name]]
        assert hu_wasserstein(hu, shipped_quantiles()[name]) < 40
    far = ct.array[labels.array == values["vertebrae"]]
    assert hu_wasserstein(far, shipped_quantiles()["kidney"]) > 60


def test_a_case_teaches_the_same_every_time() -> None:
    case = make_tiny_case()
    assert set(TINY_LABELS) == set(case.label_names)
    for view in ("axial", "coronal", "sagittal"):
        one, two = learn_tissue(case, "kidney", view), learn_tissue(case, "kidney", view)
        assert all(np.array_equal(one[name], two[name]) for name in one)
        assert 0 < one["inside"].mean() < 1


def test_the_shipped_file_is_sorted_json_of_integers() -> None:
    for label, quantiles in shipped_quantiles().items():
        assert (np.diff(quantiles) >= 0).all(), label
        assert json.dumps(label)
