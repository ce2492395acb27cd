"""Training of the small U-Net, 2D or 3D, and its predictions.

A stack of slices is all that either sees; the patches of the 2D network have one slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthct.seeds import derive_seed, generator
from synthct.sources import CaseEntry
from synthct.studies.downstream.network import Unet
from synthct.studies.downstream.network_3d import Unet3d, levels_of
from synthct.studies.downstream.recipe import Study, Trainer
from synthct.studies.downstream.slices import Stack, resample, size_of, write_stack
from synthct.volume import Spacing
from synthct.volume.views import IGNORE

#: Steps over which the learning rate rises.
_WARMUP = 20
#: Slices that are predicted at once.
_SLICES = 8
#: Augmentation: greatest rotation, range of zoom, of contrast and of brightness.
_ROTATE_DEG, _ZOOM, _CONTRAST, _SHIFT = 15.0, (0.85, 1.2), 0.1, 0.1


class SmallUnet:
    """The U-Nets of ``network.py`` and ``network_3d.py`` as a study's; see ``SegmenterKind``.

    Args:
        study: The study.
        device: As torch names it.
    """

    modules = (__name__,)

    def __init__(self, study: Study, device: str) -> None:
        self._trainer, self._classes = study.trainer, len(study.classes) + 1
        self._device = device

    @property
    def facts(self) -> dict[str, Any]:
        """As in ``SegmenterKind``."""
        return {"network": "unet", **self._trainer.model_dump(mode="json")}

    def keep(
        self,
        folder: Path,
        name: str,
        hu: npt.NDArray[np.int16],
        classes: npt.NDArray[np.uint8],
        entry: CaseEntry,
        *,
        is_real: bool,
    ) -> Stack:
        """As in ``SegmenterKind``."""
        return write_stack(
            folder, name, hu, classes, entry.spacing_mm, self._trainer.spacing_mm,
            is_real=is_real, slice_mm=self._trainer.slice_mm,
        )  # fmt: skip

    def probabilities(
        self,
        kept: Sequence[Stack],
        seed: int,
        test: Callable[[], Iterator[tuple[CaseEntry, npt.NDArray[np.int16]]]],
        folder: Path,
        on_step: Callable[[], object],
    ) -> Iterator[npt.NDArray[np.float32]]:
        """As in ``SegmenterKind``."""
        del folder
        net = train(kept, self._classes, self._trainer, seed, device=self._device, on_step=on_step)
        for entry, hu in test():
            yield predict(net, hu, entry.spacing_mm, self._trainer, self._device)


def train(
    stacks: Sequence[Stack],
    classes: int,
    trainer: Trainer,
    seed: int,
    *,
    device: str = "cpu",
    on_step: Callable[[], object] = lambda: None,
) -> nn.Module:
    """Train a segmenter; the same arguments give the same weights on one machine.

    Args:
        stacks: The training scans, each as likely as another; for patches that are centred on a
            lesion, each that has one.
        classes: Number of classes with the background; the lesion is the last one.
        trainer: The settings.
        seed: Of weights, patches and augmentation.
        device: As torch names it.
        on_step: Called after each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = _network(trainer, classes).to(device)
    rng = generator(seed, "patches")

    def loss() -> torch.Tensor:
        image, target = (t.to(device) for t in _batch(stacks, classes, trainer, rng))
        return _loss(net(image), target)

    fit(net, trainer, loss, on_step)
    return net.eval()


def _network(trainer: Trainer, classes: int) -> nn.Module:
    """The network, with its first weights."""
    if trainer.slice_mm is None:
        return Unet(trainer.channels, classes)
    levels = levels_of(
        len(trainer.channels), trainer.spacing_mm, trainer.slice_mm, trainer.patch_slices
    )
    return Unet3d(trainer.channels, classes, levels)


def predict(
    net: nn.Module,
    hu: npt.NDArray[np.int16],
    spacing_mm: Spacing,
    trainer: Trainer,
    device: str = "cpu",
) -> npt.NDArray[np.float32]:
    """Probability of each class (C, I, J, K) in a scan (I, J, K)."""
    size = size_of(hu.shape, spacing_mm, trainer.spacing_mm, trainer.slice_mm)
    stack = scaled(resample(hu.transpose(2, 0, 1), size, linear=True), trainer)
    given = torch.from_numpy(np.ascontiguousarray(stack))
    with torch.inference_mode():
        made = _slices if trainer.slice_mm is None else _slabs
        found = made(net, given, hu.shape, trainer, device)
    return np.ascontiguousarray(found.numpy().transpose(0, 2, 3, 1))


