"""Paint kidneys into your own scans: a folder of NIfTI files in, a dataset out.

    python examples/own_scans.py FOLDER

FOLDER holds ``imagesTr/NAME_0000.nii.gz`` and ``labelsTr/NAME.nii.gz``, as nnU-Net has them; for
other arrangements change the two patterns. Without FOLDER, two phantoms stand in for your scans.
"""

import sys
from pathlib import Path

import numpy as np

import synthct

RECIPE = """
name: my-kidneys
version: 1.0.0
sources:
  hosts:
    layout: nifti
    root: {root}
    image: "imagesTr/{{case}}_0000.nii.gz"   # {{case}} stands for the name of the scan
    labels: "labelsTr/{{case}}.nii.gz"
    label_names: {{kidney: 1}}               # structure: its value in the label maps
masks_per_case: 4
masks:
  - {{name: kidneys, kind: organ, label: kidney, margin_mm: 3}}
inpaint: {{checkpoint: package:starter-2d, num_inference_steps: 4}}   # 20 for good pictures
keep_original: true
splits: {{train: 0.5, test: 0.5}}
"""


def write_stand_ins(root: Path) -> None:
    """Two phantoms in the place of your scans."""
    from synthct.sources.phantoms import PHANTOM_LABELS
    from synthct.sources.scanner import Scanner
    from synthct.volume import Volume, write_volume

    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for patient in range(2):
        ct, labels = Scanner(shape=(64, 64, 16), spacing_mm=(3, 3, 8)).scan(0, patient)
        values = [PHANTOM_LABELS["kidney_left"], PHANTOM_LABELS["kidney_right"]]
        kidneys = np.isin(labels.array, values).astype(np.uint8)
        write_volume(ct, root / f"imagesTr/scan{patient}_0000.nii.gz")
        write_volume(Volume(kidneys, labels.affine), root / f"labelsTr/scan{patient}.nii.gz")


def main(root: Path | None) -> None:
    """Write a recipe for the folder, check it, build it, and look at a sample."""
    if root is None:
        root = Path("my-scans")
        write_stand_ins(root)
    recipe = Path("my-kidneys.yaml")
    recipe.write_text(RECIPE.format(root=root))

    checked = synthct.check(recipe)
    print(f"{checked.plan.num_samples} samples, licence {checked.licence or 'unknown'}")
    folder = synthct.build(recipe)
    print(f"{folder}: open README.md there, or {synthct.report(folder)} in a browser")
    sample = synthct.load(folder)["train"][0]
    print(sample["sample_id"], sample["label"], f"seam ratio {sample['seam_ratio']:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
