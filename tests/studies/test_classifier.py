"""The small classifier: it learns what is plain to see, and the paint where only that differs."""

from __future__ import annotations

import numpy as np
import torch

from synthct.studies.downstream.classifier import scores, train_classifier
from synthct.studies.downstream.crops import Crop
from synthct.studies.downstream.recipe import Trainer

TRAINER = Trainer(steps=30, batch_size=8, channels=(8, 16), learning_rate=0.01)


def crops(number: int, spot_hu: float, seed: int) -> list[Crop]:
    rng = np.random.default_rng(seed)
    made = []
    for n in range(number):
        hu = rng.normal(60, 10, (24, 24))
        i, j = rng.integers(6, 12, 2)
        hu[i : i + 6, j : j + 6] += spot_hu
        made.append(Crop(f"p{n}", hu.round().astype(np.int16)))
    return made


def test_it_learns_what_is_plain_to_see() -> None:
    net = train_classifier(crops(8, 120, 0), crops(8, 0, 1), TRAINER, seed=0)
    high, low = scores(net, crops(8, 120, 2), TRAINER), scores(net, crops(8, 0, 3), TRAINER)
    assert np.greater.outer(high, low).mean() > 0.9
    assert len(scores(net, [], TRAINER)) == 0


def test_the_seed_alone_decides_the_weights() -> None:
    short = TRAINER.model_copy(update={"steps": 2})
    groups = crops(3, 120, 0), crops(3, 0, 1)
    torch.manual_seed(1)
    first = train_classifier(*groups, short, seed=4)
    second, other = (train_classifier(*groups, short, seed=n) for n in (4, 5))
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.head.weight, other.head.weight)
