"""The small U-Nets: the same weights from the same seed, and they learn what is plain to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from synthct.studies.downstream.judge import judge
from synthct.studies.downstream.network_3d import Level, levels_of
from synthct.studies.downstream.recipe import Trainer
from synthct.studies.downstream.segmenter import _loss, _patch, predict, train
from synthct.studies.downstream.slices import Stack, write_stack

TRAINER = Trainer(
    steps=40, batch_size=4, patch_px=32, spacing_mm=2.0, channels=(8, 16), learning_rate=0.02
)
IN_3D = Trainer.model_validate(
    TRAINER.model_dump() | {"batch_size": 2, "patch_slices": 4, "slice_mm": 3.0}
)
SPACING = (2.0, 2.0, 3.0)
both = pytest.mark.parametrize("trainer", [TRAINER, IN_3D], ids=["2d", "3d"])


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


@both
def test_it_learns_what_is_plain_to_see(stacks: list[Stack], trainer: Trainer) -> None:
    net = train(stacks, 3, trainer, seed=0)
    hu, classes = scan(7)
    probability = predict(net, hu, SPACING, trainer)
    assert probability.shape == (3, *hu.shape)
    assert np.allclose(probability.sum(0), 1, atol=1e-4)
    made = judge(("a", "A"), classes, probability, np.diag([2.0, 2, 3, 1]), ("organ", "lesion"))
    assert (made.dice["organ"] or 0) > 0.45
    assert (made.dice["lesion"] or 0) > 0.45


@both
def test_the_seed_alone_decides_the_weights(stacks: list[Stack], trainer: Trainer) -> None:
    short = trainer.model_copy(update={"steps": 3})
    torch.manual_seed(1)
    first = train(stacks, 3, short, seed=4)
    state = torch.random.get_rng_state()
    second, other = train(stacks, 3, short, seed=4), train(stacks, 3, short, seed=5)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(map(torch.equal, weights(first), weights(second)))
    assert not all(map(torch.equal, weights(first), weights(other)))


@both
@pytest.mark.parametrize("slices", [1, 3, 11])
def test_a_scan_of_another_voxel_size_is_predicted_on_its_own_grid(
    stacks: list[Stack], trainer: Trainer, slices: int
) -> None:
    net = train(stacks, 3, trainer.model_copy(update={"steps": 1}), seed=0)
    made = predict(net, np.zeros((37, 51, slices), np.int16), (1.3, 0.9, 5.0), trainer)
    assert made.shape == (3, 37, 51, slices)
    assert np.allclose(made.sum(0), 1, atol=1e-4)


def test_a_2d_network_sees_one_slice_and_a_3d_network_those_beside_it(stacks: list[Stack]) -> None:
    hu, _ = scan(7)
    other = hu.copy()
    other[..., 3] = 500
    for trainer, sees in ((TRAINER, False), (IN_3D, True)):
        net = train(stacks, 3, trainer.model_copy(update={"steps": 1}), seed=0)
        before, after = (predict(net, one, SPACING, trainer)[..., 2] for one in (hu, other))
        assert np.array_equal(before, after) != sees


def test_predictions_in_3d_are_where_the_slabs_are_that_they_come_from() -> None:
    class Echo(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert image.shape[2] == IN_3D.patch_slices
            return torch.cat([image, -image], 1)

    hu = np.random.default_rng(0).integers(-160, 240, (36, 42, 11)).astype(np.int16)
    made = predict(Echo(), hu, SPACING, IN_3D)
    low, high = IN_3D.window_hu
    scaled = torch.from_numpy((hu - low) * (2 / (high - low)) - 1)
    assert np.allclose(made[0], torch.sigmoid(2 * scaled), atol=1e-5)


def test_slices_are_pooled_once_pixels_are_as_coarse() -> None:
    # as nnU-Net 2.8 plans for scans of (24, 48, 40) voxels of 2.5, 0.8, 0.8 mm
    assert levels_of(4, 0.8, 2.5, 24) == [Level(1, 1), Level(3, 1), Level(3, 2), Level(3, 2)]
    assert levels_of(4, 1.0, 5.0, 32) == [Level(1, 1), Level(1, 1), Level(3, 1), Level(3, 2)]
    assert levels_of(3, 2.4, 4.0, 32) == [Level(3, 1), Level(3, 2), Level(3, 2)]
    assert levels_of(3, 2.4, 4.0, 8) == [Level(3, 1), Level(3, 2), Level(3, 1)]


def test_a_3d_patch_has_slices_around_a_lesion(stacks: list[Stack]) -> None:
    centred = IN_3D.model_copy(update={"lesion_share": 1.0})
    hu, cut = _patch(stacks, 3, centred, np.random.default_rng(0))
    assert hu.shape == cut.shape == (4, 32, 32)
    assert (cut == 2).any()
    deep = IN_3D.model_copy(update={"patch_slices": 9})
    hu, cut = _patch(stacks, 3, deep, np.random.default_rng(0))
    assert (hu[6:] == -1024).all()  # a scan has six
    assert not cut[6:].any()


def test_several_slices_need_their_distance() -> None:
    for fields, message in (
        ({"patch_slices": 8}, "needs slice_mm"),
        ({"slice_mm": 3.0}, "write patch_slices"),
    ):
        with pytest.raises(ValidationError, match=message):
            Trainer.model_validate(fields)


@pytest.mark.parametrize("depth", [(), (4,)])
def test_what_nobody_knows_is_not_learned(depth: tuple[int, ...]) -> None:
    scores, target = torch.randn(2, 3, 8, 8, *depth), torch.randint(0, 3, (2, 8, 8, *depth))
    target[:, :4] = 255
    changed = scores.clone()
    changed[:, :, :4] += torch.randn(2, 3, 4, 8, *depth)
    assert torch.allclose(_loss(scores, target), _loss(changed, target))
    assert not torch.allclose(_loss(scores, target.clamp(max=2)), _loss(scores, target))


def test_a_scan_is_resampled(tmp_path: Path) -> None:
    hu, classes = scan(0)
    made = write_stack(tmp_path, "scan", hu, classes, SPACING, 1.0, is_real=False)
    assert made.hu.shape == made.classes.shape == (6, 88, 80)
    assert set(np.unique(made.classes)) == {0, 1, 2}
    k, i, j = made.places[2][0]
    assert made.classes[k, i, j] == 2
    assert len(made.places[0]) == 0
    thin, thick = (
        write_stack(tmp_path, name, hu, classes, SPACING, 1.0, is_real=False, slice_mm=slice_mm)
        for name, slice_mm in (("thin", 1.5), ("thick", 6.0))
    )
    assert thin.classes.shape == (12, 88, 80)
    assert np.array_equal(thin.classes[::2], made.classes)
    assert thick.hu.shape == (3, 88, 80)
    assert abs(float(thick.hu.mean() - made.hu.mean())) < 5


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
    assert cut.shape == (1, 32, 32)
