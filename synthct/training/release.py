"""Writing a checkpoint: weights, ``training.json`` and model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save
from torch import nn

from synthct.dataset.markdown import code, inert, table
from synthct.dataset.records import yaml_text
from synthct.licence import hub_fields
from synthct.models.folder import write_sums
from synthct.models.layout import DIFFUSERS
from synthct.models.network import CheckpointFiles
from synthct.models.training_index import write_index
from synthct.sources import CaseEntry, FolderSection
from synthct.storage.files import atomic_write, make_folder, sync_folder
from synthct.training.recipe import TrainingRecipe
from synthct.training.sections import kind
from synthct.training.validate import Measures
from synthct.version import __version__
from synthct.volume.views import Plane


@dataclass(frozen=True)
class TrainingSummary:
    """How a checkpoint was trained.

    Attributes:
        steps: Optimiser steps done.
        trained_on: The cases trained on.
        held_out: The cases validated on.
        base: The checkpoint that training started from; its cases count as trained on.
        validations: Step and measures of each validation.
        regions: The privacy index (``models.training_index``); None to write none.
    """

    steps: int
    trained_on: Sequence[CaseEntry] = ()
    held_out: Sequence[CaseEntry] = ()
    base: CheckpointFiles | None = None
    validations: Sequence[tuple[int, Measures]] = field(default=())
    regions: pa.Table | None = None


def write_checkpoint(
    pipeline: DiffusionPipeline, folder: Path, recipe: TrainingRecipe, summary: TrainingSummary
) -> None:
    """Write a checkpoint that ``load_checkpoint`` and diffusers load.

    Weights are stored as float16 safetensors. ``training.json`` lists the cases trained on, so
    that a build can recognise them and licences can be derived.

    Args:
        pipeline: The networks, with averaged weights, and the noise schedule to paint with.
        folder: Where to write; an earlier checkpoint there is replaced as a whole.
        recipe: What was trained.
        summary: How it was trained.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary)
    pipeline.save_config(temporary)
    parameters = 0
    for name, component in pipeline.components.items():
        component.save_config(temporary / name)
        if isinstance(component, nn.Module):
            atomic_write(temporary / name / DIFFUSERS[1], _half(component.state_dict()))
            parameters += sum(p.numel() for p in component.parameters())
    facts = training_facts(recipe, summary, parameters)
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    atomic_write(temporary / "training.json", text.encode())
    atomic_write(temporary / "README.md", card(recipe, facts).encode())
    if summary.regions is not None:
        write_index(summary.regions, temporary)
    write_sums(temporary)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def training_facts(
    recipe: TrainingRecipe, summary: TrainingSummary, parameters: int
) -> dict[str, Any]:
    """The content of ``training.json``: cases, licences, noise schedule, validation; no paths."""
    base = summary.base.training if summary.base else {}
    owed_to = [*base.get("attributions", ()), *(s.attribution for s in recipe.sources.values())]
    cases = [*base.get("cases", ()), *map(_case_facts, summary.trained_on)]
    facts: dict[str, Any] = {
        "name": recipe.name,
        "steps": summary.steps,
        "parameters": parameters,
        "synthct_version": __version__,
        "licence": recipe.resolved_licence(base=base.get("licence")),
        "attributions": list(dict.fromkeys(text for text in owed_to if text)),
        "cases": list({_identity(case): case for case in cases}.values()),
        "held_out": [_case_facts(entry) for entry in summary.held_out],
        "views": _shares(recipe.data.views),
        "validation": [
            {"step": step, **measures.as_json()} for step, measures in summary.validations
        ],
    }
    if recipe.model.takes_steps:
        facts["noise"] = recipe.noise.model_dump(mode="json", exclude_none=True)
    hub = {
        name: f"{section.repo}@{section.revision}"
        for name, section in recipe.sources.items()
        if isinstance(section, FolderSection) and section.repo is not None
    }
    if recipe.adapt is not None:
        facts["adapted"] = recipe.adapt.model_dump()
    if hub:
        facts["repositories"] = hub
    if summary.base is not None:
        facts["from_checkpoint"] = {
            "name": summary.base.name,
            "checkpoint_id": summary.base.checkpoint_id,
            "revision": summary.base.revision,
        }
    return facts


def _shares(views: Mapping[Plane, float]) -> dict[str, float]:
    """The share of the patches that each view had."""
    total = sum(views.values())
    return {name: round(weight / total, 3) for name, weight in views.items()}


