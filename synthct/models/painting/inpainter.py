"""Patches in, painted patches out: fixed-shape batches, one noise stream per sample.

A sample's bits depend on its own seed and on the numerics class (device, dtype, threads, batch
shape, torch version), not on its place in a batch nor on its companions there: every batch has
one fixed shape per patch size, padded with copies of its last patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from synthct.errors import MaskError
from synthct.models.checkpoint import Checkpoint
from synthct.models.layout import TEXT, UNCONDITIONAL
from synthct.models.methods import JUMP_LENGTH, JUMP_N_SAMPLE, Diffusion
from synthct.models.painting.latent import LatentMethod
from synthct.models.painting.method import Method
from synthct.models.painting.palette import PaletteMethod
from synthct.models.painting.repaint import RepaintMethod
from synthct.models.patch import Patch, PatchRules

FloatArray = npt.NDArray[np.float32]
Key = TypeVar("Key")

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
        checkpoint: The networks.
        scheduler: As in a recipe.
        num_inference_steps: Number of denoising steps.
        batch_size: Patches per batch up to 128 pixels; the shape that every batch is padded to.
        dtype: Autocast type of the network; the scheduler always computes in float32.
        guidance_scale: As in diffusers; 1 is without guidance.
        prompts: For a checkpoint that is told by text: what to paint, by the number of the label,
            the first for whatever fits; None where there is nothing to say.
        jump_length: For an unconditional checkpoint, as in a recipe.
        jump_n_sample: Likewise.

    Raises:
        CheckpointError: If the scheduler does not fit the checkpoint's noise schedule, or cannot
            paint in so many steps, or the checkpoint cannot be guided, or a prompt is too long.
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
        prompts: Sequence[str | None] = (),
        jump_length: int = JUMP_LENGTH,
        jump_n_sample: int = JUMP_N_SAMPLE,
    ) -> None:
        self.checkpoint = checkpoint
        self.batch_size = batch_size
        self.dtype = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self.method: Method
        if checkpoint.files.layout == UNCONDITIONAL:
            jumps = (jump_length, jump_n_sample)
            self.method = RepaintMethod(
                checkpoint, scheduler, num_inference_steps, guidance_scale, *jumps
            )
        elif checkpoint.files.layout == TEXT:
            self.method = LatentMethod(
                checkpoint, scheduler, num_inference_steps, guidance_scale, prompts
            )
        else:
            self.method = PaletteMethod(checkpoint, scheduler, num_inference_steps, guidance_scale)

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
        with self._arithmetic():
            out = self.method.paint_batch([j.patch for j in padded], [j.seed for j in padded])
        painted = out.float().cpu().numpy()
        for job, pixels in zip(jobs, painted, strict=False):
            yield job.key, pixels

    def probe(self, size: int) -> None:
        """One pass of the network on an empty patch."""
        with self._arithmetic():
            self.method.probe(size)

    def _arithmetic(self) -> torch.autocast:
        halved = self.dtype == torch.bfloat16
        return torch.autocast(self.method.device.type, torch.bfloat16, halved)


def inpainter_of(checkpoint: Checkpoint, asked: Diffusion, rules: PatchRules) -> Inpainter:
    """A checkpoint as a recipe wants it to paint.

    Args:
        checkpoint: The recipe's.
        asked: The recipe's section ``inpaint``.
        rules: What the checkpoint takes; the labels of patches count as they do.

    Raises:
        CheckpointError: If it cannot paint like that.
    """
    return Inpainter(
        checkpoint,
        scheduler=asked.scheduler,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        batch_size=asked.batch_size,
        dtype=asked.dtype,
        prompts=[asked.prompt_for(label) for label in (None, *rules.labels)],
        jump_length=asked.jump_length or JUMP_LENGTH,
        jump_n_sample=asked.jump_n_sample or JUMP_N_SAMPLE,
    )
