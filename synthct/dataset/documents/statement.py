"""``provenance.intoto.json`` of format 1.1.0: an in-toto statement of what was made of what.

It is not written any more: unsigned, it restates lock and manifest and proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from synthct.dataset.lockfile import Lock
from synthct.dataset.manifest import Manifest

STATEMENT = "provenance.intoto.json"


def statement_problems(text: bytes, manifest: Manifest, lock: Lock) -> Iterator[str]:
    """What a statement says otherwise than manifest and lock.

    Args:
        text: Of the file.
        manifest: Of the dataset.
        lock: Of the dataset.

    Raises:
        KeyError, TypeError, ValueError: If it is no such statement.
    """
    stated = json.loads(text)
    subjects = {(one["name"], one["digest"]["sha256"]) for one in stated["subject"]}
    files = {(one.path, one.sha256) for one in manifest.files if one.path != STATEMENT}
    for name, _ in sorted(subjects ^ files):
        yield f"its subject '{name}' is not that file of the manifest"
    definition, details = (stated["predicate"][k] for k in ("buildDefinition", "runDetails"))
    dependencies = {
        one["name"]: one["digest"]["sha256"] if "digest" in one else one["uri"].rpartition("@")[2]
        for one in definition["resolvedDependencies"]
    }
    expected = dict(_dependencies(lock))
    for name in sorted(expected.keys() | dependencies.keys()):
        if dependencies.get(name) != expected.get(name):
            yield f"its dependency '{name}' is not that of the lock"
    if definition["internalParameters"] != {"numerics": lock.numerics, "writer": lock.writer}:
        yield "its internalParameters are not those of the lock"
    named = {one["name"]: one["digest"]["sha256"] for one in details["byproducts"]}
    if named != {"content_id": manifest.release.content_id}:
        yield "its content_id is not that of the manifest"
    if details["metadata"] != {"invocationId": manifest.release.plan_id}:
        yield "its invocationId is not the plan_id of the manifest"


def _dependencies(lock: Lock) -> Iterator[tuple[str, str]]:
    """Scans, label maps, files of the checkpoint and packages, each by what identifies it."""
    for name, source in lock.sources.items():
        for case in source.cases:
            if case.image_sha256 is not None:
                yield f"{name}/{case.case}/image", case.image_sha256
            yield f"{name}/{case.case}/labels", case.label_sha256
    if lock.checkpoint is not None:
        for path, sha256 in lock.checkpoint.files.items():
            yield f"{lock.checkpoint.name}/{path}", sha256
    yield from lock.versions.items()
