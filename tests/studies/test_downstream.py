"""``synthct downstream`` from end to end: equal masks, the same result after a kill."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from downstream_study import TEST, TINY, TRAINING, write_folders, write_study
from ruamel.yaml import YAML
from typer.testing import CliRunner

from synthct.build.check import check
from synthct.cli import app
from synthct.errors import PolicyError, RecipeError, ResourceError
from synthct.recipe.recipe import Recipe
from synthct.storage import keys
from synthct.storage.cache import read_kept, write_kept
from synthct.studies.downstream import segmenter
from synthct.studies.downstream.arms import (
    Run,
    make_known,
    patients_known,
    recipe_for,
    runs_of,
)
from synthct.studies.downstream.context import StudyContext
from synthct.studies.downstream.judge import Judged, Lesion
from synthct.studies.downstream.nnunet import NnUnet
from synthct.studies.downstream.recipe import load_study
from synthct.studies.downstream.run import run_study
from synthct.studies.downstream.suggest import suggestion


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("downstream"))


@pytest.fixture(scope="module")
def done(root: Path, tiny_checkpoint: Path) -> Path:
    study = load_study(write_study(root, tiny_checkpoint))
    return run_study(study, root / "out", cache_dir=root / "cache", device="cpu")


def numbers(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("segmenters/*"), *folder.glob("classifiers/*"), folder / "results.json"]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.long
def test_all_arms_are_judged_and_the_difference_to_pasting_comes_first(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    arms = [row["arm"] for row in results["arms"]]
    assert arms == ["real", "painted", "copy_paste", "noise_fill", "painted_only"]
    assert results["test"] == {"scans": 3, "patients": 3, "with_lesion": 2, "lesions": 2}
    first = results["differences"][0]
    assert (first["arm"], first["against"]) == ("painted", "copy_paste")
    text = (done / "results.md").read_text()
    head, _, rest = text.partition("## Differences")
    assert "3 real scans" in head
    assert rest.index("real + copy-paste") < rest.index("## Arms")
    for row in results["differences"]:
        assert row["verdict"] == "not shown"  # by three patients, whatever the interval is
    assert "3 patients are too few to show a difference" in head
    assert set(results["looks"]) == {"painted", "copy_paste", "noise_fill"}
    assert results["looks"]["copy_paste"]["painted_std_hu"] > 0
    assert "## What was painted" in text
    classified = results["classification"]
    assert [row["arm"] for row in classified["arms"]] == ["real", "painted", "pairs", "copy_paste"]
    for row in classified["arms"]:
        assert 0 <= row["lesion"][0] <= 1
        assert ("learned the paint" in row["verdict"]) or ("health" in row["verdict"])
    assert {one.name for one in (done / "classifiers").iterdir()} == {
        f"{arm}-seed0.scored" for arm in ("real", "painted", "pairs", "copy_paste")
    }
    assert "## Classifiers: AUC on real crops" in text
    page = (done / "index.html").read_text()
    assert page.count("<polyline") == 5
    assert not (done / "scans").exists()


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupt that training of a segmenter; the scans of each that is begun are listed."""
    trained: list[int] = []
    train = segmenter.train

    def killed(*args: Any, **options: Any) -> Any:
        trained.append(len(args[0]))
        if len(trained) == number:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(segmenter, "train", killed)
    return trained


@pytest.mark.long
def test_a_killed_study_goes_on_to_the_same_numbers(
    done: Path, root: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write_study(root, tiny_checkpoint))
    trained = killed_at(3, monkeypatch)
    other = root / "killed"
    shutil.copytree(done / "datasets", other / "study/datasets")
    with pytest.raises(KeyboardInterrupt):
        run_study(study, other, cache_dir=root / "cache", device="cpu")
    assert len(list((other / "study/segmenters").iterdir())) == 2
    run_study(study, other, cache_dir=root / "cache", device="cpu")
    assert len(trained) == 6  # the two that were done are not trained again
    assert numbers(other / "study") == numbers(done)


@pytest.mark.long
def test_a_killed_study_in_3d_goes_on_to_the_same_numbers(
    root: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_3d = TINY | {"patch_slices": 4, "slice_mm": 2.0}
    study = load_study(
        write_study(
            root, tiny_checkpoint, name="in-3d", arms=["real"], seeds=[0, 1], classification=None,
            trainer=in_3d,
        )
    )  # fmt: skip
    whole = run_study(study, root / "out", cache_dir=root / "cache", device="cpu")
    trained = killed_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, root / "killed", cache_dir=root / "cache", device="cpu")
    run_study(study, root / "killed", cache_dir=root / "cache", device="cpu")
    assert len(trained) == 3
    assert numbers(root / "killed/in-3d") == numbers(whole)
    assert json.loads((whole / "results.json").read_text())["arms"][0]["arm"] == "real"


