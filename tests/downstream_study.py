"""A study on small KiTS folders: three training patients, three test patients, two steps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import make_tiny_case, write_kits
from tiny_recipe import SECTIONS

from synthct.volume import Volume
from synthct.volume.case import Case

TRAINING = tuple(f"case_{n:05d}" for n in range(3))
TEST = tuple(f"case_{n:05d}" for n in range(10, 13))


#: A trainer that learns nothing, quickly.
TINY = {"steps": 2, "batch_size": 2, "patch_px": 32, "spacing_mm": 1.0, "channels": [4, 8]}


def write_folders(root: Path) -> Path:
    """``train`` and ``test``; the last test patient has no tumour."""
    for number, case_id in enumerate((*TRAINING, *TEST)):
        case = make_tiny_case(case_id, noise_seed=number)
        if case_id == TEST[-1]:
            labels = case.labels.array.copy()
            labels[labels == case.label_names["tumor"]] = case.label_names["kidney"]
            case = replace(case, labels=Volume(labels, case.labels.affine))
        write_kits(root / ("train" if case_id in TRAINING else "test"), case)
    return root


def mirrored(case: Case, case_id: str) -> Case:
    """The same scan from left to right, under another name."""
    assert case.ct is not None
    turned = [
        Volume(np.ascontiguousarray(one.array[::-1]), one.affine) for one in (case.ct, case.labels)
    ]
    return replace(case, case_id=case_id, patient_id=case_id, ct=turned[0], labels=turned[1])


def write_study(root: Path, checkpoint: Path, **changes: Any) -> Path:
    """The recipe of a study and of its dataset, as files."""
    training = {"layout": "kits23", "root": str(root / "train")}
    dataset: dict[str, Any] = {
        "name": "painted",
        "version": "1.0.0",
        "sources": {"hosts": training, "donors": training},
        "view": "volume",
        "margin_mm": 2,
        "masks": [{"name": "tumors", **SECTIONS["tumors"], "placement": "random"}],
        "inpaint": {"checkpoint": str(checkpoint), "num_inference_steps": 1, "batch_size": 2},
        "quality": "none",
    }
    dataset |= changes.pop("dataset_fields", {})
    study: dict[str, Any] = {
        "name": "study",
        "dataset": "painted.yaml",
        "test": {"layout": "kits23", "root": str(root / "test")},
        "lesion": "tumor",
        "labels": ["kidney"],
        "amounts": [1],
        "lesions_per_scan": 1,
        "unknown_training": "allow",
        "seeds": [0],
        "classification": {"crop_px": 16, "crop_mm": 20, "places_per_scan": 3, "steps": 2},
        "trainer": TINY,
    }
    (root / "painted.yaml").write_text(json.dumps(dataset))
    path = root / "study.yaml"
    path.write_text(json.dumps(study | changes))
    return path
