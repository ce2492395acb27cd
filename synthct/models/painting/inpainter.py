"""Patches in, painted patches out: fixed-shape batches, one noise stream per sample.

A sample's bits depend on its own seed and on the numerics class (device, dtype, threads, batch
shape, torch version), not on its place in a batch nor on its companions there: every batch has
one fixed shape per patch size, padded with copies of its last patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
    """A loaded checkpoint with the settings it paints with.

    Args:
        checkpoint: The networks.
        inpaint: The recipe's section: scheduler, steps, batch shape, arithmetic and so on.
        labels: The labels that it provides, in the order in which patches number them.

    Raises:
        CheckpointError: If the scheduler does not fit the checkpoint's noise schedule, or cannot
            paint in so many steps, or the checkpoint cannot be guided, or a prompt is too long.
    """

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, labels: Sequence[str] = ()
    ) -> None:
        self.checkpoint, self.batch_size = checkpoint, inpaint.batch_size
        # The scheduler always computes in float32.
        self.dtype = torch.bfloat16 if inpaint.dtype == "bfloat16" else torch.float32
        prompts = [inpaint.prompt_for(label) for label in (None, *labels)]
        self.network = checkpoint.files.network(checkpoint, inpaint, prompts)

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
        with torch.no_grad(), self._arithmetic():
            out = self.network.paint_batch([j.patch for j in padded], [j.seed for j in padded])
        painted = out.float().cpu().numpy()
        for job, pixels in zip(jobs, painted, strict=False):
            yield job.key, pixels

    def probe(self, size: int) -> None:
        """One pass of the network on an empty patch."""
        with torch.no_grad(), self._arithmetic():
            self.network.probe(size)

    def _arithmetic(self) -> torch.autocast:
        halved = self.dtype == torch.bfloat16
        return torch.autocast(self.network.device.type, torch.bfloat16, halved)
