"""The evaluation of finished datasets: falsifiers, floors, arms, cache and the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import blurred, fresh, same, write_dataset
from lesion_rows import make_host, slices_of, write_volumes
from typer.testing import CliRunner

from synthct.cli import app
from synthct.errors import RecipeError, ResourceError, VerifyError
from synthct.evaluate.collect import FeatureJob, collect
from synthct.evaluate.pictures import Crop, Extracted
from synthct.evaluate.radiomics import Radiomics, crop_features
from synthct.evaluate.results import Evaluation, read_results, write_results
from synthct.evaluate.run import FLOOR, Options, evaluate
from synthct.evaluate.scores import make_halvings
from synthct.evaluate.stream import Dataset
from synthct.evaluate.tables import results_markdown
from synthct.volume.intensity import SOFT_TISSUE

NONE = Options(arms={})


class Moments:
    """A network's stand-in: mean and grain of a picture, as features and as two classes."""

    name, key, dim, sees_slices, sees_volumes = "moments", "moments-1", 3, True, False

    def __init__(self) -> None:
        self.seen = 0

    def extract(self, crops: Sequence[Crop]) -> Extracted:
        self.seen += len(crops)
        rows = [[c.hu.mean(), c.hu.std(), np.abs(np.diff(c.hu, axis=0)).mean()] for c in crops]
        share = np.array([[r[1], r[2]] for r in rows]) / np.array([[r[1] + r[2]] for r in rows])
        return Extracted(np.array(rows, np.float32), share.astype(np.float32))


def run(folder: Path, cache: Path, options: Options = NONE, **changes: Any) -> Evaluation:
    return evaluate(folder, changes.get("by", [Radiomics()]), options, cache_dir=cache)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of the same masks: equal to the real, as good as real, blurred."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_dataset(folder / "same/1.0.0", same)
    write_dataset(folder / "fresh/1.0.0", fresh, variants=2)
    write_dataset(folder / "blurred/1.0.0", blurred)
    return folder


@pytest.fixture(scope="module")
def found(made: Path) -> Evaluation:
    arms = {"same": made / "same/1.0.0", "blurred": made / "blurred/1.0.0"}
    return run(
        made / "fresh/1.0.0", made / "cache", Options(arms=arms), by=[Radiomics(), Moments()]
    )


def test_equal_sets_have_distance_zero(made: Path) -> None:
    score = run(made / "same/1.0.0", made / "cache").score("all", "painted", "radiomics", "mask")
    assert score is not None
    assert score.fid == pytest.approx(0, abs=1e-6)
    assert (score.samples, score.real_samples, score.dim) == (36, 36, 40)


def test_blur_is_farther_from_real_than_real_from_real(found: Evaluation) -> None:
    arms = ("painted", "same", "blurred", FLOOR)
    scores = {arm: found.score("all", arm, "radiomics", "mask") for arm in arms}
    halves = {arm: score.fid_halves for arm, score in scores.items() if score}
    floor = halves[FLOOR]
    assert floor is not None
    assert floor.low is not None
    assert floor.high is not None
    for good in ("painted", "same"):
        distance = halves[good]
        assert distance is not None
        assert distance.value < 1.5 * floor.value
    bad = halves["blurred"]
    assert bad is not None
    assert bad.value > 3 * floor.high
    kid = {arm: score.kid for arm, score in scores.items() if score}
    assert kid["blurred"] is not None
    assert kid["blurred"].low is not None
    assert kid["blurred"].low > 0
    for good in ("painted", FLOOR):
        interval = kid[good]
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= 0.05 * kid["blurred"].value
        assert interval.low <= interval.value <= interval.high


def test_the_floor_of_a_set_against_itself_is_the_real_halves(found: Evaluation) -> None:
    for arm in ("same", FLOOR):
        score = found.score("kidney", arm, "radiomics", "mask")
        assert score is not None
        assert score.fid_halves is not None
    same_arm, floor = (found.score("kidney", a, "radiomics", "mask") for a in ("same", FLOOR))
    assert same_arm is not None
    assert floor is not None
    # What is equal to the real set is as far from its other half as the real set itself.
    assert same_arm.fid_halves == floor.fid_halves


def test_labels_have_rows_of_their_own_and_all_have_one(found: Evaluation) -> None:
    assert [g.name for g in found.groups] == ["all", "kidney", "liver"]
    assert [g.masks for g in found.groups] == [36, 18, 18]
    assert {g.halves for g in found.groups} == {"patients"}
    score = found.score("kidney", "painted", "radiomics", "mask")
    assert score is not None
    assert (score.samples, score.real_samples) == (36, 18)  # two variants


