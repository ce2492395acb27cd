"""Training states: what a killed run goes on from. Committed by rename, never half written.

The data and the noise of a step follow from its number, so a state holds no random state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from synthct.errors import CheckpointError
from synthct.storage.files import atomic_write, make_folder, sync_folder

KEEP = 2


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        setting: What the steps followed from beside the data: a run with another goes on, but
            not to the same weights.
    """

    step: int = 0
    setting: str = ""


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that a step changes.

    Attributes:
        networks: The networks, by name.
        ema: The running mean of the weights of each.
        optimizers: The optimisers with their moments, by name.
        scaler: Of the gradients, in half precision only.
    """

    networks: Mapping[str, nn.Module]
    ema: Mapping[str, EMAModel]
    optimizers: Mapping[str, Optimizer]
    scaler: GradScaler | None = None


def latest_state(output: Path) -> Path | None:
    """The newest finished state below a run's folder."""
    states = sorted((output / "states").glob("step-*"))
    return states[-1] if states else None


def save_state(output: Path, progress: Progress, parts: Parts) -> None:
    """Write weights, their running means and the optimisers; keep the last two states.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    final = output / "states" / f"step-{progress.step:08d}"
    if final.exists():
        return
    for leftover in final.parent.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
    temporary = final.with_name(f".{final.name}.tmp")
    make_folder(temporary)
    for name, network in parts.networks.items():
        _save(network.state_dict(), temporary / f"{name}.safetensors")
        _save(_mean(network, parts.ema[name]), temporary / f"{name}.ema.safetensors")
    for name, optimizer in parts.optimizers.items():
        _save(_flat(optimizer), temporary / f"{name}.optimizer.safetensors")
    scale = parts.scaler.state_dict() if parts.scaler else {}
    steps = {name: ema.optimization_step for name, ema in parts.ema.items()}
    facts = {**asdict(progress), "ema_steps": steps, "scaler": scale}
    atomic_write(temporary / "progress.json", json.dumps(facts).encode())
    temporary.rename(final)
    sync_folder(final.parent)
    for old in sorted((output / "states").glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)


def load_state(state: Path, parts: Parts) -> Progress:
    """Load what ``save_state`` wrote.

    Raises:
        CheckpointError: If the recipe's networks have changed since, or a file is damaged.
    """
    try:
        facts = json.loads((state / "progress.json").read_text())
        progress = Progress(int(facts["step"]), str(facts["setting"]))
        scale = dict(facts["scaler"])
        steps = {name: int(facts["ema_steps"][name]) for name in parts.networks}
        weights = {name: load_file(state / f"{name}.safetensors") for name in parts.networks}
        means = {name: load_file(state / f"{name}.ema.safetensors") for name in parts.networks}
        moments = {
            name: load_file(state / f"{name}.optimizer.safetensors") for name in parts.optimizers
        }
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
        raise CheckpointError(
            f"{state} is damaged ({err}); delete it to go on from the state before it"
        ) from err
    try:
        for name, network in parts.networks.items():
            network.load_state_dict(weights[name])
            for tensor, shadow in _mean(network, parts.ema[name]).items():
                shadow.copy_(means[name][tensor])
            parts.ema[name].optimization_step = steps[name]
    except (RuntimeError, KeyError) as err:
        raise CheckpointError(
            f"{state} holds another network than the recipe's; use another output folder"
        ) from err
    for name, optimizer in parts.optimizers.items():
        _restore(optimizer, moments[name])
    if parts.scaler is not None and scale:
        parts.scaler.load_state_dict(scale)
    return progress


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    # Channels-last weights are stored in plain order.
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(path, bytes(save(plain)))


def _mean(network: nn.Module, ema: EMAModel) -> dict[str, torch.Tensor]:
    """The running mean of each parameter, by its name."""
    names = [name for name, _ in network.named_parameters()]
    return dict(zip(names, ema.shadow_params, strict=True))


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
