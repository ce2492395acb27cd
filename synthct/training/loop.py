"""The training loop: one network, loss inside the mask, on Accelerate."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet, num_parameters
from synthct.patch import PatchRules
from synthct.sources import index_sources
from synthct.training.checkpoint import Progress, latest_state, load_state, save_state
from synthct.training.data import Batch, PatchBatches, load_training_set
from synthct.training.recipe import TrainingRecipe
from synthct.training.release import write_checkpoint
from synthct.training.sheet import write_sheet

logger = logging.getLogger(__name__)

LOG_EVERY = 50


def train(
    recipe: TrainingRecipe,
    output: Path,
    *,
    cache_dir: Path,
    device: str | None = None,
    max_seconds: float | None = None,
) -> Path:
    """Train a checkpoint; run again with the same output to go on where it stopped.

    Args:
        recipe: What to train.
        output: Folder for states, sample sheets, the log and the finished checkpoint.
        cache_dir: Where indexes and phantoms are kept.
        device: ``cpu`` to keep off a GPU that is there; None lets Accelerate choose.
        max_seconds: Stop (and save) after so long; the learning rate then falls at the end of
            another run.

    Returns:
        The folder of the checkpoint (running mean of the weights), as diffusers writes it.

    Raises:
        RecipeError, SourceError, MaskError: If there is nothing to train on.
        ResourceError: If the output cannot be written.
    """
    accelerator = Accelerator(
        mixed_precision=recipe.optim.mixed_precision, cpu=device == "cpu", log_with=None
    )
    output.mkdir(parents=True, exist_ok=True)
    index = index_sources(recipe.sources, recipe.wanted_labels, cache_dir=cache_dir)
    data = load_training_set(recipe, index)

    set_seed(recipe.seed)
    unet = build_unet(recipe)
    unet.to(memory_format=torch.channels_last)
    rules = PatchRules.from_config(unet.config)
    noise = DDPMScheduler(
        num_train_timesteps=recipe.noise.num_train_timesteps,
        beta_schedule=recipe.noise.beta_schedule,
        prediction_type=recipe.noise.prediction_type,
        clip_sample=True,
    )
    ema = EMAModel(unet.parameters(), decay=recipe.optim.ema_decay, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(
        unet.parameters(),
        lr=recipe.optim.learning_rate,
        weight_decay=recipe.optim.weight_decay,
    )
    ema.to(accelerator.device)
    net, optimizer = accelerator.prepare(unet, optimizer)

    state = latest_state(output)
    progress = load_state(state, unet, ema, optimizer) if state else Progress()
    if accelerator.is_main_process:
        logger.info(
            "%s: %.2f M parameters, %d cases, from step %d to %d",
            recipe.name, num_parameters(unet) / 1e6, len(data.facts), progress.step,
            recipe.optim.max_steps,
        )  # fmt: skip

    stream = (str(progress.step), str(accelerator.process_index))
    batches = _batches(PatchBatches(recipe, data, rules, *stream))
    generator = torch.Generator().manual_seed(recipe.seed + 7919 * progress.step)
    started = time.monotonic()
    bar = tqdm(
        total=recipe.optim.max_steps, initial=progress.step, unit="step",
        disable=None if accelerator.is_main_process else True,
    )  # fmt: skip
    losses: list[float] = []
    while progress.step < recipe.optim.max_steps:
        batch = {name: value.to(accelerator.device) for name, value in next(batches).items()}
        for group in optimizer.param_groups:
            group["lr"] = recipe.optim.learning_rate * learning_rate_factor(recipe, progress.step)
        with accelerator.autocast():
            loss = masked_loss(net, noise, batch, generator)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(net.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
        progress.step += 1
        losses.append(float(loss.detach()))
        bar.update()
        out_of_time = max_seconds is not None and time.monotonic() - started > max_seconds
        if not accelerator.is_main_process:
            if out_of_time:
                break
            continue
        if progress.step % LOG_EVERY == 0:
            _log(output, progress.step, losses, started, bar)
            losses.clear()
        if progress.step % recipe.save_every == 0 or out_of_time:
            save_state(output, progress, unet, ema, optimizer)
        if progress.step % recipe.sample_every == 0:
            with _mean_weights(ema, unet):
                write_sheet(unet, noise, batch, output / "samples" / f"{progress.step:06d}.png")
        if out_of_time:
            break
    bar.close()

    folder = output / "checkpoint"
    if accelerator.is_main_process:
        save_state(output, progress, unet, ema, optimizer)
        with _mean_weights(ema, unet):
            pipeline = PaletteInpaintPipeline(unet, noise)
            write_checkpoint(pipeline, folder, recipe, data.facts, progress.step)
    accelerator.end_training()
    return folder


def build_unet(recipe: TrainingRecipe) -> PaletteUNet:
    """The network of a training recipe, with fresh weights."""
    fields: dict[str, Any] = recipe.model.model_dump(exclude={"kind"})
    return PaletteUNet(labels=recipe.labels, **fields)


def masked_loss(
    net: torch.nn.Module, noise: DDPMScheduler, batch: Batch, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the prediction over the masked pixels of a batch.

    The known region goes in clean at every noise level (Palette, section 3), so the network is
    never asked to say anything about it and is not scored on it either.
    """
    image, mask = batch["image"], batch["mask"]
    eps = torch.randn(image.shape, generator=generator).to(image.device)
    steps = torch.randint(
        noise.config.num_train_timesteps, (image.shape[0],), generator=generator
    ).to(image.device)
    noisy = torch.where(mask > 0.5, noise.add_noise(image, eps, steps), image)
    predicted = net(noisy, steps, image * (1 - mask), mask, batch["label"], batch["spacing_mm"])
    if noise.config.prediction_type == "v_prediction":
        target = noise.get_velocity(image, eps, steps)
    else:
        target = eps
    return ((predicted.float() - target) ** 2 * mask).sum() / mask.sum()


def learning_rate_factor(recipe: TrainingRecipe, step: int) -> float:
    """Warm-up, plateau, and a final linear fall: the plateau can be prolonged at any time."""
    rise = (step + 1) / max(1, recipe.optim.warmup_steps)
    left = recipe.optim.max_steps - step
    fall = left / recipe.optim.decay_steps if recipe.optim.decay_steps else 1.0
    return min(1.0, rise, fall)


def _batches(dataset: PatchBatches) -> Iterator[Batch]:
    # One worker process draws masks while the model runs; the cases go to it by fork.
    loader = DataLoader(
        dataset, batch_size=None, num_workers=1, prefetch_factor=8, multiprocessing_context="fork"
    )
    return iter(loader)


class _mean_weights:  # noqa: N801  a context manager reads as a verb
    """Run a block with the running mean of the weights, then put the current ones back."""

    def __init__(self, ema: EMAModel, unet: PaletteUNet) -> None:
        self.ema, self.unet = ema, unet

    def __enter__(self) -> None:
        self.ema.store(self.unet.parameters())
        self.ema.copy_to(self.unet.parameters())
        self.unet.eval()

    def __exit__(self, *_: object) -> None:
        self.ema.restore(self.unet.parameters())
        self.unet.train()


def _log(output: Path, step: int, losses: list[float], started: float, bar: Any) -> None:
    mean = math.fsum(losses) / len(losses)
    line = {"step": step, "loss": round(mean, 5), "seconds": round(time.monotonic() - started, 1)}
    with (output / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    bar.set_postfix(loss=f"{mean:.4f}")
    if bar.disable:
        logger.info("step %d  loss %.4f", step, mean)
