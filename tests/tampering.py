"""What may happen to a finished dataset: bytes that rot, files that move, rows that are changed.

Each kind of harm takes a copy of a dataset and says where a check has to find it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from synthct.build.documents import documents
from synthct.dataset.digest import merkle_root
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from synthct.dataset.png import (
    decode_hu,
    decode_labels,
    decode_mask,
    encode_hu,
    encode_labels,
    encode_mask,
)
from synthct.dataset.records import RECIPE, read_rejected
from synthct.dataset.rows import stored_rows
from synthct.dataset.schema import Facts, arrow_schema
from synthct.dataset.writer import ShardRecord, shard_bytes
from synthct.recipe.recipe import stored_recipe
from synthct.storage.files import sha256_of

Rng = np.random.Generator
Harm = Callable[[Path, Rng], set[str]]


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def pick(folder: Path, rng: Rng, count: int = 1) -> list[str]:
    return [str(name) for name in rng.choice(files_of(folder), count, replace=False)]


# -- bytes and files ----------------------------------------------------------------------------


def flip(folder: Path, rng: Rng) -> set[str]:
    """One bit, anywhere: large files are hit as often as their size says."""
    names = files_of(folder)
    sizes = np.array([(folder / name).stat().st_size for name in names])
    place = int(rng.integers(sizes.sum()))
    number = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
    path = folder / names[number]
    data = bytearray(path.read_bytes())
    data[place - int(sizes[:number].sum())] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return {names[number]}


def flip_any_file(folder: Path, rng: Rng) -> set[str]:
    """One bit of a file, small files as often as large ones."""
    (name,) = pick(folder, rng)
    data = bytearray((folder / name).read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    (folder / name).write_bytes(data)
    return {name}


def cut(folder: Path, rng: Rng) -> set[str]:
    (name,) = pick(folder, rng)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(rng.integers(len(data)))])
    return {name}


def grow(folder: Path, rng: Rng) -> set[str]:
    (name,) = pick(folder, rng)
    with (folder / name).open("ab") as stream:
        stream.write(rng.bytes(int(rng.integers(1, 100))))
    return {name}


def drop(folder: Path, rng: Rng) -> set[str]:
    (name,) = pick(folder, rng)
    (folder / name).unlink()
    return {name}


def swap(folder: Path, rng: Rng) -> set[str]:
    """The contents of two files change places."""
    one, other = pick(folder, rng, 2)
    first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
    (folder / one).write_bytes(second)
    (folder / other).write_bytes(first)
    # a manifest that is none is all that can be said of a folder
    return {MANIFEST} if MANIFEST in (one, other) else {one, other}


def add(folder: Path, rng: Rng) -> set[str]:
    name = f"data/extra-{int(rng.integers(100))}.parquet"
    shutil.copy(folder / pick(folder, rng)[0], folder / name)
    return {name}


def link(folder: Path, rng: Rng) -> set[str]:
    """A file becomes a link to a copy of itself elsewhere."""
    (name,) = [n for n in pick(folder, rng, 2) if n != MANIFEST][:1]
    copy = folder.parent / "elsewhere"
    shutil.copy(folder / name, copy)
    (folder / name).unlink()
    (folder / name).symlink_to(copy)
    return {name}


BYTES: tuple[Harm, ...] = (flip, flip_any_file, cut, grow, drop, swap, add, link)


# -- rows, in a shard and a manifest that were made to agree with the change ----------------------


Rows = list[dict[str, Any]]


def rows_of(folder: Path, path: str) -> Rows:
    return [dict(row) for row in stored_rows(folder / path)]


def reseal(folder: Path, changed: Mapping[str, Rows], *, roots: bool = False) -> None:
    """Write shards anew, and a manifest that has their hashes.

    Args:
        folder: The dataset's folder.
        changed: Path of a shard to its rows.
        roots: Let the manifest also say what the rows now come to, and all documents likewise.
    """
    manifest = read_manifest(folder)
    assert manifest is not None
    entries = {entry.path: entry for entry in manifest.files}
    for path, rows in changed.items():
        schema = arrow_schema("original" in rows[0])
        (folder / path).write_bytes(shard_bytes(rows, schema))
        root = merkle_root(row["sample_digest"] for row in rows) if roots else entries[path].root
        entries[path] = FileEntry(
            path=path,
            bytes=(folder / path).stat().st_size,
            sha256=sha256_of(folder / path),
            rows=len(rows) if roots else entries[path].rows,
            root=root,
        )
    release = manifest.release
    if roots:
        order = [entry.path for entry in manifest.shards]
        digests = [row["sample_digest"] for path in order for row in rows_of(folder, path)]
        counts = {size.name: 0 for size in release.splits}
        for entry in entries.values():
            if entry.rows is not None:
                counts[entry.split] += entry.rows
        splits = tuple(one.model_copy(update={"rows": counts[one.name]}) for one in release.splits)
        content_id = merkle_root(digests)
        release = release.model_copy(update={"content_id": content_id, "splits": splits})
    (folder / MANIFEST).write_text(Manifest.of(release, entries.values()).text())
    if roots:
        document(folder)


def document(folder: Path) -> None:
    """Write all that follows from recipe, lock and shards anew, as a forger with synthct would."""
    manifest = read_manifest(folder)
    assert manifest is not None
    rejected = tuple(read_rejected(folder))
    shards = [
        ShardRecord(s.path, s.split, s.rows or 0, s.bytes, s.sha256, () if n else rejected)
        for n, s in enumerate(manifest.shards)
    ]
    written = documents(
        stored_recipe(folder / RECIPE), read_lock(folder), folder, manifest.release, shards
    )
    for name, content in written.items():
        (folder / name).write_bytes(content)
    relist(folder)


def relist(folder: Path, **release: Any) -> None:
    """A manifest with the hashes of all files that are there now; of the release, some changes."""
    manifest = read_manifest(folder)
    assert manifest is not None
    known = {entry.path: entry for entry in manifest.files}
    entries = []
    for path in files_of(folder):
        if path == MANIFEST:
            continue
        old = known.get(path)
        entries.append(
            FileEntry(
                path=path,
                bytes=(folder / path).stat().st_size,
                sha256=sha256_of(folder / path),
                rows=old.rows if old else None,
                root=old.root if old else None,
            )
        )
    changed = manifest.release.model_copy(update=release)
    (folder / MANIFEST).write_text(Manifest.of(changed, entries).text())


def shards_of(folder: Path) -> list[str]:
    return [name for name in files_of(folder) if name.startswith("data/")]


def change_row(folder: Path, rng: Rng) -> set[str]:
    """One value of one row: a voxel, a name, a number, a key of the provenance."""
    path = str(rng.choice(shards_of(folder)))
    rows = rows_of(folder, path)
    number = int(rng.integers(len(rows)))
    columns = [n for n in rows[number] if n in CHANGES and rows[number][n] is not None]
    name = str(rng.choice(columns))
    rows[number][name] = CHANGES[name](rows[number][name], rng)
    reseal(folder, {path: rows})
    return {f"{path} row {number}"}


def change_provenance(folder: Path, rng: Rng) -> set[str]:
    path = str(rng.choice(shards_of(folder)))
    rows = rows_of(folder, path)
    number = int(rng.integers(len(rows)))
    told = json.loads(rows[number]["provenance"])
    place: Any = told
    keys = [k for k in told if told[k] != "" and k != "dataset"]
    key: Any = str(rng.choice(keys))
    while isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        key = (
            str(rng.choice(sorted(place)))
            if isinstance(place, dict)
            else int(rng.integers(len(place)))
        )
    place[key] = other_value(place[key])
    rows[number]["provenance"] = json.dumps(told)
    reseal(folder, {path: rows})
    return {f"{path} row {number}"}


def swap_rows(folder: Path, rng: Rng) -> set[str]:
    path = str(rng.choice(shards_of(folder)))
    rows = rows_of(folder, path)
    one, other = (int(n) for n in rng.choice(len(rows), 2, replace=False))
    rows[one], rows[other] = rows[other], rows[one]
    reseal(folder, {path: rows})
    return {path}


def drop_row(folder: Path, rng: Rng) -> set[str]:
    path = str(rng.choice(shards_of(folder)))
    rows = rows_of(folder, path)
    del rows[int(rng.integers(len(rows)))]
    reseal(folder, {path: rows})
    return {path}


def copy_row(folder: Path, rng: Rng) -> set[str]:
    """A row twice, and a manifest that says so."""
    path = str(rng.choice(shards_of(folder)))
    rows = rows_of(folder, path)
    rows.append(rows[int(rng.integers(len(rows)))])
    reseal(folder, {path: rows}, roots=True)
    return {f"{path} row {len(rows) - 1}"}


def swap_shards(folder: Path, rng: Rng) -> set[str]:
    one, other = (str(n) for n in rng.choice(shards_of(folder), 2, replace=False))
    reseal(folder, {one: rows_of(folder, other), other: rows_of(folder, one)})
    return {one, other}


ROWS: tuple[Harm, ...] = (
    *(change_row,) * 4,
    *(change_provenance,) * 2,
    swap_rows,
    drop_row,
    copy_row,
    swap_shards,
)


def other_value(value: Any) -> Any:
    """Another value, of the same type where there is one."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 1.5 + 1
        case str():
            return f"{value}x"
        case None:
            return "something"
    return None


