"""Training states: what a killed run goes on from. Committed by rename, never half written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer

from synthct.errors import CheckpointError
from synthct.models.palette import PaletteUNet

KEEP = 2


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
    """

    step: int = 0


def latest_state(output: Path) -> Path | None:
    """The newest finished state below a run's folder."""
    states = sorted((output / "states").glob("step-*"))
    return states[-1] if states else None


def save_state(
    output: Path, progress: Progress, unet: PaletteUNet, ema: EMAModel, optimizer: Optimizer
) -> None:
    """Write weights, their running mean and the optimiser; keep the last two states."""
    final = output / "states" / f"step-{progress.step:08d}"
    if final.exists():
        return
    for leftover in final.parent.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
    temporary = final.with_name(f".{final.name}.tmp")
    temporary.mkdir(parents=True)
    names = [name for name, _ in unet.named_parameters()]
    _save(unet.state_dict(), temporary / "unet.safetensors")
    _save(dict(zip(names, ema.shadow_params, strict=True)), temporary / "ema.safetensors")
    _save(_flat(optimizer), temporary / "optimizer.safetensors")
    facts = {**asdict(progress), "ema_step": ema.optimization_step}
    (temporary / "progress.json").write_text(json.dumps(facts))
    temporary.rename(final)
    for old in sorted((output / "states").glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)


def load_state(state: Path, unet: PaletteUNet, ema: EMAModel, optimizer: Optimizer) -> Progress:
    """Load what ``save_state`` wrote.

    Raises:
        CheckpointError: If the recipe's network has changed since, or a file is damaged.
    """
    try:
        facts = json.loads((state / "progress.json").read_text())
        step, ema_step = int(facts["step"]), int(facts["ema_step"])
        weights, mean, moments = (
            load_file(state / f"{name}.safetensors") for name in ("unet", "ema", "optimizer")
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
        raise CheckpointError(
            f"{state} is damaged ({err}); delete it to go on from the state before it"
        ) from err
    names = [name for name, _ in unet.named_parameters()]
    try:
        unet.load_state_dict(weights)
        for name, shadow in zip(names, ema.shadow_params, strict=True):
            shadow.copy_(mean[name])
    except (RuntimeError, KeyError) as err:
        raise CheckpointError(
            f"{state} holds another network than the recipe's; use another output folder"
        ) from err
    ema.optimization_step = ema_step
    _restore(optimizer, moments)
    return Progress(step=step)


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    # Channels-last weights are stored in plain order.
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def _flat(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's tensors by parameter number and name, such as ``3.exp_avg``."""
    return {
        f"{number}.{name}": value
        for number, tensors in optimizer.state_dict()["state"].items()
        for name, value in tensors.items()
    }


def _restore(optimizer: Optimizer, flat: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in flat.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({**whole, "state": state})
