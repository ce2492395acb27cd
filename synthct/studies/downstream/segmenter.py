"""Training of the small U-Net, and its predictions."""

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
from synthct.studies.downstream.recipe import Study, Trainer
from synthct.studies.downstream.slices import Stack, pixels, resize, write_stack
from synthct.volume import Spacing
from synthct.volume.views import IGNORE

#: Steps over which the learning rate rises.
_WARMUP = 20
#: Slices that are predicted at once.
_SLICES = 8
#: Augmentation: greatest rotation, range of zoom, of contrast and of brightness.
_ROTATE_DEG, _ZOOM, _CONTRAST, _SHIFT = 15.0, (0.85, 1.2), 0.1, 0.1


class SmallUnet:
    """The U-Net of ``network.py`` as a study's segmenter; see ``SegmenterKind``.

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
        pixel_mm = self._trainer.spacing_mm
        return write_stack(folder, name, hu, classes, entry.spacing_mm, pixel_mm, is_real=is_real)

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
) -> Unet:
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
        net = Unet(trainer.channels, classes).to(device)
    rng = generator(seed, "patches")

    def loss() -> torch.Tensor:
        image, target = (t.to(device) for t in _batch(stacks, classes, trainer, rng))
        return _loss(net(image), target)

    fit(net, trainer, loss, on_step)
    return net.eval()


def predict(
    net: Unet, hu: npt.NDArray[np.int16], spacing_mm: Spacing, trainer: Trainer, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """Probability of each class (C, I, J, K) in a scan (I, J, K)."""
    size = pixels(hu.shape, spacing_mm, trainer.spacing_mm)
    stack = scaled(resize(hu.transpose(2, 0, 1), size, linear=True), trainer)
    multiple = 2 ** (len(trainer.channels) - 1)
    rows, columns = (-n % multiple for n in size)
    parts = []
    with torch.inference_mode():
        for first in range(0, len(stack), _SLICES):
            image = torch.from_numpy(stack[first : first + _SLICES])[:, None].to(device)
            image = functional.pad(image, (0, columns, 0, rows), value=-1.0)
            scores = net(image)[..., : size[0], : size[1]].softmax(1)
            if hu.shape[:2] != size:
                scores = functional.interpolate(scores, hu.shape[:2], mode="bilinear")
            parts.append(scores.float().cpu().numpy())
    return np.ascontiguousarray(np.concatenate(parts).transpose(1, 2, 3, 0))


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
    """Patches (N, 1, P, P), scaled and augmented, and their classes (N, P, P)."""
    cut = [_patch(stacks, classes, trainer, rng) for _ in range(trainer.batch_size)]
    hu = torch.from_numpy(scaled(np.stack([one for one, _ in cut]), trainer))[:, None]
    target = torch.from_numpy(np.stack([one for _, one in cut]).astype(np.float32))[:, None]
    hu, moved = augmented(hu, target, rng)
    assert moved is not None, "moved as the pictures are"
    return hu, moved[:, 0].long()


def augmented(
    hu: Tensor, target: Tensor | None, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """Pictures (N, 1, P, P) turned, zoomed, mirrored and of other contrast, and their classes."""
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
    """A square of a slice: around a lesion, around another structure, or anywhere.

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
        k, i, j = places[int(rng.integers(len(places)))].tolist()
    else:
        k, i, j = (int(rng.integers(n)) for n in stack.hu.shape)
    half = trainer.patch_px // 2
    i, j = (int(x + rng.integers(-half // 2, half // 2 + 1)) for x in (i, j))
    return (
        _square(stack.hu[k], i, j, trainer.patch_px, -1024),
        _square(stack.classes[k], i, j, trainer.patch_px, 0),
    )


def _square(plane: npt.NDArray[Any], i: int, j: int, edge: int, fill: int) -> npt.NDArray[Any]:
    """A square around a pixel, within the plane as far as it can be, filled up beyond it."""
    rows, columns = plane.shape
    top = min(max(i - edge // 2, 0), max(rows - edge, 0))
    left = min(max(j - edge // 2, 0), max(columns - edge, 0))
    part = plane[top : top + edge, left : left + edge]
    square = np.full((edge, edge), fill, plane.dtype)
    square[: part.shape[0], : part.shape[1]] = part
    return square


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
    both = (predicted * truth).sum((0, 2, 3))[1:]
    sums = (predicted + truth).sum((0, 2, 3))[1:]
    return entropy + (1 - (2 * both + 1) / (sums + 1)).mean()
