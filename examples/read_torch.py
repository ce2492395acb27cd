"""Read a dataset as batches of plain torch: windowed pictures and label maps.

    python examples/read_torch.py FOLDER      # of a version, such as out/quickstart/1.0.0

Without FOLDER, the recipe beside this file is built first.
"""

import sys
from pathlib import Path

from torch.utils.data import DataLoader

import synthct
from synthct.torch import Tensors

SOFT_TISSUE = synthct.Window(level_hu=50, width_hu=400)


def main(folder: Path) -> None:
    """Read one epoch.

    255 in a label map means unknown: ``CrossEntropyLoss(ignore_index=255)`` leaves it out.
    """
    # Scans have different sizes: slices are cropped around the mask, or padded.
    train = synthct.load(folder)["train"].with_transform(Tensors(window=SOFT_TISSUE, size=64))
    for batch in DataLoader(train, batch_size=2):
        labels = batch["label_map"][:, 0]  # without the channel, as a loss wants it
        present = sorted(int(value) for value in labels.unique())
        print(tuple(batch["image"].shape), "labels", present)


if __name__ == "__main__":
    recipe = Path(__file__).with_name("phantoms.yaml")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else synthct.build(recipe))
