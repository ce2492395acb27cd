"""The training loop: the networks of an objective, on Accelerate.

A step's patches, noise and dropout follow from the recipe's seed and the number of the step, so a
run that was killed goes on to the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from diffusers.training_utils import EMAModel
from torch import Tensor

from synthct.errors import RecipeError
from synthct.models.palette import num_parameters
from synthct.processes.launch import is_first
from synthct.seeds import derive_seed
from synthct.sources import download, index_sources
from synthct.storage.files import make_folder
from synthct.storage.lock import exclusive
from synthct.training.cache import open_training_set
from synthct.training.checkpoint import Parts, Progress, latest_state, load_state
from synthct.training.data import Batch, PatchBatches, batches_from
from synthct.training.keeper import Keeper
from synthct.training.objective import Objective
from synthct.training.objectives import make_objective
from synthct.training.recipe import TrainingRecipe

logger = logging.getLogger(__name__)

#: So long the other processes wait for what the main one does alone, such as cutting patches.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True, eq=False)
class Trainer:
    """What a step works with, on each process.

    Attributes:
        recipe: What is trained.
        accelerator: Device, precision and the other processes.
        objective: What is trained.
        nets: Its networks, wrapped for several processes where there are several.
        parts: The same networks with their running means and optimisers.
    """

    recipe: TrainingRecipe
    accelerator: Accelerator
    objective: Objective
    nets: Mapping[str, torch.nn.Module]
    parts: Parts

    def step(self, step: int, batches: Iterator[Batch]) -> tuple[Tensor, float]:
        """One step of each optimiser.

        Args:
            step: Its number, from 0; noise and dropout follow from it.
            batches: Gives as many as ``gradient_accumulation``.

        Returns:
            The loss on this process, summed over the optimisers, and the learning rate.
        """
        optim, accelerator = self.recipe.optim, self.accelerator
        rate = optim.learning_rate * learning_rate_factor(self.recipe, step)
        for optimizer in self.parts.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        losses = []
        for part in range(optim.gradient_accumulation):
            batch = {name: value.to(accelerator.device) for name, value in next(batches).items()}
            names = (str(step), str(part), str(accelerator.process_index))
            torch.manual_seed(derive_seed(self.recipe.seed, "dropout", *names))
            noise_seed = derive_seed(self.recipe.seed, "train-noise", *names)
            generator = torch.Generator().manual_seed(noise_seed)
            with accelerator.accumulate(*self.nets.values()):
                losses.append(self._lower(self.objective.losses(self.nets, batch, generator)))
        for name, network in self.parts.networks.items():
            self.parts.ema[name].step(network.parameters())
        return torch.stack(losses).mean(), rate

    def _lower(self, losses: Iterator[tuple[str, Tensor]]) -> Tensor:
        """Let each optimiser lower its loss of a batch; give the sum of the losses."""
        accelerator = self.accelerator
        total: list[Tensor] = []
        while True:
            with accelerator.autocast():
                name, loss = next(losses, (None, None))
            if name is None or loss is None:
                return torch.stack(total).sum()
            optimizer = self.parts.optimizers[name]
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                trained = [p for group in optimizer.param_groups for p in group["params"]]
                accelerator.clip_grad_norm_(trained, self.recipe.optim.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            total.append(loss.detach())


def _alone(run: Callable[..., Path]) -> Callable[..., Path]:
    """Keep two trainings of one output apart; the first of several processes holds the lock."""

    @wraps(run)
    def alone(recipe: TrainingRecipe, output: Path, **options: Any) -> Path:
        if not is_first():
            return run(recipe, output, **options)
        make_folder(output.parent)
        lock = output.with_name(f".{output.name}.lock")
        with exclusive(lock, f"training into {output}"):
            return run(recipe, output, **options)

    return alone


@_alone
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
) -> Path:
    """Train a checkpoint; run again with the same output to go on where it stopped.

    Args:
        recipe: What to train.
        output: Folder for states, sample strip, log and finished checkpoint.
        cache_dir: Where indexes, phantoms and patches are kept.
        device: ``cpu`` to keep off a GPU that is there; None lets Accelerate choose.
        workers: Processes that cut patches; by default as many as cores but one.
        max_seconds: Stop (and save) after so long; the learning rate then falls at the end of
            another run.
        tensorboard: Also write what TensorBoard shows, to the folder ``tensorboard``.
        progress_bar: Show progress bars of what comes before the training.

    Returns:
        The folder of the checkpoint (running mean of the weights), as diffusers writes it.

    Raises:
        PolicyError: If the recipe states a looser licence than its sources allow; nothing is read.
        RecipeError, SourceError, MaskError: If there is nothing to train on.
        CheckpointError: If the output holds states of another network, or the checkpoint that
            training starts from does not fit.
        ResourceError: If the output cannot be written.
    """
    if recipe.from_checkpoint is None:
        recipe.resolved_licence()  # a looser one than the sources allow ends it here
    accelerator = _accelerator(recipe, output, device, tensorboard=tensorboard)
    _make_repeatable()
    make_folder(output)
    objective = make_objective(recipe)
    # Phantoms, indexes and patches are made once and then found in the cache.
    with accelerator.main_process_first():
        recipe = recipe.model_copy(update={"sources": download(recipe.sources, cache_dir)})
        index = index_sources(recipe.sources, recipe.wanted_labels, cache_dir=cache_dir)
        data = open_training_set(
            recipe,
            index,
            objective.rules,
            cache_dir=cache_dir,
            workers=workers,
            progress=progress_bar and accelerator.is_main_process,
        )

    trainer = _trainer(recipe, accelerator, objective)
    progress = _go_on(recipe, output, trainer)
    keeper = None
    if accelerator.is_main_process:
        _announce(recipe, objective, len(data.trained_on), len(data.held_out), progress)
        if tensorboard:
            purge = {"tensorboard": {"purge_step": progress.step + 1}}
            accelerator.init_trackers("tensorboard", init_kwargs=purge)
        keeper = Keeper(recipe, output, objective, trainer.parts, data, progress.step, accelerator)
    batches = batches_from(
        PatchBatches(recipe, data.patches, accelerator.process_index, accelerator.num_processes),
        progress.step * recipe.optim.gradient_accumulation,
        workers=2 if accelerator.device.type == "cuda" else 0,
    )
    started = time.monotonic()
    stops = _anyone(accelerator, keeper is not None and keeper.is_enough)
    while progress.step < recipe.optim.max_steps and not stops:
        loss, rate = trainer.step(progress.step, batches)
        progress.step += 1
        if keeper is not None:
            keeper.after_step(progress, loss, rate)
        # Asking costs a wait for all processes, so it is done only where the answer may be yes.
        if max_seconds is not None or recipe.may_stop_after(progress.step):
            is_late = max_seconds is not None and time.monotonic() - started > max_seconds
            stops = _anyone(accelerator, is_late or (keeper is not None and keeper.is_enough))
    if keeper is not None:
        keeper.close(progress)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return output / "checkpoint"


def learning_rate_factor(recipe: TrainingRecipe, step: int) -> float:
    """Warm-up, plateau, and a final linear fall: the plateau can be prolonged at any time."""
    rise = (step + 1) / max(1, recipe.optim.warmup_steps)
    left = recipe.optim.max_steps - step
    fall = left / recipe.optim.decay_steps if recipe.optim.decay_steps else 1.0
    return min(1.0, rise, fall)


def _trainer(recipe: TrainingRecipe, accelerator: Accelerator, objective: Objective) -> Trainer:
    networks, decay = objective.networks, recipe.optim.ema_decay
    means = {
        name: EMAModel(
            network.parameters(), decay=decay, use_ema_warmup=True, power=0.75, foreach=True
        )
        for name, network in networks.items()
    }
    for mean in means.values():
        mean.to(accelerator.device)
    wrapped = {name: accelerator.prepare(network) for name, network in networks.items()}
    optimizers = {name: accelerator.prepare(one) for name, one in objective.optimizers.items()}
    parts = Parts(networks, means, optimizers, accelerator.scaler)
    return Trainer(recipe, accelerator, objective, wrapped, parts)


def _go_on(recipe: TrainingRecipe, output: Path, trainer: Trainer) -> Progress:
    """Load the latest state, if there is one; say so if the way on is not exactly the same."""
    setting = _setting(recipe, trainer.accelerator)
    state = latest_state(output)
    if state is None:
        return Progress(0, setting)
    found = load_state(state, trainer.parts)
    if found.setting != setting and trainer.accelerator.is_main_process:
        logger.warning(
            "%s was saved with another recipe, number of processes or threads, device or version "
            "of torch: training goes on, but not to the very same weights",
            state,
        )
    return Progress(found.step, setting)


def _setting(recipe: TrainingRecipe, accelerator: Accelerator) -> str:
    """sha256 of what the weights follow from beside data and code."""
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
    # Accelerate joins the processes of a CPU launch only if it is told that this is one.
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
    """Ask for kernels that give the same bits every time; those that cannot only warn."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _anyone(accelerator: Accelerator, stops: bool) -> bool:
    """Whether any process stops: all do at one step, or the others would wait for it."""
    if stops:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


def _announce(
    recipe: TrainingRecipe, objective: Objective, cases: int, held_out: int, progress: Progress
) -> None:
    logger.info(
        "%s: %.2f M parameters, %d cases to train on, %d held out, from step %d to %d",
        recipe.name,
        sum(map(num_parameters, objective.networks.values())) / 1e6,
        cases,
        held_out,
        progress.step,
        recipe.optim.max_steps,
    )
