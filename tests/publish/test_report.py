"""The report: self-contained, inert whatever the names, and what it shows is what there is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import shutil
import struct
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluated import fresh, write_dataset
from hostile import HOSTILE
from lesion_rows import make_host, write_lesions
from typer.testing import CliRunner

import synthct.publish.report
from synthct.cli import app
from synthct.publish.report.charts import COLOURS, Series, bars, lines, rasterise, svg
from synthct.publish.report.lesions import choose_lesions, middle
from synthct.publish.report.pictures import DIFFERENCE_HU, difference
from synthct.publish.report.report_data import choose_masks, read_report_data
from synthct.publish.report.run import write_report
from synthct.volume.views import Plane

VENDOR = Path(synthct.publish.report.__file__).parent / "vendor"

#: What a page may fetch or run something by.
FETCHING = {"src", "href", "srcset", "action", "data", "poster", "style", "background"}


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a dataset in which every name is hostile."""
    folder = tmp_path_factory.mktemp("report")
    dataset = write_dataset(
        folder / "hostile/1.0.0", fresh, patients=2, masks=2, variants=2, donor_case_id=HOSTILE,
        labels=(HOSTILE, HOSTILE[::-1]), prefix=HOSTILE,
    )  # fmt: skip
    return write_report(dataset, folder / "out")


def test_a_page_fetches_nothing_and_names_are_text(hostile: Path) -> None:
    page = hostile.read_text(encoding="utf-8")
    tags = Tags(page).found
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert {tag for tag, _ in tags} & {"link", "iframe", "object", "base", "form"} == set()
    for _, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in FETCHING & attributes.keys():
            assert str(attributes[name]).startswith(("data:image/png;base64,", "#"))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_policy_allows_exactly_what_is_there(hostile: Path) -> None:
    page = hostile.read_text(encoding="utf-8")
    policy = next(a["content"] for t, a in Tags(page).found if "http-equiv" in a and t == "meta")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.long
def test_lesions_bring_their_viewer_and_nothing_that_is_not_hashed(tmp_path: Path) -> None:
    host = make_host(variants=1)
    dataset = write_lesions(tmp_path / "d/1.0.0", [host], lesion_id=HOSTILE, label=HOSTILE)
    page = write_report(dataset, tmp_path / "out").read_text(encoding="utf-8")
    tags = Tags(page).found
    policy = next(a["content"] for t, a in tags if "http-equiv" in a and t == "meta")
    assert policy is not None
    assert "unsafe" not in policy
    library = (VENDOR / "niivue.umd.js").read_text(encoding="utf-8")
    inline = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    hashes = [
        hashlib.sha256(source.encode()).digest() for source in [inline[1], inline[0], library]
    ]
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    assert f"script-src {sources};" in policy
    packed = re.findall('<template id="niivue">(.*?)</template>', page)
    assert [gzip.decompress(base64.b64decode(one)).decode() for one in packed] == [library]
    assert "Copyright (c) 2021, Niivue" in page
    without = write_report(write_dataset(tmp_path / "e/1.0.0"), tmp_path / "without")
    assert "niivue" not in without.read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    "view", ["coronal", *(pytest.param(v, marks=pytest.mark.long) for v in ("axial", "sagittal"))]
)
def test_pictures_are_in_proportion_and_their_outline_lies_over_them(
    tmp_path: Path, view: Plane
) -> None:
    """Browsers go by the pixels of a file, so those must be square."""
    host = make_host(variants=1)
    dataset = write_lesions(tmp_path / "d/1.0.0", [host], view)
    page = write_report(dataset, tmp_path / "out").read_text(encoding="utf-8")
    crops = [crop for crops in read_report_data(
        dataset, masks=24, advance=lambda: None).crops for crop in crops]  # fmt: skip
    wanted = {round(crop.size_mm[1] / crop.size_mm[0], 1) for crop in crops}
    images = [attributes for tag, attributes in Tags(page).found if tag == "img"]
    in_samples = page.partition('id="volumes"')[0].count("<img")
    for one in images[:in_samples]:
        png = base64.b64decode(str(one["src"]).partition(",")[2])
        columns, rows = struct.unpack(">II", png[16:24])
        assert any(abs(columns / rows - ratio) < 0.15 for ratio in wanted)
    assert sum(one["class"] == "rim" for one in images) >= len(crops)
    assert 'id="outline"' in page
    assert "keep_original: false" not in page


def test_a_report_says_what_a_dataset_without_originals_cannot_show(tmp_path: Path) -> None:
    dataset = write_lesions(tmp_path / "d/1.0.0", [make_host(variants=1)], keep_original=False)
    page = write_report(dataset, tmp_path / "out").read_text(encoding="utf-8")
    assert "keep_original: false" in page
    assert "no originals, no differences to them" in page


