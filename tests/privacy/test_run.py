"""The privacy check of a dataset: planted copies, independent tissue, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from conftest import oblique_affine, write_tiny_checkpoint
from dataset_rows import LOCK
from evaluated import DISC, fresh, tissue, write_dataset
from typer.testing import CliRunner

from synthct.cli import app
from synthct.dataset.lockfile import write_lock
from synthct.dataset.privacy.results import PrivacyCheck, read_results
from synthct.errors import CheckpointError
from synthct.metrics.region_key import bounding_square, region_hash, region_key
from synthct.models.checkpoint import find_checkpoint
from synthct.models.folder import write_sums
from synthct.models.training_index import make_index, write_index
from synthct.privacy import nearest, places, power
from synthct.privacy.run import Options, check_privacy
from synthct.volume import Volume
from synthct.volume.nifti import write_volume

PATIENTS, SLICES = 5, 6
SCANS = [
    np.rint(
        np.concatenate([tissue(np.random.default_rng([99, p, k])) for k in range(SLICES)], axis=2)
    ).astype(np.int16)
    for p in range(PATIENTS)
]


def drawn(rng: np.random.Generator) -> tuple[int, int]:
    """The training patient and slice that a painting is a copy of."""
    return int(rng.integers(PATIENTS)), int(rng.integers(SLICES))


def copied(original: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del original
    patient, k = drawn(rng)
    return np.asarray(SCANS[patient][:, :, k : k + 1] + np.rint(rng.normal(0, 8, DISC.shape)))


def exact(original: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del original
    patient, k = drawn(rng)
    return np.asarray(SCANS[patient][:, :, k : k + 1])


def moved(original: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy from elsewhere on a training slice than where its index has a region."""
    return np.roll(exact(original, rng), (9, -7), axis=(0, 1))


@pytest.fixture(scope="module", autouse=True)
def _few_candidates() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (nearest, power):
            patch.setattr(module, "CANDIDATES", 3)
        patch.setattr(power, "PLANTED", 8)
        patch.setattr(places, "PLACES", 1)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with an index, its recipe and scans, and datasets painted by it."""
    folder = tmp_path_factory.mktemp("privacy")
    checkpoint = write_tiny_checkpoint(folder / "tiny")
    mask, affine, rows = DISC[:, :, 0], oblique_affine(), []
    row, column, side = bounding_square(mask)
    for p, scan in enumerate(SCANS):
        (folder / f"scans/case{p}").mkdir(parents=True)
        write_volume(Volume(scan, affine), folder / f"scans/case{p}/ct.nii.gz")
        for k in range(SLICES):
            grid = [(affine @ [row, column, k, 1])[:3], affine[:3, 0], affine[:3, 1]]
            rows.append(
                {
                    "key": region_key(scan[:, :, k], mask).tobytes(),
                    "sha256": region_hash(scan[:, :, k], mask),
                    "label": None,
                    "source": "scans",
                    "case_id": f"case{p}",
                    "patient_id": f"trained{p}",
                    "fingerprint": None,
                    "side_px": side,
                    "grid_mm": np.concatenate(grid).tolist(),
                }
            )
    write_index(make_index(rows, None, seed=0), checkpoint)
    write_sums(checkpoint)
    (folder / "train.yaml").write_text(
        f"""
