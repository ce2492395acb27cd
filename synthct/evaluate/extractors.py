"""The feature extractors, and which of them are installed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from synthct.errors import CheckpointError, RecipeError
from synthct.evaluate.efficientnet import EfficientNetLite0, is_installed
from synthct.evaluate.inception import WEIGHTS, Inception, find_weights
from synthct.evaluate.pictures import Extractor
from synthct.evaluate.radiomics import Radiomics
from synthct.processes.device import choose_device

logger = logging.getLogger(__name__)


def load_extractors(
    names: Sequence[str] | None = None,
    weights: Path | None = None,
    device: str | None = None,
) -> list[Extractor]:
    """Load feature extractors.

    Args:
        names: Any of ``radiomics``, ``efficientnet-lite0`` and ``inception-v3``; by default all
            whose package and weights are on this machine.
        weights: Weights of inception-v3: a file, or ``OWNER/REPOSITORY/FILE`` in the Hub's cache.
        device: Where networks run; by default a GPU if there is one, else the CPU.

    Raises:
        RecipeError: If a name is unknown.
        ResourceError: If the device cannot be used.
        CheckpointError: If the package or the weights of a requested one are missing.
    """
    inception = find_weights(weights)
    if names is None:
        available: dict[str, bool] = {
            "radiomics": True,
            "efficientnet-lite0": is_installed(),
            "inception-v3": inception is not None,
        }
        names = [name for name, is_there in available.items() if is_there]
        if "efficientnet-lite0" not in names and inception is None:
            logger.warning(
                "note: image features are left out, only radiomics are compared; pip install "
                "'.[evaluate]' in the clone of synthct adds efficientnet-lite0"
            )
    loaded: list[Extractor] = []
    for name in dict.fromkeys(names):
        match name:
            case "radiomics":
                loaded.append(Radiomics())
            case "efficientnet-lite0":
                loaded.append(EfficientNetLite0(device=choose_device(device)))
            case "inception-v3":
                if inception is None:
                    raise CheckpointError(
                        f"inception-v3 needs its weights: --inception-weights FILE, the {WEIGHTS} "
                        "of the pytorch-fid project"
                    )
                loaded.append(Inception(inception, choose_device(device)))
            case _:
                raise RecipeError(
                    f"extractor '{name}' is unknown; choose radiomics, efficientnet-lite0 or "
                    "inception-v3"
                )
    return loaded
