"""Patches in, painted patches out: schedulers, fixed-shape batches, one noise stream per sample.

A sample's bits depend on its own seed and on the numerics class (device, dtype, threads, batch
shape, torch version), not on its place in a batch nor on its companions there: every batch has
one fixed shape per patch size, padded with copies of its last patch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import diffusers
import numpy as np
import numpy.typing as npt
import torch

from synthct.errors import CheckpointError, MaskError
from synthct.models.checkpoint import Checkpoint
from synthct.models.palette import PaletteInpaintPipeline
from synthct.patch import Patch

FloatArray = npt.NDArray[np.float32]
Key = TypeVar("Key")

#: Name in a recipe to the diffusers class and the arguments that make it that scheduler.
#: "trailing" begins at pure noise however few the steps (Lin et al. 2024). The two that stay with
#: "leading" cannot begin there: at the end of a cosine schedule noise exceeds signal 20,000 times,
#: which a second-order step in that ratio multiplies every error by, and float32 cannot resolve.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}),
    "ddim": ("DDIMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}),
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "sde-dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading"}),
    "heun": ("HeunDiscreteScheduler", {"timestep_spacing": "leading"}),
    "deis": ("DEISMultistepScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "timestep_spacing": "trailing"}),
    "lms": ("LMSDiscreteScheduler", {"timestep_spacing": "trailing"}),
}

#: Those that cannot follow a network which predicts the image itself.
NOT_FROM_IMAGES = ("euler-ancestral", "pndm")

#: What makes a noise schedule; a scheduler that cannot follow one of them does not fit.
SCHEDULE = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)

#: A batch holds ``batch_size`` patches up to this side; fewer of larger ones, for equal memory.
FULL_BATCH_PX = 128


@dataclass(frozen=True, eq=False)
class Job(Generic[Key]):
    """One patch to paint.

    Attributes:
        key: Whatever tells the caller which patch this is.
        patch: The patch.
        seed: Seed of its noise.
    """

    key: Key
    patch: Patch
    seed: int


class Inpainter:
    """A checkpoint with a scheduler, a number of steps and a batch shape.

    Args:
        checkpoint: The network.
        scheduler: A name in ``SCHEDULERS``.
        num_inference_steps: Number of denoising steps.
        batch_size: Patches per batch up to 128 pixels; the shape that every batch is padded to.
        dtype: Autocast type of the network; the scheduler always computes in float32.
        guidance_scale: As in diffusers; 1 is without guidance.

    Raises:
        CheckpointError: If the scheduler does not fit the checkpoint's noise schedule, or cannot
            paint in so many steps, or the checkpoint cannot be guided.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        scheduler: str = "dpmsolver++",
        num_inference_steps: int = 20,
        batch_size: int = 4,
        dtype: Literal["float32", "bfloat16"] = "float32",
        guidance_scale: float = 1.0,
    ) -> None:
        if guidance_scale != 1 and checkpoint.unet.null_label is None:
            raise CheckpointError(
                f"checkpoint '{checkpoint.files.name}' was trained without label_dropout and "
                f"cannot be guided; set guidance_scale to 1, not {guidance_scale:g}"
            )
        self.checkpoint = checkpoint
        self.steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.batch_size = batch_size
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.device = next(checkpoint.unet.parameters()).device
        sampler = make_scheduler(scheduler, checkpoint.files.scheduler_config)
        _require_steps(sampler, scheduler, num_inference_steps)
        if checkpoint.unet.trained_steps is not None:
            _require_levels(sampler, scheduler, checkpoint.unet.trained_steps)
        self.pipeline = PaletteInpaintPipeline(checkpoint.unet, sampler)

    def shape_of_batch(self, patch_size: int) -> int:
        """Number of patches of one size in each batch."""
        return max(1, min(self.batch_size, self.batch_size * FULL_BATCH_PX**2 // patch_size**2))

    def paint(self, patches: Sequence[Patch], seeds: Sequence[int]) -> list[FloatArray]:
        """Paint patches of any sizes.

        Args:
            patches: What ``cut_patches`` gave.
            seeds: One per patch.

        Returns:
            One (S, S) array in -1..1 per patch, for ``paste_patches``.

        Raises:
            MaskError: If the network gives anything but finite numbers.
        """
        jobs = [Job(n, p, s) for n, (p, s) in enumerate(zip(patches, seeds, strict=True))]
        painted = dict(self.stream(jobs))
        if not all(np.isfinite(pixels).all() for pixels in painted.values()):
            raise MaskError(
                f"checkpoint {self.checkpoint.files.name} painted values that are not finite; "
                "try dtype float32 or another scheduler"
            )
        return [painted[n] for n in range(len(jobs))]

    def stream(self, jobs: Iterable[Job[Key]]) -> Iterator[tuple[Key, FloatArray]]:
        """Paint jobs as they come; a batch leaves as soon as one patch size has enough of them.

        Which jobs share a batch depends on their order only. A painting holds NaN where the
        network or the scheduler overflowed.
        """
        waiting: dict[tuple[int, float], list[Job[Key]]] = {}
        for job in jobs:
            queue = waiting.setdefault((job.patch.size, job.patch.strength), [])
            queue.append(job)
            if len(queue) == self.shape_of_batch(job.patch.size):
                yield from self._batch(queue)
                queue.clear()
        for queue in waiting.values():
            if queue:
                yield from self._batch(queue)

    def _batch(self, jobs: Sequence[Job[Key]]) -> Iterator[tuple[Key, FloatArray]]:
        full = self.shape_of_batch(jobs[0].patch.size)
        padded = [*jobs, *[jobs[-1]] * (full - len(jobs))]
        patches = [job.patch for job in padded]
        mask = np.stack([p.mask for p in patches])[:, None].astype(np.float32)
        image = np.stack([p.image for p in patches])[:, None]
        with torch.autocast(self.device.type, torch.bfloat16, self.dtype == torch.bfloat16):
            out = self.pipeline(
                image=torch.from_numpy(image).to(self.device),
                mask_image=torch.from_numpy(mask).to(self.device),
                label=torch.tensor([p.label for p in patches], device=self.device),
                spacing_mm=torch.tensor([p.spacing_mm for p in patches]).to(self.device),
                generator=[torch.Generator().manual_seed(job.seed) for job in padded],
                num_inference_steps=self.steps,
                strength=patches[0].strength,
                guidance_scale=self.guidance_scale,
            )
        painted = out[:, 0].float().cpu().numpy()
        for job, pixels in zip(jobs, painted, strict=False):
            yield job.key, pixels


def make_scheduler(name: str, trained_with: Any) -> Any:
    """A diffusers scheduler on the noise schedule that a checkpoint was trained with.

    Args:
        name: A name in ``SCHEDULERS``.
        trained_with: The checkpoint's scheduler config.

    Raises:
        CheckpointError: If the scheduler is unknown or refuses the config.
    """
    if name not in SCHEDULERS:
        raise CheckpointError(f"scheduler '{name}' is unknown; choose {', '.join(SCHEDULERS)}")
    if trained_with.get("prediction_type") == "sample" and name in NOT_FROM_IMAGES:
        raise CheckpointError(
            f"scheduler '{name}' does not fit the checkpoint, which predicts the image itself "
            "(prediction_type sample); choose dpmsolver++ or ddim"
        )
    class_name, arguments = SCHEDULERS[name]
    given = {key: trained_with.get(key) for key in SCHEDULE}
    config = {key: v for key, v in given.items() if v is not None and v is not False}
    try:
        return getattr(diffusers, class_name)(**config, **arguments)
    except (NotImplementedError, TypeError, ValueError) as err:
        raise CheckpointError(f"scheduler '{name}' does not fit the checkpoint: {err}") from err


def _require_steps(sampler: Any, name: str, steps: int) -> None:
    """Make sure that the first step is one at which a sample is mostly noise, as it begins."""
    try:
        sampler.set_timesteps(steps)
    except ValueError as err:
        raise CheckpointError(f"scheduler '{name}' cannot paint in {steps} steps: {err}") from err
    if float(sampler.timesteps[0]) <= sampler.config.num_train_timesteps / 2:
        raise CheckpointError(
            f"scheduler '{name}' cannot paint in num_inference_steps {steps}; "
            "give it more, or choose ddim or dpmsolver++"
        )


def _require_levels(sampler: Any, name: str, trained_steps: int) -> None:
    """Make sure that a checkpoint trained for few steps meets no noise level it never saw."""
    known = trailing_timesteps(sampler.config.num_train_timesteps, trained_steps)
    # Schedulers round the same level up or down by one step of the schedule.
    apart = np.abs(np.asarray(sampler.timesteps, dtype=np.float64)[:, None] - known[None, :])
    if apart.min(axis=1).max() > 1:
        raise CheckpointError(
            f"the checkpoint was trained for {trained_steps} steps and scheduler '{name}' asks for "
            f"other noise levels; set num_inference_steps to {trained_steps} and choose "
            "dpmsolver++ or ddim"
        )


def trailing_timesteps(num_train_timesteps: int, steps: int) -> npt.NDArray[np.int64]:
    """The timesteps (steps,) of a sampler with "trailing" spacing, the noisiest first."""
    spaced = np.arange(num_train_timesteps, 0, -num_train_timesteps / steps)
    return np.round(spaced).astype(np.int64)[:steps] - 1


def pin_numerics(threads: int) -> None:
    """Fix what changes low bits: number of threads, TF32, autotuning, kernel choice."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a GPU is first used
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def numerics_class(inpainter: Inpainter) -> dict[str, Any]:
    """Within one such class a sample's bits are promised to be the same."""
    device = inpainter.device
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "arch": torch.cuda.get_device_name(device) if on_gpu else _cpu_arch(),
        "dtype": str(inpainter.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_size": inpainter.batch_size,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "diffusers": diffusers.__version__,
    }


def _cpu_arch() -> str:
    """Instruction set and, where torch knows it, the processor: kernels are chosen by both."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch
    name = known.get("cpu_name")
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{isa}, {name}" if name else isa
