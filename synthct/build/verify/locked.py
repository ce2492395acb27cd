"""The lock of a build, and its comparison with the lock of an earlier one."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synthct.build.check import Checked, trained_under
from synthct.dataset.lockfile import (
    LOCK,
    LeftOut,
    Lock,
    LockedCheckpoint,
    LockedPlan,
    LockedReview,
    read_lock,
)
from synthct.dataset.writer import writer_settings
from synthct.errors import ConflictError
from synthct.models.methods import DIFFUSION_WORDS
from synthct.version import __version__

#: Packages that compute voxels or write bytes.
PACKAGES = ("torch", "diffusers", "numpy", "scipy", "pyarrow", "pillow", "nibabel")

#: Longest list of differences in an error.
_MOST = 12


def lock_of(
    checked: Checked, numerics: Mapping[str, Any], limits: Mapping[str, Mapping[str, Any]]
) -> Lock:
    """The lock of a build.

    Args:
        checked: The recipe, its sources and its checkpoint.
        numerics: The numerics class in which the model runs.
        limits: Default limits, from ``learn_limits``.
    """
    recipe, plan = checked.recipe, checked.plan
    return Lock(
        recipe_id=recipe.recipe_id,
        plan=LockedPlan(
            id=plan.plan_id,
            limit=checked.limit,
            notes=(*plan.notes, *checked.index.notes),
        ),
        licence=checked.licence,
        labels=dict(checked.label_names),
        sources=checked.locked_sources(),
        left_out=tuple(
            LeftOut(source=one.source, case=one.case_id, reason=one.reason)
            for one in checked.index.skipped
        ),
        checkpoint=_checkpoint(checked),
        versions={
            "synthct": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in (*PACKAGES, *_packages(checked))},
        },
        numerics=dict(numerics),
        writer=writer_settings(),
        limits={name: dict(by_measure) for name, by_measure in limits.items()},
        review=_review(checked),
    )


def _review(checked: Checked) -> LockedReview | None:
    if (review := checked.recipe.review) is None:
        return None
    decisions = Counter(verdict.decision for verdict in checked.verdicts.values())
    named = review.resolved()
    return LockedReview(
        table=named["table"],
        sha256=named["sha256"],
        accepted=decisions["accept"],
        rejected=decisions["reject"],
    )


def _packages(checked: Checked) -> tuple[str, ...]:
    """The packages that the checkpoint's network needs beside those of every build."""
    return checked.checkpoint.network.packages if checked.checkpoint else ()


def _checkpoint(checked: Checked) -> LockedCheckpoint | None:
    files, rules = checked.checkpoint, checked.rules
    if files is None or rules is None:
        return None
    training, network = files.training, files.network
    low, high = rules.codec(checked.recipe.masks[0].label).range_hu
    return LockedCheckpoint(
        name=files.name,
        id=files.checkpoint_id,
        revision=files.revision,
        files=dict(files.hashes),
        licence=training.get("licence"),
        licences=tuple(origin.licence for origin in trained_under(files)),
        attributions=tuple(str(text) for text in training.get("attributions", ())),
        cases=len(training.get("cases", ())),
        range_hu=(float(low), float(high)),
        pipeline=None if network.words is DIFFUSION_WORDS else network.layout.class_name,
    )


def require_locked(path: Path, current: Lock) -> None:
    """Make sure that a build has the inputs and the environment of a lock.

    Args:
        path: The lock, or the folder of a dataset.
        current: The lock of the build that is about to start.

    Raises:
        ConflictError: If something differs; says what.
        VerifyError: If the lock is damaged.
        ResourceError: If there is none.
    """
    differences = read_lock(path).differences(current)
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:_MOST])
        more = f"\n  and {len(differences) - _MOST} more" if len(differences) > _MOST else ""
        name = path / LOCK if path.is_dir() else path
        raise ConflictError(
            f"{name} does not hold here; restore what it names, or build without --locked:\n"
            f"{shown}{more}"
        )
