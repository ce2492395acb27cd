"""No test patient is host, donor, or in the checkpoint's training data, under whatever name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import make_tiny_case, write_kits
from downstream_study import TEST, TRAINING, mirrored, write_folders, write_study

from synthct.errors import PolicyError
from synthct.models.folder import write_sums
from synthct.sources import Kits, index_sources
from synthct.studies.downstream.recipe import load_study
from synthct.studies.downstream.run import run_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def refused(root: Path, checkpoint: Path, match: str, **changes: object) -> None:
    study = load_study(write_study(root, checkpoint, **changes))
    with pytest.raises(PolicyError, match=match):
        run_study(study, root / "out", cache_dir=root / "cache")
    assert not list((root / "out/study").glob("*/*"))  # nothing was built or trained


def test_a_test_patient_as_host_is_refused_by_name(root: Path, tiny_checkpoint: Path) -> None:
    shutil.copytree(root / "test" / TEST[0], root / "train" / TEST[0])
    refused(root, tiny_checkpoint, rf"test case {TEST[0]} .* is a host .* have the same name")


def test_a_test_patient_under_another_name_is_refused(root: Path, tiny_checkpoint: Path) -> None:
    shutil.copytree(root / "test" / TEST[0], root / "train/case_00077")
    refused(root, tiny_checkpoint, "as case case_00077 .* the same voxels;")


def test_a_mirrored_test_patient_is_refused(root: Path, tiny_checkpoint: Path) -> None:
    case = make_tiny_case(TEST[0], noise_seed=len(TRAINING))
    write_kits(root / "train", mirrored(case, "case_00077"))
    refused(root, tiny_checkpoint, "as case case_00077 .* mirrored")


@pytest.mark.parametrize("has_image", [True, False])
def test_a_test_patient_as_donor_is_refused(
    root: Path, tiny_checkpoint: Path, has_image: bool
) -> None:
    case = mirrored(make_tiny_case(TEST[0], noise_seed=len(TRAINING)), "case_00000")
    folder = write_kits(root / "donors", case)
    if not has_image:
        (folder / "imaging.nii.gz").unlink()
        # all tiny cases have the same label map: that of the one test patient is to be told
        for other in (*TRAINING, *TEST[1:]):
            shutil.rmtree(root / ("train" if other in TRAINING else "test") / other)
        write_kits(root / "train", make_tiny_case("case_00050", noise_seed=50))
    sources = {
        "hosts": {"layout": "kits23", "root": str(root / "train")},
        "donors": {
            "layout": "kits23",
            "root": str(root / "donors"),
            "patients": {"case_00000": "donor"},
        },
    }
    how = "mirrored" if has_image else "as many voxels of each label"
    refused(
        root, tiny_checkpoint, f"is in source 'donors' .*patient donor.* {how}",
        dataset_fields={"sources": sources}, arms=["real", "painted"],
    )  # fmt: skip


def taught(checkpoint: Path, root: Path, **case: object) -> Path:
    """A copy of a checkpoint that says it was trained on a case."""
    copy = root / "taught"
    shutil.copytree(checkpoint, copy)
    training = json.loads((copy / "training.json").read_text())
    training["cases"] = [{"case_id": "secret", "source": "scans", "licence": "CC0-1.0", **case}]
    (copy / "training.json").write_text(json.dumps(training))
    write_sums(copy)
    return copy


@pytest.mark.parametrize("by", ["voxel_sha256", "fingerprint"])
def test_a_test_patient_in_the_checkpoints_training_data_is_refused(
    root: Path, tiny_checkpoint: Path, by: str
) -> None:
    source = {"hosts": Kits(root=root / "test")}
    entries = index_sources(source, ["tumor"], cache_dir=root / "cache").entries("hosts")
    checkpoint = taught(tiny_checkpoint, root, **{by: getattr(entries[1], by)})
    refused(
        root, checkpoint, rf"test case {TEST[1]} .* training data of checkpoint 'taught', as case "
        "secret of its source 'scans'", arms=["real", "painted"],
    )  # fmt: skip


def test_a_checkpoint_that_does_not_say_what_it_has_seen_is_refused(
    root: Path, tiny_checkpoint: Path
) -> None:
    copy = taught(tiny_checkpoint, root)
    training = json.loads((copy / "training.json").read_text()) | {"cases": []}
    (copy / "training.json").write_text(json.dumps(training))
    write_sums(copy)
    message = "does not say which scans .* 'unknown_training: allow'"
    refused(root, copy, message, unknown_training="refuse")
