"""A small classifier of crops: is there a lesion?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from synthct.seeds import derive_seed, generator
from synthct.studies.downstream.crops import Crop
from synthct.studies.downstream.network import Classifier
from synthct.studies.downstream.recipe import Trainer
from synthct.studies.downstream.segmenter import augmented, fit, scaled

#: Crops that are scored at once.
_BATCH = 64


def train_classifier(
    ill: Sequence[Crop],
    well: Sequence[Crop],
    trainer: Trainer,
    seed: int,
    *,
    device: str = "cpu",
    on_step: Callable[[], object] = lambda: None,
) -> Classifier:
    """Train on as many crops with a lesion as without in each step.

    Args:
        ill: With a lesion.
        well: Without.
        trainer: Steps, batch size, channels, window and learning rate.
        seed: Of weights, crops and augmentation.
        device: As torch names it.
        on_step: Called after each step.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        net = Classifier(trainer.channels).to(device)
    rng = generator(seed, "crops")
    half = max(1, trainer.batch_size // 2)
    target = torch.tensor([1.0] * half + [0.0] * half, device=device)

    def loss() -> torch.Tensor:
        chosen = [some[int(rng.integers(len(some)))] for some in (ill, well) for _ in range(half)]
        hu = torch.from_numpy(scaled(np.stack([one.hu for one in chosen]), trainer))[:, None]
        image, _ = augmented(hu, None, rng)
        return functional.binary_cross_entropy_with_logits(net(image.to(device)), target)

    fit(net, trainer, loss, on_step)
    return net.eval()


def scores(
    net: Classifier, crops: Sequence[Crop], trainer: Trainer, device: str = "cpu"
) -> npt.NDArray[np.float64]:
    """How sure a classifier is of a lesion in each crop (N,), as log-odds."""
    parts = [np.zeros(0)]
    with torch.inference_mode():
        for first in range(0, len(crops), _BATCH):
            hu = np.stack([one.hu for one in crops[first : first + _BATCH]])
            image = torch.from_numpy(scaled(hu, trainer))[:, None].to(device)
            parts.append(net(image).double().cpu().numpy())
    return np.concatenate(parts)
