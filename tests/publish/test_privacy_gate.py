"""What a privacy check found is not published."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from synthct.cli import app
from synthct.dataset.manifest import read_manifest
from synthct.dataset.privacy.results import PrivacyCheck, write_results
from synthct.errors import PolicyError, VerifyError
from synthct.publish.hub.privacy import checked


def privacy_check(folder: Path, **changes: Any) -> None:
    """Results of a privacy check beside a dataset."""
    manifest = read_manifest(folder)
    assert manifest is not None
    region = {
        "sample_id": "host.boxes.d000.s0.v0", "patient_id": "host", "host_in_training": False,
        "real_voxel_fraction": 0.9, "recognisable": None, "assessed": "correlation",
        "nearest_patient": "trained", **changes.pop("region", {}),
    }  # fmt: skip
    results = {
        "package_version": "1", "dataset": "tiny", "version": "1.0.0", "checkpoint": "tiny",
        "content_id": manifest.release.content_id, "checkpoint_id": "4" * 64, "notes": (),
        "training_regions": 9, "training_patients": 3, "training_scans": 3, "scans_at_hand": 3,
        "assessed": "correlation", "copies": None, "nearer_to_training": None, "thresholds": (),
        "variant_diversity": None, "reuse": {"patients": 1, "most": 1, "gini": 0.0}, "power": (),
        "sentence": "Copies of training patients: 0 of 1.", "regions": [region], **changes,
    }  # fmt: skip
    beside = folder.with_name(f"{folder.name}.privacy")
    write_results(beside, PrivacyCheck.model_validate(results), "")


@pytest.mark.long
def test_copies_and_faces_are_not_published(versions: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(versions["1.0.0"], tmp_path / "1.0.0")
    assert "not assessed" in checked(str(folder))
    privacy_check(folder)
    assert checked(str(folder)) == "Copies of training patients: 0 of 1."
    privacy_check(folder, region={"flags": ["training_ncc"]})
    with pytest.raises(PolicyError, match=r"1 painting may be .*\n.*patient trained"):
        checked(str(folder), faces=True)
    written = folder.with_name("1.0.0.privacy") / "privacy.json"
    written.write_text(written.read_text().replace('"training_ncc"', ""))
    with pytest.raises(VerifyError, match=r"privacy\.json is not what its sha256 says"):
        checked(str(folder))
    privacy_check(folder, region={"recognisable": True})
    with pytest.raises(PolicyError, match="a head or face is in the field of 1 sample"):
        checked(str(folder))
    assert checked(str(folder), faces=True)
    privacy_check(folder, content_id="5" * 64)
    with pytest.raises(PolicyError, match="is of content 555555555555"):
        checked(str(folder))


def test_publish_refuses_and_prints_the_sentence(versions: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(versions["1.0.0"], tmp_path / "1.0.0")
    words = ["publish", str(folder), "--repo", "jane/tiny", "--dry-run"]
    privacy_check(folder)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Copies of training patients: 0 of 1." in done.output
    privacy_check(folder, region={"flags": ["block_copy"]})
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 9
    assert "holds voxels of a training region" in refused.output


def test_what_is_neither_has_no_sentence(tmp_path: Path) -> None:
    assert checked(str(tmp_path)) == ""
