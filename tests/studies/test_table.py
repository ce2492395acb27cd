"""``synthct table``: what is told before any work, and what a small table comes to."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_case, write_kits
from tiny_gan import GAN, OPTIM, write_gan
from tiny_recipe import DONORS, write_data
from training_recipes import tiny_fields
from typer.testing import CliRunner

from synthct.build.run import build
from synthct.cli import app
from synthct.errors import CheckpointError, RecipeError, SynthCTError
from synthct.evaluate.extractors import load_extractors
from synthct.evaluate.stream import Dataset
from synthct.studies.table import run
from synthct.studies.table.page import shown_masks, write_page
from synthct.studies.table.recipe import Table, load_table
from synthct.studies.table.results import write_results
from synthct.studies.table.run import Place, check_table, count_parameters, make_table

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "tables"
HOSTS = tuple(f"case_{number:05d}" for number in range(10, 18))
ORGAN = {"name": "kidney", "kind": "organ", "label": "kidney"}
TUMORS = {
    "name": "tumors", "kind": "transplant", "label": "tumor", "into": "kidney",
    "accept": {"inside_fraction": 0.5},
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight hosts, donors, and a Pix2Pix of random weights."""
    folder = tmp_path_factory.mktemp("table")
    for number, case_id in enumerate((*HOSTS, *DONORS)):  # donors have images for copy-paste
        source = "hosts" if case_id in HOSTS else "donors"
        write_kits(folder / "data" / source, make_tiny_case(case_id, noise_seed=number))
    write_gan(folder / "gan")
    return folder


def table_of(folder: Path, tmp_path: Path, **changes: Any) -> Table:
    fields = {
        "name": "tiny",
        "description": "A try.",
        "sources": {
            name: {"layout": "kits23", "root": str(folder / "data" / name)}
            for name in ("hosts", "donors")
        },
        "masks_per_case": 1,
        "methods": {
            "Pix2Pix": {"inpaint": {"checkpoint": str(folder / "gan")}},
            "noise fill": {"inpaint": {"method": "noise_fill"}},
            "copy-paste": {"inpaint": {"method": "copy_paste"}},
        },
        "rows": {"kidney": {"masks": [ORGAN]}, "tumor": {"masks": [TUMORS]}},
        "pictures": 1,
        **changes,
    }
    path = tmp_path / "table.yaml"
    path.write_text(json.dumps(fields))
    return load_table(path)


def place_of(folder: Path, tmp_path: Path) -> Place:
    return Place(tmp_path / "out", folder / "cache", workers=0)


@pytest.mark.parametrize("preset", [None, "quick"])
def test_the_committed_table_loads_with_equal_minutes(preset: str | None) -> None:
    table = load_table(RECIPES / "thesis_phantoms.yaml", preset=preset)
    assert list(table.trainings) == ["Pix2Pix", "Palette", "volume", "Med-DDPM", "Vox2Vox"]
    first, *others = table.trainings.values()
    for training in others:
        assert (training.masks, training.sources) == (first.masks, first.sources)
        assert training.rules.spacing_range_mm == first.rules.spacing_range_mm
        assert training.rules.labels == first.rules.labels
        assert training.model.patch_sizes == first.model.patch_sizes
    minutes = {m.train.minutes for m in table.recipe.methods.values() if m.train is not None}
    assert len(minutes) == 1
    trained_on = {section.seed for section in first.sources.values()}
    assert not trained_on & {s.seed for s in table.recipe.sources.values()}


@pytest.mark.parametrize("preset", [None, "small"])
def test_the_table_of_real_scans_paints_what_its_networks_know(preset: str | None) -> None:
    table = load_table(RECIPES / "thesis_real.yaml", preset=preset)
    for title, training in table.trainings.items():
        for row in table.recipe.rows:
            assert title in table.recipe.columns(row)
            assert set(table.recipe.painted_labels(row)) <= set(training.labels)


def test_the_table_of_few_real_scans_trains_every_method_on_the_same() -> None:
    table = load_table(RECIPES / "thesis_few.yaml")
    assert len(table.trainings) == 5
    for training in table.trainings.values():
        assert list(training.sources) == ["phantoms", "scans"]
        assert training.data.source_weights == {"scans": 3}
        assert training.resolved_licence() == "CC-BY-3.0"


