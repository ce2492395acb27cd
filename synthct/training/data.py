"""Batches of training patches, reproducible by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from synthct import seeds
from synthct.training.recipe import TrainingRecipe
from synthct.training.rows import CachedPatch, PatchCache

Batch = dict[str, Tensor]
Rows = npt.NDArray[np.int64]

#: ``batch_size`` counts patches of this side; of other sizes, as many as have as many pixels.
FULL_BATCH_PX = 128


class PatchBatches(Dataset[Batch]):
    """All batches of one process, each of a single patch size.

    A batch depends only on the recipe's seed, its number and the process, so training can resume
    at any step. An epoch has every patch once, as far as whole batches of its size allow; all
    processes have the same patch size at a time.

    Args:
        recipe: Batch size, augmentation and seed.
        patches: The cached patches.
        process: Index of this process.
        processes: Number of processes.
    """

    def __init__(
        self, recipe: TrainingRecipe, patches: PatchCache, process: int = 0, processes: int = 1
    ) -> None:
        self.recipe, self.patches = recipe, patches
        self.process, self.processes = process, processes
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, number: int) -> Batch:
        epoch, place = divmod(number, self.batches_per_epoch)
        rows = self._epoch(epoch)[place]
        own_rows = rows.reshape(self.processes, -1)[self.process]
        rng = seeds.generator(self.recipe.seed, "batch", str(number), str(self.process))
        return collate([self._augmented(self.patches.patch(int(row)), rng) for row in own_rows])

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return sum(self._count(size) for size in self.patches.rows)

    def patches_per_batch(self, size: int) -> int:
        """Patches of one size that have as many voxels as ``batch_size`` patches of 128 pixels."""
        voxels = size**2 * self.patches.depth
        return max(1, round(self.recipe.optim.batch_size * FULL_BATCH_PX**2 / voxels))

    def _count(self, size: int) -> int:
        return max(1, len(self.patches.rows[size]) // self._global_batch_size(size))

    def _global_batch_size(self, size: int) -> int:
        return self.patches_per_batch(size) * self.processes

    def _shuffled(self, epoch: int) -> list[Rows]:
        """The rows of every batch of an epoch, for all processes together."""
        rng = seeds.generator(self.recipe.seed, "epoch", str(epoch))
        batches: list[Rows] = []
        for size, rows in sorted(self.patches.rows.items()):
            # Where a size has less than one batch, its patches are repeated.
            length = self._count(size) * self._global_batch_size(size)
            batches += np.split(np.resize(rng.permutation(rows), length), self._count(size))
        return [batches[n] for n in rng.permutation(len(batches))]

    def _augmented(self, patch: CachedPatch, rng: np.random.Generator) -> CachedPatch:
        """Augment a patch: join another mask, flip left and right, drop the label."""
        flip, join, which, drop = rng.random(4)
        data = self.recipe.data
        if patch.label == 0 and join < data.join_masks:
            rows = self.patches.rows[len(patch.image)]
            other = self.patches.patch(int(rows[int(which * len(rows))]))
            patch = replace(patch, mask=patch.mask | other.mask)
            if patch.neighbours is not None:  # there the joined mask is not painted yet
                hidden = np.where(other.mask, np.float32(np.nan), patch.neighbours)
                patch = replace(patch, neighbours=hidden)
        if patch.target is not None:
            patch = replace(patch, image=np.where(patch.mask, patch.target, patch.image))
        if patch.flips and flip < data.flip:  # left and right: the first axis of an axial slice
            patch = replace(patch, image=patch.image[::-1], mask=patch.mask[::-1])
            if patch.neighbours is not None:
                patch = replace(patch, neighbours=patch.neighbours[:, ::-1])
        if drop < data.label_dropout:
            patch = replace(patch, label=len(self.recipe.labels) + 1)  # ``null_label``
        return patch


def batches_from(batches: PatchBatches, first: int, workers: int) -> Iterator[Batch]:
    """Endless batches from number ``first`` on, read ahead by worker processes."""
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=count(first),
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
    )


def collate(patches: Sequence[CachedPatch]) -> Batch:
    """Stack patches of one size.

    Image and mask are (B, 1, S, S) or (B, 1, S, S, D), label (B,), spacing (B, 2) or (B, 3);
    neighbours (B, 2, S, S) are there if any patch has them.
    """
    nothing = np.full((2, *patches[0].image.shape), np.nan, dtype=np.float32)
    adjacent = [nothing if p.neighbours is None else p.neighbours for p in patches]
    given = any(p.neighbours is not None for p in patches)
    return {
        **({"neighbours": torch.from_numpy(np.stack(adjacent))} if given else {}),
        "image": torch.from_numpy(np.stack([p.image for p in patches])[:, None]),
        "mask": torch.from_numpy(np.stack([p.mask for p in patches])[:, None].astype(np.float32)),
        "label": torch.tensor([p.label for p in patches], dtype=torch.int64),
        "spacing_mm": torch.tensor([p.spacing_mm for p in patches], dtype=torch.float32),
    }
