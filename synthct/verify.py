"""Whether a dataset is what it says it is, in four levels.

0: every byte is the manifest's. 1: rows, digests, splits and licence agree with each other.
2: with the sources at hand, every mask is drawn again and every voxel outside of it is the
source's. 3: some samples are painted again. Levels 0 and 1 prove integrity, 2 the plan, only 3 the
pixels; none proves who made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synthct.dataset.content import check_content
from synthct.dataset.finding import Finding
from synthct.dataset.integrity import check_bytes
from synthct.dataset.lockfile import LOCK, Lock, read_lock, work_id
from synthct.dataset.manifest import MANIFEST, Manifest, Release, read_manifest
from synthct.dataset.markdown import count
from synthct.dataset.records import RECIPE, front_matter
from synthct.documents import CARD
from synthct.errors import PolicyError, RecipeError, ResourceError, VerifyError
from synthct.licence import Origin, hub_fields, licence_of
from synthct.recipe import Recipe, stored_recipe


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        release: The dataset's release; None if its manifest cannot be read.
        levels: For each level that was checked, in order, what was looked at.
        findings: What is wrong, of the last of these levels.
    """

    release: Release | None
    levels: tuple[str, ...]
    findings: tuple[Finding, ...]


def verify(folder: Path, *, level: int = 1) -> Report:
    """Check a dataset, level by level; one that finds something is the last.

    Args:
        folder: The dataset's folder.
        level: The highest level to check.

    Raises:
        ResourceError: If there is no such folder.
    """
    if not folder.is_dir():
        raise ResourceError(f"{folder} is no folder; name that of a dataset, with manifest.json")
    try:
        manifest = read_manifest(folder)
    except VerifyError as err:
        return Report(None, ("level 0: the manifest",), (Finding(MANIFEST, str(err)),))
    if manifest is None:
        missing = Finding(MANIFEST, "is missing: this is no finished dataset")
        return Report(None, ("level 0: the manifest",), (missing,))
    levels: list[str] = []
    findings: list[Finding] = []
    for title, check in _levels(folder, manifest)[: level + 1]:
        levels.append(f"level {len(levels)}: {title}")
        findings = list(check)
        if findings:
            break
    return Report(manifest.release, tuple(levels), tuple(findings))


def _levels(folder: Path, manifest: Manifest) -> list[tuple[str, Iterator[Finding]]]:
    size = sum(entry.bytes for entry in manifest.files)
    files = f"{count(len(manifest.files), 'file')} of {size:,} bytes"
    rows = f"{count(manifest.release.rows, 'row')}, lock and licence"
    return [
        (files, _bytes(folder, manifest)),
        (rows, _content(folder, manifest)),
    ]


def _bytes(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    yield from check_bytes(folder, manifest)


def _content(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    try:
        recipe, lock = stored_recipe(folder / RECIPE), read_lock(folder)
    except (RecipeError, VerifyError) as err:
        yield Finding(RECIPE if isinstance(err, RecipeError) else LOCK, str(err))
        return
    yield from check_content(folder, manifest, lock)
    yield from _check_lock(manifest.release, recipe, lock)
    yield from _check_licence(folder, recipe, lock)


def _check_lock(release: Release, recipe: Recipe, lock: Lock) -> Iterator[Finding]:
    """That release, recipe and lock belong to each other."""
    if lock.recipe_id != recipe.recipe_id:
        yield Finding(LOCK, f"recipe_id is not that of {RECIPE}")
    if lock.sources.keys() != recipe.sources.keys():
        yield Finding(LOCK, f"has other sources than {RECIPE}")
    checkpoint_id = lock.checkpoint.id if lock.checkpoint else None
    ours = work_id(lock.recipe_id, lock.plan.id, checkpoint_id, lock.sources)
    if ours != release.plan_id:
        yield Finding(LOCK, "is not the lock of the manifest's plan_id")
    name = recipe.version if lock.plan.limit is None else f"{recipe.version}-first{lock.plan.limit}"
    if (release.name, release.version) != (recipe.name, name):
        called = f"the manifest is of {release.name} {release.version}"
        yield Finding(RECIPE, f"is of {recipe.name} {name}, {called}")


def _check_licence(folder: Path, recipe: Recipe, lock: Lock) -> Iterator[Finding]:
    """That the licence follows from the sources, and that the card says it."""
    origins = [Origin(f"source '{name}'", one.licence) for name, one in lock.sources.items()]
    if lock.checkpoint is not None:
        trained = f"the training data of checkpoint '{lock.checkpoint.name}'"
        licences = (lock.checkpoint.licence, *lock.checkpoint.licences)
        origins += [Origin(trained, licence) for licence in licences]
    try:
        licence = licence_of(origins, stated=recipe.licence)
    except PolicyError as err:
        yield Finding(LOCK, str(err))
        return
    if licence != lock.licence:
        yield Finding(LOCK, f"licence is {lock.licence}, from the sources follows {licence}")
    header = front_matter((folder / CARD).read_text(encoding="utf-8"))
    for key, value in hub_fields(licence).items():
        if header.get(key) != value:
            yield Finding(CARD, f"its header says {key}: {header.get(key)}, not {value}")
