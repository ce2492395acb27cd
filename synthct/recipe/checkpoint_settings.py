"""Checks a recipe's section ``inpaint`` against its checkpoint, before weights are loaded.

Checkpoints of synthct declare the labels, codecs, patches and spacings that they were trained on.
For other checkpoints the recipe must state what their files do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synthct.models.methods import FOR_SOME, Diffusion
from synthct.models.network import CheckpointFiles, described
from synthct.recipe.yaml_errors import Problem, did_you_mean


def setting_problems(
    files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
) -> Iterator[Problem]:
    """Settings that do not fit the checkpoint, or that it needs and that are missing."""
    for key in FOR_SOME:
        if key not in files.network.settings and getattr(inpaint, key) is not None:
            message = f"{described(files)}, which takes no '{key}'; remove it"
            yield Problem(("inpaint", key), message)
    known = [label for label in labels if label is not None]
    for key in ("codecs", "prompt", "level_hu"):
        by_label = getattr(inpaint, key)
        allowed = known if key == "level_hu" else ["default", *known]
        for label in by_label if isinstance(by_label, dict) else ():
            if label not in allowed:
                message = f"no mask paints '{label}'{did_you_mean(label, known)}"
                yield Problem(("inpaint", key, label), message, at_key=True)
    for misfit in files.network.misfits(files, inpaint, labels):
        yield Problem(("inpaint", *misfit.key), misfit.message)
