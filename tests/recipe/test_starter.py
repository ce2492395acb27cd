"""``synthct init``: a recipe for a folder of any layout, which ``check`` takes as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import make_tiny_case, write_kits
from dicom_writer import write_rtstruct, write_series
from typer.testing import CliRunner, Result

from synthct.cli import app
from synthct.recipe.recipe import load_recipe
from synthct.volume import Volume, write_volume

Run = Callable[..., Result]
Write = Callable[[Path], None]

CASES = ("scan01", "scan02", "scan03")


def volumes(number: int) -> tuple[Volume, Volume]:
    """Scan and label map (kidney 1, tumor 2) of a case."""
    case = make_tiny_case(noise_seed=number)
    return case.scan(), case.labels


def structure(labels: Volume, value: int) -> Volume:
    return Volume((labels.array == value).astype(np.uint8), labels.affine)


def write(root: Path, image: str, **structures: str) -> None:
    """Cases by patterns; ``labels`` is the label map, any other name a file of one structure."""
    for number, case in enumerate(CASES):
        ct, labels = volumes(number)
        parts = {
            "labels": labels, "kidney": structure(labels, 1), "tumor": structure(labels, 2),
            "image": ct,
        }  # fmt: skip
        for name, pattern in {"image": image, **structures}.items():
            path = root / pattern.format(case=case, number=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".nrrd", ".mha"):
                write_itk(parts[name], path)
            else:
                write_volume(parts[name], path)


def write_itk(volume: Volume, path: Path) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volume.array.T)
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine  # ITK is LPS+
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection((affine[:3, :3] / volume.spacing_mm).ravel())
    image.SetOrigin(affine[:3, 3])
    SimpleITK.WriteImage(image, path)


def write_json(root: Path, **content: object) -> None:
    (root / "dataset.json").write_text(json.dumps(content))


def nnunet(root: Path) -> None:
    write(root, "imagesTr/{case}_0000.nii.gz", labels="labelsTr/{case}.nii.gz")
    write_json(root, channel_names={"0": "CT"}, labels={"background": 0, "kidney": 1, "tumor": 2},
               numTraining=3, file_ending=".nii.gz")  # fmt: skip


def msd(root: Path) -> None:
    write(root, "imagesTr/{case}.nii.gz", labels="labelsTr/{case}.nii.gz")
    pairs = [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in CASES]
    write_json(root, modality={"0": "CT"}, labels={"0": "background", "1": "kidney", "2": "tumor"},
               training=pairs)  # fmt: skip


def kits(root: Path) -> None:
    for number in range(3):
        write_kits(root / "dataset", make_tiny_case(f"case_0000{number}", noise_seed=number))


def nnunet_mha(root: Path) -> None:
    write(root, "imagesTr/{case}_0000.mha", labels="labelsTr/{case}.mha")
    write_json(root, channel_names={"0": "CT"}, labels={"background": 0, "kidney": 1, "tumor": 2},
               numTraining=3, file_ending=".mha")  # fmt: skip


def dicom(root: Path) -> None:
    for number, case in enumerate(CASES):
        ct, labels = volumes(number)
        left = (labels.array == 1) & (np.indices(labels.shape)[0] < labels.shape[0] // 2)
        regions = {"Kidney L": left, "Kidney R": (labels.array == 1) & ~left,
                   "GTV-1": labels.array == 2, "Table": labels.array == 2}  # fmt: skip
        write_series(root / f"exam {number}" / case, ct, case, PatientID=case)
        write_rtstruct(root / f"exam {number}/rs.dcm", ct, regions, case)


def dicom_with_maps(root: Path) -> None:
    for number, case in enumerate(CASES):
        ct, labels = volumes(number)
        write_series(root / case, ct, case, PatientID=case)
        write_volume(structure(labels, 1), root / case / "kidney.nii.gz")


LAYOUTS: dict[str, tuple[Write, str, set[str]]] = {
    "nnunet": (nnunet, "nnunet", {"kidney", "tumor"}),
    "msd": (msd, "msd", {"kidney", "tumor"}),
    "kits, a folder below": (kits, "kits23", {"kidney", "tumor"}),
    "totalsegmentator": (
        lambda root: write(root, "{case}/ct.nii.gz", kidney="{case}/segmentations/kidney.nii.gz"),
        "totalsegmentator", {"kidney"},
    ),
    "nnU-Net without its JSON": (
        lambda root: write(root, "imagesTr/{case}_0000.nii.gz", labels="labelsTr/{case}.nii.gz"),
        "nifti", {"label_1", "label_2"},
    ),
    "a folder for each case": (
        lambda root: write(root, "{case}/scan.nii.gz", kidney="{case}/seg_kidney.nii.gz",
                           tumor="{case}/seg_gtv_1.nii.gz"),
        "nifti", {"kidney", "tumor"},
    ),
    "the scan's name in all names": (
        lambda root: write(root, "{case}/thorax.nii.gz", kidney="{case}/thorax_kidney.nii.gz",
                           tumor="{case}/thorax_GTV.nii.gz"),
        "nifti", {"kidney", "tumor"},
    ),
    "the case's name in folder and file": (
        lambda root: write(root, "{case}/{case}_ct.nii.gz", tumor="{case}/{case}_tumour.nii.gz"),
        "nifti", {"tumor"},
    ),
    "all in one folder": (
        lambda root: write(root, "{case}.nii.gz", labels="{case}_seg.nii.gz"),
        "nifti", {"label_1", "label_2"},
    ),
    "LiTS": (
        lambda root: write(root, "volume-{number}.nii", labels="segmentation-{number}.nii"),
        "nifti", {"label_1", "label_2"},
    ),
    "words of no meaning": (
        lambda root: write(root, "a/b/{case}/one.nii.gz", kidney="a/b/{case}/two.nii.gz"),
        "nifti", {"two"},
    ),
    "NRRD": (
        lambda root: write(root, "{case}/ct.nrrd", labels="{case}/segmentation.nrrd"),
        "nifti", {"label_1", "label_2"},
    ),
    "MetaImage of nnU-Net": (nnunet_mha, "nnunet", {"kidney", "tumor"}),
    "DICOM with RTSTRUCT": (dicom, "dicom", {"kidney", "tumor"}),
    "DICOM with NIfTI": (dicom_with_maps, "dicom", {"kidney"}),
    "folders of labels beside those of scans": (
        lambda root: write(root, "{case}/vol.nii.gz", kidney="{case}_seg/kidney.nii.gz",
                           tumor="{case}_seg/tumor.nii.gz"),
        "nifti", {"kidney", "tumor"},
    ),
    "scans and labels of one name": (
        lambda root: write(root, "{case}/ct.nii.gz", labels="{case}_seg/ct.nii.gz"),
        "nifti", {"label_1", "label_2"},
    ),
    "two folders of each case": (
        lambda root: write(root, "{case}_ct/vol.nii.gz", labels="{case}_seg/vol.nii.gz"),
        "nifti", {"label_1", "label_2"},
    ),
    "BIDS": (
        lambda root: write(root, "sub-{case}/ct/sub-{case}_ct.nii.gz",
                           labels="derivatives/seg/sub-{case}/ct/sub-{case}_ct_dseg.nii.gz"),
        "nifti", {"label_1", "label_2"},
    ),
    "BIDS with sessions": (
        lambda root: write(
            root, "sub-{case}/ses-1/ct/sub-{case}_ses-1_ct.nii.gz",
            kidney="derivatives/m/sub-{case}/ses-1/sub-{case}_ses-1_label-kidney_mask.nii.gz"),
        "nifti", {"kidney"},
    ),
    "scans alone": (lambda root: write(root, "{case}.nii.gz"), "nifti", set()),
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(("write_data", "layout", "structures"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_recipe_for_own_scans_is_taken_as_it_is(
    run: Run, tmp_path: Path, write_data: Write, layout: str, structures: set[str]
) -> None:
    (tmp_path / "My scans").mkdir()
    write_data(tmp_path / "My scans")
    result = run("init", "My scans", "--output", "mine.yaml", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "mine.yaml\n"), result.output
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith("# 3 scans; 3 of them were read")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.sources["hosts"].layout) == ("my-scans", layout)
    checked = run("check", "mine.yaml", "--json", "--no-sheet")
    facts = json.loads(checked.stdout)
    assert checked.exit_code == 0, checked.output
    assert len(facts["hosts"]) == 3
    assert facts["left_out"] == []
    for name in structures - {"tumor"}:
        assert f"{name}" in text
    if "kidney" in structures:
        assert {"kidney", "tumors"} <= facts["masks"].keys()
    elif "tumor" in structures:
        assert facts["masks"].keys() == {"tumor"}
    elif structures:
        assert all(name.startswith("around-") for name in facts["masks"])
    else:
        assert facts["masks"].keys() == {"blobs"}


@pytest.mark.parametrize("labels", ["seg.nii.gz", "segmentations/kidney.nii.gz"])
def test_the_folder_of_one_case_is_understood(run: Run, tmp_path: Path, labels: str) -> None:
    write(tmp_path / "mine", "{case}/ct.nii.gz", labels=f"{{case}}/{labels}")
    assert run("init", "mine/scan02", "--output", "mine.yaml").exit_code == 0
    checked = run("check", "mine.yaml", "--json", "--no-sheet")
    assert checked.exit_code == 0, checked.output
    facts = json.loads(checked.stdout)
    assert list(facts["hosts"]) == ["scan02"]
    assert "blobs" not in facts["masks"]


def test_sessions_of_one_person_are_one_patient(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for number, (who, session) in enumerate((("a", 1), ("a", 2), ("b", 1))):
        ct, labels = volumes(number)
        name = f"sub-{who}/ses-{session}/ct/sub-{who}_ses-{session}_ct"
        for path, volume in ((name, ct), (f"derivatives/seg/{name}_dseg", labels)):
            (root / path).parent.mkdir(parents=True)
            write_volume(volume, root / f"{path}.nii.gz")
    assert run("init", "mine", "--output", "mine.yaml").exit_code == 0
    (hosts,) = load_recipe(tmp_path / "mine.yaml").sources.values()
    assert hosts.patients == {
        "sub-a_ses-1": "sub-a", "sub-a_ses-2": "sub-a", "sub-b_ses-1": "sub-b"
    }  # fmt: skip


def test_a_recipe_goes_to_standard_output(run: Run, tmp_path: Path) -> None:
    nnunet(tmp_path / "mine")
    assert run("init", "mine").stdout.startswith("# 3 scans")
    (tmp_path / "there.yaml").write_text("mine")
    assert run("init", "mine", "-o", "there.yaml").exit_code == 6
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_links_and_scans_that_cannot_be_read_are_told(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "data", "{case}/ct.nii.gz", kidney="{case}/kidney.nii.gz")
    for case in CASES:
        (tmp_path / "links" / case).mkdir(parents=True)
        for name in ("ct.nii.gz", "kidney.nii.gz"):
            (tmp_path / "links" / case / name).symlink_to(tmp_path / "data" / case / name)
    ct = tmp_path / "data/scan02/ct.nii.gz"
    ct.write_bytes(ct.read_bytes()[:-9])
    text = run("init", "links").stdout
    assert "links: follow" in text
    assert "on_bad_case: skip" in text
    assert "# scan02: " in text
    (tmp_path / "mine.yaml").write_text(text)
    facts = json.loads(run("check", "mine.yaml", "--json", "--no-sheet").stdout)
    assert [one["case"] for one in facts["left_out"]] == ["scan02"]


def test_a_case_whose_number_ends_as_a_channel_is_no_stranger(run: Run, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in (0, 1):
        case = make_tiny_case(f"x_{number:04}", noise_seed=number)
        write_volume(case.scan(), tmp_path / f"data/images/{case.case_id}_0000.nii.gz")
        write_volume(case.labels, tmp_path / f"data/labels/{case.case_id}.nii.gz")
    assert run("init", "data", "--output", "r.yaml").exit_code == 0
    source = load_recipe(tmp_path / "r.yaml").sources["hosts"]
    assert [case.case_id for case in source.select(source.find(tmp_path)).cases] == [
        "x_0000", "x_0001",
    ]  # fmt: skip


def test_label_maps_without_scans_are_answered_with_where_these_are(
    run: Run, tmp_path: Path
) -> None:
    (write_kits(tmp_path, make_tiny_case("case_00000")) / "imaging.nii.gz").unlink()
    result = run("init", ".")
    assert "1 case of layout kits23, and no scan to paint into" in result.stderr
    assert "kits23_download_data" in result.stderr


def test_a_folder_without_scans_is_told(run: Run, tmp_path: Path) -> None:
    for name in ("nowhere", "."):
        result = run("init", name)
        assert result.exit_code == 3
        assert len(result.stderr.splitlines()) == 1
    write(tmp_path / "maps", "{case}/ct.nii.gz", labels="{case}/labels.nii.gz")
    for case in CASES:
        (tmp_path / "maps" / case / "ct.nii.gz").unlink()
    result = run("init", "maps")
    assert "3 files but no scan" in result.stderr
    shutil.rmtree(tmp_path / "maps")
