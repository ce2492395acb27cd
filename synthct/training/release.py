"""A finished checkpoint: the diffusers folder, what it was trained on, and its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from synthct.dataset.markdown import code, inert, table
from synthct.dataset.records import yaml_text
from synthct.licence import hub_fields
from synthct.models.folder import WEIGHTS, write_sums
from synthct.models.palette import PaletteInpaintPipeline, num_parameters
from synthct.training.recipe import TrainingRecipe
from synthct.version import __version__


def write_checkpoint(
    pipeline: PaletteInpaintPipeline,
    folder: Path,
    recipe: TrainingRecipe,
    cases: Sequence[Mapping[str, str | None]],
    steps: int,
) -> None:
    """Write a checkpoint folder that ``synthct.models.load_checkpoint`` and diffusers load.

    Weights are stored as float16 safetensors. ``training.json`` says what they saw, so that a
    build can tell hosts that were in the training data, and licences can follow.

    Args:
        pipeline: The network (running mean of the weights) and its noise schedule.
        folder: Where to write; an earlier checkpoint there is replaced as a whole.
        recipe: What was trained.
        cases: Facts of the cases trained on, without paths.
        steps: Optimiser steps done.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_config(temporary)
    pipeline.unet.save_config(temporary / "unet")
    pipeline.scheduler.save_pretrained(temporary / "scheduler")
    (temporary / WEIGHTS).write_bytes(_half(pipeline.unet.state_dict()))
    facts: dict[str, Any] = {
        "name": recipe.name,
        "steps": steps,
        "parameters": num_parameters(pipeline.unet),
        "synthct_version": __version__,
        "licence": recipe.resolved_licence(),
        "attributions": [s.attribution for s in recipe.sources.values() if s.attribution],
        "cases": list(cases),
    }
    (temporary / "training.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    (temporary / "README.md").write_text(card(recipe, facts))
    write_sums(temporary)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    temporary.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def card(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> str:
    """The model card of a checkpoint: what it is, what it saw, how to use it.

    Args:
        recipe: What was trained.
        facts: The content of ``training.json``.
    """
    model = recipe.model
    low, high = model.spacing_range_mm
    labels = ", ".join(code(name) for name in recipe.labels) or "none"
    sizes = ", ".join(map(str, model.patch_sizes))
    return f"""---
{yaml_text(_header(facts["licence"]))}---

# {recipe.name}

{inert(recipe.description)}

A {facts["parameters"] / 1e6:.1f} M parameter U-Net that paints the masked part of a CT slice
(Palette-style inpainting: noisy patch, masked patch, mask; loss inside the mask only).

- Labels: {labels}, and whatever fits.
- In-plane spacing: {low:g} to {high:g} mm. Patches: {sizes} pixels.
- Trained for {facts["steps"]} steps with `synthct train`, synthct {facts["synthct_version"]}.

## Use

```python
import synthct

painted = synthct.inpaint("ct.nii.gz", "mask.nii.gz", label=None, checkpoint="<this folder>")
```

## Training data

{table(["source", "layout", "cases", "patients", "licence", "attribution"], _rows(recipe, facts))}

`training.json` lists every case with the hash of its voxels.

## Limits

Not for diagnosis. The painted tissue is plausible, not true.
"""


def _header(licence: str | None) -> dict[str, Any]:
    """The YAML that the Hub reads."""
    return {
        **hub_fields(licence),
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "tags": ["medical", "ct", "inpainting", "diffusion", "synthct"],
    }


def _rows(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> list[list[str]]:
    """What each source gave, and what is owed to it."""
    rows = []
    for name, section in recipe.sources.items():
        cases = [case for case in facts["cases"] if case["source"] == name]
        patients = {case["patient_id"] for case in cases}
        licences = sorted({case["licence"] or "unknown" for case in cases})
        rows.append(
            [
                code(name),
                code(section.layout),
                str(len(cases)),
                str(len(patients)),
                inert(", ".join(licences)),
                inert(section.attribution or ""),
            ]
        )
    return rows


def _half(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Weights as float16 safetensors, in diffusers' form."""
    half = {name: value.to(torch.float16).contiguous() for name, value in weights.items()}
    return bytes(save(half, {"format": "pt"}))
