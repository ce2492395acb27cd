"""A reader study from the dataset to its result, without a browser."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lesion_rows import make_host, write_lesions, write_volumes
from PIL import Image
from tiny_recipe import write_data, write_recipe
from typer.testing import CliRunner

from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.rows import decode
from synthct.errors import ConflictError, RecipeError, VerifyError
from synthct.publish.pages.painted import PaintedRows
from synthct.recipe.recipe import load_recipe
from synthct.studies.readers.choose import ANYTHING, choose_pictures
from synthct.studies.readers.result import RESULT, result_markdown, write_result
from synthct.studies.readers.study import Answer, StudyFolder, key_path, open_study
from synthct.studies.readers.views import GAP, SIDE, Look, most_alike, painted, png, real
from synthct.volume.intensity import SOFT_TISSUE

SEED = 81_624_093_517

CHANGES: dict[str, Any] = {
    "inpaint": {"method": "noise_fill"},
    "masks": [
        {"name": "organ", "kind": "organ", "label": "kidney", "margin_mm": -0.5},
        {"name": "blob", "kind": "blob", "radius_mm": [3, 6]},
    ],
    "masks_per_case": 4,
    "variants": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    data = write_data(folder / "data")
    recipe = load_recipe(write_recipe(folder / "recipe.yaml", data, Path(), **CHANGES))
    build(recipe, folder / "out", cache_dir=folder / "cache", workers=0)
    opened(folder, folder / "study")
    return folder


def dataset(world: Path) -> Path:
    return world / "out/tiny/1.0.0"


def opened(world: Path, folder: Path, **settings: Any) -> StudyFolder:
    given = {"pairs": 5, "seed": SEED} if not (folder / "study.json").exists() else {}
    return open_study(
        dataset(world), folder, **{"pairs": None, "seed": None, **given, **settings},
        roots={name: world / "data" / name for name in ("hosts", "donors")},
        cache_dir=world / "cache",
    )  # fmt: skip


@pytest.fixture
def study(world: Path, tmp_path: Path) -> StudyFolder:
    """A study that nobody has answered yet."""
    shutil.copytree(world / "study", tmp_path / "study")
    shutil.copy(key_path(world / "study"), tmp_path)
    return StudyFolder(tmp_path / "study")


def answers(study: StudyFolder, wrong: int = 0, confidence: int = 4) -> dict[str, Answer]:
    """The truth but for the first so many pictures."""
    key, other = study.key().pictures, {"real": "painted", "painted": "real"}
    return {
        name: Answer.model_validate({
            "guess": other[key[name].truth] if n < wrong else key[name].truth,
            "confidence": confidence,
        })
        for n, name in enumerate(study.names)
    }  # fmt: skip


def test_as_many_real_pictures_as_painted_ones_are_mixed(study: StudyFolder) -> None:
    truths = [one.truth for one in study.key().pictures.values()]
    assert sorted(truths) == ["painted"] * 5 + ["real"] * 5
    assert truths[:5] != ["painted"] * 5
    labels = [one.label for one in study.key().pictures.values()]
    assert {"kidney", "whatever fits"} == set(labels)
    for name in study.names:
        picture = Image.open(io.BytesIO(study.picture(name)))
        assert (picture.mode, picture.size) == ("L", (SIDE, SIDE))
        assert picture.info == {}
        assert len(np.unique(np.asarray(picture))) > 10


def test_what_readers_get_does_not_tell_the_truth(study: StudyFolder) -> None:
    key = key_path(study.folder)
    assert key.parent != study.folder
    for path in study.folder.rglob("*"):
        if path.is_file() and path.suffix != ".png":
            text = path.read_text()
            assert str(SEED) not in text
            assert "origin" not in text
    assert {path.stem for path in (study.folder / "pictures").iterdir()} == set(study.names)


def test_the_seed_decides_everything(world: Path, study: StudyFolder, tmp_path: Path) -> None:
    again = opened(world, tmp_path / "again")
    assert again.study == study.study
    assert all(again.picture(name) == study.picture(name) for name in study.names)
    assert opened(world, tmp_path / "other", seed=4).key() != study.key()
    unknown = [opened(world, tmp_path / f"u{n}", seed=None).key().seed for n in range(2)]
    assert unknown[0] != unknown[1]


def test_a_key_that_was_changed_is_found(study: StudyFolder) -> None:
    path = key_path(study.folder)
    path.write_text(path.read_text().replace('"real"', '"painted"', 1))
    with pytest.raises(VerifyError, match="is not the key"):
        study.key()


def test_a_study_is_gone_on_with_and_never_mixed_up(
    world: Path, study: StudyFolder, tmp_path: Path
) -> None:
    assert opened(world, study.folder).study == study.study
    with pytest.raises(ConflictError, match="leave --pairs, --seed and --real out"):
        opened(world, study.folder, pairs=3)
    other = write_volumes(tmp_path / "v/1.0.0", [make_host()])
    with pytest.raises(ConflictError, match="is about content"):
        open_study(other, study.folder, pairs=None, seed=None, roots={}, cache_dir=tmp_path)


def test_answers_come_in_parts_and_stay(study: StudyFolder) -> None:
    given = answers(study)
    first = dict(list(given.items())[:3])
    assert study.add_answers("jane", first) == first
    assert "jane has answered 3 of 10" in result_markdown(write_result(study))
    assert "pictures_by_name" not in json.loads((study.folder / RESULT).read_text())
    name, one = next(iter(first.items()))
    with pytest.raises(ConflictError, match=f"has answered picture {name} before"):
        study.add_answers("jane", {name: one.model_copy(update={"confidence": 1})})
    study.add_answers("jane", given)
    told = write_result(study).told["jane"]
    assert told.accuracy.value == told.auc.value == 1
    by_name = json.loads((study.folder / RESULT).read_text())["pictures_by_name"]
    assert by_name["001"]["answers"]["jane"]["guess"] == by_name["001"]["truth"]


def test_several_readers_are_compared(study: StudyFolder) -> None:
    study.add_answers("jane", answers(study, wrong=2))
    study.add_answers("joe", answers(study, wrong=4))
    study.add_answers("late", dict(list(answers(study).items())[:1]))
    result = write_result(study)
    assert result.mean is not None
    assert result.mean.value == pytest.approx(0.7)
    assert result.agreement is not None
    assert result.agreement[0] == pytest.approx(0.8)
    text = result_markdown(result)
    assert "| jane | 80.0 % (" in text
    assert "Fleiss' kappa" in text
    assert "late has answered 1 of 10" in text
    assert "pictures_by_name" not in json.loads((study.folder / RESULT).read_text())


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("001,maybe,3", ":2: picture '001': guess 'maybe'"),
        ("001,real,9", "confidence '9'"),
        ("001,real,", "confidence ''"),
        ("999,real,3", "is none of this study"),
        ("001,real,3\n1,real,3", ":3: picture '1' is there twice"),
    ],
)
def test_a_table_that_is_filled_in_wrongly_is_told(
    study: StudyFolder, tmp_path: Path, row: str, said: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"picture,guess,confidence\n{row}\n")
    with pytest.raises(RecipeError, match=said):
        study.read_answers(path)


@pytest.mark.parametrize("name", ["../jane", "", "a b", ".x"])
def test_a_readers_name_is_no_path(study: StudyFolder, name: str) -> None:
    with pytest.raises(RecipeError, match="a name is letters"):
        study.add_answers(name, {})


def test_the_command_works_without_a_browser(world: Path, tmp_path: Path) -> None:
    roots = [f"--source={name}={world / 'data' / name}" for name in ("hosts", "donors")]
    command = ["reader-study", str(dataset(world)), "--output", str(tmp_path / "study")]
    more = ["--cache-dir", str(world / "cache")]

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*command, *more, *words])
        assert done.exit_code == 0, done.output
        return done

    without = CliRunner().invoke(app, [*command, *more, "--files"])
    assert without.exit_code == 2
    assert "give --source hosts=FOLDER --source donors=FOLDER" in without.output
    run(*roots, "--pairs", "2", "--files")
    table = tmp_path / "study/answers.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["picture"] for row in rows] == ["001", "002", "003", "004"]
    filled = "".join(f"{int(row['picture'])},Painted,5\r\n" for row in rows)
    table.write_text(f"picture,guess,confidence\r\n{filled}")
    told = json.loads(run("--reader", "script", "--answers", str(table), "--json").output)
    assert told["readers"]["script"]["accuracy"]["value"] == 0.5
    assert "script" in run("--reader", "script", "--answers", str(table)).output


def test_a_study_of_volumes_shows_three_planes(tmp_path: Path) -> None:
    mine, other = (
        write_volumes(tmp_path / name / "1.0.0", [make_host(host, variants=1) for host in name])
        for name in ("ab", "cd")
    )
    study = open_study(mine, tmp_path / "study", pairs=2, seed=1, roots={}, cache_dir=tmp_path,
                       real=other)  # fmt: skip
    assert study.study.pictures == 4
    picture = Image.open(io.BytesIO(study.picture("001")))
    assert picture.size == (3 * SIDE + 2 * GAP, SIDE)


def test_real_ones_may_come_from_another_dataset(tmp_path: Path) -> None:
    hosts, others = ([make_host(name, variants=1) for name in pair] for pair in ("ab", "cd"))
    mine = write_lesions(tmp_path / "mine/1.0.0", hosts, keep_original=False)
    other = write_lesions(tmp_path / "other/1.0.0", others, keep_original=True)
    same = write_lesions(tmp_path / "same/1.0.0", hosts, keep_original=True)
    study = open_study(mine, tmp_path / "study", pairs=4, seed=1, roots={}, cache_dir=tmp_path,
                       real=other)  # fmt: skip
    truths = study.key().pictures.values()
    assert [one.truth for one in truths].count("real") == 4
    assert all(".d000.s" in one.origin for one in truths)
    with pytest.raises(RecipeError, match="does not keep its originals"):
        open_study(mine, tmp_path / "no", pairs=4, seed=1, roots={}, cache_dir=tmp_path, real=mine)
    coronal = write_lesions(tmp_path / "c/1.0.0", others, "coronal")
    for unfit in (coronal, same):
        with pytest.raises(RecipeError, match="has no mask of 'tumor' in view axial"):
            open_study(mine, tmp_path / "no", pairs=40, seed=1, roots={}, cache_dir=tmp_path,
                       real=unfit)  # fmt: skip


def test_no_place_is_shown_both_painted_and_real(world: Path) -> None:
    rows = PaintedRows(dataset(world))
    rng = np.random.default_rng(0)
    pictures = choose_pictures(
        dataset(world), 12, rng, cache_dir=world / "cache",
        roots={name: world / "data" / name for name in ("hosts", "donors")},
    )  # fmt: skip
    masks = {row["sample_id"]: row["mask_id"] for row in rows.facts}
    anything = [one for one in pictures if one.label == ANYTHING]
    shown = {masks[one.origin] for one in anything if one.is_painted}
    assert shown
    assert not shown & {one.origin for one in anything if not one.is_painted}


def test_a_volume_is_shown_in_three_planes_beside_real_ones(tmp_path: Path) -> None:
    host = make_host(variants=1)
    rows = PaintedRows(write_volumes(tmp_path / "d/1.0.0", [host]))
    looks = painted(decode(rows.columns(0)))
    assert len(looks) == 3
    tumor = host.case.region("tumor")
    others = real(host.case.scan(), tumor, "volume", np.random.default_rng(0))
    assert all(len(one) == 3 for one in others)
    picture = Image.open(io.BytesIO(png(others[0], [40.0] * 3, SOFT_TISSUE)))
    assert picture.size == (3 * SIDE + 2 * GAP, SIDE)
    width = np.ptp(np.flatnonzero(tumor.any(axis=(1, 2)))) + 1
    assert others[0][0].extent_mm >= width * 0.8


def test_the_real_part_nearest_in_size_is_taken() -> None:
    def disc(pixels: int) -> tuple[Look]:
        region = np.zeros((50, 50), bool)
        region[:pixels, :pixels] = True
        return (Look(np.zeros((50, 50), np.int16), region, (1.0, 1.0)),)

    assert most_alike([disc(3), disc(12), disc(30)], disc(10)) == 1


def test_pictures_of_one_place_are_the_same_whoever_painted_it() -> None:
    """The truth of a picture is in its pixels alone: size, window and frame follow the pair."""
    rng = np.random.default_rng(0)
    hu = rng.integers(-100, 200, (60, 60)).astype(np.int16)
    region = np.zeros((60, 60), bool)
    region[20:30, 25:35] = True
    look = (Look(hu, region, (0.8, 0.8)),)
    assert png(look, [40.0], SOFT_TISSUE) == png(look, [40.0], SOFT_TISSUE)
    assert look[0].side_mm == 40.0
