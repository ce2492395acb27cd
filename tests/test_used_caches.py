"""A used cache gives what an empty one does, whichever field of a source's section was mended."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from contract import LAYOUTS
from pydantic import TypeAdapter
from tiny_recipe import tiny_recipe, write_data
from training_recipes import TINY_MODEL

from synthct.build.references import learn_references
from synthct.build.run import build
from synthct.dataset.manifest import read_manifest
from synthct.errors import SynthCTError
from synthct.models.patch import PatchRules
from synthct.recipe.recipe import Recipe
from synthct.sources import PhantomSource, Source, download, index_sources, label_table
from synthct.sources.folder import FolderSection
from synthct.sources.keys import case_facts
from synthct.training.cache import open_training_set
from synthct.training.denoising import build_unet
from synthct.training.recipe import TrainingRecipe

pytestmark = pytest.mark.usefixtures("one_thread")

#: For each field that the content of a case may follow from, by layout, what is mended. Fields that
#: all folders have are tried with one layout.
MENDED: dict[str, dict[str, dict[str, Any]]] = {
    "dicom": {
        "recursive": {"recursive": False},
        "case_names": {"case_names": "folder"},
        "keep_uids": {"keep_uids": True},
        "series": {"series": ["1.2.3"]},
        "annotations": {"annotations": "nobody"},
        "contours": {"contours": "interpolate"},
        "label_names": {"label_names": {"kidney": 1}, "labels": "{case}/labels.nii.gz"},
        "labels": {"label_names": {"kidney": 1}, "labels": "{case}/other.nii.gz"},
        "structures": {"structures": {"kidney": "{case}/kidney.nii.gz"}},
        "unions": {"unions": {"both": ["kidney"]}},
    },
    "kits21": {"aggregation": {"aggregation": "OR"}},
    "kits23": {"layout": {"layout": "kits19"}},
    "nifti": {
        "cases": {"cases": ["*1*"]},
        "exclude": {"exclude": ["*2*"]},
        "licence": {"licence": "CC0-1.0"},
        "attribution": {"attribution": "somebody"},
        "patients": {"patients": {"p1": "somebody"}},
        "frame": {"frame": 0},
        "nan": {"nan": "fill"},
        "orientation": {"orientation": "LAS"},
        "label_grid": {"label_grid": "image"},
        "links": {"links": "follow"},
        "image": {"image": "{case}/other.nii.gz"},
        "labels": {"labels": "{case}/other-labels.nii.gz"},
        "label_names": {"label_names": {"kidney": 2, "tumor": 1}},
        "structures": {"structures": {"kidney": "{case}/labels.nii.gz"}, "labels": None,
                       "label_names": {}},
        "unions": {"unions": {"kidney_and_tumor": ["kidney", "tumor"]}},
    },
    "nnunet": {"channel": {"channel": 0}},
}  # fmt: skip

#: Where the files are; another place is another source.
PLACES = {"root", "repo", "revision"}


def test_every_field_of_a_folders_section_is_mended() -> None:
    common = FolderSection.model_fields.keys() - PLACES
    assert common <= {*MENDED["nifti"], "layout"}
    for member in get_args(get_args(Source)[0]):
        layouts = get_args(member.model_fields["layout"].annotation)
        tried = {name for layout in layouts for name in MENDED.get(layout, {})}
        if issubclass(member, FolderSection):
            assert member.model_fields.keys() - common - PLACES <= tried, layouts


@pytest.mark.parametrize(
    "change",
    [{"region": "chest"}, {"shape": [40, 40, 24]}, {"spacing_mm": [6.5, 6, 10]},
     {"tumours": True}, {"oblique": True}, {"seed": 3}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_look_of_phantoms_has_a_folder_of_its_own(change: Any, tmp_path: Path) -> None:
    fields = {"patients": 2, "shape": [48, 40, 24], "spacing_mm": [6, 6, 10]}
    sections = [PhantomSource.model_validate(one) for one in (fields, {**fields, **change})]
    assert len({section.folder(tmp_path) for section in sections}) == 2
    elsewhere = {"cases", "exclude", "licence", "attribution", "layout", "patients"}
    looks = {"region", "shape", "spacing_mm", "tumours", "oblique", "seed"}
    assert PhantomSource.model_fields.keys() == looks | elsewhere


def content(fields: dict[str, Any], kept: Path) -> str:
    """All that is kept of a source: facts, lesions, tissue and patches; or the error."""
    try:
        source = TypeAdapter[Any](Source).validate_python(fields)
        sources = download({"scans": source}, kept)
        lesions = {"scans": [("tumor", "kidney")]}
        index = index_sources(sources, ["kidney"], cache_dir=kept, lesions=lesions)
        names = label_table(sources, ["kidney"])
        learnt = learn_references(index, ["kidney"], names, "axial", cache_dir=kept)
        arrays = [a for t in learnt._tissue["kidney"] for a in (t.quantiles, t.features, t.inside)]
        if fields["layout"] == "nifti":
            arrays += patches(fields, kept)
    except SynthCTError as err:
        return str(err)
    facts = [repr(case_facts(entry)) for entry in index.entries("scans")]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return "\n".join([*facts, *index.notes, repr(names), digest.hexdigest()])


def patches(fields: dict[str, Any], kept: Path) -> list[Any]:
    recipe = TrainingRecipe.model_validate(
        {
            "name": "tiny",
            "sources": {"scans": json.loads(json.dumps(fields, default=str))},
            "masks": [{"name": "kidneys", "kind": "organ", "label": "kidney"}],
            "model": TINY_MODEL,
            "data": {"patches": 2, "patches_per_mask": 1},
            "validation": None,
        }
    )
    index = index_sources(recipe.sources, recipe.all_labels(), cache_dir=kept)
    rules = PatchRules.from_config(build_unet(recipe).config)
    data = open_training_set(recipe, index, rules, cache_dir=kept, workers=0)
    return [data.patches.patch(n).image for n in range(len(data.patches))]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """A section of a layout, and the cache that it has used."""

    @cache
    def make(layout: str) -> tuple[dict[str, Any], Path]:
        folder = tmp_path_factory.mktemp(layout)
        fields = {"layout": layout, **LAYOUTS[layout](folder / "root")}
        assert "\n" in content(fields, folder / "cache"), "no error"
        return fields, folder / "cache"

    return make


@pytest.mark.long
@pytest.mark.parametrize(
    ("layout", "name"), [(layout, name) for layout, fields in MENDED.items() for name in fields]
)
def test_a_mended_section_gives_what_it_does_with_an_empty_cache(
    layout: str, name: str, used: Any, tmp_path: Path
) -> None:
    if layout == "dicom":
        pytest.importorskip("pydicom")
    fields, kept = used(layout)
    shutil.copytree(kept, tmp_path / "used")
    mended = {**fields, **MENDED[layout][name]}
    assert content(mended, tmp_path / "used") == content(mended, tmp_path / "empty")


def test_a_build_with_the_cache_of_a_wrong_recipe_is_that_with_an_empty_one(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    write_data(tmp_path / "data")
    files = {"image": "{case}/imaging.nii.gz", "labels": "{case}/segmentation.nii.gz"}

    def content_id(cache: str, output: str, **numbers: int) -> str:
        hosts = {"layout": "nifti", "root": str(tmp_path / "data/hosts"), **files}
        recipe = tiny_recipe(
            tmp_path / "data",
            tiny_checkpoint,
            sources={"hosts": {**hosts, "label_names": numbers}},
            masks=[{"name": "organ", "kind": "organ", "label": "kidney", "margin_mm": 1}],
            inpaint={"method": "noise_fill"},
            masks_per_case=1,
            variants=1,
        )
        given = Recipe.model_validate(recipe)
        built = build(given, tmp_path / output, cache_dir=tmp_path / cache, workers=0)
        manifest = read_manifest(built)
        assert manifest is not None
        return manifest.release.content_id

    wrong = content_id("used", "wrong", kidney=2, tumor=1)
    mended = content_id("used", "mended", kidney=1, tumor=2)
    assert mended == content_id("empty", "fresh", kidney=1, tumor=2)
    assert mended != wrong