def _picture(decoder: Any, encoder: Any, change: Any) -> Callable[[Any, Rng], Any]:
    def changed(stored: Any, rng: Rng) -> Any:
        array = decoder(stored["bytes"]).copy()
        place = tuple(int(rng.integers(n)) for n in array.shape)
        array[place] = change(array[place])
        return {"bytes": encoder(array), "path": None}

    return changed


def _scalar(value: Any, rng: Rng) -> Any:
    del rng
    return "coronal" if value == "axial" else other_value(value)


def _list(value: Any, rng: Rng) -> Any:
    out = list(value)
    number = int(rng.integers(len(out)))
    out[number] = out[number] + 0.5
    return out


#: How each column that a check can judge by itself is changed.
CHANGES: dict[str, Callable[[Any, Rng], Any]] = {
    **{fact.name: _scalar for fact in fields(Facts)},
    "image": _picture(decode_hu, encode_hu, lambda hu: hu + 1 if hu < 3071 else hu - 1),
    "original": _picture(decode_hu, encode_hu, lambda hu: hu + 1 if hu < 3071 else hu - 1),
    "mask": _picture(decode_mask, encode_mask, lambda inside: not inside),
    "label_map": _picture(decode_labels, encode_labels, lambda value: value ^ 1),
    "preview": lambda value, rng: {"bytes": value["bytes"][:-20], "path": None},
    "affine": _list,
    "spacing_mm": _list,
    "sample_digest": lambda value, rng: value[::-1],
    "painted_mean_hu": _scalar,
    "painted_std_hu": _scalar,
    "mask_area_mm2": _scalar,
    "painted_fraction": _scalar,
    "outside_max_abs_diff": _scalar,
}