def test_whole_slices_are_compared_by_networks_alone(found: Evaluation) -> None:
    scopes = {(s.extractor, s.scope) for s in found.scores}
    assert scopes == {("radiomics", "mask"), ("moments", "crop"), ("moments", "slice")}
    crop, whole = (found.score("all", "blurred", "moments", s) for s in ("crop", "slice"))
    assert crop is not None
    assert whole is not None
    assert crop.fid is not None
    assert whole.fid is not None
    assert whole.fid < crop.fid  # most of a slice is real
    assert crop.inception_score is not None


def test_too_few_patients_are_split_without_an_interval(made: Path, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "few/1.0.0", fresh, patients=2, masks=10)
    found = run(folder, tmp_path / "cache")
    assert {g.halves for g in found.groups} == {"masks"}
    for score in found.scores:
        for interval in (score.fid_halves, score.kid):
            assert interval is not None
            assert interval.low is None
            assert interval.high is None
    assert "split halves: fewer than 5 patients" in results_markdown(found)


def test_halves_never_part_a_patient() -> None:
    patient_of = {f"m{n}": f"p{n % 7}" for n in range(50)}
    halving = make_halvings(list(patient_of), ["x"], {**patient_of, "x": "p9"})
    assert halving.by == "patients"
    for half in halving.halves:
        assert set(half) == {f"p{n}" for n in (*range(7), 9)}
        assert 15 <= sum(half[p] for m, p in patient_of.items()) <= 35
    assert len({tuple(sorted(half.items())) for half in halving.halves}) > 3


def test_features_are_taken_once_per_content(made: Path, tmp_path: Path) -> None:
    first, again, other = Moments(), Moments(), Moments()
    one = run(made / "fresh/1.0.0", tmp_path, by=[first])
    two = run(made / "fresh/1.0.0", tmp_path, by=[again])
    assert first.seen == 2 * (72 + 36)  # crops and slices, painted and original
    assert again.seen == 0
    assert one == two
    run(made / "same/1.0.0", tmp_path, by=[other])
    assert other.seen > 0
    broken = sorted((tmp_path / "features").iterdir())[0]
    broken.write_bytes(b"not an archive")
    assert run(made / "fresh/1.0.0", tmp_path, by=[Moments()]) == one


def test_another_dataset_can_be_what_is_real(made: Path, tmp_path: Path) -> None:
    real = write_dataset(tmp_path / "real/1.0.0", same, patients=5)
    found = run(made / "blurred/1.0.0", tmp_path, Options(arms={}, real=real))
    assert found.real != found.content_id
    score = found.score("all", "painted", "radiomics", "mask")
    assert score is not None
    assert (score.samples, score.real_samples) == (36, 30)


def test_without_anything_real_there_is_no_comparison(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "bare/1.0.0", patients=2, keep_original=False)
    with pytest.raises(RecipeError, match="does not keep the originals"):
        run(folder, tmp_path)
    with pytest.raises(RecipeError, match="it does not keep its originals"):
        run(folder, tmp_path, Options(arms={}, real=folder))
    with pytest.raises(VerifyError, match="no finished dataset"):
        run(tmp_path, tmp_path)


