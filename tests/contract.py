"""What every mask kind, source layout and network is tried with; one entry for each of them.

A new one without an entry here fails by name in ``test_contract.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from conftest import make_tiny_case, write_kits, write_structures, write_tiny_checkpoint
from dicom_writer import write_rtstruct, write_series
from pydantic import TypeAdapter
from tiny_gan import write_gan
from tiny_volume import write_tiny_med_ddpm, write_tiny_volume, write_tiny_vox2vox

from synthct.masks import MaskKind
from synthct.sources import Source
from synthct.volume import Volume, write_volume
from synthct.volume.case import Case

_TRANSPLANT: dict[str, Any] = {
    "label": "tumor", "into": "kidney",
    "accept": {"inside_fraction": 0.5, "organ_fraction": 0.9, "clearance_mm": 0,
               "min_volume_ml": 0, "min_slices": 1},
}  # fmt: skip

#: Fields of each mask kind beside its ``kind`` and ``name``.
MASKS: dict[str, dict[str, Any]] = {
    "blob": {"radius_mm": [3, 6], "within": "kidney"},
    "box": {"around": "kidney", "margin_mm": [1, 4], "jitter_mm": 2},
    "counterpart": _TRANSPLANT,
    "ellipsoid": {"label": "tumor", "into": "kidney", "sizes": ["tiny"]},
    "free_form": {"box_mm": [8, 12], "width_mm": [2, 4], "segment_mm": 6, "frame_mm": 20},
    "organ": {"label": "kidney", "margin_mm": 3},
    "own": {"part": "random"},
    "removal": {"lesion": "tumor"},
    "transplant": _TRANSPLANT,
}


def kinds_of(union: Any, key: str) -> list[str]:
    """All values that the field ``key`` has in the members of a union of sections."""
    members = get_args(get_args(union)[0])
    return sorted(v for m in members for v in get_args(m.model_fields[key].annotation))


def section(kind: str) -> Any:
    """The mask section of a kind that the contract is tried with."""
    return TypeAdapter[Any](MaskKind).validate_python({"kind": kind, "name": "m", **MASKS[kind]})


def lender(kind: str, host: Case) -> Case | None:
    """The donor of a kind: who lends a tumour, the file that holds the mask, or nobody."""
    if kind in ("transplant", "counterpart"):
        return replace(make_tiny_case("donor", noise_seed=1), source="donors", ct=None)
    if kind == "own":
        region = (host.labels.array == host.label_names["tumor"]).astype(np.uint8)
        labels = Volume(region * np.uint8(5), host.labels.affine)
        return replace(host, source="masks", ct=None, labels=labels, label_names={"mask": 5})
    return None


def mask_digest(kind: str, seed: int) -> str:
    """What is drawn on the tiny case with a seed, and the mask that is built from it, as a hash."""
    host, kind_section = make_tiny_case(), section(kind)
    donor = lender(kind, host)
    params = kind_section.draw(host, donor, np.random.default_rng(seed))
    mask = kind_section.build(host, donor, params)
    hasher = hashlib.sha256(json.dumps(params, sort_keys=True).encode())
    hasher.update(mask.in_host(host.labels.shape).tobytes())
    return hasher.hexdigest()


def _kits(root: Path) -> Mapping[str, Any]:
    write_kits(root, make_tiny_case("case_00000"))
    write_kits(root, make_tiny_case("case_00001", noise_seed=1))
    return {"root": root}


def _kits21(root: Path) -> Mapping[str, Any]:
    _kits(root)
    for path in root.glob("*/segmentation.nii.gz"):
        path.rename(path.with_name("aggregated_MAJ_seg.nii.gz"))
    return {"root": root}


def _write_json(root: Path, image: str, about: Mapping[str, Any]) -> Mapping[str, Any]:
    """A folder of nnU-Net or the Decathlon; ``image`` is the pattern of its images."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        case = make_tiny_case(f"p{number}", noise_seed=number)
        write_volume(case.scan(), root / image.format(case.case_id))
        write_volume(case.labels, root / f"labelsTr/{case.case_id}.nii.gz")
    (root / "dataset.json").write_text(json.dumps(about))
    return {"root": root}


def _nnunet(root: Path) -> Mapping[str, Any]:
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "tumor": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    return _write_json(root, "imagesTr/{}_0000.nii.gz", about)