def _slices(
    net: nn.Module, stack: Tensor, shape: Sequence[int], trainer: Trainer, device: str
) -> Tensor:
    """Probabilities (C, K, I, J) of a scan of ``shape`` (I, J, K), some slices at once."""
    parts = []
    for image in torch.split(_padded(stack, trainer), _SLICES):
        scores = net(image[:, None].to(device))
        scores = scores[..., : stack.shape[1], : stack.shape[2]].softmax(1)
        if tuple(shape[:2]) != stack.shape[1:]:
            scores = functional.interpolate(scores, tuple(shape[:2]), mode="bilinear")
        parts.append(scores.float().cpu())
    return torch.cat(parts).movedim(1, 0)


def _slabs(
    net: nn.Module, stack: Tensor, shape: Sequence[int], trainer: Trainer, device: str
) -> Tensor:
    """The same by slabs of whole slices, as many as a patch has, which overlap by half.

    A slab counts most in its middle, where the network sees what lies around.
    """
    slices, rows, columns = stack.shape
    thick = trainer.patch_slices
    padded = _padded(stack, trainer, thick)
    last = len(padded) - thick
    weight = 1 - (2 * (torch.arange(thick) + 0.5) / thick - 1).abs()
    total, sums = torch.zeros(()), torch.zeros(len(padded))
    for first in sorted({*range(0, last, thick // 2), last}):
        slab = slice(first, first + thick)
        scores = net(padded[None, None, slab].to(device))[0, ..., :rows, :columns]
        if not total.ndim:
            total = torch.zeros(len(scores), len(padded), rows, columns)
        total[:, slab] += scores.softmax(0).float().cpu() * weight[:, None, None]
        sums[slab] += weight
    total = (total / sums[:, None, None])[:, :slices]
    wanted = shape[2], *shape[:2]
    if wanted != stack.shape:
        total = functional.interpolate(total[None], wanted, mode="trilinear")[0]
    return total


def _padded(stack: Tensor, trainer: Trainer, slices: int = 0) -> Tensor:
    """A stack filled up for pooling in plane, and to a number of slices at least."""
    multiple = 2 ** (len(trainer.channels) - 1)
    rows, columns = (-n % multiple for n in stack.shape[1:])
    size = (0, columns, 0, rows, 0, max(0, slices - len(stack)))
    return functional.pad(stack, size, value=-1.0)


def fit(
    net: nn.Module,
    trainer: Trainer,
    loss: Callable[[], torch.Tensor],
    on_step: Callable[[], object],
) -> None:
    """Train a network by AdamW with a warmup and half a cosine; ``loss`` draws a batch."""
    optimizer = torch.optim.AdamW(net.parameters(), trainer.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _rate(n, trainer.steps))
    for _ in range(trainer.steps):
        error = loss()
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        on_step()


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / _WARMUP)
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def _batch(
    stacks: Sequence[Stack], classes: int, trainer: Trainer, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Patches, scaled and augmented, and their classes.

    (N, 1, P, P) and (N, P, P) in 2D; (N, 1, S, P, P) and (N, S, P, P) for patches of S slices.
    """
    cut = [_patch(stacks, classes, trainer, rng) for _ in range(trainer.batch_size)]
    hu = torch.from_numpy(scaled(np.stack([one for one, _ in cut]), trainer))
    target = torch.from_numpy(np.stack([one for _, one in cut]).astype(np.float32))
    hu, moved = augmented(hu, target, rng)
    assert moved is not None, "moved as the pictures are"
    if trainer.slice_mm is None:
        return hu, moved[:, 0].long()
    return hu[:, None], moved.long()


def augmented(
    hu: Tensor, target: Tensor | None, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """Pictures turned, zoomed, mirrored and of other contrast, and their classes.

    (N, S, P, P); all slices of a patch are moved alike.
    """
    grid = functional.affine_grid(_motions(len(hu), rng), list(hu.shape), align_corners=False)
    hu = functional.grid_sample(hu, grid, padding_mode="border", align_corners=False)
    if target is not None:
        target = functional.grid_sample(
            target, grid, mode="nearest", padding_mode="border", align_corners=False
        )
    change = torch.from_numpy(rng.uniform(-1, 1, (2, len(hu), 1, 1, 1)).astype(np.float32))
    return hu * (1 + _CONTRAST * change[0]) + _SHIFT * change[1], target


def _patch(
    stacks: Sequence[Stack], classes: int, trainer: Trainer, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """A patch (S, P, P): around a lesion, around another structure, or anywhere.

    As many are around lesions whether few of the scans have some or all: arms with painted lesions
    would else be given several times as many.
    """
    ill = [one for one in stacks if len(one.places) == classes]
    is_ill = bool(ill) and rng.random() < trainer.lesion_share
    chosen = ill if is_ill else stacks
    stack = chosen[int(rng.integers(len(chosen)))]
    places = stack.places[-1] if is_ill else stack.places[0][:0]
    if not is_ill:
        others = [some for some in stack.places[1 : classes - 1] if len(some)]
        number = int(rng.integers(len(others) + 1))
        places = others[number] if number < len(others) else places
    if len(places):
        centre = places[int(rng.integers(len(places)))].tolist()
    else:
        centre = [int(rng.integers(n)) for n in stack.hu.shape]
    size = (trainer.patch_slices, trainer.patch_px, trainer.patch_px)
    halves = (n // 2 for n in size)
    place = [
        int(x + rng.integers(-h // 2, h // 2 + 1)) for x, h in zip(centre, halves, strict=True)
    ]
    return _cut(stack.hu, place, size, -1024), _cut(stack.classes, place, size, 0)


def _cut(
    stack: npt.NDArray[Any], place: Sequence[int], size: Sequence[int], fill: int
) -> npt.NDArray[Any]:
    """A block around a voxel, within the stack as far as it can be, filled up beyond it."""
    starts = (
        min(max(x - n // 2, 0), max(length - n, 0))
        for x, n, length in zip(place, size, stack.shape, strict=True)
    )
    part = stack[tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))]
    block = np.full(size, fill, stack.dtype)
    block[tuple(slice(n) for n in part.shape)] = part
    return block


def _motions(number: int, rng: np.random.Generator) -> Tensor:
    """Random turns, zooms and reflections of left and right (N, 2, 3)."""
    angle = np.radians(rng.uniform(-_ROTATE_DEG, _ROTATE_DEG, number))
    zoom = np.exp(rng.uniform(math.log(_ZOOM[0]), math.log(_ZOOM[1]), number))
    flip = np.where(rng.random(number) < 0.5, -1.0, 1.0)
    cos, sin, none = np.cos(angle) / zoom, np.sin(angle) / zoom, np.zeros(number)
    # i, which runs from left to right, is the second coordinate of a grid
    rows = [[cos, -sin * flip, none], [sin, cos * flip, none]]
    return torch.from_numpy(np.array(rows, np.float32).transpose(2, 0, 1))


def scaled(hu: npt.NDArray[Any], trainer: Trainer) -> npt.NDArray[np.float32]:
    """HU as the networks see them: the trainer's window as -1..1, clipped."""
    low, high = trainer.window_hu
    scaled = (np.clip(hu, low, high) - low) * (2 / (high - low)) - 1
    return np.asarray(scaled, np.float32)


def _loss(scores: Tensor, target: Tensor) -> Tensor:
    """Cross entropy and soft Dice over the batch, without what nobody knows."""
    entropy = functional.cross_entropy(scores, target, ignore_index=IGNORE)
    known = (target != IGNORE)[:, None]
    truth = functional.one_hot(target.where(known[:, 0], 0), scores.shape[1]).movedim(-1, 1)
    predicted, truth = scores.softmax(1) * known, truth * known
    each = (0, *range(2, scores.ndim))
    both = (predicted * truth).sum(each)[1:]
    sums = (predicted + truth).sum(each)[1:]
    return entropy + (1 - (2 * both + 1) / (sums + 1)).mean()
