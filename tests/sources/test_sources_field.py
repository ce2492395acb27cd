"""Folders as the field has them: odd headers, lost affines, links, other datasets' file names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from conftest import KITS_AXES, halves, make_tiny_case, write_kits, write_structures
from pydantic import TypeAdapter, ValidationError
from tiny_recipe import write_data, write_recipe

from synthct.build.check import check
from synthct.build.run import build
from synthct.errors import RecipeError, SourceError
from synthct.recipe.plan import plan_samples
from synthct.recipe.recipe import Recipe, load_recipe
from synthct.sources import (
    DatasetJson,
    Dicom,
    Index,
    Kits,
    Nifti,
    Source,
    TotalSegmentator,
    index_sources,
    label_table,
    read_case,
)
from synthct.volume import Volume, nifti_bytes, restore_orientation, shifted, write_volume
from synthct.volume.case import Case

PAIR = {"image": "img/{case}.nii.gz", "labels": "seg/{case}.nii.gz", "label_names": {"kidney": 1}}


def index_one(source: Source, tmp_path: Path, *labels: str) -> Index:
    return index_sources({"hosts": source}, labels, cache_dir=tmp_path / "cache")


def save(array: np.ndarray, affine: np.ndarray, path: Path, *, codes: tuple[int, int]) -> None:
    """A file of given qform and sform codes; with 0 and 0 it says nothing of its place."""
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header["pixdim"][0] = 0 if codes == (0, 0) else image.header["pixdim"][0]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def pair(root: Path, case: Case, name: str = "a", **codes: tuple[int, int]) -> None:
    scan = case.scan()
    for folder, volume in (("img", scan), ("seg", case.labels)):
        save(volume.array, volume.affine, root / f"{folder}/{name}.nii.gz", codes=codes[folder])


def test_scans_and_label_maps_may_be_nrrd_and_metaimage(tmp_path: Path, tiny_case: Case) -> None:
    scan = tiny_case.scan()
    for name, volume in (("a.mha", scan), ("a_seg.nrrd", tiny_case.labels)):
        image = SimpleITK.GetImageFromArray(volume.array.T)
        lps = np.diag([-1.0, -1, 1, 1]) @ volume.affine
        image.SetSpacing(volume.spacing_mm)
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / volume.spacing_mm).ravel().tolist())
        SimpleITK.WriteImage(image, str(tmp_path / name))
    source = Nifti(
        root=tmp_path, image="{case}.mha", labels="{case}_seg.nrrd", label_names={"kidney": 1}
    )
    index = index_one(source, tmp_path)
    case = read_case(index.entry("hosts", "a"), {"kidney": 1})
    assert np.array_equal(case.scan().array, scan.array)
    assert np.array_equal(case.region("kidney"), tiny_case.region("kidney"))


# --- where it lies ---


def test_a_file_without_form_codes_lies_as_the_recipe_says(tmp_path: Path, tiny_case: Case) -> None:
    pair(tmp_path, tiny_case, img=(0, 0), seg=(0, 0))
    with pytest.raises(SourceError, match=r"both codes are 0.*'orientation: LAS'"):
        index_one(Nifti(root=tmp_path, **PAIR), tmp_path)
    source = Nifti(root=tmp_path, orientation="LPS", **PAIR)
    index = index_one(source, tmp_path)
    case = read_case(index.entry("hosts", "a"), label_table({"hosts": source}, []))
    assert np.array_equal(case.scan().array, tiny_case.scan().array[::-1, ::-1])
    assert np.array_equal(case.labels.array == 1, tiny_case.region("kidney")[::-1, ::-1])
    assert case.scan().spacing_mm == pytest.approx((0.8, 0.8, 2.5))
    assert any("1 of 1 case: the image is read as orientation LPS" in note for note in index.notes)


def test_an_orientation_that_no_case_needs_is_told(tmp_path: Path, tiny_case: Case) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    index = index_one(Nifti(root=tmp_path, orientation="LAS", **PAIR), tmp_path)
    assert any("orientation: LAS was needed by no case" in note for note in index.notes)


@pytest.mark.parametrize("code", ["LLS", "las", "LA", "RASI", "XYZ", ""])
def test_what_is_no_orientation_is_refused(code: str) -> None:
    with pytest.raises(ValidationError, match="is no orientation"):
        Nifti(root="x", image="{case}.nii", orientation=code)


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("axes", ["RAS", "KiTS"])
def test_a_label_map_without_its_affine_takes_the_images_grid_if_asked(
    tmp_path: Path, tiny_case: Case, codes: tuple[int, int], axes: str
) -> None:
    turn = KITS_AXES if axes == "KiTS" else np.eye(4)
    image = restore_orientation(tiny_case.scan(), turn)
    labels = restore_orientation(tiny_case.labels, turn)
    save(image.array, image.affine, tmp_path / "img/a.nii.gz", codes=(0, 1))
    save(labels.array, np.eye(4), tmp_path / "seg/a.nii.gz", codes=codes)
    with pytest.raises(SourceError, match="'label_grid: image'"):
        index_one(Nifti(root=tmp_path, **PAIR), tmp_path)
    source = Nifti(root=tmp_path, label_grid="image", **PAIR)
    index = index_one(source, tmp_path)
    case = read_case(index.entry("hosts", "a"), label_table({"hosts": source}, []))
    assert np.array_equal(case.labels.array == 1, tiny_case.region("kidney"))
    assert case.labels.has_grid_of(tiny_case.scan())
    assert any("1 of 1 case: the label map takes the grid of" in note for note in index.notes)


def test_label_grid_leaves_label_maps_that_lie_right_and_refuses_other_shapes(
    tmp_path: Path, tiny_case: Case
) -> None:
    turned = restore_orientation(tiny_case.labels, KITS_AXES)
    write_volume(tiny_case.scan(), tmp_path / "a.nii.gz")
    (tmp_path / "seg").mkdir()
    write_volume(turned, tmp_path / "seg/a.nii.gz")
    source = Nifti(root=tmp_path, label_grid="image", **{**PAIR, "image": "{case}.nii.gz"})
    index = index_one(source, tmp_path)
    case = read_case(index.entry("hosts", "a"), label_table({"hosts": source}, []))
    assert np.array_equal(case.labels.array == 1, tiny_case.region("kidney"))
    assert any("label_grid: image was needed by no case" in note for note in index.notes)
    save(tiny_case.labels.array[:-1], np.eye(4), tmp_path / "seg/a.nii.gz", codes=(0, 1))
    with pytest.raises(SourceError, match="another grid"):
        index_one(source, tmp_path)


def test_label_grid_needs_images_whose_grid_is_taken(tmp_path: Path) -> None:
    fields = {**PAIR, "image": None, "label_grid": "image"}
    with pytest.raises(ValidationError, match="grid of the scans: name them with image"):
        Nifti(root=tmp_path, **fields)


def test_a_changed_image_moves_the_labels_that_take_its_grid(
    tmp_path: Path, tiny_case: Case
) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    scan = tiny_case.scan()
    save(tiny_case.labels.array, np.eye(4), tmp_path / "seg/a.nii.gz", codes=(0, 1))
    source = Nifti(root=tmp_path, label_grid="image", **PAIR)
    index_one(source, tmp_path)
    mirrored = scan.affine @ np.diag([-1, 1, 1, 1])
    save(scan.array, mirrored, tmp_path / "img/a.nii.gz", codes=(0, 1))
    entry = index_one(source, tmp_path).entry("hosts", "a")
    case = read_case(entry, label_table({"hosts": source}, []))
    assert np.array_equal(case.labels.array == 1, tiny_case.region("kidney")[::-1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_map_of_a_part_of_the_scan_is_padded(
    tmp_path: Path, tiny_case: Case, axis: int
) -> None:
    """As dcmqi writes segmentations: the bounding slices alone, here upside down."""
    box = np.argwhere(tiny_case.labels.array)
    start, stop = box.min(0), box.max(0) + 1
    part = tuple(
        slice(int(a), int(b)) if n == axis else slice(None)
        for n, (a, b) in enumerate(zip(start, stop, strict=True))
    )
    offset = [int(start[n]) if n == axis else 0 for n in range(3)]
    labels = tiny_case.labels
    cut = Volume(np.ascontiguousarray(labels.array[part]), shifted(labels.affine, offset))
    (tmp_path / "img").mkdir()
    (tmp_path / "seg").mkdir()
    write_volume(tiny_case.scan(), tmp_path / "img/a.nii.gz")
    write_volume(restore_orientation(cut, np.diag([1, -1, -1, 1.0])), tmp_path / "seg/a.nii.gz")
    source = Nifti(root=tmp_path, **PAIR)
    index = index_one(source, tmp_path)
    entry = index.entry("hosts", "a")
    case = read_case(entry, label_table({"hosts": source}, []))
    kidney = tiny_case.region("kidney")
    assert np.array_equal(case.region("kidney"), kidney)
    assert kidney[entry.labels["kidney"].box.slices].sum() == kidney.sum()
    assert any("1 of 1 case: the label map covers a part" in note for note in index.notes)


@pytest.mark.parametrize("step", [0.5, -1.0, 30.0])
def test_a_part_that_is_off_by_half_a_voxel_or_sticks_out_is_refused(
    tmp_path: Path, tiny_case: Case, step: float
) -> None:
    labels = tiny_case.labels
    cut = Volume(labels.array[:, :, :8], shifted(labels.affine, (0, 0, step)))
    (tmp_path / "img").mkdir()
    (tmp_path / "seg").mkdir()
    write_volume(tiny_case.scan(), tmp_path / "img/a.nii.gz")
    write_volume(cut, tmp_path / "seg/a.nii.gz")
    with pytest.raises(SourceError, match=r"another grid \(48, 40, 8\)"):
        index_one(Nifti(root=tmp_path, **PAIR), tmp_path)


def test_labels_beside_a_ct_that_is_sheared_a_little_are_read(
    tmp_path: Path, tiny_case: Case
) -> None:
    """As in more than 150 cases of TotalSegmentator: 0.03 of a voxel apart."""
    affine = np.diag([0.8, 0.8, 2.5, 1.0])
    sheared = affine.copy()
    sheared[1, 2] = 2.5 * 4e-4
    save(tiny_case.scan().array, sheared, tmp_path / "img/a.nii.gz", codes=(0, 1))
    save(tiny_case.labels.array, affine, tmp_path / "seg/a.nii.gz", codes=(0, 1))
    index_one(Nifti(root=tmp_path, **PAIR), tmp_path)
    sheared[1, 2] = 2.5 * 4e-3
    save(tiny_case.scan().array, sheared, tmp_path / "img/a.nii.gz", codes=(0, 1))
    with pytest.raises(SourceError, match="mm off the grid"):
        index_one(Nifti(root=tmp_path, **PAIR), tmp_path)


def test_padding_below_the_range_is_clipped_and_told(tmp_path: Path, tiny_case: Case) -> None:
    scan = tiny_case.scan()
    for value in (-3024, -32768, -(2**31)):
        array = scan.array.astype(np.int32)
        array[:3] = value
        save(array, scan.affine, tmp_path / "img/a.nii.gz", codes=(0, 1))
        index = index_one(Nifti(root=tmp_path, image="img/{case}.nii.gz"), tmp_path)
        assert any("1 of 1 case: values below -1024 HU" in note for note in index.notes)
        read = read_case(index.entry("hosts", "a"), {}).scan().array
        assert (read[:3] == -1024).all()
        assert np.array_equal(read[3:], scan.array[3:])


# --- who it is ---


def test_a_copy_without_its_affine_is_the_same_person(tmp_path: Path, tiny_case: Case) -> None:
    write_kits(tmp_path / "kits", make_tiny_case("case_00000"))
    copies = tmp_path / "copies"
    copies.mkdir()
    array = tiny_case.scan().array
    turned = np.ascontiguousarray(array.transpose(1, 0, 2)[::-1])
    for copy in (array[::-1], turned, turned.astype(np.float32)):
        save(copy, np.eye(4), copies / "liver_7.nii", codes=(0, 1))
        sources = {
            "hosts": Kits(root=tmp_path / "kits"),
            "more": Nifti(root=copies, image="{case}.nii"),
        }
        with pytest.raises(SourceError, match=r'mirrored and turned.*"liver_7": "case_00000"'):
            index_sources(sources, [], cache_dir=tmp_path / "cache")
        sources["more"] = Nifti(root=copies, image="{case}.nii", patients={"liver_7": "case_00000"})
        index = index_sources(sources, [], cache_dir=tmp_path / "cache")
        first, second = (index.entries(name)[0] for name in sources)
        assert first.fingerprint == second.fingerprint
        assert first.voxel_sha256 != second.voxel_sha256


def test_other_noise_has_another_fingerprint(kits_root: Path, tmp_path: Path) -> None:
    one, two, bare = index_one(Kits(root=kits_root), tmp_path).entries("hosts")
    assert one.fingerprint != two.fingerprint
    assert bare.fingerprint is None


# --- whose it is ---


def test_a_licence_is_known_only_by_the_datasets_own_marks(
    organs_root: Path, tmp_path: Path, tiny_case: Case
) -> None:
    known = TotalSegmentator(root=organs_root).download(tmp_path)
    assert known.licence == "CC-BY-4.0"
    assert "Wasserthal" in str(known.attribution)
    root = tmp_path / "AbdomenAtlas"
    write_structures(root, make_tiny_case("BDMAP_00000001"), {"liver": tiny_case.region("kidney")})
    other = TotalSegmentator(root=root).download(tmp_path)
    assert (other.licence, other.attribution) == (None, None)
    index = index_one(other, tmp_path, "liver")
    assert index.entries("hosts")[0].licence is None
    assert any("its licence is unknown" in note for note in index.notes)
    stated = TotalSegmentator(root=root, licence="CC-BY-NC-SA-4.0").download(tmp_path)
    assert (stated.licence, stated.attribution) == ("CC-BY-NC-SA-4.0", None)
    (organs_root / "meta.csv").unlink()
    assert TotalSegmentator(root=organs_root).download(tmp_path).licence is None


def test_own_cases_in_the_layout_of_kits_are_not_of_kits(kits_root: Path, tmp_path: Path) -> None:
    assert Kits(root=kits_root).download(tmp_path).licence == "CC-BY-NC-SA-4.0"
    write_kits(kits_root, make_tiny_case("case_mine"))
    assert Kits(root=kits_root).download(tmp_path).licence is None
    chosen = Kits(root=kits_root, exclude=("case_mine",)).download(tmp_path)
    assert chosen.licence == "CC-BY-NC-SA-4.0"


# --- what is named and not there ---


def test_a_slip_in_a_structures_pattern_is_told(tmp_path: Path, tiny_case: Case) -> None:
    left, right = halves(tiny_case.region("kidney"))
    for name in ("a", "b"):
        parts = {"kidney_left": left, **({"kidney_right": right} if name == "a" else {})}
        write_structures(tmp_path / "x", make_tiny_case(name, noise_seed=ord(name)), parts)
    structures = {
        "kidney_left": "{case}/segmentations/kidney_left.nii.gz",
        "kidney_right": "{case}/segmentations/kidney_right.nii.gz",
        "liver": "{case}/segmentations/lever.nii.gz",
    }
    source = Nifti(root=tmp_path / "x", image="{case}/ct.nii.gz", structures=structures)
    notes = "\n".join(index_one(source, tmp_path).notes)
    assert (
        "'kidney_right' ({case}/segmentations/kidney_right.nii.gz) has no file in 1 of 2" in notes
    )
    assert "cases: b" in notes
    assert "'liver' ({case}/segmentations/lever.nii.gz) matches no file" in notes
    chosen = source.model_copy(update={"cases": ("a",)})  # what b lacks is of no concern
    notes = "\n".join(index_one(chosen, tmp_path).notes)
    assert "kidney_right" not in notes
    assert "'liver' ({case}/segmentations/lever.nii.gz) matches no file" in notes


def test_cases_without_an_image_and_values_that_nobody_has_are_told(
    tmp_path: Path, tiny_case: Case
) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    labels = np.flip(tiny_case.labels.array, 2)
    save(labels, tiny_case.labels.affine, tmp_path / "seg/b.nii.gz", codes=(0, 1))
    names = {"kidney": 1, "tumour": 9}
    index = index_one(Nifti(root=tmp_path, **{**PAIR, "label_names": names}), tmp_path)
    notes = "\n".join(index.notes)
    assert "1 of 2 cases has no image" in notes
    assert "no label map holds 'tumour' (value 9)" in notes


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("{case}_0000.nii.gz", "{case}.nii.gz"),
        ("{case}.nii.gz", "{case}_seg.nii.gz"),
        ("*/{case}.nii.gz", "x/{case}_*.nii.gz"),
    ],
)
def test_scans_and_label_maps_may_lie_in_one_folder(
    tmp_path: Path, tiny_case: Case, image: str, labels: str
) -> None:
    # The wider pattern also matches the files of the narrower: no label map is "a_0000.nii.gz".
    for name in ("a", "b"):
        case = make_tiny_case(name, noise_seed=ord(name))
        for pattern, volume in ((image, case.scan()), (labels, case.labels)):
            path = tmp_path / pattern.replace("*", "x").replace("{case}", name)
            path.parent.mkdir(exist_ok=True)
            write_volume(volume, path)
    source = Nifti(root=tmp_path, image=image, labels=labels, label_names={"kidney": 1})
    index = index_one(source, tmp_path)
    assert [entry.case_id for entry in index.entries("hosts")] == ["a", "b"]
    assert all(entry.image is not None for entry in index.entries("hosts"))
    assert all(entry.labels.keys() == {"kidney"} for entry in index.entries("hosts"))


def test_one_pattern_for_scans_and_label_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="image and labels have the same pattern"):
        Nifti(root=tmp_path, **{**PAIR, "labels": PAIR["image"]})


def test_a_pattern_that_matches_nothing_tells_what_is_there(
    tmp_path: Path, tiny_case: Case
) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    lost = Nifti(root=tmp_path, **{**PAIR, "labels": "seg/{case}_seg.nii.gz"})
    with pytest.raises(SourceError, match=r"seg \(there is: a.nii.gz\), .*cases of image are a"):
        index_one(lost, tmp_path)
    (tmp_path / "img/a.nii.gz").rename(tmp_path / "img/A.NII.GZ")
    with pytest.raises(SourceError, match=r"img \(there is: A.NII.GZ\); correct it"):
        index_one(Nifti(root=tmp_path, **PAIR), tmp_path)
    (tmp_path / "img/A.NII.GZ").rename(tmp_path / "img/a.nii.gz.dvc")
    with pytest.raises(SourceError, match="run 'dvc pull'"):
        index_one(Nifti(root=tmp_path, **PAIR), tmp_path)


def test_names_that_macos_took_apart_are_the_same_names(tmp_path: Path, tiny_case: Case) -> None:
    apart, together = "mu\u0308ller", "m\u00fcller"
    write_volume(tiny_case.scan(), tmp_path / f"{apart}_0000.nii.gz")
    write_volume(tiny_case.labels, tmp_path / f"{together}_seg.nii.gz")
    names = {"image": "{case}_0000.nii.gz", "labels": "{case}_seg.nii.gz"}
    source = Nifti(root=tmp_path, **names, label_names={"kidney": 1})
    (entry,) = index_one(source, tmp_path).entries("hosts")
    assert (entry.case_id, entry.image is None) == (together, False)


@pytest.mark.parametrize("layout", [Kits, Nifti])
def test_a_link_to_a_file_that_was_not_fetched_is_told(
    tmp_path: Path, layout: type[Kits] | type[Nifti]
) -> None:
    image = write_kits(tmp_path / "kits", make_tiny_case("case_00000")) / "imaging.nii.gz"
    image.unlink()
    image.symlink_to("../../.git/annex/objects/zX/w3/MD5E-s9--1.nii.gz/MD5E-s9--1.nii.gz")
    patterns = {"image": "{case}/imaging.nii.gz", "labels": "{case}/segmentation.nii.gz"}
    fields = {**patterns, "label_names": {"kidney": 1}} if layout is Nifti else {}
    with pytest.raises(
        SourceError, match=r"imaging.nii.gz: is a link to .* not there; run 'git annex get'"
    ):
        index_one(layout(root=tmp_path / "kits", **fields), tmp_path)


@pytest.mark.parametrize(
    ("value", "there"), [(255, "values without a name: 255"), (3, "without a name: 1, 3, 4")]
)
def test_a_mistaken_value_is_answered_with_the_values_that_there_are(
    tmp_path: Path, tiny_case: Case, value: int, there: str
) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    array = tiny_case.labels.array
    array = np.where(array > 0, array + 2, 1) if value == 3 else (array > 0) * 255
    save(array.astype(np.uint8), tiny_case.labels.affine, tmp_path / "seg/a.nii.gz", codes=(0, 1))
    fields = {**PAIR, "root": str(tmp_path), "label_names": {"kidney": 9}, "layout": "nifti"}
    masks = [{"name": "m", "kind": "organ", "label": "kidney"}]
    recipe = Recipe.model_validate(
        {"name": "a", "version": "1.0.0", "sources": {"hosts": fields}, "masks": masks}
    )
    index = index_sources(recipe.sources, recipe.all_labels(), cache_dir=tmp_path / "cache")
    with pytest.raises(RecipeError, match=f"value 9 .*{there}"):
        plan_samples(recipe, index)


# --- layouts ---


@pytest.mark.parametrize("how", ["MAJ", "AND", "OR"])
def test_kits21_is_read_as_it_is_distributed(tmp_path: Path, tiny_case: Case, how: str) -> None:
    folder = write_kits(tmp_path / "data", make_tiny_case("case_00000"))
    (folder / "segmentation.nii.gz").unlink()
    for n, name in enumerate(("MAJ", "AND", "OR")):
        array = tiny_case.labels.array.copy()
        array[: 10 * n] = 0
        write_volume(
            restore_orientation(Volume(array, tiny_case.labels.affine), KITS_AXES),
            folder / f"aggregated_{name}_seg.nii.gz",
        )
    option = None if how == "MAJ" else how
    source = Kits(layout="kits21", root=tmp_path / "data", aggregation=option)
    entry = index_one(source, tmp_path).entry("hosts", "case_00000")
    assert entry.label_files["kidney"].name == f"aggregated_{how}_seg.nii.gz"
    with pytest.raises(ValidationError, match="belongs to layout kits21"):
        Kits(root=tmp_path, aggregation="OR")


def test_hidden_names_are_no_cases(tmp_path: Path, tiny_case: Case) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    for folder in ("img", "seg"):
        (tmp_path / folder / "._a.nii.gz").write_bytes(b"\0\5\26\7" + bytes(300))
    (entry,) = index_one(Nifti(root=tmp_path, **PAIR), tmp_path).entries("hosts")
    assert entry.case_id == "a"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_links_out_of_the_root_are_followed_if_asked(tmp_path: Path, what: str) -> None:
    store = write_kits(tmp_path / "store", make_tiny_case("case_00000"))
    root = tmp_path / "picked"
    if what == "folder":
        root.mkdir()
        (root / "case_00000").symlink_to(store)
    else:
        (root / "case_00000").mkdir(parents=True)
        for path in store.iterdir():
            link = root / "case_00000" / path.name
            link.symlink_to(os.path.relpath(path, link.parent))
    with pytest.raises(SourceError, match=r"leads out of .*'links: follow'"):
        index_one(Kits(root=root), tmp_path)
    for _ in range(2):
        index = index_one(Kits(root=root, links="follow"), tmp_path)
        (entry,) = index.entries("hosts")
        assert "source 'hosts': links lead to 2 files outside of its root" in index.notes
        assert read_case(entry, {"kidney": 1}).region("kidney").any()


def test_unused_options_leave_no_trace_in_the_resolved_recipe(tmp_path: Path) -> None:
    plain = Nifti(root=tmp_path, image="{case}.nii").model_dump(mode="json")
    assert not {"orientation", "label_grid", "links"} & plain.keys()
    used = Nifti(root=tmp_path, image="{case}.nii", links="follow", orientation="LAS")
    assert {"orientation", "links"} <= used.model_dump(mode="json").keys()


def write_dataset_json(root: Path, case: Case, content: Mapping[str, object], mark: str) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n in range(2):
        noisy = make_tiny_case(noise_seed=n)
        write_volume(noisy.scan(), root / f"imagesTr/liver_{n}{mark}.nii.gz")
        write_volume(case.labels, root / f"labelsTr/liver_{n}.nii.gz")
        (root / f"imagesTr/._liver_{n}{mark}.nii.gz").write_bytes(b"x")
    (root / "dataset.json").write_text(json.dumps(content))


def test_nnunet_is_a_source(tmp_path: Path, tiny_case: Case) -> None:
    labels = {"background": 0, "whole kidney": [1, 2], "tumor": [2]}
    names = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "labels": labels}
    write_dataset_json(tmp_path / "d", tiny_case, names, "_0000")
    source = TypeAdapter(Source).validate_python({"layout": "nnunet", "root": tmp_path / "d"})
    index = index_one(source, tmp_path)
    assert [entry.case_id for entry in index.entries("hosts")] == ["liver_0", "liver_1"]
    case = read_case(index.entry("hosts", "liver_0"), label_table({"hosts": source}, []))
    both = tiny_case.labels.array > 0
    assert np.array_equal(case.region("whole kidney"), both)
    assert np.array_equal(case.region("tumor"), tiny_case.region("tumor"))


def test_the_decathlon_is_a_source_with_its_licence(tmp_path: Path, tiny_case: Case) -> None:
    files = [
        {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"}
        for n in range(3)
    ]
    files.append({"image": "./imagesTr/._liver_0.nii.gz", "label": "./labelsTr/._liver_0.nii.gz"})
    content = {
        "name": "LIVER", "reference": "IRCAD", "licence": "CC-BY-SA 4.0",
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": files, "test": [],
    }  # fmt: skip
    write_dataset_json(tmp_path / "d", tiny_case, content, "")
    source = DatasetJson(layout="msd", root=tmp_path / "d").download(tmp_path)
    assert source.licence == "CC-BY-SA-4.0"
    index = index_one(source, tmp_path)
    assert [s.case_id for s in index.skipped] == ["liver_2"]
    assert index.entry("hosts", "liver_0").label_values == {"liver": 1, "cancer": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": "T2"}}, "no channel is named CT .*'channel: 0'"),
        ({"labels": {}}, "'labels' is damaged"),
        ({"labels": {"a": "x"}}, "'labels' is damaged"),
        ({"labels": {"a": 255}}, "255, which means 'ignore'"),
        ({"labels": {"kidney": 1}}, "holds the value 2"),
        ({"file_ending": ".tif"}, "convert the files"),
        ({"dataset": {"a": {"images": ["../out.nii"], "label": "../out.nii"}}}, "leads out"),
        ({"dataset": {"a": {"images": []}}}, "is damaged"),
    ],
)
def test_a_dataset_json_that_cannot_be_is_refused(
    tmp_path: Path, tiny_case: Case, change: dict[str, object], message: str
) -> None:
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "k": 1, "t": 2}, **change}
    write_dataset_json(tmp_path / "d", tiny_case, content, "_0000")
    (tmp_path / "out.nii").write_bytes(nifti_bytes(tiny_case.labels, compress=False))
    with pytest.raises(SourceError, match=message):
        index_one(DatasetJson(layout="nnunet", root=tmp_path / "d"), tmp_path)


def test_a_root_one_level_too_high_names_the_right_one(organs_root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"use {organs_root}"):
        index_one(TotalSegmentator(root=organs_root.parent), tmp_path)
    (tmp_path / "up/d").mkdir(parents=True)
    (tmp_path / "up/d/dataset.json").write_text("{}")
    with pytest.raises(SourceError, match=f"use {tmp_path}/up/d"):
        index_one(DatasetJson(layout="msd", root=tmp_path / "up"), tmp_path)
    (tmp_path / "mine/below/img").mkdir(parents=True)
    (tmp_path / "mine/below/img/a.nii.gz").write_bytes(b"")
    with pytest.raises(SourceError, match=f"use {tmp_path}/mine/below as root"):
        index_one(Nifti(root=tmp_path / "mine", image="img/{case}.nii.gz"), tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"


@pytest.mark.parametrize("start", [POINTER, b"\xef\xbb\xbf" + POINTER.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd", "a.dcm"])
def test_a_pointer_is_told_whatever_format_it_stands_for(
    tmp_path: Path, name: str, start: bytes
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / name).write_bytes(start)
    source: Source = Dicom(root=tmp_path / "d")
    if not name.endswith(".dcm"):
        source = Nifti(root=tmp_path / "d", image=name.replace("a.", "{case}."))
    with pytest.raises(SourceError, match="a Git LFS pointer, run 'git lfs pull'"):
        index_one(source, tmp_path)


def test_options_of_a_source_are_told_by_lock_and_card(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data = write_data(tmp_path / "data")
    for path in sorted((data / "hosts").glob("*/segmentation.nii.gz")):
        save(np.asarray(nib.load(path).dataobj), np.eye(4), path, codes=(0, 1))
    path = write_recipe(tmp_path / "tiny.yaml", data, tiny_checkpoint, keep_original=False)
    with pytest.raises(SourceError, match="'label_grid: image'"):
        check(load_recipe(path), cache_dir=tmp_path / "cache")
    sources = load_recipe(path).model_dump(mode="json")["sources"]
    sources["hosts"]["label_grid"] = "image"
    write_recipe(path, data, tiny_checkpoint, keep_original=False, sources=sources)
    recipe = load_recipe(path)
    assert recipe.resolved()["sources"]["hosts"]["label_grid"] == "image"
    folder = build(recipe, tmp_path / "out", cache_dir=tmp_path / "cache", limit=2, workers=0)
    for name in ("synthct.lock", "README.md"):
        assert "takes the grid of its image" in (folder / name).read_text()


def test_values_without_a_name_are_noted(tmp_path: Path, tiny_case: Case) -> None:
    pair(tmp_path, tiny_case, img=(0, 1), seg=(0, 1))
    notes = index_one(Nifti(root=tmp_path, **PAIR), tmp_path).notes
    assert any("1 of 1 case: label values without a name are read as background: 2" in note
               for note in notes)  # fmt: skip
