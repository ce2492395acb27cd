"""The training loop: one network, loss inside the mask, on Accelerate."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from synthct.dataset.files import make_folder
from synthct.errors import RecipeError, ResourceError
from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet, num_parameters
from synthct.patch import PatchRules
from synthct.seeds import derive_seed
from synthct.sources import index_sources
from synthct.training.checkpoint import Progress, latest_state, load_state, save_state
from synthct.training.data import Batch, PatchBatches, draw_batches, load_training_set
from synthct.training.log import Log
from synthct.training.recipe import TrainingRecipe
from synthct.training.release import write_checkpoint
from synthct.training.sheet import write_sheet

logger = logging.getLogger(__name__)


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
        PolicyError: If the recipe states a looser licence than its sources allow; nothing is read.
        RecipeError, SourceError, MaskError: If there is nothing to train on.
        CheckpointError: If the output holds states of another network.
        ResourceError: If the output cannot be written.
    """
    recipe.resolved_licence()  # a looser one than the sources allow ends it here
    accelerator = _accelerator(recipe, device)
    make_folder(output)
    # Phantoms and indexes are made once and then found in the cache.
    with accelerator.main_process_first():
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
        clip_sample=False,
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
    batches = draw_batches(PatchBatches(recipe, data, rules, *stream))
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "train-noise", *stream))
    log = None
    if accelerator.is_main_process:
        with _writing(output):
            log = Log(output / "log.jsonl", recipe, progress.step)
    started, out_of_time = time.monotonic(), False
    while progress.step < recipe.optim.max_steps and not out_of_time:
        batch = {name: value.to(accelerator.device) for name, value in next(batches).items()}
        for group in optimizer.param_groups:
            group["lr"] = recipe.optim.learning_rate * learning_rate_factor(recipe, progress.step)
        with accelerator.autocast():
            loss = masked_loss(
                net,
                noise,
                batch,
                generator,
                recipe.noise.loss_weight_cap,
                recipe.noise.noise_bias,
            )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(net.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
        progress.step += 1
        if max_seconds is not None:
            # All processes stop at one step, or the others would wait for the first to stop.
            if time.monotonic() - started > max_seconds:
                accelerator.set_trigger()
            out_of_time = accelerator.check_trigger()
        if log is None:
            continue
        with _writing(output):
            log.add(progress.step, float(loss.detach()))
            if progress.step % recipe.save_every == 0:
                save_state(output, progress, unet, ema, optimizer)
            if progress.step % recipe.sample_every == 0:
                with _mean_weights(ema, unet):
                    write_sheet(unet, noise, batch, output / "samples" / f"{progress.step:06d}.png")

    folder = output / "checkpoint"
    if log is not None:
        with _writing(output):
            log.close()
            save_state(output, progress, unet, ema, optimizer)
            with _mean_weights(ema, unet):
                pipeline = PaletteInpaintPipeline(unet, noise)
                write_checkpoint(pipeline, folder, recipe, data.facts, progress.step)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return folder


def build_unet(recipe: TrainingRecipe) -> PaletteUNet:
    """The network of a training recipe, with fresh weights."""
    fields: dict[str, Any] = recipe.model.model_dump(exclude={"kind"})
    return PaletteUNet(labels=recipe.labels, **fields)


def masked_loss(
    net: torch.nn.Module,
    noise: DDPMScheduler,
    batch: Batch,
    generator: torch.Generator,
    weight_cap: float | None = None,
    noise_bias: float = 1.0,
) -> Tensor:
    """Mean squared error of the prediction over the masked pixels of a batch.

    The known region goes in clean at every noise level (Palette, section 3), so the network is
    never asked to say anything about it and is not scored on it either.
    """
    unet: Any = net.module if isinstance(net, DistributedDataParallel) else net
    mask = batch["mask"]
    masked = unet.surroundings(batch["image"], mask)
    image = unet.to_diffused(batch["image"], masked)
    eps = torch.randn(image.shape, generator=generator).to(image.device)
    steps = draw_steps(noise, image.shape[0], generator, noise_bias).to(image.device)
    noisy = torch.where(mask > 0.5, noise.add_noise(image, eps, steps), image)
    predicted = net(noisy, steps, masked, mask, batch["label"], batch["spacing_mm"])
    if noise.config.prediction_type == "v_prediction":
        target = noise.get_velocity(image, eps, steps)
    else:
        target = eps
    error = (predicted.float() - target) ** 2 * mask
    if weight_cap is not None:
        error = error * snr_weight(noise, steps, weight_cap)[:, None, None, None]
    return error.sum() / mask.sum()


def draw_steps(
    noise: DDPMScheduler, count: int, generator: torch.Generator, noise_bias: float
) -> Tensor:
    """Timesteps (B,): evenly for a bias of 1, the noisiest more often for more.

    With a bias of 2 a third of the steps is among the noisiest tenth, where a painting gets its
    mean value and its large structures, and nothing but the surroundings tells what they are.
    """
    even = torch.rand(count, generator=generator)
    last = noise.config.num_train_timesteps - 1
    return torch.round(last * (1 - even**noise_bias)).long()


def snr_weight(noise: DDPMScheduler, steps: Tensor, cap: float) -> Tensor:
    """Weight (B,) that keeps nearly clean samples from drowning the others.

    In the nearly clean steps what is left to predict is scanner noise, which nobody can. With
    velocity prediction the plain loss weighs the error of the image by SNR + 1; this caps that at
    ``cap``, in the manner of min-SNR (Hang et al. 2023), but never reaches 0 at pure noise, where
    inpainting has its surroundings to go by.
    """
    clean = noise.alphas_cumprod.to(steps.device)[steps]
    snr_plus_one = 1 / (1 - clean)
    return torch.clamp(cap / snr_plus_one, max=1.0)


def learning_rate_factor(recipe: TrainingRecipe, step: int) -> float:
    """Warm-up, plateau, and a final linear fall: the plateau can be prolonged at any time."""
    rise = (step + 1) / max(1, recipe.optim.warmup_steps)
    left = recipe.optim.max_steps - step
    fall = left / recipe.optim.decay_steps if recipe.optim.decay_steps else 1.0
    return min(1.0, rise, fall)


def _accelerator(recipe: TrainingRecipe, device: str | None) -> Accelerator:
    # Accelerate joins the processes of a CPU launch only if it is told that this is one.
    on_cpu = device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if on_cpu and recipe.optim.mixed_precision == "fp16":
        raise RecipeError(f"{recipe.name}: optim.mixed_precision: fp16 needs a GPU; choose bf16")
    return Accelerator(mixed_precision=recipe.optim.mixed_precision, cpu=on_cpu)


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


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Turn what a disk can do to a run into an error that says so."""
    try:
        yield
    except (OSError, SafetensorError) as err:
        raise ResourceError(
            f"{output}: cannot be written ({err}); mend it and run the same command again, "
            "finished states are kept"
        ) from err
