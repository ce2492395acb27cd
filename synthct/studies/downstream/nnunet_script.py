"""Plans, trains and predicts with nnU-Net v2; run by the Python that has it, without synthct.

By a subclass of its trainer and not by its command, which finds other trainers by importing all of
them and fails where torchvision does not fit torch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(settings: dict[str, Any]) -> None:
    """Train on a raw dataset and write the probabilities of its test scans."""
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    class Trainer(nnUNetTrainer):  # type: ignore[misc]
        """nnU-Net's own trainer, for so many epochs, without its validation of whole scans."""

        # nnU-Net looks its arguments up by their names
        def __init__(
            self, plans: Any, configuration: str, fold: Any, dataset_json: Any, device: Any
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = settings["epochs"]
            self.num_iterations_per_epoch = settings["iterations"]
            self.num_val_iterations_per_epoch = 1

        def on_epoch_end(self) -> None:
            """Say so to the process that waits, which counts these lines."""
            super().on_epoch_end()
            sys.stdout.write("epoch done\n")
            sys.stdout.flush()

    dataset, configuration = settings["dataset"], settings["configuration"]
    torch.manual_seed(settings["seed"])
    np.random.seed(settings["seed"] % 2**32)
    extract_fingerprint_dataset(dataset, num_processes=1, check_dataset_integrity=True)
    plan_experiment_dataset(dataset, ExperimentPlanner)
    preprocess_dataset(dataset, configurations=[configuration], num_processes=[1])
    folder = next(Path(str(nnUNet_preprocessed)).glob(f"Dataset{dataset:03d}_*"))
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    description = json.loads((folder / "dataset.json").read_text())
    device = torch.device(settings["device"])
    trainer = Trainer(
        {**plans, "continue_training": False}, configuration, "all", description, device
    )
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - its own name; planning takes no 0
    trainer.run_training()
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=device.type == "cuda", device=device,
        allow_tqdm=False,
    )  # fmt: skip
    network = trainer.network
    network.eval()
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        network, trainer.plans_manager, trainer.configuration_manager,
        [network.state_dict()], trainer.dataset_json, "Trainer", None,
    )  # fmt: skip
    output = Path(settings["predictions"])
    output.mkdir()
    for path in sorted(Path(settings["images"]).glob("*_0000.nii.gz")):
        image, properties = SimpleITKIO().read_images([str(path)])
        _, probability = predictor.predict_single_npy_array(image, properties, None, None, True)
        np.save(output / f"{path.name.removesuffix('_0000.nii.gz')}.npy", probability)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
