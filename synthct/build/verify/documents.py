"""Level 1 of ``verify``: the files beside the shards against what recipe, lock and shards come to.

Facts are compared (files, numbers, names, licences, links, digests), not prose, so that datasets
stay valid when a later synthct words something otherwise.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from synthct.build.documents import ATTRIBUTION, CARD, SHEET, documents, source_notes
from synthct.dataset.documents.card import attribution, card_header
from synthct.dataset.documents.croissant import CROISSANT, spelt
from synthct.dataset.documents.statement import STATEMENT, statement_problems
from synthct.dataset.finding import Finding
from synthct.dataset.first_format import FIRST_FORMAT
from synthct.dataset.lockfile import LOCK, Lock
from synthct.dataset.manifest import Manifest
from synthct.dataset.png import require_bare
from synthct.dataset.records import (
    RECIPE,
    REJECTED,
    front_matter,
    read_rejected,
    rejected_schema,
)
from synthct.dataset.schema import measures_of
from synthct.dataset.summary import shards_id
from synthct.dataset.writer import ShardRecord, read_shard, shard_name
from synthct.errors import ResourceError, VerifyError
from synthct.recipe.recipe import Recipe

#: Files that every dataset has, and the one format that had a statement.
_FILES = frozenset({RECIPE, LOCK, REJECTED, CARD, ATTRIBUTION})
_OF_ONE_FORMAT = "1.1.0"

#: Another Pillow may scale pictures otherwise, by so many grey levels in all but few of the pixels.
_CLOSE = 16, 0.01

_FENCED = re.compile(r"^```.*?^```", re.M | re.S)
_TOKEN = re.compile(r"https?://[^\s)]+|[0-9a-f]{64}|(?<![\w.])\d[\d.,:+a-f]*\d|(?<![\w.])\d(?!\w)")

Check = Callable[[], Iterator[str]]


def check_files(manifest: Manifest) -> Iterator[Finding]:
    """That a dataset has the files of its format and no others."""
    release, entries = manifest.release, {entry.path: entry for entry in manifest.files}
    shards = {
        shard_name(split.name, number, split.shards)
        for split in release.splits
        for number in range(min(split.shards, len(entries)))
    }
    needed = {*_FILES, *shards}
    if release.format_version != FIRST_FORMAT:
        needed.add(CROISSANT)
    if release.format_version == _OF_ONE_FORMAT:
        needed.add(STATEMENT)
    for path in sorted(needed - entries.keys()):
        yield Finding(path, "is missing: every dataset of this format has it")
    for path, entry in entries.items():
        if path not in needed | {SHEET}:
            yield Finding(path, f"is no file of a dataset of format {release.format_version}")
        elif (entry.rows is None) == (path in shards):
            yield Finding(path, "is a shard by its name or by the manifest, but not by both")


def check_documents(
    folder: Path, manifest: Manifest, lock: Lock, recipe: Recipe | None
) -> Iterator[Finding]:
    """Compare every file beside the shards with what would be written today.

    Args:
        folder: The dataset's folder; its shards are intact.
        manifest: Its manifest.
        lock: Its lock.
        recipe: Its recipe; None of format 1.0.0, whose recipes have other keys.
    """
    stored = _Documents(folder, manifest, lock, recipe)
    checks: dict[str, Check] = {
        REJECTED: stored.rejected_problems,
        CARD: stored.card_problems,
        ATTRIBUTION: stored.attribution_problems,
        SHEET: stored.sheet_problems,
    }
    if recipe is not None:
        checks[CROISSANT] = stored.croissant_problems
    if manifest.release.format_version == _OF_ONE_FORMAT:
        checks[STATEMENT] = lambda: statement_problems(stored.read(STATEMENT), manifest, lock)
    for path, check in checks.items():
        try:
            yield from (Finding(path, problem) for problem in check())
        except (VerifyError, ResourceError) as err:
            yield Finding(path, str(err))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            yield Finding(path, f"cannot be read as what it should be ({err!r})")


@dataclass(frozen=True, eq=False)
class _Documents:
    """The files beside the shards of a dataset, each with what is wrong with it.

    Attributes:
        folder: The dataset's folder.
        manifest: Its manifest.
        lock: Its lock.
        recipe: Its recipe; None of format 1.0.0.
    """

    folder: Path
    manifest: Manifest
    lock: Lock
    recipe: Recipe | None

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @cached_property
    def expected(self) -> Mapping[str, bytes]:
        """The files by name, as they would be written today."""
        if self.recipe is None:
            notes = source_notes(self.lock, self.lock.sources)
            return {ATTRIBUTION: attribution(notes).encode()}
        # all rejections count for the first shard: no document tells them apart by shards
        rejected = tuple(read_rejected(self.folder))
        shards = [
            ShardRecord(one.path, one.split, one.rows or 0, one.bytes, one.sha256,
                        () if number else rejected)
            for number, one in enumerate(self.manifest.shards)
        ]  # fmt: skip
        return documents(self.recipe, self.lock, self.folder, self.manifest.release, shards)

    def rejected_problems(self) -> Iterator[str]:
        """Rejected samples beside the rows, the release and the recipe's limits."""
        rejected, release = read_rejected(self.folder), self.manifest.release
        ids = Counter(one.sample_id for one in rejected)
        for shard in self.manifest.shards:
            ids.update(read_shard(self.folder / shard.path, ["sample_id"])[0].to_pylist())
        for one in rejected:
            if ids[one.sample_id] > 1:
                yield f"sample '{one.sample_id}' is also a row, or there twice"
        if self.recipe is None:
            return
        schema = rejected_schema(
            volume=self.recipe.view == "volume", of_format=release.format_version
        )
        if not pq.read_schema(self.folder / REJECTED).equals(schema):
            yield "has other columns than the format"
        counts = dict(Counter(one.reason for one in rejected))
        if counts != release.rejected:
            yield f"has the reasons {counts}, the release {release.rejected}"
        standards = self.recipe.standards(self.lock.limits)
        for one in rejected:
            measures = measures_of(one.columns)
            if one.measure is not None and one.value is None:
                measures = {**measures, one.measure: math.nan}
            standard = standards.get(str(one.columns.get("mask_name")))
            broken = standard.first_broken(measures) if standard else None
            limit = None if broken is None else (broken.measure, broken.value, broken.reason)
            if limit != ((one.measure, one.value, one.reason) if one.measure else None):
                yield f"sample '{one.sample_id}' was not rejected for the limit that it breaks"

    def card_problems(self) -> Iterator[str]:
        """The card's header, which ``load_dataset`` and the Hub read, and the facts of its page."""
        method = self.recipe.inpaint.method if self.recipe else "diffusion"
        release, page = self.manifest.release, self.read(CARD).decode()
        stated = front_matter(page)
        names_shards = ", files " in str(stated.get("configs"))  # not before 0.2
        files = shards_id(self.manifest.shards) if names_shards else None
        header = card_header(release, release.name, self.lock.licence, method, files)
        yield from _unlike("its header's", stated, header)
        if self.recipe is not None:
            stated, ours = _facts(page), _facts(self.expected[CARD].decode())
            for fact in sorted(stated.keys() | ours.keys()):
                if (more := stated[fact] - ours[fact]) != 0:
                    yield f"{'states' if more > 0 else 'does not state'} {_short(fact)}"

    def attribution_problems(self) -> Iterator[str]:
        """The sources, their licences, and what is owed to them."""
        stated = _blocks(self.read(ATTRIBUTION).decode())
        owed = _blocks(self.expected[ATTRIBUTION].decode())
        if self.recipe is None:  # its lock does not say what its checkpoint was trained on
            stated = {name: text for name, text in stated.items() if name in owed}
        yield from _unlike("its part", stated, owed)

    def sheet_problems(self) -> Iterator[str]:
        """The contact sheet; that of format 1.0.0 was laid out otherwise."""
        is_there = any(entry.path == SHEET for entry in self.manifest.files)
        if is_there:
            require_bare(self.read(SHEET))
        if self.recipe is None:
            return
        if is_there != (SHEET in self.expected):
            yield "is there though nothing was painted" if is_there else "is missing"
        elif is_there:
            is_same_pillow = self.lock.versions.get("pillow") == version("pillow")
            most, share = (0, 0.0) if is_same_pillow else _CLOSE
            if _apart(self.read(SHEET), self.expected[SHEET], most) > share:
                yield "is not the picture of the rows"

    def croissant_problems(self) -> Iterator[str]:
        """What croissant.json states of files, columns and licence."""
        is_old = self.manifest.release.format_version == _OF_ONE_FORMAT
        stated, ours = (json.loads(one) for one in (self.read(CROISSANT), self.expected[CROISSANT]))
        if self.read(CROISSANT) != spelt(stated):
            yield "is not spelt as synthct spells it, so that other readers may read it otherwise"
        yield from _unlike("its", _stated(stated, is_old), _stated(ours, is_old))


