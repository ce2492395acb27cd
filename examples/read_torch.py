"""Read a dataset as batches of plain torch: windowed pictures and label maps.

    python examples/read_torch.py FOLDER      # of a version, such as out/quickstart/1.0.0

Without FOLDER, the recipe beside this file is built first.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import synthct

SOFT_TISSUE = synthct.Window(level_hu=50, width_hu=400)


def to_tensors(row: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's input (1, rows, columns) in -1..1, and its target (rows, columns).

    255 in a label map means unknown: ``CrossEntropyLoss(ignore_index=255)`` leaves it out.
    """
    hu = np.asarray(row["image"]).astype(np.int16) - 1024  # stored as HU + 1024
    return {
        "image": torch.from_numpy(SOFT_TISSUE.encode(hu))[None],
        "labels": torch.from_numpy(np.asarray(row["label_map"]).astype(np.int64)),
    }


def main(folder: Path) -> None:
    """Read one epoch."""
    train = synthct.load(folder)["train"]
    # Scans have different sizes: batches of one, or crop and pad in to_tensors.
    for batch in DataLoader([to_tensors(row) for row in train], batch_size=1):
        present = sorted(int(value) for value in batch["labels"].unique())
        print(tuple(batch["image"].shape), "labels", present)


if __name__ == "__main__":
    recipe = Path(__file__).with_name("phantoms.yaml")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else synthct.build(recipe))
