"""How fast volumes are built: beside the bare network, and beside Med-DDPM's own.

    python tests/benchmarks/volume_speed.py --masks 16

builds lesions in the kidneys of phantoms with ``view: volume`` and prints painted voxels per second
of processor time, all with one thread: of the build (masks drawn, painted, grained, measured and
written; what a second, longer build takes more than a short one), of the network alone on the same
patches in full batches, and of Med-DDPM's network (40,226,433 parameters, 250 steps) on the boxes
of 64 x 64 x 32 voxels that these masks take. Its 250 steps are extrapolated from some timed passes.
Needs the extra ``volumes``.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from synthct.build.check import Checked, check
from synthct.build.draw import CaseReader, masks_of
from synthct.build.prepare import Draft, prepare
from synthct.build.run import build
from synthct.models.checkpoint import load_checkpoint
from synthct.models.med_ddpm import MedDDPMUNet
from synthct.models.painting import Inpainter
from synthct.recipe.recipe import Recipe

T = TypeVar("T")

BOX, STEPS = (64, 64, 32), 250


def recipe(checkpoint: str, masks: int, hosts: int) -> Recipe:
    """Lesions of 15 to 30 mm in phantoms."""
    phantoms = {"layout": "phantom", "patients": hosts, "seed": 1, "shape": [224, 224, 60],
                "spacing_mm": [1.2, 1.2, 3.0]}  # fmt: skip
    fields: dict[str, Any] = {
        "name": "speed", "version": "1.0.0", "seed": 0, "sources": {"hosts": phantoms},
        "view": "volume", "masks_per_case": masks // hosts, "variants": 1, "quality": "none",
        "masks": [{"name": "lesions", "kind": "ellipsoid", "label": "tumor", "into": "kidney",
                   "sizes": ["medium"]}],
        "inpaint": {"checkpoint": checkpoint}, "keep_original": True, "splits": {"train": 1},
    }  # fmt: skip
    return Recipe.model_validate(fields)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and the processor time that it took."""
    started = time.process_time()
    return work(), time.process_time() - started


def drafts_of(checked: Checked) -> list[Draft]:
    """The samples of a recipe, not painted."""
    reader = CaseReader(checked.label_names)
    drawn = (prepare(group, checked, reader) for group in masks_of(checked.plan.specs))
    return [one for outcome in drawn for one in outcome if isinstance(one, Draft)]


def bare_seconds(checked: Checked, drafts: list[Draft]) -> float:
    """Of the network alone, on all patches of these samples."""
    settings, files, rules = checked.recipe.inpaint.network, checked.checkpoint, checked.rules
    assert settings is not None
    assert files is not None
    assert rules is not None
    inpainter = Inpainter(load_checkpoint(files), settings, rules.labels)
    patches = [patch for draft in drafts for patch in draft.patches]
    inpainter.paint_all(patches[:1], [0])  # warms up
    return timed(lambda: inpainter.paint_all(patches, range(len(patches))))[1]


def med_ddpm_seconds(passes: int) -> float:
    """Of one pass of Med-DDPM's network on a box."""
    unet = MedDDPMUNet().eval()
    assert sum(p.numel() for p in unet.parameters()) == 40_226_433
    box = torch.zeros(1, 1, *BOX)
    given = torch.tensor([100.0]), box, box, torch.zeros(1, dtype=torch.int64), torch.ones(1, 3)
    with torch.no_grad():
        unet(box, *given)  # warms up
        return timed(lambda: [unet(box, *given) for _ in range(passes)])[1] / passes


def boxes_of(draft: Draft) -> int:
    """How many boxes a mask takes at least."""
    region = draft.sample.mask
    extents = []
    for axis in range(3):
        hit = np.flatnonzero(region.any(axis=tuple(n for n in range(3) if n != axis)))
        extents.append(int(hit[-1] - hit[0] + 1))
    return math.prod(math.ceil(n / side) for n, side in zip(extents, BOX, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="package:starter-2d")
    parser.add_argument("--masks", type=int, default=16)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--passes", type=int, default=2, help="of Med-DDPM's network")
    parser.add_argument("--cache-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = recipe(options.checkpoint, options.masks, options.hosts)
    with tempfile.TemporaryDirectory() as folder:
        out, cache = Path(folder), options.cache_dir or Path(folder, "cache")
        checked = check(made, cache_dir=cache)
        drafts = drafts_of(checked)
        voxels = [int(draft.sample.mask.sum()) for draft in drafts]
        short = timed(lambda: build(made, out, cache_dir=cache, workers=0, limit=1))[1]
        long = timed(lambda: build(made, out, cache_dir=cache, workers=0))[1]
        rates = {
            "build": sum(voxels[1:]) / (long - short),
            "network alone": sum(voxels) / bare_seconds(checked, drafts),
        }
    seconds = med_ddpm_seconds(options.passes)
    boxes = sum(map(boxes_of, drafts))
    rates["Med-DDPM's network"] = sum(voxels) / (boxes * STEPS * seconds)
    print(f"{len(drafts)} masks, {sum(voxels):,} voxels; one thread")
    print("\n| | voxels a second | build / this |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:,.1f} | {rates['build'] / rate:.2f} |")
    print(f"\nMed-DDPM: {boxes} boxes, {STEPS} steps of {seconds:.2f} s ({options.passes} timed)")


if __name__ == "__main__":
    main()
