"""A recipe with one section of each kind, on small KiTS folders; for tests of whole stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import make_tiny_case, write_kits

HOSTS = ("case_00000", "case_00001")
DONORS = ("case_00002", "case_00003", "case_00004")

SECTIONS: dict[str, dict[str, Any]] = {
    "organ": {"kind": "organ", "label": "kidney", "margin_mm": -0.5},
    "box": {"kind": "box", "around": "kidney", "margin_mm": [1, 3], "max_extent_mm": 16},
    "tumors": {
        "kind": "transplant",
        "label": "tumor",
        "into": "kidney",
        "accept": {"inside_fraction": 0.5},
    },
    "blob": {"kind": "blob", "radius_mm": [3, 6]},
}


def write_data(root: Path, hosts: tuple[str, ...] = HOSTS) -> Path:
    """Two KiTS folders: ``hosts`` with images, ``donors`` with label maps only."""
    for number, case_id in enumerate((*hosts, *DONORS)):
        case = make_tiny_case(case_id, noise_seed=number)
        is_host = case_id in hosts
        write_kits(root / ("hosts" if is_host else "donors"), case, image=is_host)
    return root


def tiny_recipe(data: Path, checkpoint: Path, **changes: Any) -> dict[str, Any]:
    """Four masks per host, one of each kind, painted twice in two steps."""
    recipe: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "seed": 5,
        "sources": {
            "hosts": {"layout": "kits23", "root": str(data / "hosts")},
            "donors": {"layout": "kits23", "root": str(data / "donors")},
        },
        "masks_per_case": len(SECTIONS),
        "masks": [{"name": name, **section} for name, section in SECTIONS.items()],
        "inpaint": {"checkpoint": str(checkpoint), "num_inference_steps": 2, "batch_size": 2},
        "variants": 2,
        "quality": "none",  # networks this small paint nothing that default limits would keep
        "keep_original": True,
        "splits": {"train": 1.0},
        "samples_per_shard": 4,
    }
    return recipe | changes


def write_recipe(path: Path, data: Path, checkpoint: Path, **changes: Any) -> Path:
    """``tiny_recipe`` as a file; JSON is YAML too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tiny_recipe(data, checkpoint, **changes), indent=1))
    return path
