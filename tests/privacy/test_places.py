"""The search of whole slices: the same places in blocks of any size, each scan read once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import make_tiny_case, write_kits

from synthct.metrics.slice_search import Spectrum, spectrum_of
from synthct.privacy import places
from synthct.privacy.places import likely_places
from synthct.sources import index_sources, read_case
from synthct.sources.kits import Kits
from synthct.volume import Volume


def test_a_piece_is_found_whose_square_leaves_the_picture(tmp_path: Path) -> None:
    write_kits(tmp_path / "data", make_tiny_case("case_00000", noise_seed=1))
    section = Kits(layout="kits23", root=tmp_path / "data")
    index = index_sources({"hosts": section}, ["kidney"], cache_dir=tmp_path / "cache")
    entries = {entry.case_id: entry for entry in index.entries("hosts")}
    scan = read_case(entries["case_00000"], {}).scan()
    mask = np.zeros(scan.shape[:2], bool)
    mask[:8, 5:29] = True
    [found] = likely_places([(scan.array[:, :, 9], mask)], entries, {"case_00000": [None]})
    assert np.allclose(found[0].grid_mm[0], (scan.affine @ [-8, 5, 9, 1])[:3])


@pytest.mark.parametrize(("first", "side", "rows"), [(26, 12, 27), (2, 44, 44)])
def test_air_around_the_body_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, side: int, rows: int
) -> None:
    case = make_tiny_case("case_00000", noise_seed=1)
    hu = case.scan().array.copy()
    hu[:20] = -1000
    write_kits(tmp_path / "data", replace(case, ct=Volume(hu, case.scan().affine)))
    section = Kits(layout="kits23", root=tmp_path / "data")
    index = index_sources({"hosts": section}, ["kidney"], cache_dir=tmp_path / "cache")
    entries = {entry.case_id: entry for entry in index.entries("hosts")}
    scan = read_case(entries["case_00000"], {}).scan()
    searched: set[int] = set()

    def spectrum(hu: npt.NDArray[np.int16], level: int) -> Spectrum:
        searched.add(hu.shape[0])
        return spectrum_of(hu, level)

    monkeypatch.setattr(places, "spectrum_of", spectrum)
    mask = np.zeros(scan.shape[:2], bool)
    mask[first : first + side, 12:24] = True
    [found] = likely_places([(scan.array[:, :, 9], mask)], entries, {"case_00000": [None]})
    column = 18 - side // 2
    assert np.allclose(found[0].grid_mm[0], (scan.affine @ [first, column, 9, 1])[:3])
    assert searched == {rows + 48}


def test_each_scan_is_read_and_transformed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [make_tiny_case(f"case_0000{n}", noise_seed=n) for n in range(2)]
    for case in cases:
        write_kits(tmp_path / "data", case)
    section = Kits(layout="kits23", root=tmp_path / "data")
    index = index_sources({"hosts": section}, ["kidney"], cache_dir=tmp_path / "cache")
    entries = {entry.case_id: entry for entry in index.entries("hosts")}
    mask = np.ones((20, 20), bool)
    regions = [(case.scan().array[8:28, 6:26, k], mask) for k in (8, 12) for case in cases]
    called: list[str] = []

    def counted(name: str) -> None:
        function: Any = getattr(places, name)

        def call(*given: Any) -> Any:
            called.append(name)
            return function(*given)

        monkeypatch.setattr(places, name, call)

    counted("read_case")
    counted("spectrum_of")
    found = {}
    for block in (500, 1):
        monkeypatch.setattr(places, "_BLOCK", block)
        called.clear()
        found[block] = likely_places(regions, entries, {case: [None] for case in entries})
        assert called.count("read_case") == 2
        assert called.count("spectrum_of") == 2 * 24
    for one, other, region in zip(found[500], found[1], range(4), strict=True):
        assert [place.case for place in one] == [place.case for place in other]
        assert all(np.array_equal(a.grid_mm, b.grid_mm) for a, b in zip(one, other, strict=True))
        assert one[0].case == f"case_0000{region % 2}"
