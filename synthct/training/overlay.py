"""Presets and checkpoints, merged into the fields of a training recipe before validation.

A preset replaces fields; a checkpoint that training starts from gives those that are not written.
Both work on the document, so that errors still point to the line where a value stands.
"""

from __future__ import annotations

from typing import Any

from synthct.errors import RecipeError
from synthct.models.network import CheckpointFiles, described
from synthct.recipe.yaml_errors import did_you_mean
from synthct.recipe.yaml_model import Document, Location

#: What a checkpoint declares by label: the recipe's entries are added to the checkpoint's.
BY_LABEL = ("codecs", "strengths")
NOISE = ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end")


def apply_preset(document: Document, preset: str | None) -> None:
    """Take ``presets`` out of a recipe and lay one of them over its fields, in place.

    Mappings are merged; anything else, lists too, is replaced.

    Args:
        document: A training recipe.
        preset: Name of the preset; None lays nothing over it.

    Raises:
        RecipeError: If there is no such preset, or ``presets`` is no mapping of mappings.
    """
    presets = document.value.get("presets", {})
    if not isinstance(presets, dict):
        raise document.error(("presets",), "expected names, each with the fields it replaces")
    for name, fields in presets.items():
        if not isinstance(fields, dict):
            raise document.error(("presets", name), "expected the fields that it replaces")
    if preset is not None:
        if preset not in presets:
            there_is = f"there is: {', '.join(presets)}" if presets else "it has none"
            near = did_you_mean(preset, list(presets))
            message = f"no preset '{preset}'{near} ({there_is})"
            raise RecipeError(f"{document.file}: {message}")
        _lay(document, presets[preset], ("presets", preset), ())
    document.value.pop("presets", None)


def apply_checkpoint(document: Document, files: CheckpointFiles) -> None:
    """Give a recipe the fields of the checkpoint that it starts from, in place.

    Raises:
        RecipeError: If the recipe asks for another network or another prediction, or if the
            checkpoint is not one that synthct trains.
    """
    if (section := files.network.section) is None:
        message = (
            f"{described(files)}, which paints but cannot be trained on here; start from a "
            "checkpoint of synthct"
        )
        raise document.error(("from_checkpoint",), message)
    model, noise = (document.value.setdefault(name, {}) for name in ("model", "noise"))
    if not isinstance(model, dict) or not isinstance(noise, dict):
        return  # the validation says so
    # A checkpoint that paints with another schedule says in training.json which it was trained on.
    schedule = {**files.scheduler_config, **files.training.get("noise", {})}
    config = files.configs[files.network.layout.components[0].name]
    for key, given, base, names in (
        ("model", model, config, section.shape),
        ("noise", noise, schedule, ("prediction_type",)),
    ):
        for name in names:
            if name in given and given[name] != base.get(name):
                message = (
                    f"'{files.name}', which training starts from, has {base.get(name)}; "
                    "leave the field out"
                )
                raise document.error((key, name), message, at_key=True)
    for name in section.model_fields:
        if name in BY_LABEL:
            own = model.get(name, {})
            if isinstance(own, dict):
                model[name] = {**(config.get(name) or {}), **own}
        elif config.get(name) is not None:
            model.setdefault(name, config[name])
    for name in NOISE:
        if schedule.get(name) is not None:
            noise.setdefault(name, schedule[name])


def _lay(document: Document, fields: dict[str, Any], source: Location, target: Location) -> None:
    """Put ``fields``, which stand at ``source``, over the mapping at ``target``."""
    below: Any = document.value
    for name in target:
        below = below[name]
    for name, value in fields.items():
        here, there = (*source, name), (*target, name)
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _lay(document, value, here, there)
        else:
            below[name] = value
            for marks in (document.keys, document.values):
                moved = {p: m for p, m in marks.items() if p[: len(here)] == here}
                marks.update({there + p[len(here) :]: m for p, m in moved.items()})
