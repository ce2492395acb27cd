"""A finished checkpoint: the diffusers folder, what it was trained on, and its card's source."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

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
    weights = pipeline.unet.state_dict()
    half = {name: value.to(torch.float16) for name, value in weights.items()}
    pipeline.unet.save_pretrained(temporary / "unet", state_dict=half, safe_serialization=True)
    _save_half(temporary / "unet", half)
    pipeline.scheduler.save_pretrained(temporary / "scheduler")
    pipeline.save_config(temporary)
    facts: dict[str, Any] = {
        "name": recipe.name,
        "steps": steps,
        "parameters": num_parameters(pipeline.unet),
        "synthct_version": __version__,
        "licence": recipe.licence,
        "cases": list(cases),
    }
    (temporary / "training.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    (temporary / "README.md").write_text(card(recipe, facts))
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old)
    else:
        os.replace(temporary, folder)


def card(recipe: TrainingRecipe, facts: Mapping[str, Any]) -> str:
    """The model card of a checkpoint: what it is, what it saw, how to use it."""
    rules = recipe.model
    low, high = rules.spacing_range_mm
    licences = sorted({str(c["licence"]) for c in facts["cases"]})
    sources: dict[str, set[str]] = {}
    for case in facts["cases"]:
        sources.setdefault(f"{case['source']} ({case['layout']})", set()).add(str(case["patient_id"]))
    rows = "\n".join(f"| {name} | {len(ids)} |" for name, ids in sorted(sources.items()))
    return f"""---
license: {recipe.licence.lower()}
library_name: diffusers
pipeline_tag: image-to-image
tags: [medical, ct, inpainting, diffusion, synthct]
---

# {recipe.name}

{recipe.description}

A {facts["parameters"] / 1e6:.1f} M parameter U-Net that paints the masked part of a CT slice
(Palette-style inpainting: noisy patch, masked patch, mask; loss inside the mask only).

- Labels: {", ".join(recipe.labels) or "none"}, and whatever fits.
- In-plane spacing: {low} to {high} mm. Patches: {", ".join(map(str, rules.patch_sizes))} pixels.
- Trained for {facts["steps"]} steps of {recipe.optim.batch_size} patches with
  `synthct train`, synthct {facts["synthct_version"]}.

## Use

```python
import synthct

painted = synthct.inpaint("ct.nii.gz", "mask.nii.gz", label="kidney", checkpoint="<this folder>")
```

## Training data

| source | patients |
|---|---|
{rows}

Licences of the sources: {", ".join(licences)}. `training.json` lists every case with the hash of
its voxels.

## Limits

Not for diagnosis. The painted tissue is plausible, not true.
"""


def _save_half(folder: Path, half: Mapping[str, torch.Tensor]) -> None:
    """Replace the weights by float16 ones under diffusers' own file name."""
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in half.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