@pytest.mark.long
def test_an_arm_of_other_settings_is_trained_anew(
    done: Path, root: Path, tiny_checkpoint: Path
) -> None:
    path = done / "segmenters/real-share100-seed0.judged"
    before, kept = path.read_bytes(), read_kept(path)
    assert kept is not None
    content = json.loads(kept) | {"key": "of another study"}
    write_kept(path, json.dumps(content).encode())
    study = load_study(write_study(root, tiny_checkpoint))
    run_study(study, root / "out", cache_dir=root / "cache", device="cpu")
    assert path.read_bytes() == before


@pytest.mark.long
def test_a_damaged_result_is_told_and_made_anew(
    done: Path, root: Path, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = done / "segmenters/real-share100-seed0.judged"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"0", b"1", 200)[: len(before)])
    study = load_study(write_study(root, tiny_checkpoint))
    run_study(study, root / "out", cache_dir=root / "cache", device="cpu")
    assert path.read_bytes() == before
    assert f"{path} is damaged and made anew" in caplog.text


def test_arms_have_equal_masks_and_labels(
    done: Path, root: Path, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = load_study(write_study(root, tiny_checkpoint))
    checked = check(study.recipe, cache_dir=root / "cache")
    unet, everybody = segmenter.SmallUnet(study, "cpu"), frozenset(TRAINING)
    context = StudyContext(
        study, checked.index, checked.label_names, done, root / "cache", device="cpu"
    )
    known = make_known(context, unet, everybody)
    caplog.clear()
    assert len(known.real) == 3
    sets = list(known.painted.values())
    assert len(sets) == 3
    assert len(sets[0]) == 3
    for same in zip(*sets, strict=True):
        assert len({stack.name.partition("-")[2] for stack in same}) == 1
        for stack in same[1:]:
            assert np.array_equal(stack.classes, same[0].classes)
        assert not np.array_equal(same[0].hu, same[1].hu)
    half = known.scans(Run("painted", 1.0, 0.5, 0))
    assert not caplog.records
    known.scans(Run("painted", 1.0, 2, 0))
    assert "3 painted for 3 real scans, not 6" in caplog.text
    assert [stack.is_real for stack in half] == [True] * 3 + [False] * 2
    assert not any(stack.is_real for stack in known.scans(Run("painted_only", 1.0, 1, 0)))


def test_pairs_are_the_painted_scans_and_the_same_places_painted_as_the_organ(
    done: Path, root: Path, tiny_checkpoint: Path
) -> None:
    trainer = TINY | {"spacing_mm": 0.8}  # the hosts' own, so that nothing is resampled
    study = load_study(write_study(root, tiny_checkpoint, arms=["pairs"], trainer=trainer))
    checked = check(study.recipe, cache_dir=root / "cache")
    context = StudyContext(
        study, checked.index, checked.label_names, done, root / "cache", device="cpu"
    )
    known = make_known(context, segmenter.SmallUnet(study, "cpu"), frozenset(TRAINING))
    stacks = known.scans(Run("pairs", 1.0, 1, 0))
    assert [stack.is_real for stack in stacks] == [True] * 3 + [False] * 6
    hosts = {stack.name.removeprefix("real-"): stack for stack in stacks[:3]}
    assert set(hosts) == set(TRAINING)
    kidney, tumor = 1, 2  # as study.classes has them
    for ill, well in zip(stacks[3:6], stacks[6:], strict=True):
        host, is_well = ill.name.removeprefix("painted-"), well.name.removeprefix("counterpart-")
        assert host == is_well
        before = hosts[host.rpartition("-")[0]]
        lesion = (ill.classes == tumor) & (before.classes == kidney)
        assert lesion.any()
        assert np.array_equal(well.classes, before.classes)
        assert np.array_equal(well.hu != before.hu, (well.hu != before.hu) & lesion)
        assert (well.hu != before.hu)[lesion].mean() > 0.9
    for lock in (done / "datasets").glob("*/1.0.0/synthct.lock"):
        if "test-counterpart" not in str(lock):  # which classifiers are judged on
            assert not any(who in lock.read_text() for who in TEST)


@pytest.mark.parametrize(
    ("code", "made_anew"), [("segmenter", "segmenters"), ("classifier", "classifiers")]
)
def test_what_is_kept_is_stale_when_the_code_that_made_it_changes(
    code: str,
    made_anew: str,
    done: Path,
    root: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = root / f"changed-{code}"
    shutil.copytree(done, output / "study")
    hashed = keys.code_sha256
    monkeypatch.setattr(keys, "code_sha256", lambda name: hashed(name) + name.endswith(code) * "!")
    study = load_study(write_study(root, tiny_checkpoint))
    before = numbers(done)
    run_study(study, output, cache_dir=root / "cache", device="cpu")
    after = numbers(output / "study")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {path.name for path in (done / made_anew).iterdir()}


def test_nnunets_script_is_part_of_its_code(root: Path, tiny_checkpoint: Path) -> None:
    study = load_study(write_study(root, tiny_checkpoint))
    modules = NnUnet(study, Path(sys.executable), "2d", "cpu").modules
    files = {path.name for module in modules for path in keys.source_files(module)}
    assert {"nnunet.py", "nnunet_script.py"} <= files


def test_a_share_knows_nothing_of_the_others(root: Path, tiny_checkpoint: Path) -> None:
    study = load_study(write_study(root, tiny_checkpoint, shares=[0.67, 1.0], seeds=[0, 1, 2]))
    index = check(study.recipe, cache_dir=root / "cache").index
    drawn = [patients_known(study, index, 0.67, seed) for seed in study.seeds]
    assert {len(patients) for patients in drawn} == {2}
    assert len(set(drawn)) > 1
    recipe = recipe_for(study, "copy_paste", index, drawn[0])
    for section in recipe.sources.values():
        assert set(section.cases or ()) == drawn[0]
    assert patients_known(study, index, 1.0, 0) == set(TRAINING)
    names = [run.name for run in runs_of(study)]
    assert len(names) == len(set(names)) == 2 * 3 * 5


@pytest.mark.long
def test_each_patient_is_left_out_in_turn(root: Path, tiny_checkpoint: Path) -> None:
    hosts = {"layout": "kits23", "root": str(root / "train")}
    study = load_study(
        write_study(
            root, tiny_checkpoint, name="in-turn", test=hosts, leave_one_out=True,
            classification=None, arms=["real", "copy_paste"], trainer=TINY | {"steps": 1},
        )
    )  # fmt: skip
    folder = run_study(study, root / "out", cache_dir=root / "cache", device="cpu")
    results = json.loads((folder / "results.json").read_text())
    assert results["test"]["patients"] == 3
    assert results["training_scans"] == 2
    names = {f"{arm}-share100-seed0-without-{who}.judged"
             for arm in ("real", "copy_paste-x1") for who in TRAINING}  # fmt: skip
    assert {path.name for path in (folder / "segmenters").iterdir()} == names
    for path in (folder / "datasets").glob("*/1.0.0"):
        lock = (path / "synthct.lock").read_text()
        assert sum(who in lock for who in TRAINING) == 2
    alone = write_study(root, tiny_checkpoint, test=hosts, classification=None)
    with pytest.raises(PolicyError, match="is a host of the painted dataset"):
        run_study(load_study(alone), root / "leak", cache_dir=root / "cache")


def test_bad_studies_are_told_with_their_place(root: Path, tiny_checkpoint: Path) -> None:
    def error(match: str, **changes: Any) -> None:
        with pytest.raises(RecipeError, match=match):
            load_study(write_study(root, tiny_checkpoint, **changes))

    sections = {"view": "axial", "margin_mm": None}
    error("study.yaml:1:.*masks 'tumors' paint some slices", dataset_fields=sections)
    error("adapt", dataset_fields={"inpaint": {"adapt": {"steps": 5}}})
    error("did you mean 'trainer'", trainr={})
    error("labels has the lesion", labels=["tumor"])
    error("a value twice", seeds=[1, 1])
    error("leave_one_out is for segmenters", leave_one_out=True)
    error("no such file", dataset="nowhere.yaml")
    study = load_study(write_study(root, tiny_checkpoint, labels=["spleen"]))
    with pytest.raises(RecipeError, match=r"study.yaml:1:.*know no 'spleen' \(known: cyst"):
        run_study(study, root / "bad", cache_dir=root / "cache")


def test_masks_without_donors_cannot_be_pasted(root: Path, tiny_checkpoint: Path) -> None:
    blob = [{"name": "blob", "kind": "blob", "radius_mm": [3, 6], "within": "kidney"}]
    with pytest.raises(RecipeError, match=r"study.yaml:1:.*'blob' .* are no transplants"):
        load_study(write_study(root, tiny_checkpoint, dataset_fields={"masks": blob}))
    path = write_study(root, tiny_checkpoint, dataset_fields={"masks": blob}, classification=None)
    study = load_study(path)
    with pytest.raises(RecipeError, match=r"copy_paste.* has no donor"):
        run_study(study, root / "bad", cache_dir=root / "cache")


@pytest.mark.long
def test_the_command_says_the_tables(done: Path, root: Path, tiny_checkpoint: Path) -> None:
    recipe = write_study(root, tiny_checkpoint, test={"layout": "kits23", "root": "nowhere"})
    arguments = ["downstream", str(recipe), "--output", str(root / "out"), "--device", "cpu"]
    arguments += ["--cache-dir", str(root / "cache"), "--source", f"test={root / 'test'}"]
    made = CliRunner().invoke(app, arguments)
    assert made.exit_code == 0, made.output
    assert "## Differences" in made.output
    assert made.output.rstrip().endswith(str(done))
    assert len(TEST) == 3


def test_more_of_what_was_missed_is_suggested_as_masks_of_a_recipe(
    root: Path, tiny_checkpoint: Path
) -> None:
    study = load_study(write_study(root, tiny_checkpoint))
    lesions = [
        Lesion(1.0, size, (0.2, 0.7, 0.5), score, organ, share)
        for size, score, organ, share in (
            (10.0, 0.9, "kidney", 0.1),
            (15.0, 0.1, "kidney", 0.6),
            (18.0, 0.0, "kidney", 0.7),
            (50.0, 0.0, "spleen", 0.2),
        )
    ]
    scan = Judged("a", "A", {}, {}, {}, tuple(lesions), ())
    text = suggestion(study, {Run("real", 1.0, 0.0, 0): [scan]}, root / "cache")
    assert "#   below 2 cm: 2 of 3\n" in text
    assert "#   in kidney: 2 of 3\n" in text
    assert "#   left half of the scan: 3 of 4\n" in text
    sections = YAML(typ="safe").load(text)["masks"]
    assert [(one["name"], one["into"], one["weight"]) for one in sections] == [
        ("tumors-kidney-at-surface-below-2-cm", "kidney", 2),
        ("tumors-spleen-within-4-cm-and-above", "kidney", 1),
    ]
    assert "tumors-spleen-within-4-cm-and-above: " in text  # no host has a spleen
    recipe = Recipe.model_validate(study.recipe.model_dump() | {"masks": sections})
    check(recipe, cache_dir=root / "cache")
    with pytest.raises(RecipeError, match="needs the arm 'real'"):
        suggestion(study, {Run("painted", 1.0, 1.0, 0): [scan]}, root / "cache")


@pytest.mark.long
def test_nnunet_and_its_python_go_together(root: Path, tiny_checkpoint: Path) -> None:
    recipe = str(write_study(root, tiny_checkpoint))
    for more, message in (
        (["--trainer", "nnunet"], "--python PATH go together"),
        (["--python", "python3"], "--python PATH go together"),
        (["--trainer", "forest"], "no trainer 'forest'"),
        (["--configuration", "4d"], "no configuration '4d'"),
    ):
        made = CliRunner().invoke(app, ["downstream", recipe, *more])
        assert made.exit_code == RecipeError.exit_code
        assert message in made.output
    study = load_study(write_study(root, tiny_checkpoint, arms=["real"]))
    with pytest.raises(ResourceError, match="is nnunetv2 installed there"):
        run_study(study, root / "none", nnunet=Path(sys.executable), cache_dir=root / "cache")


@pytest.mark.slow
def test_nnunet_trains_and_is_judged(root: Path, tiny_checkpoint: Path) -> None:
    python = os.environ.get("NNUNET_PYTHON")
    if python is None:
        pytest.skip("NNUNET_PYTHON is not the interpreter of an environment with nnunetv2")
    study = load_study(
        write_study(root, tiny_checkpoint, arms=["real", "painted"], classification=None)
    )
    folder = run_study(
        study, root / "nnunet", nnunet=Path(python), cache_dir=root / "cache", device="cpu"
    )
    results = json.loads((folder / "results.json").read_text())
    assert [row["arm"] for row in results["arms"]] == ["real", "painted"]
    assert not (folder / "nnunet").exists()