def _msd(root: Path) -> Mapping[str, Any]:
    listed = [
        {"image": f"./imagesTr/p{n}.nii.gz", "label": f"./labelsTr/p{n}.nii.gz"} for n in (1, 2)
    ]
    about = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "kidney", "2": "tumor"},
        "numTraining": 2,
        "training": listed,
    }
    return _write_json(root, "imagesTr/{}.nii.gz", about)


def _totalsegmentator(root: Path) -> Mapping[str, Any]:
    for number in (1, 2):
        case = make_tiny_case(f"s{number:04}", noise_seed=number)
        regions = {"kidney_left": case.region("kidney"), "kidney_right": case.region("tumor")}
        write_structures(root, case, regions)
    return {"root": root}


def _nifti(root: Path) -> Mapping[str, Any]:
    for number in (1, 2):
        case = make_tiny_case(f"p{number}", noise_seed=number)
        (root / case.case_id).mkdir(parents=True)
        write_volume(case.scan(), root / case.case_id / "ct.nii.gz")
        write_volume(case.labels, root / case.case_id / "labels.nii.gz")
    files = {"image": "{case}/ct.nii.gz", "labels": "{case}/labels.nii.gz"}
    return {"root": root, **files, "label_names": {"kidney": 1, "tumor": 2}}


def _phantom(root: Path) -> Mapping[str, Any]:
    return {"patients": 2, "shape": [48, 40, 24], "spacing_mm": [6, 6, 10]}


def _dicom(root: Path) -> Mapping[str, Any]:
    for number in (1, 2):
        case, series = make_tiny_case(f"p{number}", noise_seed=number), f"series{number}"
        write_series(root / series, case.scan(), series, PatientID=f"P{number}")
        drawn = {"kidney": case.region("kidney")}
        write_rtstruct(root / series / "rtstruct.dcm", case.scan(), drawn, series)
    return {"root": root}


#: Writes two cases with a kidney and gives the section's fields beside ``layout``.
LAYOUTS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    "dicom": _dicom,
    "kits19": _kits,
    "kits21": _kits21,
    "kits23": _kits,
    "msd": _msd,
    "nifti": _nifti,
    "nnunet": _nnunet,
    "phantom": _phantom,
    "totalsegmentator": _totalsegmentator,
}


def source(layout: str, root: Path) -> Any:
    """A source of two cases."""
    return TypeAdapter[Any](Source).validate_python({"layout": layout, **LAYOUTS[layout](root)})


def _palette(folder: Path) -> Mapping[str, Any]:
    write_tiny_checkpoint(folder)
    return {"scheduler": "ddim", "num_inference_steps": 2}


def _pix2pix(folder: Path) -> Mapping[str, Any]:
    write_gan(folder)
    return {}


def _unconditional(folder: Path) -> Mapping[str, Any]:
    from foreign_checkpoints import write_unconditional

    write_unconditional(folder)
    repaint = {"scheduler": "repaint", "jump_length": 1, "jump_n_sample": 2}
    return {**repaint, "num_inference_steps": 4, "codecs": {"default": "soft_tissue"}}


def _text_guided(folder: Path) -> Mapping[str, Any]:
    from foreign_checkpoints import write_text_model

    write_text_model(folder)
    asked = {"codecs": {"default": "soft_tissue"}, "prompt": "a kidney"}
    return {**asked, "scheduler": "ddim", "num_inference_steps": 2}


def _volume(folder: Path) -> Mapping[str, Any]:
    write_tiny_volume(folder)
    return {"num_inference_steps": 2}


def _med_ddpm(folder: Path) -> Mapping[str, Any]:
    pytest.importorskip("einops")
    write_tiny_med_ddpm(folder)
    return {"num_inference_steps": 2}


def _vox2vox(folder: Path) -> Mapping[str, Any]:
    write_tiny_vox2vox(folder)
    return {}


#: Writes a tiny random checkpoint and gives the settings of ``inpaint`` that it is to paint with.
NETWORKS: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    "Palette": _palette,
    "Pix2Pix": _pix2pix,
    "TextGuided": _text_guided,
    "Unconditional": _unconditional,
    "VolumeNetwork": _volume,
    "MedDDPM": _med_ddpm,
    "Vox2Vox": _vox2vox,
}