def card(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> str:
    """The model card of a checkpoint.

    Args:
        recipe: What was trained.
        facts: The content of ``training.json``.
    """
    model = recipe.model
    low, high = model.spacing_range_mm
    labels = ", ".join(code(name) for name in recipe.labels) or "none"
    sizes, rules = ", ".join(map(str, model.patch_sizes)), recipe.rules
    patches = f"Patches: {sizes} pixels"
    if rules.slice_range_mm is not None:
        apart = "{:g} to {:g} mm apart".format(*rules.slice_range_mm)
        patches = f"Boxes: {sizes} pixels and {rules.depth} slices, {apart}"
    return f"""---
{yaml_text(_header(recipe, facts["licence"]))}---

# {recipe.name}

{inert(recipe.description)}

A {facts["parameters"] / 1e6:.1f} M parameter {model.summary}

- Labels: {labels}, and whatever fits.
- In-plane spacing: {low:g} to {high:g} mm. {patches}.
- Trained for {facts["steps"]} steps with `synthct train`, synthct {facts["synthct_version"]}.
{_painting(recipe, facts)}
## Use

```python
import synthct

painted = synthct.inpaint("ct.nii.gz", "mask.nii.gz", label=None, checkpoint="<this folder>")
```

## Training data

{table(["source", "layout", "cases", "patients", "licence", "attribution"], _rows(recipe, facts))}

`training.json` lists every case with the hash of its voxels.
{_repositories(facts)}{_further_credits(recipe, facts)}{_validation(facts)}
## Limits

Not for diagnosis. The painted tissue is plausible, not true.
"""


def _painting(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> str:
    """List items for few steps, guidance and a base checkpoint."""
    lines = []
    if recipe.noise.few_steps is not None:
        lines.append(f"- Paints in {recipe.noise.few_steps} steps (`num_inference_steps`) only.")
    if recipe.data.label_dropout > 0:
        lines.append("- Can be guided (`guidance_scale`).")
    if base := facts.get("from_checkpoint"):
        lines.append(f"- Started from {code(base['name'])}.")
    return "".join(f"{line}\n" for line in lines)


def _repositories(facts: Mapping[str, Any]) -> str:
    """The Hub repositories of scans."""
    places = [f"{code(name)} is {code(at)}" for name, at in facts.get("repositories", {}).items()]
    return f"\nOn the Hugging Face Hub, {'; '.join(places)}.\n" if places else ""


def _further_credits(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> str:
    """Attributions of the data of the base checkpoint."""
    own = {section.attribution for section in recipe.sources.values()}
    further = [text for text in facts["attributions"] if text not in own]
    if not further:
        return ""
    return f"\nCredits of the checkpoint before: {inert('; '.join(further))}.\n"


def _validation(facts: Mapping[str, Any]) -> str:
    """The first, best and last validation."""
    validations = facts["validation"]
    if not validations:
        return ""
    best = min(validations, key=lambda row: row["loss"])
    shown = {row["step"]: row for row in (validations[0], best, validations[-1])}
    patients = len({case["patient_id"] for case in facts["held_out"]})
    names = list(best)
    rows = [
        ["" if row[name] is None else f"{row[name]:.4g}" for name in names]
        for _, row in sorted(shown.items())
    ]
    held = f"On masks in scans of patients that were held out ({patients}):"
    return f"\n## Validation\n\n{held}\n\n{table([n.replace('_', ' ') for n in names], rows)}\n"


def _header(recipe: TrainingRecipe, licence: str | None) -> dict[str, Any]:
    """The YAML header that the Hub reads."""
    how = "diffusion" if recipe.model.takes_steps else kind(recipe.model)
    return {
        **hub_fields(licence),
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "tags": ["medical", "ct", "inpainting", how, "synthct"],
    }


def _case_facts(entry: CaseEntry) -> dict[str, str | None]:
    return {
        "source": entry.source,
        "layout": entry.layout,
        "case_id": entry.case_id,
        "patient_id": entry.patient_id,
        "licence": entry.licence,
        "voxel_sha256": entry.voxel_sha256,
        "fingerprint": entry.fingerprint,
    }


def _identity(case: Mapping[str, Any]) -> str:
    """What tells two cases of a member list apart; checkpoints before had no fingerprints."""
    return json.dumps({**case, "fingerprint": None}, sort_keys=True)


def _rows(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> list[list[str]]:
    """A row per source, then per source of the base checkpoint."""
    attributions = {name: section.attribution or "" for name, section in recipe.sources.items()}
    by_source: dict[str, list[Mapping[str, Any]]] = {name: [] for name in attributions}
    for case in facts["cases"]:
        by_source.setdefault(case["source"], []).append(case)
    return [
        [
            code(name),
            code(", ".join(sorted({case["layout"] for case in cases}))),
            str(len(cases)),
            str(len({case["patient_id"] for case in cases})),
            inert(", ".join(sorted({case["licence"] or "unknown" for case in cases}))),
            inert(attributions.get(name, "")),
        ]
        for name, cases in by_source.items()
        if cases
    ]


def _half(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Weights as float16 safetensors, as diffusers writes them."""
    half = {name: value.to(torch.float16).contiguous() for name, value in weights.items()}
    return bytes(save(half, {"format": "pt"}))
