"""Train a segmenter in MONAI on a dataset's NIfTI volumes.

    pip install monai
    python examples/read_monai.py FOLDER      # of a version, such as out/quickstart/1.0.0

Without FOLDER, the recipe beside this file is built first. MONAI reads what ``synthct export``
writes, with affines; torchvision is not needed.
"""

import csv
import sys
from pathlib import Path

import torch

import synthct

try:
    from monai.data import DataLoader, Dataset
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from monai.transforms import (
        AsDiscreted,
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        ResizeWithPadOrCropd,
        ScaleIntensityRanged,
    )
except ModuleNotFoundError as err:
    sys.exit(f"{err.name} is not installed; run: pip install monai")

#: The slices of a mask are one volume of few voxels along k; the last step keeps the middle one.
READ = Compose(
    [
        LoadImaged(["image", "label"]),
        EnsureChannelFirstd(["image", "label"]),
        ScaleIntensityRanged("image", -150, 250, -1, 1, clip=True),
        AsDiscreted("label", threshold=1),  # any structure against background
        ResizeWithPadOrCropd(["image", "label"], (64, 64, 1)),
    ]
)


def main(folder: Path, steps: int = 4) -> None:
    """Export the dataset if that was not done, and take a few steps of training."""
    plain = folder.with_name(f"{folder.name}.nifti")
    if not plain.is_dir():
        synthct.export(folder, "nifti")
    with (plain / "samples.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "train"]
    volumes = {row["image_file_name"]: row["label_map_file_name"] for row in rows}
    files = [
        {"image": plain / "train" / image, "label": plain / "train" / label}
        for image, label in volumes.items()
    ]
    network = UNet(2, in_channels=1, out_channels=1, channels=(8, 16), strides=(2,))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loss_of = DiceCELoss(sigmoid=True)
    batches = iter(DataLoader(Dataset(files, READ), batch_size=2, shuffle=True))
    for step in range(min(steps, len(files) // 2)):
        batch = next(batches)
        loss = loss_of(network(batch["image"][..., 0]), batch["label"][..., 0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        print(f"step {step}  loss {loss.item():.3f}")


if __name__ == "__main__":
    recipe = Path(__file__).with_name("phantoms.yaml")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else synthct.build(recipe))
