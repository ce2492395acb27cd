"""The small U-Net: the same weights from the same seed, and it learns what is plain to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthct.studies.downstream.judge import judge
from synthct.studies.downstream.recipe import Trainer
from synthct.studies.downstream.segmenter import _loss, _patch, predict, train
from synthct.studies.downstream.slices import Stack, write_stack

TRAINER = Trainer(
    steps=40, batch_size=4, patch_px=32, spacing_mm=2.0, channels=(8, 16), learning_rate=0.02
)
SPACING = (2.0, 2.0, 3.0)


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright blocks of two kinds in noise: an organ (1) and a brighter lesion in it (2)."""
    rng = np.random.default_rng(seed)
    classes = np.zeros((44, 40, 6), np.uint8)
    i, j = rng.integers(4, 16, 2)
    classes[i : i + 18, j : j + 18, 1:5] = 1
    classes[i + 6 : i + 14, j + 6 : j + 14, 2:4] = 2
    hu = np.choose(classes, [-100, 60, 180]) + rng.normal(0, 10, classes.shape)
    return np.rint(hu).astype(np.int16), classes


@pytest.fixture
def stacks(tmp_path: Path) -> list[Stack]:
    return [
        write_stack(tmp_path, f"scan{n}", *scan(n), SPACING, TRAINER.spacing_mm, is_real=True)
        for n in range(3)
    ]


def weights(net: torch.nn.Module) -> list[torch.Tensor]:
    return list(net.state_dict().values())


def test_it_learns_what_is_plain_to_see(stacks: list[Stack]) -> None:
    net = train(stacks, 3, TRAINER, seed=0)
    hu, classes = scan(7)
    probability = predict(net, hu, SPACING, TRAINER)
    assert probability.shape == (3, *hu.shape)
    assert np.allclose(probability.sum(0), 1, atol=1e-4)
    made = judge(("a", "A"), classes, probability, np.diag([2.0, 2, 3, 1]), ("organ", "lesion"))
    assert (made.dice["organ"] or 0) > 0.45
    assert (made.dice["lesion"] or 0) > 0.45


def test_the_seed_alone_decides_the_weights(stacks: list[Stack]) -> None:
    short = TRAINER.model_copy(update={"steps": 3})
    torch.manual_seed(1)
    first = train(stacks, 3, short, seed=4)
    state = torch.random.get_rng_state()
    second, other = train(stacks, 3, short, seed=4), train(stacks, 3, short, seed=5)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(map(torch.equal, weights(first), weights(second)))
    assert not all(map(torch.equal, weights(first), weights(other)))


def test_a_scan_of_another_pixel_size_is_predicted_on_its_own_grid(stacks: list[Stack]) -> None:
    net = train(stacks, 3, TRAINER.model_copy(update={"steps": 1}), seed=0)
    hu = np.zeros((37, 51, 3), np.int16)
    assert predict(net, hu, (1.3, 0.9, 5.0), TRAINER).shape == (3, 37, 51, 3)


def test_what_nobody_knows_is_not_learned() -> None:
    scores, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    target[:, :4] = 255
    changed = scores.clone()
    changed[:, :, :4] += torch.randn(2, 3, 4, 8)
    assert torch.allclose(_loss(scores, target), _loss(changed, target))
    assert not torch.allclose(_loss(scores, target.clamp(max=2)), _loss(scores, target))


def test_a_scan_is_resampled_in_plane(tmp_path: Path) -> None:
    hu, classes = scan(0)
    made = write_stack(tmp_path, "scan", hu, classes, SPACING, 1.0, is_real=False)
    assert made.hu.shape == made.classes.shape == (6, 88, 80)
    assert set(np.unique(made.classes)) == {0, 1, 2}
    k, i, j = made.places[2][0]
    assert made.classes[k, i, j] == 2
    assert len(made.places[0]) == 0


@pytest.mark.parametrize("ill", [1, 3])
def test_as_many_patches_are_around_lesions_whether_few_scans_have_one(
    tmp_path: Path, ill: int
) -> None:
    stacks = []
    for number in range(4):
        hu, classes = scan(number)
        if number >= ill:
            classes[classes == 2] = 1
        name = f"scan{number}"
        stacks.append(write_stack(tmp_path, name, hu, classes, SPACING, 2.0, is_real=True))
    centred = TRAINER.model_copy(update={"lesion_share": 1.0, "patch_px": 16})
    rng = np.random.default_rng(0)
    cut = [_patch(stacks, 3, centred, rng)[1] for _ in range(20)]
    assert np.mean([(one == 2).any() for one in cut]) > 0.9


def test_scans_without_any_lesion_are_trained_on_as_well(tmp_path: Path) -> None:
    hu, classes = scan(0)
    classes[classes == 2] = 1
    stack = write_stack(tmp_path, "scan", hu, classes, SPACING, 2.0, is_real=True)
    _, cut = _patch([stack], 3, TRAINER, np.random.default_rng(0))
    assert cut.shape == (32, 32)
