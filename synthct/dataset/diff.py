"""What differs between two versions of a dataset, and how far apart their numbers must be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import Manifest, Release, require_manifest
from synthct.dataset.writer import read_shard
from synthct.errors import ConflictError

#: From the least step to the greatest; what a version's numbers are called.
STEPS = ("none", "patch", "minor", "major")

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Difference:
    """What is not the same in a later version.

    Attributes:
        old: The earlier release.
        new: The later one.
        added: Ids of samples that only the later one has, in its order.
        gone: Ids of samples that only the earlier one has, in its order.
        changed: Ids of samples that are others now, in the order of the later one.
        is_reordered: Whether samples that both have stand in another order.
        licences: The licences, if they differ.
        step: The least step from one version to the next: one of ``STEPS``.
    """

    old: Release
    new: Release
    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]
    is_reordered: bool
    licences: tuple[str | None, str | None] | None
    step: str

    @property
    def least(self) -> str:
        """The least version that the later one may have."""
        match = _VERSION.fullmatch(self.old.version)
        if match is None:
            return self.old.version
        major, minor, patch = (int(number) for number in match.groups())
        return {
            "none": self.old.version,
            "patch": f"{major}.{minor}.{patch + 1}",
            "minor": f"{major}.{minor + 1}.0",
            "major": f"{major + 1}.0.0",
        }[self.step]

    def require_step(self) -> None:
        """Make sure that the versions are far enough apart.

        Versions of limited builds, such as ``1.0.0-first8``, are trials, and are not judged.

        Raises:
            ConflictError: If one version is two contents, or the later one's number too small.
        """
        if self.old.name != self.new.name:
            raise ConflictError(
                f"these are two datasets, '{self.old.name}' and '{self.new.name}'; their versions "
                "have nothing to do with each other"
            )
        if not (_VERSION.fullmatch(self.old.version) and _VERSION.fullmatch(self.new.version)):
            return
        if self.old.version == self.new.version and self.old.content_id != self.new.content_id:
            raise ConflictError(
                f"version {self.old.version} is content {self.old.content_id[:12]} in one and "
                f"{self.new.content_id[:12]} in the other; a version never changes, so the later "
                f"one is {self.least} at least"
            )
        if _numbers(self.new.version) < _numbers(self.least):
            raise ConflictError(
                f"{self.new.version} is too small a step from {self.old.version}: what changed "
                f"makes it {self.least} at least ({self.step})"
            )


def compare(old: Path, new: Path) -> Difference:
    """Compare two versions of a dataset by the digests of their samples.

    The step follows Croissant's rule: the same samples are a patch, more of them a minor version,
    anything else a major one; and so is another licence, which changes what users may do.

    Raises:
        ResourceError: If one of them is no dataset.
        VerifyError: If one of them is damaged.
    """
    first, second = require_manifest(old), require_manifest(new)
    before, after = _samples(old, first), _samples(new, second)
    both = [name for name in after if name in before]
    added = tuple(name for name in after if name not in before)
    gone = tuple(name for name in before if name not in after)
    changed = tuple(name for name in both if before[name] != after[name])
    is_reordered = both != [name for name in before if name in after]
    licences = read_lock(old).licence, read_lock(new).licence
    is_other_licence = licences[0] != licences[1]
    if gone or changed or is_other_licence:
        step = "major"
    elif added:
        step = "minor"
    else:
        step = "none" if first.files_id == second.files_id else "patch"
    return Difference(
        old=first.release,
        new=second.release,
        added=added,
        gone=gone,
        changed=changed,
        is_reordered=is_reordered,
        licences=licences if is_other_licence else None,
        step=step,
    )


def _samples(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Id to digest of every sample, in order."""
    found: dict[str, str] = {}
    for shard in manifest.shards:
        table = read_shard(folder / shard.path, ["sample_id", "sample_digest"])
        ids: Sequence[str] = table["sample_id"].to_pylist()
        found.update(zip(ids, table["sample_digest"].to_pylist(), strict=True))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
