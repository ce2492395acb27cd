"""The training loop, on Accelerate.

Patches, noise and dropout of a step depend only on the recipe's seed and the number of the step,
so a run that was killed and resumed gives the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from diffusers.training_utils import EMAModel
from torch import Tensor

from synthct.errors import RecipeError, counted
from synthct.processes.join import watching
from synthct.processes.launch import is_first
from synthct.seeds import derive_seed
from synthct.sources import Index, download, index_sources
from synthct.storage.files import make_folder
from synthct.storage.lock import exclusive
from synthct.training.cache import open_training_set
from synthct.training.callbacks import Callbacks
from synthct.training.checkpoint import Progress, TrainState, latest_state, load_state
from synthct.training.data import Batch, PatchBatches, batches_from
from synthct.training.objective import Objective
from synthct.training.objectives import make_objective
from synthct.training.recipe import TrainingRecipe

logger = logging.getLogger(__name__)

#: How long processes wait for what the main one does alone, such as cutting patches.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, eq=False)
class Trainer:
    """Takes optimiser steps, on each process.

    Attributes:
        recipe: Optimisation settings and seed.
        accelerator: Device, precision and the other processes.
        objective: The losses.
        nets: Its networks, wrapped for several processes if there are several.
        train_state: The same networks, their moving averages and their optimisers.
    """

    recipe: TrainingRecipe
    accelerator: Accelerator
    objective: Objective
    nets: Mapping[str, torch.nn.Module]
    train_state: TrainState

    def step(self, step: int, batches: Iterator[Batch]) -> tuple[dict[str, Tensor], float]:
        """One step of each optimiser.

        Args:
            step: 0-based; the seed of noise and dropout.
            batches: ``gradient_accumulation`` of them are taken.

        Returns:
            The loss of each optimiser on this process, by name, and the learning rate.
        """
        optim, accelerator = self.recipe.optim, self.accelerator
        rate = optim.learning_rate * learning_rate_factor(self.recipe, step)
        for optimizer in self.train_state.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("pace", 1.0)
        losses = []
        for part in range(optim.gradient_accumulation):
            batch = {name: value.to(accelerator.device) for name, value in next(batches).items()}
            names = (str(step), str(part), str(accelerator.process_index))
            torch.manual_seed(derive_seed(self.recipe.seed, "dropout", *names))
            noise_seed = derive_seed(self.recipe.seed, "train-noise", *names)
            generator = torch.Generator().manual_seed(noise_seed)
            with accelerator.accumulate(*self.nets.values()):
                losses.append(self._minimise(self.objective.losses(self.nets, batch, generator)))
        for name, network in self.train_state.networks.items():
            self.train_state.ema[name].step(network.parameters())
        return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}, rate

    def _minimise(self, losses: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Step each optimiser on its loss of a batch; return the losses by name."""
        accelerator = self.accelerator
        taken: dict[str, Tensor] = {}
        while True:
            with accelerator.autocast():
                name, loss = next(losses, (None, None))
            if name is None or loss is None:
                return taken
            optimizer = self.train_state.optimizers[name]
            accelerator.backward(loss)
            if accelerator.sync_gradients and self.recipe.optim.max_grad_norm is not None:
                trained = [p for group in optimizer.param_groups for p in group["params"]]
                accelerator.clip_grad_norm_(trained, self.recipe.optim.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            taken[name] = loss.detach()


def _locked(run: Callable[..., Path]) -> Callable[..., Path]:
    """Lock the output against a second training; the first of several processes holds the lock.

    Several processes watch over each other.
    """

    @wraps(run)
    def locked(recipe: TrainingRecipe, output: Path, **options: Any) -> Path:
        if not is_first():
            with watching():
                return run(recipe, output, **options)
        make_folder(output.parent)
        lock = output.with_name(f".{output.name}.lock")
        with exclusive(lock, f"training into {output}"), watching():
            return run(recipe, output, **options)

    return locked


@_locked
def train(
    recipe: TrainingRecipe,
    output: Path,
    *,
    cache_dir: Path,
    device: str | None = None,
    workers: int | None = None,
    max_seconds: float | None = None,
    tensorboard: bool = False,
    progress_bar: bool = False,
    index: Index | None = None,
) -> Path:
    """Train a checkpoint; run again with the same output to resume.

    Args:
        recipe: What to train.
        output: Folder for states, sample strip, log and checkpoint.
        cache_dir: Where indexes, phantoms and patches are cached.
        device: ``cpu`` to ignore a GPU; by default Accelerate chooses.
        workers: Processes that cut patches; by default one less than there are cores.
        max_seconds: Stop after this time and save; a later run takes the remaining steps.
        tensorboard: Also log to TensorBoard, in the folder ``tensorboard``.
        progress_bar: Show progress while patches are cut.
        index: The cases to train on, or to hold out; by default all of the sources.

    Returns:
        The folder of the checkpoint (moving average of the weights), in diffusers' format.

    Raises:
        PolicyError: If the recipe states a looser licence than its sources allow.
        RecipeError, SourceError, MaskError: If there is nothing to train on.
        CheckpointError: If the output holds states of another network, or the checkpoint that
            training starts from does not fit.
        ResourceError: If the output cannot be written, or another process died or is stopped.
    """
    if recipe.from_checkpoint is None:
        recipe.resolved_licence()  # raises PolicyError before anything is read
    accelerator = _accelerator(recipe, output, device, tensorboard=tensorboard)
    _make_repeatable()
    make_folder(output)
    objective = make_objective(recipe)
    # The main process makes phantoms, indexes and patches; the others load them from the cache.
    with accelerator.main_process_first():
        recipe = recipe.model_copy(update={"sources": download(recipe.sources, cache_dir)})
        if index is None:
            index = index_sources(recipe.sources, recipe.all_labels(), cache_dir=cache_dir)
        data = open_training_set(
            recipe,
            index,
            objective.rules,
            cache_dir=cache_dir,
            workers=workers,
            progress=progress_bar and accelerator.is_main_process,
        )

    trainer = _trainer(recipe, accelerator, objective)
    progress = _resume(recipe, output, trainer)
    callbacks = None
    if accelerator.is_main_process:
        _log_start(recipe, objective, len(data.trained_on), len(data.held_out), progress)
        if tensorboard:
            purge = {"tensorboard": {"purge_step": progress.step + 1}}
            accelerator.init_trackers("tensorboard", init_kwargs=purge)
        callbacks = Callbacks(
            recipe, output, objective, trainer.train_state, data, progress, accelerator
        )
    batches = batches_from(
        PatchBatches(recipe, data.patches, accelerator.process_index, accelerator.num_processes),
        progress.step * recipe.optim.gradient_accumulation,
        workers=2 if accelerator.device.type == "cuda" else 0,
    )
    started = time.monotonic()
    stops = _any_process(accelerator, callbacks is not None and callbacks.should_stop)
    while progress.step < recipe.optim.max_steps and not stops:
        losses, rate = trainer.step(progress.step, batches)
        progress.step += 1
        if callbacks is not None:
            callbacks.after_step(progress, losses, rate)
        # This waits for all processes, so it is done only where training may stop.
        if max_seconds is not None or recipe.may_stop_after(progress.step):
            is_late = max_seconds is not None and time.monotonic() - started > max_seconds
            stops = _any_process(
                accelerator, is_late or (callbacks is not None and callbacks.should_stop)
            )
    if callbacks is not None:
        callbacks.close(progress)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return output / "checkpoint"


def learning_rate_factor(recipe: TrainingRecipe, step: int) -> float:
    """Linear warm-up, plateau and linear decay: ``max_steps`` can be raised between runs."""
    rise = (step + 1) / max(1, recipe.optim.warmup_steps)
    left = recipe.optim.max_steps - step
    fall = left / recipe.optim.decay_steps if recipe.optim.decay_steps else 1.0
    return min(1.0, rise, fall)


def _trainer(recipe: TrainingRecipe, accelerator: Accelerator, objective: Objective) -> Trainer:
    networks, decay = objective.networks, recipe.optim.ema_decay
    averages = {
        name: EMAModel(
            network.parameters(), decay=decay, use_ema_warmup=True, power=0.75, foreach=True
        )
        for name, network in networks.items()
    }
    for average in averages.values():
        average.to(accelerator.device)
    wrapped = {name: accelerator.prepare(network) for name, network in networks.items()}
    optimizers = {name: accelerator.prepare(one) for name, one in objective.optimizers.items()}
    train_state = TrainState(networks, averages, optimizers, accelerator.scaler)
    return Trainer(recipe, accelerator, objective, wrapped, train_state)


def _resume(recipe: TrainingRecipe, output: Path, trainer: Trainer) -> Progress:
    """Load the latest state, if any; warn if the next steps are not exactly reproducible."""
    setting = _setting(recipe, trainer.accelerator)
    state = latest_state(output)
    if state is None:
        return Progress(0, setting)
    progress = load_state(state, trainer.train_state)
    if progress.setting != setting and trainer.accelerator.is_main_process:
        logger.warning(
            "%s was saved with another recipe, number of processes or threads, device or version "
            "of torch: training goes on, but not to the very same weights",
            state,
        )
    return replace(progress, setting=setting)


def _setting(recipe: TrainingRecipe, accelerator: Accelerator) -> str:
    """sha256 of what the weights depend on besides data and code; see ``Progress.setting``."""
    unimportant = {"name", "description", "licence", "sample_every", "save_every"}
    facts = {
        "recipe": recipe.model_dump(mode="json", exclude=unimportant),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "device": accelerator.device.type,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _accelerator(
    recipe: TrainingRecipe, output: Path, device: str | None, *, tensorboard: bool
) -> Accelerator:
    # Accelerate joins the processes of a CPU launch only with cpu=True.
    on_cpu = device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if on_cpu and recipe.optim.mixed_precision == "fp16":
        raise RecipeError(f"{recipe.name}: optim.mixed_precision: fp16 needs a GPU; choose bf16")
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise RecipeError("--tensorboard: not installed; run pip install '.[tensorboard]'")
    return Accelerator(
        mixed_precision=recipe.optim.mixed_precision,
        cpu=on_cpu,
        gradient_accumulation_steps=recipe.optim.gradient_accumulation,
        log_with="tensorboard" if tensorboard else None,
        project_dir=str(output),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def _make_repeatable() -> None:
    """Choose deterministic kernels; an operation that has none only warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _any_process(accelerator: Accelerator, stops: bool) -> bool:
    """Whether any process wants to stop: all must stop at the same step."""
    if stops:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


def _log_start(
    recipe: TrainingRecipe, objective: Objective, cases: int, held_out: int, progress: Progress
) -> None:
    logger.info(
        "%s: %.2f M parameters, %s to train on, %d held out, from step %d to %d",
        recipe.name,
        sum(p.numel() for net in objective.networks.values() for p in net.parameters()) / 1e6,
        counted(cases, "case"),
        held_out,
        progress.step,
        recipe.optim.max_steps,
    )
