"""Training states: what a killed run goes on from. Committed by rename, checked when loaded.

The data and the noise of a step follow from its number, so a state holds no random state.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from synthct.errors import CheckpointError
from synthct.storage.cache import DamageError, check_files, write_digests
from synthct.storage.files import atomic_write, make_folder, sync_folder

KEEP = 2

logger = logging.getLogger(__name__)


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
    """The newest state below a run's folder that has every byte; warns about damaged newer ones.

    Raises:
        CheckpointError: If there are states, but all of them are damaged.
    """
    states = _states(output)
    for state in reversed(states):
        try:
            check_files(state)
        except DamageError as err:
            logger.warning("%s is damaged (%s): the state before it is taken", state, err)
        else:
            return state
    if states:
        raise CheckpointError(
            f"{output}: every training state is damaged ({', '.join(s.name for s in states)}); "
            "delete the folder 'states' to train from the first step"
        )
    return None


def save_state(output: Path, progress: Progress, parts: Parts) -> None:
    """Write weights, their running means and the optimisers; keep the last two states.

    Raises:
        ResourceError: If the disk is full or the folder cannot be written.
    """
    final = output / "states" / f"step-{progress.step:08d}"
    if final.exists():
        try:
            check_files(final)
        except DamageError:
            shutil.rmtree(final)
        else:
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
    write_digests(temporary, sorted(path.name for path in temporary.iterdir()), name=final.name)
    temporary.rename(final)
    sync_folder(final.parent)
    # Newer states than this one are damaged: training goes on from the newest intact one.
    kept = [state for state in _states(output) if state <= final][-KEEP:]
    for state in _states(output):
        if state not in kept:
            shutil.rmtree(state)


def load_state(state: Path, parts: Parts) -> Progress:
    """Load what ``save_state`` wrote.

    Raises:
        CheckpointError: If the recipe's networks have changed since, or a file is damaged.
    """
    try:
        check_files(state)
    except DamageError as err:
        raise CheckpointError(
            f"{state} is damaged ({err}); delete it to go on from the state before it"
        ) from err
    facts = json.loads((state / "progress.json").read_bytes())
    try:
        weights = {name: load_file(state / f"{name}.safetensors") for name in parts.networks}
        means = {name: load_file(state / f"{name}.ema.safetensors") for name in parts.networks}
        moments = {
            name: load_file(state / f"{name}.optimizer.safetensors") for name in parts.optimizers
        }
        steps = {name: facts["ema_steps"][name] for name in parts.networks}
    except (OSError, KeyError) as err:
        raise CheckpointError(
            f"{state} is of other networks than the recipe's; use another output folder"
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
    if parts.scaler is not None and facts["scaler"]:
        parts.scaler.load_state_dict(facts["scaler"])
    return Progress(facts["step"], facts["setting"])


def _states(output: Path) -> list[Path]:
    """The finished states of a run, the oldest first."""
    return sorted((output / "states").glob("step-*"))


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
