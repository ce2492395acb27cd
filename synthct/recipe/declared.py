"""What a checkpoint takes: what it declares itself, or what the recipe says for it.

A checkpoint of synthct says which labels, codecs, patches and spacings it was trained on. Others
do not: of those the recipe must say what cannot be guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from synthct.models.checkpoint import CheckpointFiles
from synthct.models.config import check_range
from synthct.models.foreign import patch_side, require_transformers
from synthct.models.layout import PALETTE, TEXT, UNCONDITIONAL
from synthct.models.methods import FOREIGN, JUMP_LENGTH, JUMP_N_SAMPLE, REPAINT, Diffusion
from synthct.models.patch import PatchRules
from synthct.recipe.yaml_errors import Problem, did_you_mean
from synthct.volume.intensity import parse_codec

#: Where nothing is said, every scan is painted on its own grid.
ANY_SPACING_MM = (0.01, 100.0)

_TEXT_ONLY = ("prompt",)
_UNCONDITIONAL_ONLY = ("labels", "jump_length", "jump_n_sample")


def unfit(
    files: CheckpointFiles, asked: Diffusion, wanted: Sequence[str | None]
) -> Iterator[Problem]:
    """What a recipe says that does not go with its checkpoint, or does not say and must.

    Args:
        files: The checkpoint.
        asked: The recipe's section ``inpaint``.
        wanted: The labels that its masks want painted; None for whatever fits.
    """
    is_ours, is_told = files.layout == PALETTE, files.layout == TEXT
    what = f"checkpoint '{files.name}' is {files.layout.what}"
    refused = FOREIGN if is_ours else _UNCONDITIONAL_ONLY if is_told else _TEXT_ONLY
    for key in refused:
        if getattr(asked, key) is not None:
            yield Problem(("inpaint", key), f"{what}, which takes no '{key}'; remove it")
    if asked.scheduler == REPAINT and files.layout != UNCONDITIONAL:
        yield Problem(
            ("inpaint", "scheduler"),
            f"'{REPAINT}' is for unconditional models, and {what}; choose another, such as "
            "dpmsolver++",
        )
    if is_ours:
        return
    if asked.codecs is None:
        yield Problem(
            ("inpaint",),
            f"{what}, which does not say how HU become its -1..1; say it, as in "
            "codecs: {default: soft_tissue}",
        )
    for name, codec in (asked.codecs or {}).items():
        try:
            check_range(name, parse_codec(codec))
        except ValueError as err:
            yield Problem(("inpaint", "codecs", name), str(err))
    yield from _misspelt("codecs", asked.codecs, wanted)
    if not is_told:
        yield from _unfit_for_repaint(what, asked, wanted)
        return
    yield from _misspelt("prompt", asked.prompt, wanted)
    for label in wanted:
        if asked.prompt_for(label) is None:
            told = f"what '{label}' is" if label else "what fits where a mask has no label"
            yield Problem(
                ("inpaint",) if asked.prompt is None else ("inpaint", "prompt"),
                f"{what}; give it a prompt that tells {told}, as in prompt: "
                f"{{{label or 'default'}: CT slice of {label or 'the abdomen'}}}",
            )


def _unfit_for_repaint(
    what: str, asked: Diffusion, wanted: Sequence[str | None]
) -> Iterator[Problem]:
    """What an unconditional model needs, and what would keep it from going back and forth."""
    if asked.scheduler != REPAINT:
        yield Problem(
            ("inpaint", "scheduler"),
            f"{what}, which paints by resampling; set scheduler to {REPAINT}, not "
            f"{asked.scheduler}",
        )
    length = asked.jump_length or JUMP_LENGTH
    steps, times = asked.num_inference_steps, asked.jump_n_sample or JUMP_N_SAMPLE
    if length >= steps and times > 1:
        yield Problem(
            ("inpaint", "jump_length"),
            f"{length} is not below num_inference_steps {steps}, so no step would be taken again; "
            "lower it, or take more steps",
        )
    labels = asked.labels or ()
    for label in wanted:
        if label is not None and label not in labels:
            yield Problem(
                ("inpaint", "labels") if labels else ("inpaint",),
                f"{what}, of which nothing says that it paints '{label}'; name it in labels if it "
                "was trained to show it, or leave the label of the mask out",
            )


def _misspelt(key: str, said: object, wanted: Sequence[str | None]) -> Iterator[Problem]:
    """Labels of which something is said and that no mask paints."""
    labels = [label for label in wanted if label is not None]
    for label in said if isinstance(said, dict) else ():
        if label not in ("default", *labels):
            message = f"no mask paints '{label}'{did_you_mean(label, labels)}"
            yield Problem(("inpaint", key, label), message, at_key=True)


def patch_rules(
    files: CheckpointFiles, asked: Diffusion, wanted: Sequence[str | None]
) -> PatchRules:
    """The patches that a checkpoint takes.

    Args:
        files: The checkpoint.
        asked: The recipe's section ``inpaint``, for which ``unfit`` found nothing.
        wanted: As for ``unfit``.

    Raises:
        CheckpointError: If its config makes no sense, or what reads text is not installed.
    """
    if files.layout == PALETTE:
        return PatchRules.from_config(files.config)
    labels = asked.labels or ()
    if files.layout == TEXT:
        require_transformers(files.name)
        labels = tuple(label for label in wanted if label is not None)
    return PatchRules.from_config(
        {
            "labels": labels,
            "codecs": asked.codecs,
            "patch_sizes": [patch_side(files.layout, files.configs)],
            "spacing_range_mm": asked.spacing_range_mm or ANY_SPACING_MM,
        }
    )