def _unlike(what: str, stated: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Keys whose values differ, or that only one of both has."""
    for key in sorted(stated.keys() | expected.keys()):
        if (one := stated.get(key)) != (other := expected.get(key)):
            yield f"{what} {key!r} is {_short(one)}, the dataset comes to {_short(other)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr, sort_keys=True)
    return text if len(text) <= 160 else f"{text[:160]}..."


def _facts(page: str) -> Counter[str]:
    """What a page states: rows of its tables (names and numbers), and numbers, digests and links.

    Examples of code are left out.
    """
    text = _FENCED.sub("", page.removeprefix("---\n").partition("\n---\n")[2])
    facts: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            kept = [c if c.startswith("`") else " ".join(_TOKEN.findall(c)) for c in cells]
            facts[f"the row {' | '.join(kept)}"] += any(kept)
        else:
            facts.update(dict.fromkeys(_TOKEN.findall(line), 1))
    return +facts


def _blocks(text: str) -> dict[str, str]:
    """The parts of attribution.md by their headings: counts, licence, and what is owed."""
    blocks: dict[str, str] = {}
    for part in text.split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        owed = body.strip().rpartition("\n")[2]
        blocks[heading] = f"{blocks.get(heading, '')}{' '.join(_TOKEN.findall(body))} {owed}"
    return blocks


def _apart(png: bytes, other: bytes, most: int) -> float:
    """The share of two PNGs' values that differ by more than so many grey levels."""
    one, two = (
        np.asarray(Image.open(io.BytesIO(data), formats=["PNG"])).astype(np.int16)
        for data in (png, other)
    )
    return float((np.abs(one - two) > most).mean()) if one.shape == two.shape else 1.0


#: Of croissant.json what is worded, not stated.
_PROSE = re.compile(r"rai:|description$")


def _stated(content: Mapping[str, Any], is_old: bool) -> dict[str, Any]:
    """What croissant.json states: all but prose; of Croissant 1.0 what today's states likewise."""
    if not is_old:
        return {key: value for key, value in content.items() if not _PROSE.match(key)}
    keys = ("name", "version", "license", "url", "citeAs", "distribution")
    fields = {
        field["@id"]: field["source"]
        for records in content["recordSet"]
        for field in records["field"]
    }
    return {**{key: content.get(key) for key in keys}, "recordSet": fields}