name: tiny
sources: {{scans: {{layout: nifti, root: "{folder}/scans", image: "{{case}}/ct.nii.gz"}}}}
masks: [{{kind: blob, name: blobs, radius_mm: [3, 6]}}]
"""
    )
    painted = {"fresh": fresh, "copied": copied, "exact": exact, "moved": moved}
    for name, paint in painted.items():
        patients, variants = 2 if name in ("exact", "moved") else 9, 2 if name == "fresh" else 1
        final = folder / f"{name}/1.0.0"
        write_dataset(final, paint, patients=patients, variants=variants)
        lock(folder / f"{name}/1.0.0", checkpoint)
    return folder


def lock(dataset: Path, checkpoint: Path) -> None:
    painter = LOCK.checkpoint
    assert painter is not None
    found = find_checkpoint(str(checkpoint)).checkpoint_id
    write_lock(
        dataset, LOCK.model_copy(update={"checkpoint": painter.model_copy(update={"id": found})})
    )


def check(made: Path, name: str, **options: Any) -> PrivacyCheck:
    given = {"checkpoint": str(made / "tiny"), "training": made / "train.yaml", **options}
    return check_privacy(made / name / "1.0.0", Options(**given), cache_dir=made / "cache")


@pytest.fixture(scope="module")
def of_copies(made: Path) -> PrivacyCheck:
    return check(made, "copied")


@pytest.mark.long
def test_copies_are_flagged_and_the_patient_is_named(of_copies: PrivacyCheck) -> None:
    assert of_copies.assessed == "correlation"
    assert all("training_ncc" in one.flags for one in of_copies.regions)
    for one in of_copies.regions:
        patient, mask = (int(part[1:]) for part in one.sample_id.split(".")[:2])
        told = drawn(np.random.default_rng([patient, mask, 0, 7]))[0]
        assert one.nearest_patient == f"trained{told}"
    assert of_copies.copies is not None
    assert of_copies.copies.count == of_copies.copies.of == 54
    assert of_copies.copies.low > 0.9


@pytest.mark.long
def test_exact_copies_are_told_by_their_voxels_with_and_without_scans(made: Path) -> None:
    for options in ({}, {"training": None}):
        found = check(made, "exact", **options)
        assert all("block_copy" in one.flags for one in found.regions)
        assert {one.block_copy for one in found.regions} == {1.0}


@pytest.mark.long
def test_copies_from_elsewhere_on_a_training_slice_are_found_with_scans_only(made: Path) -> None:
    with_scans, by_key = check(made, "moved"), check(made, "moved", training=None)
    assert with_scans.copies is not None
    assert with_scans.copies.count == with_scans.copies.of == 12
    assert by_key.copies is not None
    assert by_key.copies.count == 0


@pytest.mark.long
def test_independent_tissue_is_not_flagged(made: Path) -> None:
    found = check(made, "fresh")
    assert found.copies is not None
    assert (found.copies.count, found.copies.of) == (0, 108)
    assert 0.03 < found.copies.high < 0.04
    assert all(one.is_fitted for one in found.thresholds)
    assert found.nearer_to_training is not None
    assert found.nearer_to_training.low < 0.5 < found.nearer_to_training.high
    assert found.variant_diversity is not None
    assert found.variant_diversity > 0.8
    assert (found.reuse.patients, found.reuse.most) == (9, 12)
    assert {one.recognisable for one in found.regions} == {False}  # a kidney is in the field


def test_the_report_says_what_could_have_been_seen(of_copies: PrivacyCheck) -> None:
    noise, _, deformation, blend = of_copies.power
    assert {one.planted for one in of_copies.power} == {8}
    assert noise.recall[0] == 1.0
    assert list(noise.recall) == sorted(noise.recall, reverse=True)
    assert noise.lost_at in noise.strengths
    assert f"noise {noise.lost_at:.0f} HU" in of_copies.sentence
    assert deformation.recall[0] > 0.9
    assert blend.recall[-1] < 0.5


def test_by_key_only_and_not_assessed_are_said(made: Path, tmp_path: Path) -> None:
    by_key = check(made, "copied", training=None)
    assert by_key.assessed == "key"
    assert "by key only" in by_key.sentence
    assert by_key.copies is not None
    assert by_key.copies.count > 50
    bare = copytree(made / "tiny", tmp_path / "tiny")
    (bare / "training_index.parquet").unlink()
    write_sums(bare)
    blind = check(made, "copied", checkpoint=str(bare))
    assert (blind.assessed, blind.copies) == ("not assessed", None)
    assert "not assessed" in blind.sentence
    assert any("no privacy index" in note for note in blind.notes)


def test_another_checkpoint_is_refused(made: Path, tmp_path: Path) -> None:
    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="painted by"):
        check(made, "fresh", checkpoint=str(other))


@pytest.mark.long
def test_the_command_prints_and_writes(made: Path, tmp_path: Path) -> None:
    words = ["privacy", str(made / "copied/1.0.0"), "--checkpoint", str(made / "tiny")]
    words += ["--cache-dir", str(made / "cache"), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["copies"]["of"] == 54
    written = read_results(tmp_path / "out")
    assert written.sentence == told["sentence"]
    page = (tmp_path / "out/privacy.md").read_text()
    for text in (page, done.stdout, written.sentence):
        assert "anonym" not in text.lower()
    shown = CliRunner().invoke(app, words)
    assert "Copies of training patients" in shown.output
