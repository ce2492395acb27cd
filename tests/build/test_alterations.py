"""What a forger may alter in a finished dataset, making manifest, hashes and sums agree again.

Every alteration is found at the level that can know of it: 1 compares all files with each other, 2
with the sources, and 3 paints again. Who rebuilds everything is found by level 3 alone.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tampering
from tiny_recipe import SECTIONS, tiny_recipe, write_data
from typer.testing import CliRunner

from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.cli import app
from synthct.dataset.digest import sample_digest
from synthct.dataset.lockfile import read_lock, write_lock
from synthct.dataset.manifest import MANIFEST, read_manifest
from synthct.dataset.png import decode_mask, encode_mask
from synthct.dataset.rows import decoded_pictures, parsed
from synthct.recipe.recipe import Recipe

Alter = Callable[[Path], None]

HOSTS = ("case_00010", "case_00011")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alterations")
    write_data(folder / "data", hosts=HOSTS)
    return folder


@pytest.fixture(scope="module")
def built(folder: Path, tiny_checkpoint: Path) -> Path:
    """A dataset of two splits in which some samples were rejected."""
    given: dict[str, Any] = {
        "masks": [{"name": name, **SECTIONS[name]} for name in ("organ", "blob")],
        "masks_per_case": 2,
        "splits": {"train": 0.5, "validation": 0.5},
    }

    def make(output: str) -> Path:
        recipe = Recipe.model_validate(tiny_recipe(folder / "data", tiny_checkpoint, **given))
        return build(recipe, folder / output, cache_dir=folder / "cache", workers=0)

    loose = make("loose")
    rows = [row for path in tampering.shards_of(loose) for row in tampering.rows_of(loose, path)]
    ratios = sorted(row["seam_ratio"] for row in rows)
    given["quality"] = {"seam_ratio": {"max": (ratios[-2] + ratios[-3]) / 2}}
    return make("out")


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


# -- files --------------------------------------------------------------------------------------


def a_shard(folder: Path, number: int = 0) -> str:
    return tampering.shards_of(folder)[number]


def more_rows(name: str) -> Alter:
    """The rows of the validation split again, under another name."""

    def alter(folder: Path) -> None:
        shutil.copy(folder / a_shard(folder, -1), folder / name)

    return alter


def more_text(name: str, text: str = "{}") -> Alter:
    def alter(folder: Path) -> None:
        (folder / name).write_text(text)

    return alter


def less(name: str) -> Alter:
    return lambda folder: (folder / name).unlink()


def replaced(name: str, old: str, new: str) -> Alter:
    """Other text in a file; ``*`` in ``old`` stands for what is between two texts."""

    def alter(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        first, star, last = old.partition("*")
        if star:
            start = text.index(first) + len(first)
            place, stop = start, text.index(last, start)
        else:
            place, stop = text.index(old), text.index(old) + len(old)
        (folder / name).write_text(text[:place] + new + text[stop:], encoding="utf-8")

    return alter


def with_text_chunk(png: bytes) -> bytes:
    chunk = b"tEXt" + b"Comment\0Jane Doe, born 1960"
    size, check = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    return png[:-12] + size + chunk + check + png[-12:]


def text_in_preview(folder: Path) -> None:
    path = folder / "preview.png"
    path.write_bytes(with_text_chunk(path.read_bytes()))


def other_preview(folder: Path) -> None:
    from PIL import Image, ImageDraw

    with Image.open(folder / "preview.png") as image:
        ImageDraw.Draw(image).rectangle((20, 20, 60, 60), fill=(200, 30, 30))
        image.save(folder / "preview.png")


def croissant(change: Callable[[dict[str, Any]], Any]) -> Alter:
    def alter(folder: Path) -> None:
        path = folder / "croissant.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    return alter


def foreign_file(content: dict[str, Any]) -> None:
    content["distribution"].append({**content["distribution"][0], "@id": "x", "contentUrl": "x"})


# -- rejected samples ----------------------------------------------------------------------------


def rejected(change: Callable[[list[dict[str, Any]]], Any]) -> Alter:
    def alter(folder: Path) -> None:
        path = folder / "rejected.parquet"
        table = pq.read_table(path)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)

    return alter


def value_of(value: float) -> Alter:
    """Another value of the measure that broke a limit, in both places that have it."""

    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["value"] = rows[0][rows[0]["measure"]] = value

    return rejected(change)


# -- rows, with digests, sums and documents that follow ------------------------------------------


def row(
    change: Callable[[dict[str, Any]], Any], *, sealed: bool = False, documented: bool = True
) -> Alter:
    """Change the first painted row.

    Args:
        change: Gets the columns, those of the provenance parsed.
        sealed: Compute the sample's digest anew.
        documented: Write all documents anew.
    """

    def alter(folder: Path) -> None:
        path = a_shard(folder)
        rows = tampering.rows_of(folder, path)
        columns = next(one for one in rows if one["is_painted"])
        columns["provenance"] = json.loads(columns["provenance"])
        change(columns)
        columns["provenance"] = json.dumps(columns["provenance"])
        if sealed:
            shown, (told, affine) = decoded_pictures(columns), parsed(columns)
            columns["sample_digest"] = sample_digest(
                shown["image"], shown["mask"], shown["labels"], affine, told
            )
        tampering.reseal(folder, {path: rows}, roots=documented)

    return alter


def set_at(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(columns: dict[str, Any]) -> None:
        place: Any = columns
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change


def text_in_image(columns: dict[str, Any]) -> None:
    columns["image"] = {"bytes": with_text_chunk(columns["image"]["bytes"]), "path": None}


def outside(columns: dict[str, Any]) -> None:
    columns["outside_max_abs_diff"] = columns["provenance"]["outside_max_abs_diff"] = 3


def other_mask(columns: dict[str, Any]) -> None:
    """The mask without a pixel, though nothing else says so."""
    mask = decode_mask(columns["mask"]["bytes"]).copy()
    mask[tuple(map(int, next(zip(*mask.nonzero(), strict=True))))] = False
    columns["mask"] = {"bytes": encode_mask(mask), "path": None}


def shard_in_other_split(folder: Path) -> None:
    """A validation file in train, and a release that says so."""
    manifest = read_manifest(folder)
    assert manifest is not None
    train, validation = (
        tuple(s for s in manifest.shards if s.split == n) for n in ("train", "validation")
    )
    rows = tampering.rows_of(folder, train[0].path) + tampering.rows_of(folder, validation[0].path)
    tampering.reseal(folder, {train[0].path: rows}, roots=True)


def other_licence(folder: Path) -> None:
    """A licence in the lock that the sources do not allow, and documents that agree."""
    write_lock(folder, read_lock(folder).model_copy(update={"licence": "CC0-1.0"}))
    tampering.document(folder)


def other_attribution(folder: Path) -> None:
    lock = read_lock(folder)
    hosts = lock.sources["hosts"].model_copy(update={"attribution": None})
    write_lock(folder, lock.model_copy(update={"sources": {**lock.sources, "hosts": hosts}}))
    tampering.document(folder)


def row_left_out(folder: Path) -> None:
    path = a_shard(folder)
    tampering.reseal(folder, {path: tampering.rows_of(folder, path)[1:]}, roots=True)


CARD, ATTRIBUTION, CROISSANT, REJECTED = (
    "README.md", "attribution.md", "croissant.json", "rejected.parquet",
)  # fmt: skip

#: What is done, at which level it is found, and in which file (None: a shard).
ALTERATIONS: Mapping[str, tuple[Alter, int, str | None]] = {
    "another parquet file": (more_rows("data/train-extra.parquet"), 1, "data/train-extra.parquet"),
    "another parquet file at the top": (more_rows("train.parquet"), 1, "train.parquet"),
    "a loading script": (more_text("copy.py", "import os"), 1, "copy.py"),
    "metadata for load_dataset": (more_text("dataset_infos.json"), 1, "dataset_infos.json"),
    "a file that the Hub's client hides": (
        more_text(".gitattributes.parquet"), 1, ".gitattributes.parquet"),
    "no attribution.md": (less(ATTRIBUTION), 1, ATTRIBUTION),
    "no preview": (less("preview.png"), 1, "preview.png"),
    "data_files of the card": (
        replaced(CARD, "data/train-*.parquet", "data/*.parquet"), 1, CARD),
    "another config in the card": (
        replaced(CARD, "configs:", "configs:\n- config_name: b\n  data_files: data/*"), 1, CARD),
    "a split of the card": (replaced(CARD, "split: validation", "split: train"), 1, CARD),
    "features in the card": (replaced(CARD, "configs:", "dataset_info: {}\nconfigs:"), 1, CARD),
    "the card's licence": (
        replaced(CARD, "license: cc-by-nc-sa-4.0", "license: mit"), 1, CARD),
    "a number of the card": (replaced(CARD, "planned sample", "000 planned sample"), 1, CARD),
    "a digest of the card": (replaced(CARD, "Content: `*`", "0" * 64), 1, CARD),
    "the text that is owed": (replaced(ATTRIBUTION, "KiTS", "Kits"), 1, ATTRIBUTION),
    "a licence of attribution.md": (
        replaced(ATTRIBUTION, "licenses/by-nc-sa", "licenses/by"), 1, ATTRIBUTION),
    "a digest of Croissant": (
        croissant(lambda c: c["distribution"][0].update(sha256="0" * 64)), 1, CROISSANT),
    "the licence of Croissant": (croissant(lambda c: c.update(license="mit")), 1, CROISSANT),
    "a file of Croissant": (croissant(foreign_file), 1, CROISSANT),
    "the files of a split of Croissant": (
        croissant(lambda c: c["distribution"][-1].update(includes="data/*.parquet")), 1, CROISSANT),
    "another preview": (other_preview, 1, "preview.png"),
    "text in the preview": (text_in_preview, 1, "preview.png"),
    "text in a picture of a row": (row(text_in_image, documented=False), 1, None),
    "a path beside a picture": (row(set_at("mask", "path", to="/etc/passwd")), 1, None),
    "rejected samples gone": (rejected(list.clear), 1, REJECTED),
    "a rejected sample twice": (rejected(lambda rows: rows.append(rows[0])), 1, REJECTED),
    "a value of a rejected sample that breaks no limit": (value_of(0.01), 1, REJECTED),
    "a value of a rejected sample that breaks it too": (value_of(1e6), 3, REJECTED),
    "a measure against provenance": (row(set_at("outside_max_abs_diff", to=3)), 1, None),
    "both measure and provenance": (row(outside, sealed=True), 1, None),
    "a number of the provenance": (
        row(set_at("provenance", "mask", "volume_mm3", to=1.0), sealed=True), 1, None),
    "a mask": (row(other_mask, sealed=True), 1, None),
    "a patient of the test in train": (shard_in_other_split, 1, None),
    "the licence of the lock": (other_licence, 1, None),
    "the attribution of the lock": (other_attribution, 1, "synthct.lock"),
    "a measure": (row(set_at("seam_ratio", to=1.0)), 2, None),
    "a seed": (
        row(set_at("provenance", "generation", "seeds", "recipe", to=9), sealed=True), 2, None),
    "a row left out": (row_left_out, 2, None),
}  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=pytest.mark.long if level > 1 else ())  # these read the sources
        for what, (_, level, _) in ALTERATIONS.items()
    ],
)
def test_it_is_found_at_its_level(
    what: str, folder: Path, copy: Path, tiny_checkpoint: Path
) -> None:
    alter, level, where = ALTERATIONS[what]
    where = where or a_shard(copy)
    alter(copy)
    tampering.relist(copy)
    originals = Originals(
        sources={name: folder / "data" / name for name in ("hosts", "donors")},
        checkpoint=tiny_checkpoint,
        cache_dir=folder / "cache",
        workers=0,
    )
    report = verify(copy, level=3, originals=originals)
    assert len(report.levels) == level + 1, report
    assert where in {finding.path for finding in report.findings}


@pytest.mark.long
@pytest.mark.parametrize("what", [name for name, one in ALTERATIONS.items() if one[1] == 1])
def test_it_is_not_published(what: str, copy: Path) -> None:
    ALTERATIONS[what][0](copy)
    tampering.relist(copy)
    arguments = ["publish", str(copy), "--repo", "jane/tiny", "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 8, result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "croissant.json",
        "attribution.md",
        "preview.png",
        "recipe.yaml",
        "synthct.lock",
        "rejected.parquet",
        "shard",
    ],
)
@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        *(
            pytest.param(content, marks=pytest.mark.long)
            for content in (b"", b"[[[", b"---\na: [\n---\n", b"null")
        ),
    ],
)
def test_what_is_no_such_file_is_found_without_a_traceback(
    copy: Path, name: str, content: bytes
) -> None:  # fmt: skip
    path = copy / (a_shard(copy) if name == "shard" else name)
    path.write_bytes(content)
    tampering.relist(copy)
    assert verify(copy).findings
    result = CliRunner().invoke(app, ["verify", str(copy)])
    assert result.exit_code == 8, result.output


def test_load_dataset_loads_what_the_manifest_says(built: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    manifest = read_manifest(built)
    assert manifest is not None
    loaded = load_dataset(str(built), cache_dir=str(tmp_path))
    sizes = {size.name: size.rows for size in manifest.release.splits if size.rows}
    assert {name: split.num_rows for name, split in loaded.items()} == sizes
    assert MANIFEST not in {entry.path for entry in manifest.files}