def test_arms_of_other_masks_are_noted(made: Path, tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few/1.0.0", fresh, patients=5)
    found = run(made / "fresh/1.0.0", tmp_path, Options(arms={"few": few}))
    assert "arm 'few' has 30 of the dataset's 36 masks" in found.notes
    with pytest.raises(RecipeError, match="this name is reserved"):
        run(made / "fresh/1.0.0", tmp_path, Options(arms={"painted": few}))


def test_steps_between_slices_of_a_lesion_are_measured(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "lesions/1.0.0", fresh, masks=4, lesion_id="one")
    spreads = {m.measure: m for m in run(folder, tmp_path).measures if m.group == "all"}
    assert spreads["z_jump_ratio"].count >= 3 * 6
    assert 0.5 < spreads["z_jump_ratio"].quantiles[2] < 2
    assert spreads["seam_ratio"].count == 24
    assert "texture_ratio" not in spreads  # defined for none of them


def test_radiomics_are_of_whole_volumes_and_networks_see_their_slices(tmp_path: Path) -> None:
    host = make_host()
    folder = write_volumes(tmp_path / "d/1.0.0", [host])
    jobs = [FeatureJob("original", Radiomics(), "mask"), FeatureJob("painted", Moments(), "crop")]
    rows: list[int] = []
    real, shown = collect(
        Dataset(folder), jobs, scans=None, cache_dir=tmp_path, advance=lambda: rows.append(1),
        visit=lambda *_: None,
    )  # fmt: skip
    whole = Crop(host.case.scan().array, host.lesion, (0.8, 0.8, 2.5), SOFT_TISSUE)
    assert len(real.features) == 1  # once per mask
    assert np.allclose(real.features[0], list(crop_features(whole).values()), rtol=1e-5)
    assert len(shown.features) == 2 * len(slices_of(host, "axial"))
    assert len(rows) == 2

    found = run(folder, tmp_path, by=[Radiomics(), Moments()])
    assert "volumes are compared whole, in 3D, by radiomics" in found.notes
    assert "volumes are compared as the slices that show their masks, by moments" in found.notes


SEGMENTER = """
import sys
from pathlib import Path
import nibabel as nib, numpy as np
for path in sorted(Path(sys.argv[1]).glob("*_0000.nii.gz")):
    image = nib.load(path)
    hu = np.asarray(image.dataobj)
    rows = np.hypot(*(np.indices(hu.shape[:2]) - np.array([[[25]], [[28]]])))[:, :, None]
    labels = np.where(rows < 13, 2, 0) + (hu > 200)
    out = nib.Nifti1Image(labels.astype(np.uint8)[::-1], image.affine @ flip(hu.shape))
    nib.save(out, Path(sys.argv[2]) / path.name.replace("_0000", ""))
"""
FLIP = """
def flip(shape):
    import numpy as np
    turned = np.eye(4); turned[0, 0] = -1; turned[0, 3] = shape[0] - 1
    return turned
"""


@pytest.mark.long
def test_the_users_own_segmenter_judges_the_masks(made: Path, tmp_path: Path) -> None:
    script = tmp_path / "segment.py"
    script.write_text(FLIP + SEGMENTER)  # its label maps are stored upside down
    command = f"{sys.executable} {script} {{images}} {{labels}}"
    folder = made / "same/1.0.0"

    def adherence(**options: Any) -> float:
        asked = Options(arms={}, segmenter=command, **options)
        spreads = run(folder, tmp_path / "cache", asked).measures
        (found,) = [m for m in spreads if (m.measure, m.group) == ("user_adherence", "all")]
        assert found.count == 36
        return found.quantiles[2]

    assert 0.9 < adherence() < 1  # a little beside the mask
    assert adherence(segmenter_values={"kidney": frozenset({2}), "liver": frozenset({2})}) > 0.9
    assert adherence(segmenter_values={"kidney": frozenset({7}), "liver": frozenset({7})}) == 0

    def refused(command: str, message: str) -> None:
        with pytest.raises((RecipeError, ResourceError), match=message):
            run(folder, tmp_path / "cache", Options(arms={}, segmenter=command))

    refused("predict", r"write \{images\} and \{labels\} in it")
    refused("no-such-program {images} {labels}", "cannot be run")
    refused(
        f"{sys.executable} -c 'import sys; sys.exit(\"no GPU\")' {{images}} {{labels}}", "no GPU"
    )
    refused(f"{sys.executable} -c 0 {{images}} {{labels}}", "it wrote no 000000.nii.gz")


def test_what_was_painted_where_it_was_not_is_noted(made: Path, tmp_path: Path) -> None:
    # The rows of these datasets have no error measures, as those of transplants have none.
    notes = run(made / "same/1.0.0", tmp_path).notes
    assert any(n.startswith("'kidney' was painted over other tissue") for n in notes)
    other = run(made / "same/1.0.0", tmp_path, Options(arms={}, real=made / "fresh/1.0.0"))
    assert not any("painted over other tissue" in n for n in other.notes)


def test_results_are_written_and_read_again(found: Evaluation, tmp_path: Path) -> None:
    write_results(tmp_path / "out", found, "tables")
    assert read_results(tmp_path / "out") == found
    assert "NaN" not in (tmp_path / "out/evaluation.json").read_text()
    (tmp_path / "out/evaluation.json").write_text("{")
    with pytest.raises(VerifyError, match="cannot be read"):
        read_results(tmp_path / "out")


def test_tables_show_labels_by_arms(found: Evaluation) -> None:
    text = results_markdown(found)
    assert "| label | painted | same | blurred | real halves |" in text
    assert text.count("| kidney |") == text.count("| liver |") > 5
    assert "72 / 36" in text


def test_the_command_prints_tables_and_leaves_the_dataset_alone(made: Path, tmp_path: Path) -> None:
    folder = made / "blurred/1.0.0"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    command = ["evaluate", str(folder), "--extractor", "radiomics", "--arm",
               f"same={made / 'same/1.0.0'}", "--output", str(tmp_path / "out"),
               "--cache-dir", str(tmp_path)]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "| all |" in done.output
    results = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == ["painted", "same", FLOOR]
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert "no neighbouring slices" in done.output
