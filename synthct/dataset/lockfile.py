"""``synthct.lock``: all that a dataset depends on beside its recipe, by hash.

The documents of a dataset follow from its recipe, its lock and its shards, so that
putting the same samples together elsewhere gives the same documents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from synthct.dataset.digest import canonical_json
from synthct.dataset.first_format import lock_of
from synthct.errors import VerifyError
from synthct.storage.files import atomic_write, resource_error

LOCK = "synthct.lock"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LockedCase(_Model):
    """A case of a source.

    Attributes:
        case: Its name.
        patient: The person.
        image_sha256: Of the image file; None where there are labels only.
        voxel_sha256: Of the decoded image; None where there are labels only.
        label_sha256: Of the label files.
    """

    case: str
    patient: str
    image_sha256: str | None
    voxel_sha256: str | None
    label_sha256: str


class LockedSource(_Model):
    """A source and its cases.

    Attributes:
        layout: Kind of folder it was.
        licence: SPDX id; None if unknown.
        attribution: Whom to name, and how; None if nothing is asked for.
        repo: The dataset repository on the Hub that it came from; None if it was a folder.
        revision: Commit of that repository.
        cases: All of its cases that were indexed.
    """

    layout: str
    licence: str | None
    attribution: str | None
    repo: str | None = None
    revision: str | None = None
    cases: Annotated[tuple[LockedCase, ...], Field(strict=False)]

    @property
    def origin(self) -> str | None:
        """``owner/name@commit`` on the Hub; None if it was a folder."""
        return None if self.repo is None else f"{self.repo}@{self.revision}"


class LockedCheckpoint(_Model):
    """The checkpoint.

    Attributes:
        name: As the recipe has it, without folders.
        id: Hash over its files.
        revision: Commit of a Hub repository.
        files: Hash of each file.
        licence: Its own; None if unknown.
        licences: Of each part of the data that it was trained on; None for what is unknown.
        attributions: What is owed for that data.
        cases: Number of scans that it was trained on.
        range_hu: What it can express of the recipe's first label, from and to.
        pipeline: Class of its pipeline; None, and not written, for a diffusion model.
    """

    name: str
    id: str
    revision: str | None
    files: dict[str, str]
    licence: str | None
    licences: Annotated[tuple[str | None, ...], Field(strict=False)]
    attributions: Annotated[tuple[str, ...], Field(strict=False)]
    cases: int
    range_hu: Annotated[tuple[float, float], Field(strict=False)]
    pipeline: str | None = None

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {k: v for k, v in fields.items() if not (k == "pipeline" and v is None)}


class LockedPlan(_Model):
    """The plan.

    Attributes:
        id: Hash of all samples with their cases and shards.
        limit: The build was limited to the first so many samples; None if it was not.
        notes: Remarks on it, such as patients too few for three splits.
    """

    id: str
    limit: int | None
    notes: Annotated[tuple[str, ...], Field(strict=False)]


class LeftOut(_Model):
    """A case that was of no use.

    Attributes:
        source: Name of the source in the recipe.
        case: Its name.
        reason: Why.
    """

    source: str
    case: str
    reason: str


class LockedReview(_Model):
    """The table of verdicts of a recipe with ``review``.

    Attributes:
        table: Its name.
        sha256: Of the file.
        accepted: Number of samples that it accepts.
        rejected: Number of samples that it rejects.
    """

    table: str
    sha256: str
    accepted: int
    rejected: int


class Lock(_Model):
    """All that a dataset depends on beside its recipe.

    Attributes:
        recipe_id: Hash of the resolved recipe.
        plan: The plan.
        licence: SPDX id of the dataset; None if it is not known that all sources allow one.
        labels: Values of the label map by name.
        sources: By name in the recipe.
        left_out: Cases of the sources that were of no use.
        checkpoint: What painted; None where a control did.
        versions: Of Python and of the packages that compute or write.
        numerics: The numerics class, within which bits are promised to be the same.
        writer: What decides a shard's bytes beside its rows.
        limits: Default limits that were learned from real tissue, by section of masks and measure;
            not written where the recipe sets its own.
        review: Verdicts on samples; None, and not written, without any.
    """

    recipe_id: str
    plan: LockedPlan
    licence: str | None
    labels: dict[str, int]
    sources: dict[str, LockedSource]
    left_out: Annotated[tuple[LeftOut, ...], Field(strict=False)]
    checkpoint: LockedCheckpoint | None
    versions: dict[str, str]
    numerics: dict[str, Any]
    writer: dict[str, Any]
    limits: dict[str, dict[str, dict[str, float]]] = {}
    review: LockedReview | None = None

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        return {k: v for k, v in fields.items() if k not in ("limits", "review") or v}

    def differences(self, other: Lock) -> list[str]:
        """What is not the same in ``other``: ``sources.hosts.cases.case_1.patient: a, here b``.

        Where a source came from does not count: what came follows from its hashes.
        """
        mine, theirs = dict(_leaves(self._by_case())), dict(_leaves(other._by_case()))
        return [
            f"{name}: locked {mine.get(name, 'nothing')}, here {theirs.get(name, 'nothing')}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def _by_case(self) -> dict[str, Any]:
        """The content with the cases of each source by their names."""
        content = self.model_dump(mode="json")
        for source in content["sources"].values():
            del source["repo"], source["revision"]
            source["cases"] = {case.pop("case"): case for case in source["cases"]}
        return content


def work_id(
    recipe_id: str, plan_id: str, checkpoint_id: str | None, sources: Mapping[str, LockedSource]
) -> str:
    """Hash of all that a dataset's content depends on; a control has no checkpoint."""
    parts = [recipe_id, plan_id, checkpoint_id or "none"]
    for name, source in sorted(sources.items()):
        parts += [
            f"{name} {one.case} {one.voxel_sha256} {one.label_sha256}" for one in source.cases
        ]
    return hashlib.sha256("\n".join(["synthct/work/v1", *parts]).encode()).hexdigest()


def write_lock(folder: Path, lock: Lock) -> None:
    """Write ``synthct.lock``, as JSON with sorted keys."""
    plain = json.loads(canonical_json(lock.model_dump(mode="json")))
    text = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False)
    atomic_write(folder / LOCK, f"{text}\n".encode())


def read_lock(path: Path) -> Lock:
    """Read a lock.

    Args:
        path: The file, or the folder of a dataset.

    Raises:
        VerifyError: If it is damaged.
        ResourceError: If it is not there or cannot be read.
    """
    file = path / LOCK if path.is_dir() else path
    try:
        content = json.loads(file.read_bytes())
        if isinstance(content, dict) and "plan_id" in content:
            content = lock_of(content, file.parent)
        return Lock.model_validate(content)
    except OSError as err:
        raise resource_error(file, err) from err
    except (ValidationError, ValueError, RecursionError) as err:
        reason = str(err).splitlines()[0]
        raise VerifyError(f"{file} is damaged ({reason}); take it from its source") from err


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every value in nested mappings and lists, by its path."""
    match value:
        case dict():
            for key, item in value.items():
                yield from _leaves(item, f"{where}.{key}" if where else str(key))
        case list():
            for number, item in enumerate(value):
                yield from _leaves(item, f"{where}[{number}]")
        case _:
            yield where, str(value)
