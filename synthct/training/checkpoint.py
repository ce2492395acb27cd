"""Training states that a run resumes from: renamed into place, checked when loaded.

Data and noise of a step depend on its number, so no random state is stored.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
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
from synthct.training.validate import Measures

KEEP = 2

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: Optimiser steps done.
        setting: sha256 of recipe, processes, threads, device and torch version; a run that
            resumes with another gives slightly other weights.
        validations: Step and measures of each validation.
    """

    step: int = 0
    setting: str = ""
    validations: list[tuple[int, Measures]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class TrainState:
    """Everything that an optimiser step changes.

    Attributes:
        networks: The networks, by name.
        ema: Exponential moving average of each network's weights.
        optimizers: The optimisers, by name.
        scaler: Gradient scaler; for float16 only.
    """

    networks: Mapping[str, nn.Module]
    ema: Mapping[str, EMAModel]
    optimizers: Mapping[str, Optimizer]
    scaler: GradScaler | None = None


def latest_state(output: Path) -> Path | None:
    """The newest intact state of a run, with a warning for each damaged newer one.

    Raises:
        CheckpointError: If there are states but all are damaged.
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


def save_state(output: Path, progress: Progress, train_state: TrainState) -> None:
    """Write weights, their moving averages and the optimisers; keep the last two states.

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
    for name, network in train_state.networks.items():
        _save(network.state_dict(), temporary / f"{name}.safetensors")
        _save(_ema_weights(network, train_state.ema[name]), temporary / f"{name}.ema.safetensors")
    for name, optimizer in train_state.optimizers.items():
        _save(_flat(optimizer), temporary / f"{name}.optimizer.safetensors")
    scale = train_state.scaler.state_dict() if train_state.scaler else {}
    steps = {name: ema.optimization_step for name, ema in train_state.ema.items()}
    facts = {
        "step": progress.step,
        "setting": progress.setting,
        "validations": [(step, measures.as_json()) for step, measures in progress.validations],
        "ema_steps": steps,
        "scaler": scale,
    }
    atomic_write(temporary / "progress.json", json.dumps(facts).encode())
    write_digests(temporary, sorted(path.name for path in temporary.iterdir()), name=final.name)
    temporary.rename(final)
    sync_folder(final.parent)
    # Newer states are damaged: training resumed from the newest intact one.
    kept = [state for state in _states(output) if state <= final][-KEEP:]
    for state in _states(output):
        if state not in kept:
            shutil.rmtree(state)


def load_state(state: Path, train_state: TrainState) -> Progress:
    """Load a state in place.

    Raises:
        CheckpointError: If it is damaged or of other networks than the recipe's.
    """
    try:
        check_files(state)
    except DamageError as err:
        raise CheckpointError(
            f"{state} is damaged ({err}); delete it to go on from the state before it"
        ) from err
    facts = json.loads((state / "progress.json").read_bytes())
    try:
        weights = {name: load_file(state / f"{name}.safetensors") for name in train_state.networks}
        averages = {
            name: load_file(state / f"{name}.ema.safetensors") for name in train_state.networks
        }
        moments = {
            name: load_file(state / f"{name}.optimizer.safetensors")
            for name in train_state.optimizers
        }
        steps = {name: facts["ema_steps"][name] for name in train_state.networks}
    except (OSError, KeyError) as err:
        raise CheckpointError(
            f"{state} is of other networks than the recipe's; use another output folder"
        ) from err
    try:
        for name, network in train_state.networks.items():
            network.load_state_dict(weights[name])
            for tensor, shadow in _ema_weights(network, train_state.ema[name]).items():
                shadow.copy_(averages[name][tensor])
            train_state.ema[name].optimization_step = steps[name]
    except (RuntimeError, KeyError) as err:
        raise CheckpointError(
            f"{state} holds another network than the recipe's; use another output folder"
        ) from err
    for name, optimizer in train_state.optimizers.items():
        _restore(optimizer, moments[name])
    if train_state.scaler is not None and facts["scaler"]:
        train_state.scaler.load_state_dict(facts["scaler"])
    validations = [(n, Measures.from_json(one)) for n, one in facts.get("validations", ())]
    return Progress(facts["step"], facts["setting"], validations)


def step_of(state: Path) -> int:
    """The number of steps after which a state was saved."""
    return int(state.name.rpartition("-")[2])


def _states(output: Path) -> list[Path]:
    """The finished states of a run, oldest first."""
    return sorted((output / "states").glob("step-*"))


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    # Channels-last weights are stored in plain order.
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    atomic_write(path, bytes(save(plain)))


def _ema_weights(network: nn.Module, ema: EMAModel) -> dict[str, torch.Tensor]:
    """The moving average of each parameter, by name."""
    names = [name for name, _ in network.named_parameters()]
    return dict(zip(names, ema.shadow_params, strict=True))


def _flat(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's tensors by parameter index and name, such as ``3.exp_avg``."""
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
