"""No test patient may have had a part in a training set: as host, as donor, or in the checkpoint.

Compared are names, the voxels' hash, and the fingerprint that flips, permuted axes and another
affine do not change; of donors without an image the volumes of their labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from synthct.errors import PolicyError
from synthct.models.network import CheckpointFiles
from synthct.sources import CaseEntry

#: Fewer voxels of a label may be equal in two people by chance.
_TELLING_VOXELS = 500


def require_no_leaks(
    test: Sequence[CaseEntry],
    known: Iterable[CaseEntry],
    checkpoint: CheckpointFiles | None,
    *,
    allow_unknown: bool,
) -> None:
    """Refuse a test set of which a training set may hold anything.

    Args:
        test: The test scans.
        known: All cases of all sources of the painted dataset.
        checkpoint: What paints.
        allow_unknown: Accept a checkpoint that does not list what it was trained on.

    Raises:
        PolicyError: If a test patient is there; names the case and where it was found.
    """
    known = list(known)
    for entry in test:
        for other in known:
            if (how := _same_person(entry, other)) is not None:
                role = "a host" if other.source == "hosts" else f"in source '{other.source}'"
                raise PolicyError(
                    f"test case {entry.case_id} (patient {entry.patient_id}) is {role} of the "
                    f"painted dataset, as case {other.case_id} (patient {other.patient_id}): "
                    f"{how}; exclude it from one of the two"
                )
    if checkpoint is not None:
        _require_unseen(test, checkpoint, allow_unknown)


def _require_unseen(
    test: Sequence[CaseEntry], checkpoint: CheckpointFiles, allow_unknown: bool
) -> None:
    if not checkpoint.training.get("cases"):
        if allow_unknown:
            return
        raise PolicyError(
            f"checkpoint '{checkpoint.name}' does not say which scans it was trained on, so test "
            "patients may be among them; write 'unknown_training: allow' if you know that none is"
        )
    for entry in test:
        for case in checkpoint.training["cases"]:
            same = {case.get("voxel_sha256"), case.get("fingerprint")} - {None}
            if not same.isdisjoint({entry.voxel_sha256, entry.fingerprint}):
                raise PolicyError(
                    f"test case {entry.case_id} (patient {entry.patient_id}) is in the training "
                    f"data of checkpoint '{checkpoint.name}', as case {case.get('case_id')} of its "
                    f"source '{case.get('source')}'; exclude it, or paint with another checkpoint"
                )


def _same_person(one: CaseEntry, other: CaseEntry) -> str | None:
    """What shows that two cases are of one person; None if nothing does."""
    if one.patient_id == other.patient_id:
        return "the patients have the same name"
    if one.voxel_sha256 is not None and one.voxel_sha256 == other.voxel_sha256:
        return "the scans have the same voxels"
    if one.fingerprint is not None and one.fingerprint == other.fingerprint:
        return "the scans have the same voxels, mirrored, turned or with another affine"
    if other.image is None and _same_labels(one, other):
        return "the label maps hold as many voxels of each label on a grid of the same shape"
    return None


def _same_labels(one: CaseEntry, other: CaseEntry) -> bool:
    """Whether two label maps may be the same, mirrored or turned or not."""
    first, second = ({n: stats.voxels for n, stats in e.labels.items()} for e in (one, other))
    shared = first.keys() & second.keys()
    return (
        sorted(one.shape) == sorted(other.shape)
        and sum(first[name] for name in shared) >= _TELLING_VOXELS
        and all(first[name] == second[name] for name in shared)
    )
