"""Inception-v3 with the weights that define the FID, built without torchvision.

The network of the original FID (Heusel et al. 2017) is TensorFlow's of 2015-12-05, which differs
from torchvision's: average pools leave the padding out, one branch of the last block pools by
maximum, and there are 1008 classes. Its weights for PyTorch are published as
``pt_inception-2015-12-05-6726825d.pth`` with the pytorch-fid project; they are not ours to ship.
Module names are those of that file, so that its layout is checked name by name, shape by shape.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthct.errors import CheckpointError
from synthct.evaluate.pictures import Crop, Extracted, to_network

#: Name of the file, with the first hex digits of its sha256.
WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
_SHA256_PREFIX = "6726825d"

_SIZE, _CLASSES = 299, 1008

Pool = Literal["average", "max"]


class Inception:
    """The extractor: 2048 features of the last pool, 1008 classes.

    Args:
        weights: A .pth (opened as weights only, if its hash is that of the known file) or a
            .safetensors file.

    Raises:
        CheckpointError: If the file cannot be read, or is not this network's.
    """

    name = "inception-v3"
    dim = 2048
    sees_slices, sees_volumes = True, False

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        state, digest = _read_weights(weights)
        network = InceptionV3()
        _check_layout(weights, state, network)
        network.load_state_dict(state)
        self._network = network.eval().to(device)
        self._device = device
        self.key = f"inception-v3-{digest[:16]}-1"
        if device != "cpu":  # low bits differ there
            self.key += f"-{device}"

    @torch.inference_mode()
    def extract(self, crops: Sequence[Crop]) -> Extracted:
        """Features (N, 2048) and class probabilities (N, 1008)."""
        features, logits = self._network(((to_network(crops, _SIZE) - 128) / 128).to(self._device))
        return Extracted(features.cpu().numpy(), torch.softmax(logits, dim=1).cpu().numpy())


def find_weights(given: Path | None = None) -> Path | None:
    """The file of the weights: as given, or in the cache of torch.hub and pytorch-fid.

    Args:
        given: A file, or ``owner/repository/file`` in the local cache of the Hub.
    """
    if given is None:
        kept = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
        return kept if kept.is_file() else None
    if not given.is_file() and len(given.parts) >= 3 and not given.is_absolute():
        from huggingface_hub import try_to_load_from_cache

        repository, name = "/".join(given.parts[:2]), "/".join(given.parts[2:])
        cached = try_to_load_from_cache(repository, name)
        return Path(cached) if isinstance(cached, str) else given
    return given


class _Conv(nn.Module):
    """Convolution without bias, batch normalisation, rectifier."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    """3 x 3 average without the padding, as in TensorFlow."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _BlockA(nn.Module):
    """35 x 35."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64, 1)
        self.branch5x5_1 = _Conv(inputs, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class _BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, stride=2)], 1)


class _BlockC(nn.Module):
    """17 x 17, with kernels of 1 x 7 and 7 x 1."""

    def __init__(self, inputs: int, inner: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 192, 1)
        self.branch7x7_1 = _Conv(inputs, inner, 1)
        self.branch7x7_2 = _Conv(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7_3 = _Conv(inner, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = _Conv(inputs, inner, 1)
        self.branch7x7dbl_2 = _Conv(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = _Conv(inner, inner, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = _Conv(inner, inner, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = _Conv(inner, 192, (1, 7), padding=(0, 3))
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class _BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(inputs, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(inputs, 192, 1)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, seven, functional.max_pool2d(x, 3, stride=2)], 1)


class _BlockE(nn.Module):
    """8 x 8, with branches that split; the last block pools by maximum."""

    def __init__(self, inputs: int, pool: Pool) -> None:
        super().__init__()
        self._pool = pool
        self.branch1x1 = _Conv(inputs, 320, 1)
        self.branch3x3_1 = _Conv(inputs, 384, 1)
        self.branch3x3_2a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = (
            _average(x)
            if self._pool == "average"
            else functional.max_pool2d(x, 3, stride=1, padding=1)
        )
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3_2a(three),
                self.branch3x3_2b(three),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(pooled),
            ],
            1,
        )


class InceptionV3(nn.Module):
    """TensorFlow's Inception-v3 of 2015-12-05: (N, 3, 299, 299) in -1..1 to features and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b = _BlockA(192, 32)
        self.Mixed_5c = _BlockA(256, 64)
        self.Mixed_5d = _BlockA(288, 64)
        self.Mixed_6a = _BlockB(288)
        self.Mixed_6b = _BlockC(768, 128)
        self.Mixed_6c = _BlockC(768, 160)
        self.Mixed_6d = _BlockC(768, 160)
        self.Mixed_6e = _BlockC(768, 192)
        self.Mixed_7a = _BlockD(768)
        self.Mixed_7b = _BlockE(1280, "average")
        self.Mixed_7c = _BlockE(2048, "max")
        self.fc = nn.Linear(2048, _CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 2048) and logits (N, 1008)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6b(self.Mixed_6a(x))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(x)))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        features = x.mean(dim=(2, 3))
        # Without its bias, as in the code that defined the inception score.
        return features, functional.linear(features, self.fc.weight)


def _read_weights(path: Path) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a file, and its sha256.

    Raises:
        CheckpointError: If it cannot be read, or is a pickle other than the known one.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise CheckpointError(
            f"{path}: {err.strerror}; give the file {WEIGHTS} of the pytorch-fid project, or the "
            "same as .safetensors"
        ) from err
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(data), digest
        except SafetensorError as err:
            raise CheckpointError(f"{path} is no safetensors file ({err})") from err
    if not digest.startswith(_SHA256_PREFIX):
        raise CheckpointError(
            f"{path.name} has the sha256 {digest[:12]}..., not {_SHA256_PREFIX}...; it is not "
            f"opened, since a .pth file may run code: give {WEIGHTS} as it was published"
        )
    state: Mapping[str, Tensor] = torch.load(
        io.BytesIO(data), map_location="cpu", weights_only=True
    )
    return state, digest


def _check_layout(path: Path, state: Mapping[str, Tensor], network: InceptionV3) -> None:
    """Check that a file has exactly the tensors of this network, by name and shape.

    Raises:
        CheckpointError: If a tensor is missing, unknown, of another shape, or not finite.
    """
    expected = network.state_dict()
    # PyTorch got batch counters after the file was made; both forms are in use.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    if missing := sorted(expected.keys() - counters - state.keys()):
        raise CheckpointError(f"{path}: {missing[0]} is missing; {_not_ours(len(missing))}")
    if unknown := sorted(state.keys() - expected.keys()):
        raise CheckpointError(f"{path}: {unknown[0]} is unknown; {_not_ours(len(unknown))}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)}, not {tuple(expected[name].shape)}; "
                "it is not the network of the original FID (1008 classes, no auxiliary head)"
            )
        if not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite")


def _not_ours(count: int) -> str:
    return f"with {count} such tensors it is not the network of the original FID; give {WEIGHTS}"
