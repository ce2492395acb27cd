"""Is a network that learned its training by heart found out, and one that did not left alone?

    OMP_NUM_THREADS=2 python tests/benchmarks/privacy_control.py --data ../shared/data

trains one small network on 8 patches of real CT and the same network on 2,000, lets each paint the
masks that it was trained on, and masks of patients whom it never saw, and looks for every painting
among the training regions as ``synthct privacy`` does, with the training scans at hand. It takes
20 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.methods import Diffusion
from synthct.models.painting import Inpainter
from synthct.models.patch import Patch, PatchRules
from synthct.models.training_index import read_index
from synthct.privacy.nearest import TrainingRegions
from synthct.privacy.regions import Piece
from synthct.privacy.statistics import DEFAULTS
from synthct.sources import CaseEntry, index_sources
from synthct.sources.nifti import Nifti
from synthct.training.rows import CachedPatch, PatchCache

MEMBERS = ["hcc_006", "cptac_pda", "tcga_lihc", "acrin_flt", "tcga_thca", "cptac_lscc"]
STRANGERS = ["slice_*"]
#: Paintings of each kind at most, and the steps of each.
PAINTED, STEPS = 100, 20

Pixels = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]


def recipe(root: Path, cases: list[str], patches: int, steps: int) -> dict[str, Any]:
    """Blobs in soft tissue, painted by a small network."""
    return {
        "name": f"control-{patches}",
        "licence": "CC-BY-4.0",
        "sources": {
            "scans": {
                "layout": "nifti", "root": str(root), "image": "{case}/ct.nii.gz",
                "structures": {}, "cases": cases, "licence": "CC-BY-4.0",
            }
        },
        "masks": [{"name": "blobs", "kind": "blob", "radius_mm": [12, 20]}],
        "model": {
            "block_out_channels": [32, 48, 64], "layers_per_block": 1, "norm_num_groups": 8,
            "attention_head_dim": 16, "dropout": 0.0, "patch_sizes": [64],
            "spacing_range_mm": [0.4, 2.0],
        },
        "noise": {"prediction_type": "sample"},
        "data": {"patches": patches, "patches_per_mask": 1, "flip": 0.0},
        "optim": {
            "max_steps": steps, "batch_size": 2, "learning_rate": 1.0e-3, "warmup_steps": 30,
            "decay_steps": steps // 2, "ema_decay": 0.99,
        },
        "validation": None,
        "sample_every": steps,
        "save_every": steps,
    }  # fmt: skip


def trained(folder: Path, content: dict[str, Any]) -> tuple[Path, PatchCache]:
    """The checkpoint of a recipe, and the patches that it was trained on."""
    path = folder / f"{content['name']}.yaml"
    path.write_text(json.dumps(content))
    cache = folder / f"{content['name']}-cache"
    words = ["train", str(path), "--output", str(folder / content["name"])]
    subprocess.run(
        [sys.executable, "-m", "synthct", *words, "--cache-dir", str(cache), "--device", "cpu"],
        check=True,
    )
    (rows,) = cache.glob("patches/*/patches.arrow")
    return folder / content["name"] / "checkpoint", PatchCache(rows)


def as_patch(cached: CachedPatch, rules: PatchRules) -> Patch:
    """A patch of a training, to be painted."""
    return Patch(
        image=cached.image, mask=cached.mask, own=cached.mask, label=cached.label,
        codec=rules.codec(None), spacing_mm=cached.spacing_mm, origin=(0, 0), scale=(1.0, 1.0),
    )  # fmt: skip


def painted(
    inpainter: Inpainter, patches: list[CachedPatch], rules: PatchRules
) -> Iterator[Pixels]:
    """The HU of every patch after painting."""
    given = [as_patch(one, rules) for one in patches]
    for patch, pixels in zip(given, inpainter.paint(given, range(len(given))), strict=True):
        yield patch.codec.decode(np.where(patch.mask, pixels, patch.image))


def flagged(
    checkpoint: Path, patches: list[CachedPatch], entries: Mapping[str, CaseEntry]
) -> Counter[str]:
    """How many paintings are flagged by each measure, and by any."""
    files = find_checkpoint(str(checkpoint))
    rules = PatchRules.from_config(files.configs["unet"])
    index = read_index(files)
    assert index is not None, "training writes it"
    inpainter = Inpainter(load_checkpoint(str(checkpoint)), Diffusion(num_inference_steps=STEPS))
    pieces = [
        Piece(np.rint(hu).astype(np.int16)[None], one.mask[None], 1.0)
        for one, hu in zip(patches, painted(inpainter, patches, rules), strict=True)
    ]
    counts: Counter[str] = Counter()
    for one in TrainingRegions(index, entries).nearest(pieces):
        values = {
            "train_key": one.key_similarity, "train_nn_ncc": one.ncc, "train_nn_z": one.z,
        }  # fmt: skip
        above = {name for name, v in values.items() if v is not None and v > DEFAULTS[name]}
        counts.update(above | ({"any"} if above else set()))
    return counts


def drawn(cache: PatchCache) -> list[CachedPatch]:
    """At most ``PAINTED`` patches, from all over the cache."""
    rows = np.unique(np.linspace(0, len(cache) - 1, min(PAINTED, len(cache))).astype(int))
    return [cache.patch(int(row)) for row in rows]


def main() -> None:
    """Print one row per network and kind of masks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--work", type=Path, help="folder that is kept")
    options = parser.parse_args()
    free = (options.data / "free").resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = options.work or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        strangers = trained(folder, recipe(free / "slices", STRANGERS, PAINTED, 1))[1]
        source = Nifti(
            layout="nifti", root=free, image="{case}/ct.nii.gz", structures={}, cases=MEMBERS
        )
        index = index_sources({"scans": source}, (), cache_dir=folder / "index")
        entries = {
            entry.fingerprint or f"scans/{entry.case_id}": entry for entry in index.entries("scans")
        }
        print("| trained on | painted | flagged | by correlation | by z | by key |")
        print("|---|---|---|---|---|---|")
        for count in (8, 2000):
            checkpoint, cache = trained(folder, recipe(free, MEMBERS, count, options.steps))
            for what, patches in (("its masks", drawn(cache)), ("others'", drawn(strangers))):
                found = flagged(checkpoint, patches, entries)
                shares = (found[n] for n in ("any", *DEFAULTS))
                cells = " | ".join(f"{n} of {len(patches)}" for n in shares)
                print(f"| {count} patches | {what} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