def test_the_viewer_that_comes_along_is_the_one_that_its_licences_name() -> None:
    licences = (VENDOR / "LICENSES.txt").read_text(encoding="utf-8")
    assert hashlib.sha256((VENDOR / "niivue.umd.js").read_bytes()).hexdigest() in licences


def test_lesions_of_which_there_are_neighbours_are_chosen_from_all_over() -> None:
    def rows(lesion: int, slices: list[int], variant: int = 0) -> list[dict[str, object]]:
        return [
            {"lesion_id": f"l{lesion}", "variant": variant, "slice_index": n,
             "sample_id": f"l{lesion}.{n}.v{variant}"}
            for n in slices
        ]  # fmt: skip

    thin = rows(0, [4, 5]) + rows(1, [3, 5, 7, 9])
    assert choose_lesions(thin) == []
    broken = rows(2, [1, 2, 3, 5, 6, 7, 8]) + rows(2, [1, 2, 3], variant=1)
    assert choose_lesions(thin + broken) == [[f"l2.{n}.v0" for n in (5, 6, 7, 8)]]
    many = choose_lesions([row for n in range(60) for row in rows(n, [1, 2, 3])])
    assert [ids[0] for ids in many] == [f"l{n}.1.v0" for n in (0, 10, 20, 30, 40, 50)]


def test_a_lesion_is_cut_out_where_it_lies(tmp_path: Path) -> None:
    host = make_host(variants=1)
    dataset = write_lesions(tmp_path / "d/1.0.0", [host], "coronal", keep_original=False)
    (lesion,) = read_report_data(dataset, masks=4, advance=lambda: None).lesions
    offset = np.linalg.inv(host.case.scan().affine) @ lesion.affine
    start = np.rint(offset[:3, 3]).astype(int)
    assert np.allclose(offset[:3, 3], start, atol=1e-6)
    there = tuple(slice(a, a + n) for a, n in zip(start, lesion.shape, strict=True))
    assert np.array_equal(lesion.image, host.painted[0][there])
    assert np.array_equal(lesion.mask, host.lesion[there])
    assert lesion.mask.sum() == host.lesion.sum()
    assert lesion.mask[middle(lesion)]


def test_commands_work_inside_of_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_dataset(tmp_path / "d/1.0.0", fresh, patients=2, masks=5)
    monkeypatch.chdir(dataset)
    for words in (["evaluate", ".", "--extractor", "radiomics", "--cache-dir", str(tmp_path)],
                  ["report", "."]):  # fmt: skip
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    names = {path.name for path in dataset.parent.iterdir()}
    assert names == {"1.0.0", "1.0.0.evaluation", "1.0.0.report"}


def test_a_large_dataset_shows_some_masks_and_the_worst() -> None:
    rows = [
        {"mask_id": f"m{n}", "sample_id": f"m{n}.v0", "seam_ratio": 1.0, "mask_adherence": 0.9}
        for n in range(1000)
    ]
    rows[501]["seam_ratio"], rows[777]["seam_ratio"], rows[333]["mask_adherence"] = 9.0, 0.1, 0.0
    chosen = choose_masks(rows, 10)
    assert len(chosen) == len(set(chosen)) == 10
    assert {"m501", "m777", "m333"} <= set(chosen)
    assert chosen == sorted(chosen, key=lambda name: int(name[1:]))
    assert choose_masks(rows[:7], 10) == [f"m{n}" for n in range(7)]


