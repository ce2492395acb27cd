"""Presets and base checkpoints, merged into a training recipe before it is validated.

A preset replaces fields; a checkpoint that training starts from fills in missing ones. Both change
the parsed YAML document, so that errors still name the line of a value.
"""

from __future__ import annotations

from typing import Any

from synthct.errors import RecipeError
from synthct.models.network import CheckpointFiles, described
from synthct.recipe.yaml_errors import did_you_mean
from synthct.recipe.yaml_model import Document, Location
from synthct.training.sections import Schedule

#: Fields by label: the recipe's entries are added to the checkpoint's.
BY_LABEL = ("codecs", "strengths", "guidance")
NOISE = ("prediction_type", *Schedule.model_fields)


def apply_preset(document: Document, preset: str | None) -> None:
    """Remove ``presets`` from a recipe and apply one of them, in place.

    Mappings are merged; everything else, lists too, is replaced.

    Args:
        document: A training recipe.
        preset: Name of the preset; None for none.

    Raises:
        RecipeError: If there is no such preset, or ``presets`` is not a mapping of mappings.
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
        _merge(document, presets[preset], ("presets", preset), ())
    document.value.pop("presets", None)


def apply_checkpoint(document: Document, files: CheckpointFiles) -> None:
    """Fill in the fields of the checkpoint that training starts from, in place.

    Raises:
        RecipeError: If the recipe states another shape or prediction type, or if the checkpoint
            is of a network that cannot be trained.
    """
    if (section := files.network.section) is None:
        message = (
            f"{described(files)}, which paints but cannot be trained on here; start from a "
            "checkpoint of synthct"
        )
        raise document.error(("from_checkpoint",), message)
    model = document.value.setdefault("model", {})
    noise = document.value.setdefault("noise", {}) if section.takes_steps else {}
    if not isinstance(model, dict) or not isinstance(noise, dict):
        return  # refused by the validation
    # training.json has the schedule that it was trained with, where it paints with another one.
    schedule = {**files.configs.get("scheduler", {}), **files.training.get("noise", {})}
    kind = {"kind": section.model_fields["kind"].default}
    config = {**kind, **files.configs[files.network.layout.components[0].name]}
    for key, given, base, names in (
        ("model", model, config, ("kind", *section.shape)),
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
    for name in NOISE if section.takes_steps else ():
        if schedule.get(name) is not None:
            noise.setdefault(name, schedule[name])


def _merge(document: Document, fields: dict[str, Any], source: Location, target: Location) -> None:
    """Merge ``fields``, found at ``source``, into the mapping at ``target``."""
    below: Any = document.value
    for name in target:
        below = below[name]
    for name, value in fields.items():
        old, new = (*source, name), (*target, name)
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _merge(document, value, old, new)
        else:
            below[name] = value
            for marks in (document.keys, document.values):
                moved = {p: m for p, m in marks.items() if p[: len(old)] == old}
                marks.update({new + p[len(old) :]: m for p, m in moved.items()})
