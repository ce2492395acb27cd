"""Painting patches in batches of fixed shape, with one noise stream per sample.

A sample's bits depend on its seed and on the numerics class (device, dtype, threads, batch shape,
torch version), not on the other samples of its batch: batches have one shape per patch size and are
padded with copies of their last patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from synthct.errors import MaskError
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint
from synthct.models.patch import Patch

FloatArray = npt.NDArray[np.float32]
Key = TypeVar("Key")

#: A batch has ``batch_size`` patches of up to this side, and fewer larger ones.
FULL_BATCH_PX = 128


@dataclass(frozen=True, eq=False)
class Job(Generic[Key]):
    """One patch to paint.

    Attributes:
        key: The caller's identifier of the patch.
        patch: The patch.
        seed: Seed of its noise.
        is_done: Whether its paint is known already; it only keeps its place in its batch.
    """

    key: Key
    patch: Patch
    seed: int
    is_done: bool = False


class Inpainter:
    """Paints patches with a loaded checkpoint.

    Args:
        checkpoint: The networks.
        inpaint: The recipe's section: scheduler, steps, batch size, arithmetic and so on.
        labels: The labels that it provides, in the order of their indices.

    Raises:
        CheckpointError: If the checkpoint cannot paint with the scheduler, the number of steps, the
            guidance or a prompt.
    """

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, labels: Sequence[str] = ()
    ) -> None:
        self.checkpoint, self.batch_size = checkpoint, inpaint.batch_size
        # The scheduler always computes in float32.
        self.dtype = torch.bfloat16 if inpaint.dtype == "bfloat16" else torch.float32
        prompts = [inpaint.prompt_for(label) for label in (None, *labels)]
        self.network = checkpoint.files.network(checkpoint, inpaint, prompts)

    def shape_of_batch(self, sides: tuple[int, ...]) -> int:
        """Number of patches of one size in each batch; a box of a scan is painted alone."""
        if len(sides) > 2:
            return 1
        return max(1, min(self.batch_size, self.batch_size * FULL_BATCH_PX**2 // math.prod(sides)))

    def paint(
        self,
        patches: Sequence[Patch],
        seeds: Sequence[int],
        update: Callable[[], object] = lambda: None,
    ) -> list[FloatArray]:
        """Paint patches of any sizes.

        Args:
            patches: From ``cut_patches``.
            seeds: One per patch.
            update: Called for each patch that is painted.

        Returns:
            One array in -1..1 per patch, of its shape, for ``paste_patches``.

        Raises:
            MaskError: If a painted value is not finite.
        """
        painted = self.paint_all(patches, seeds, update)
        if not all(np.isfinite(pixels).all() for pixels in painted):
            raise MaskError(
                f"checkpoint {self.checkpoint.files.name} painted values that are not finite; "
                "try dtype float32 or another scheduler"
            )
        return painted

    def paint_all(
        self,
        patches: Sequence[Patch],
        seeds: Sequence[int],
        update: Callable[[], object] = lambda: None,
    ) -> list[FloatArray]:
        """As ``paint``, but with NaN where the network or the scheduler overflowed."""
        jobs = [Job(n, p, s) for n, (p, s) in enumerate(zip(patches, seeds, strict=True))]
        painted = {}
        for number, pixels in self.stream(jobs):
            painted[number] = pixels
            update()
        return [painted[n] for n in range(len(jobs))]

    def stream(self, jobs: Iterable[Job[Key]]) -> Iterator[tuple[Key, FloatArray]]:
        """Paint jobs as they come, as soon as there is a full batch of one patch size.

        Batches depend on the order of the jobs only; those of which nothing is left to do are not
        painted, and of the others only what is not done is given. A painting is NaN where the
        network or the scheduler overflowed.
        """
        waiting: dict[tuple[tuple[int, ...], float, float], list[Job[Key]]] = {}
        for job in jobs:
            patch = job.patch
            alike = patch.mask.shape, patch.strength, patch.guidance_scale
            queue = waiting.setdefault(alike, [])
            queue.append(job)
            if len(queue) == self.shape_of_batch(patch.mask.shape):
                yield from self._batch(queue)
                queue.clear()
        for queue in waiting.values():
            if queue:
                yield from self._batch(queue)

    def _batch(self, jobs: Sequence[Job[Key]]) -> Iterator[tuple[Key, FloatArray]]:
        if all(job.is_done for job in jobs):
            return
        full = self.shape_of_batch(jobs[0].patch.mask.shape)
        padded = [*jobs, *[jobs[-1]] * (full - len(jobs))]
        with torch.no_grad(), self._arithmetic():
            out = self.network.paint_batch([j.patch for j in padded], [j.seed for j in padded])
        painted = out.float().cpu().numpy()
        for job, pixels in zip(jobs, painted, strict=False):
            if not job.is_done:
                yield job.key, pixels

    def probe(self, size: int) -> None:
        """One pass of the network on an empty patch."""
        with torch.no_grad(), self._arithmetic():
            self.network.probe(size)

    def _arithmetic(self) -> torch.autocast:
        halved = self.dtype == torch.bfloat16
        return torch.autocast(self.network.device.type, torch.bfloat16, halved)