def test_a_trained_method_paints_as_its_recipe_says() -> None:
    table = load_table(RECIPES / "thesis_phantoms.yaml")
    for name, steps in (("Palette", 10), ("Pix2Pix", 20)):
        inpaint = table.dataset("kidney", name, Path("/made/here")).inpaint.network
        assert inpaint is not None
        assert inpaint.checkpoint == "/made/here"
        assert (inpaint.grain, inpaint.num_inference_steps) == ("checkpoint", steps)
        assert ("num_inference_steps" in inpaint.model_fields_set) == (name == "Palette")


PHANTOMS = {"phantoms": {"layout": "phantom", "patients": 1}}


def method(**fields: Any) -> dict[str, Any]:
    return {"methods": {"one": fields}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (method(train={"recipe": "none.yaml", "minutes": 1}), "no training recipe .*none.yaml"),
        (
            method(train={"recipe": "t.yaml", "minutes": 1}, inpaint={"method": "noise_fill"}),
            "noise_fill has no checkpoint",
        ),
        (
            method(train={"recipe": "t.yaml", "minutes": 1}, inpaint={"checkpoint": "x"}),
            "exclude each other",
        ),
        (method(train={"recipe": "t.yaml", "minutes": 0}), "minutes: 0 is out of range"),
        (
            {"methods": {"A b": {}, "a-b": {}}},
            "methods.a-b: names another folder only by case or signs",
        ),
        (
            {"training": {"sources": PHANTOMS, "source_weights": {"more": 2}}},
            "training.source_weights.more: there is no source 'more'",
        ),
        ({"methods": {"painted": {}}}, "is the title of a column that every table has"),
        (
            {"methods": {"x": {"inpaint": {"method": "copy_paste"}}}},
            "rows.kidney: no method can paint this row",
        ),
    ],
)
def test_what_a_recipe_cannot_say(
    folder: Path, tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        table_of(folder, tmp_path, **changes)


def test_scans_of_all_trainings_have_names_of_their_own(folder: Path, tmp_path: Path) -> None:
    write_training(folder, tmp_path)
    changes = method(train={"recipe": "training.yaml", "minutes": 1})
    changes["training"] = {"sources": {"scans": PHANTOMS["phantoms"]}}
    with pytest.raises(RecipeError, match=r"training.sources.scans: .*training.yaml has a source"):
        table_of(folder, tmp_path, **changes)


LIVER = {"name": "liver", "kind": "organ", "label": "liver"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (method(inpaint={"checkpoint": "/nowhere/gan"}), CheckpointError, "is no folder here"),
        ({"rows": {"liver": {"masks": [LIVER]}}}, SynthCTError, "liver"),
        (method(inpaint={"num_inference_steps": 2}), SynthCTError, "one pass"),
    ],
)
def test_what_is_told_before_any_work(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    error: type[SynthCTError],
    message: str,
) -> None:
    for work in ("train", "build", "evaluate"):
        monkeypatch.setattr(run, work, None)
    if "inpaint" in changes.get("methods", {}).get("one", {}):
        changes["methods"]["one"]["inpaint"].setdefault("checkpoint", str(folder / "gan"))
    with pytest.raises(error, match=message):
        make_table(table_of(folder, tmp_path, **changes), [], place_of(folder, tmp_path))


