"""``provenance.intoto.json``: what made which files out of what (in-toto statement, SLSA v1).

It is a statement, not a signature: whoever publishes a dataset may sign it. It names no machine,
user, path or time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from synthct.dataset.lockfile import Lock
from synthct.dataset.manifest import Release

ATTESTATION = "provenance.intoto.json"

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"


def attestation(
    release: Release, recipe: Mapping[str, Any], lock: Lock, files: Mapping[str, str]
) -> bytes:
    """The content of ``provenance.intoto.json``.

    Args:
        release: What the version is.
        recipe: The resolved recipe.
        lock: What the build depended on.
        files: Path of every other file of the version, but the manifest, to its SHA-256.
    """
    statement = {
        "_type": STATEMENT,
        "subject": [
            {"name": path, "digest": {"sha256": sha256}} for path, sha256 in sorted(files.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:synthct:build:v1",
                "externalParameters": {"recipe": recipe, "limit": lock.plan.limit},
                "internalParameters": {"numerics": lock.numerics, "writer": lock.writer},
                "resolvedDependencies": list(_dependencies(lock)),
            },
            "runDetails": {
                "builder": {
                    "id": "urn:synthct",
                    "version": {"synthct": release.package_version},
                },
                "metadata": {"invocationId": release.plan_id},
                "byproducts": [
                    {
                        "name": "content_id",
                        "digest": {"sha256": release.content_id},
                    }
                ],
            },
        },
    }
    return (json.dumps(statement, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _dependencies(lock: Lock) -> Iterator[dict[str, Any]]:
    """Scans, label maps, files of the checkpoint and packages, each by what identifies it."""
    for name, source in sorted(lock.sources.items()):
        for case in source.cases:
            note = {
                "licence": source.licence,
                "repository": source.repo,
                "revision": source.revision,
            }
            if case.image_sha256 is not None:
                yield _dependency(f"{name}/{case.case}/image", case.image_sha256, note)
            yield _dependency(f"{name}/{case.case}/labels", case.label_sha256, note)
    if lock.checkpoint is not None:
        note = {"licence": lock.checkpoint.licence, "revision": lock.checkpoint.revision}
        for path, sha256 in sorted(lock.checkpoint.files.items()):
            yield _dependency(f"{lock.checkpoint.name}/{path}", sha256, note)
    for name, number in sorted(lock.versions.items()):
        kind = "generic" if name == "python" else "pypi"
        yield {"name": name, "uri": f"pkg:{kind}/{name}@{number}"}


def _dependency(name: str, sha256: str, note: Mapping[str, str | None]) -> dict[str, Any]:
    known = {key: value for key, value in note.items() if value is not None}
    return {"name": name, "digest": {"sha256": sha256}, "annotations": known}