def test_it_says_how_many_of_how_many(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d/1.0.0", fresh, patients=4, masks=3)
    page = write_report(dataset, tmp_path / "out", masks=5).read_text(encoding="utf-8")
    assert "5 of 12 masks" in page
    assert page.count('<article class="mask"') == 5


def test_a_dataset_of_which_nothing_was_accepted_has_a_page(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d/1.0.0", fresh, patients=0)
    page = write_report(dataset, tmp_path / "out")
    assert "0 of 0 masks" in page.read_text(encoding="utf-8")
    assert not page.with_name("samples.png").exists()


def test_hu_are_counted_where_they_belong(tmp_path: Path) -> None:
    dataset = write_dataset(
        tmp_path / "d/1.0.0", lambda o, _: o + 300, patients=1, masks=2, keep_original=True
    )
    found = read_report_data(dataset, masks=4, advance=lambda: None)
    assert sorted(found.tissue) == ["kidney", "liver"]
    for tissue in found.tissue.values():
        means = [
            np.average(np.arange(-1020, 3076, 8), weights=c)
            for c in (tissue.painted, tissue.before)
        ]
        assert means[0] - means[1] == pytest.approx(300, abs=4)
        assert tissue.painted.sum() == tissue.before.sum()


@pytest.mark.parametrize("keeps", [True, False])
def test_differences_are_to_the_original_or_else_to_the_first_variant(
    tmp_path: Path, keeps: bool
) -> None:
    dataset = write_dataset(
        tmp_path / "d/1.0.0", fresh, patients=1, masks=1, variants=2, keep_original=keeps
    )
    page = write_report(dataset, tmp_path / "out").read_text(encoding="utf-8")
    assert ("difference to the original" in page) is keeps
    assert ("difference to painted 1" in page) is not keeps
    assert ("<figcaption>original" in page) is keeps


def test_differences_are_white_where_nothing_has_changed() -> None:
    base = np.zeros((1, 3), np.int16)
    picture = difference(base + np.array([[0, DIFFERENCE_HU, -DIFFERENCE_HU]], np.int16), base)
    assert picture[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 0, 255]]


def test_a_histogram_draws_what_it_is_given() -> None:
    edges = np.array([0.0, 1, 2, 3])
    accepted = Series("a", "accepted", np.array([4.0, 0, 0]))
    series = [accepted, Series("b", "rejected", np.array([4.0, 0, 2]))]
    text = svg(bars("t", edges, series))
    heights = [float(h) for h in re.findall(r'<rect .*? height="([\d.]+)"', text)]
    assert heights[0] == pytest.approx(heights[1], abs=0.2)
    assert heights[2] == pytest.approx(heights[0] / 2, abs=0.2)
    assert svg(bars("t", edges, series, [1.5, 7])).count('class="dashes limit"') == 1
    assert svg(lines('"><script>', edges, series)).count("<script") == 0


def test_a_chart_is_the_same_as_a_picture() -> None:
    edges = np.array([0.0, 1, 2, 3, 4])
    series = [
        Series("a", "accepted", np.array([4.0, 0, 0, 2])),
        Series("b", "rejected", np.array([0.0, 4, 0, 2])),
    ]
    picture = rasterise(bars("t", edges, series, [2.5]))

    def tall(css: str) -> list[int]:
        """Height of a colour amid each bin."""
        there = (picture == COLOURS[css]).all(axis=-1)
        columns = [8 + round(344 * (n + 0.4) / 4) for n in range(4)]
        return [int(there[:, x].sum()) for x in columns]

    full = tall("accepted")[0]
    assert full == pytest.approx(136, abs=2)
    assert tall("accepted") == pytest.approx([full, 0, 0, full / 2], abs=2)
    assert tall("rejected") == pytest.approx([0, full, 0, full / 2], abs=2)
    dashes = (picture == COLOURS["limit"]).all(axis=-1)
    assert np.flatnonzero(dashes.any(axis=0)).tolist() == [8 + 344 * 2.5 / 4]
    assert 0.4 < dashes.any(axis=1)[2:146].mean() < 0.8
    line = rasterise(lines("t", edges, [Series("p", "painted", np.array([1.0, 3, 2, 0]))]))
    there = (line == COLOURS["painted"]).all(axis=-1)
    tops = [int(np.flatnonzero(there[:, 8 + round(344 * (n + 0.5) / 4)]).min()) for n in range(3)]
    assert tops == pytest.approx([10 + 136 * (1 - share / 3) for share in (1, 3, 2)], abs=1)


def test_the_command_shows_the_evaluation_beside_the_dataset(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d/1.0.0", fresh, patients=2, masks=5)
    runner = CliRunner()
    done = runner.invoke(app, ["report", str(dataset)])
    assert done.exit_code == 0, done.output
    page = tmp_path / "d/1.0.0.report/report.html"
    assert "Not evaluated" in page.read_text(encoding="utf-8")
    evaluate = ["evaluate", str(dataset), "--extractor", "radiomics"]
    assert runner.invoke(app, [*evaluate, "--cache-dir", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, ["report", str(dataset)]).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "real halves" in text
    assert 'class="floor"' in text
    for name in ("samples.png", "charts.png"):
        assert (page.parent / name).stat().st_size > 5_000
        assert f"]({name})" in (page.parent / "card.md").read_text(encoding="utf-8")
    tables = tmp_path / "d/1.0.0.evaluation/tables.md"
    card = (page.parent / "card.md").read_text(encoding="utf-8")
    assert card.startswith(tables.read_text(encoding="utf-8"))
    other = write_dataset(tmp_path / "e/1.0.0", fresh, patients=1)
    shutil.copytree(tmp_path / "d/1.0.0.evaluation", tmp_path / "e/1.0.0.evaluation")
    refused = runner.invoke(app, ["report", str(other)])
    assert refused.exit_code == 8
    assert "is about content" in refused.output