def test_few_masks_are_refused_and_few_patients_are_told(folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    write_data(few, hosts=HOSTS[:3])
    sources = {name: {"layout": "kits23", "root": str(few / name)} for name in ("hosts", "donors")}
    place = place_of(folder, tmp_path)
    methods = {"noise fill": {"inpaint": {"method": "noise_fill"}}}
    given = {"sources": sources, "methods": methods}
    with pytest.raises(RecipeError, match=r"rows.kidney: comes to 3 masks, and a comparison"):
        check_table(table_of(folder, tmp_path, **given), place)
    notes = check_table(table_of(folder, tmp_path, **given, masks_per_case=3), place)
    assert notes[0].startswith("row 'kidney' has 3 patients: without 5 its numbers have no int")


def test_hosts_that_a_method_is_trained_on_are_told(folder: Path, tmp_path: Path) -> None:
    write_training(folder, tmp_path)
    changes = method(train={"recipe": "training.yaml", "minutes": 1})
    (note,) = check_table(table_of(folder, tmp_path, **changes), place_of(folder, tmp_path))
    assert note.startswith("one is trained on 8 of the 8 hosts, so its numbers are better")


def test_a_training_must_know_what_its_rows_paint(folder: Path, tmp_path: Path) -> None:
    write_training(folder, tmp_path, masks=[ORGAN])
    changes = method(train={"recipe": "training.yaml", "minutes": 1})
    table = table_of(folder, tmp_path, **changes)
    with pytest.raises(RecipeError, match=r"methods.one: .* no 'tumor', which row 'tumor' paints"):
        check_table(table, place_of(folder, tmp_path))


def test_too_many_steps_are_told_before_it_is_trained(folder: Path, tmp_path: Path) -> None:
    fields = tiny_fields(folder / "data/hosts", noise={"num_train_timesteps": 50})
    (tmp_path / "training.yaml").write_text(json.dumps(fields))
    changes = method(
        train={"recipe": "training.yaml", "minutes": 1},
        inpaint={"scheduler": "ddim", "num_inference_steps": 51},
    )
    with pytest.raises(RecipeError, match=r"methods.one: scheduler 'ddim' cannot paint in 51"):
        check_table(table_of(folder, tmp_path, **changes), place_of(folder, tmp_path))


@pytest.mark.parametrize(
    ("inpaint", "view", "message"),
    [
        ({"num_inference_steps": 2}, "axial", "methods.one: .*num_inference_steps.*one pass"),
        ({"scheduler": "ddim"}, "axial", "methods.one: .*scheduler.*one pass"),
        ({"prompt": "a kidney"}, "axial", "methods.one: .*takes no 'prompt'"),
        ({"slice_noise_mm": 20}, "volume", "methods.one: .*which draws its own noise"),
    ],
)
def test_how_a_method_paints_is_checked_before_it_is_trained(
    folder: Path, tmp_path: Path, inpaint: dict[str, Any], view: str, message: str
) -> None:
    write_training(folder, tmp_path)
    changes = method(train={"recipe": "training.yaml", "minutes": 1}, inpaint=inpaint)
    table = table_of(folder, tmp_path, **changes, view=view, rows={"kidney": {"masks": [ORGAN]}})
    with pytest.raises(RecipeError, match=message):
        check_table(table, place_of(folder, tmp_path))


def write_training(folder: Path, tmp_path: Path, **changes: Any) -> None:
    model = {**GAN, "codecs": {"default": "full_range"}}
    fields = tiny_fields(folder / "data/hosts", model=model, optim=OPTIM, **changes)
    (tmp_path / "training.yaml").write_text(json.dumps(fields))


@pytest.mark.slow
def test_a_table_has_every_number_and_goes_on_where_it_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_training(folder, tmp_path)
    methods = {
        "copy-paste": {"inpaint": {"method": "copy_paste"}},
        "trained": {"train": {"recipe": "training.yaml", "minutes": 0.01}},
        "Pix2Pix": {"inpaint": {"checkpoint": str(folder / "gan")}},
    }
    real = {"masks": [TUMORS], "real": [{**ORGAN, "name": "tumors", "label": "tumor"}]}
    rows = {"kidney": {"masks": [ORGAN]}, "tumor": real}
    table = table_of(folder, tmp_path, methods=methods, rows=rows)
    place, extractors = place_of(folder, tmp_path), load_extractors(["radiomics"])
    results, arms = make_table(table, extractors, place)
    write_results(place.output, results)

    assert list(arms["kidney"]) == ["trained", "Pix2Pix"]  # copy-paste has no donor there
    assert list(arms["tumor"]) == ["copy-paste", "trained", "Pix2Pix"]
    for row, method_ in (("kidney", "Pix2Pix"), ("tumor", "copy-paste"), ("tumor", "trained")):
        score = results.score(row, method_, "radiomics", "mask")
        assert score is not None
        assert score.samples == score.real_samples == 8
        assert score.fid_halves is not None
        assert score.fid_halves.low is not None  # there are eight patients
        assert results.median(row, method_, "seam_ratio") is not None
    assert results.score("kidney", "real halves", "radiomics", "mask") is not None
    costs = {cost.method: cost for cost in results.costs}
    assert costs["copy-paste"].parameters is None
    assert costs["Pix2Pix"].parameters == costs["trained"].parameters
    assert costs["trained"].training_minutes == 0.01
    assert all(cost.seconds_per_sample for cost in results.costs)
    text = (place.output / "table.md").read_text()
    assert "radiomics" in text
    assert "| row |\n" not in text  # nor a table without a number
    assert re.search(r"^\| kidney \| - \| ", text, re.MULTILINE)
    with (place.output / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["method"] for line in lines} >= {*methods, "real halves"}

    page = write_page(place.output, results, arms, 1).read_text()
    assert page.count("<figure>") == 4 + 5  # masked, two or three methods, original

    trained, built = run.seconds_trained(place.training("trained")), (place.output / "arms.kept")
    assert trained > 0
    before = built.read_text()
    monkeypatch.setattr(run, "train", None)
    again, _ = make_table(table, extractors, place)
    assert again == results
    assert built.read_text() == before


@pytest.mark.slow
def test_of_a_volume_the_page_shows_the_widest_slice(folder: Path, tmp_path: Path) -> None:
    sources = {
        "hosts": {"layout": "kits23", "root": str(write_data(tmp_path, HOSTS[:1]) / "hosts")}
    }
    noise = {"noise fill": {"inpaint": {"method": "noise_fill"}}}
    rows = {"kidney": {"masks": [ORGAN]}}
    table = table_of(folder, tmp_path, sources=sources, view="volume", methods=noise, rows=rows)
    made = build(
        table.dataset("kidney", "noise fill"), tmp_path, cache_dir=folder / "cache", workers=0
    )
    areas: dict[str, list[int]] = {}
    for sample in Dataset(made).slices():
        areas.setdefault(sample.facts.mask_id, []).append(int(sample.mask.sum()))
    assert all(len(set(one)) > 1 for one in areas.values())
    shown = shown_masks("kidney", {"noise fill": made}, 2)
    assert [one.title for one in shown] == [f"kidney: {mask_id}" for mask_id in areas]
    assert [picture.name for picture in shown[0].pictures] == ["masked", "noise fill", "original"]


def test_an_interrupted_dataset_has_no_duration(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(folder, tmp_path)
    recipe = table_of(folder, tmp_path).masks_only("kidney")

    def build(*_: Any, **__: Any) -> Path:
        if fails:
            raise KeyboardInterrupt
        return tmp_path

    monkeypatch.setattr(run, "build", build)
    for name, fails in (("whole", False), ("killed", True), ("killed", False)):
        try:
            run.Diary(place.output / "arms.kept").build(recipe, place.output / name, place)
        except KeyboardInterrupt:
            assert fails
    seconds = run.Diary(place.output / "arms.kept").seconds
    assert seconds["whole"] is not None
    assert seconds["killed"] is None


def test_parameters_are_counted_from_the_files(folder: Path) -> None:
    from synthct.models.checkpoint import find_checkpoint, load_checkpoint

    files = find_checkpoint(str(folder / "gan"))
    generator = load_checkpoint(files)["generator"]
    assert count_parameters(files) == sum(p.numel() for p in generator.parameters())


def test_a_resumed_training_counts_what_its_states_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [5.0, 9.0, 3.0, 4.5, 8.0]  # the second run begins at 3
    lines = [{"step": n, "seconds": s} for n, s in enumerate(seconds)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(f'{text}{{"step": 5, "seco')  # cut short by a kill
    assert run.seconds_trained(tmp_path) == 0  # it starts anew
    monkeypatch.setattr(run, "latest_state", lambda output: output / "states/step-00000003")
    assert run.seconds_trained(tmp_path) == 13.5


def test_the_command_only_checks_if_asked_to(folder: Path, tmp_path: Path) -> None:
    table_of(folder, tmp_path)
    arguments = ["table", str(tmp_path / "table.yaml"), "--check", "--output", str(tmp_path / "o")]
    done = CliRunner().invoke(app, [*arguments, "--cache-dir", str(folder / "cache")])
    assert done.exit_code == 0, done.output
    assert "nothing is wrong" in done.stdout
    assert not (tmp_path / "o").exists()
    done = CliRunner().invoke(app, [*arguments, "--preset", "quick"])
    assert done.exit_code == 2
    assert "no preset 'quick'" in done.output
