"""Volumes by a 2D checkpoint: ellipsoids painted as one, and slice by slice, in several scans.

    python tests/benchmarks/volumes.py --data ../shared/data --scan s0003 y1 --sheet volumes.png

paints 32 ellipsoids of 10 to 20 mm in soft tissue of each scan, and lesions in the kidneys where
the scan has some, twice with the same checkpoint: as ``view: volume`` does, each slice told of
those already painted, and each slice by itself, as in datasets of slices. With ``--in-3d`` a
network in 3D paints them as well. For comparison the same place two slices further is pasted,
which is real tissue. The table shows medians over the masks, and how many of them lie within the
bounds; of the six sides of a mask the one furthest from 1, and the least and the greatest of the
medians by side. The sheet shows axial, coronal and sagittal slices through the middle of some
masks, before and after.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from yardstick import TISSUE_SHARE, Region, find_scan, soft_tissue

import synthct
from synthct.build.fronts import Asked, Stack, paint_stacks
from synthct.masks.base import Mask
from synthct.metrics.seam import seam_ratio
from synthct.metrics.sides import SIDES, side_seam_ratio
from synthct.metrics.slices import z_jump_ratio
from synthct.metrics.texture import texture_ratio
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.grain import margin, with_grain
from synthct.models.methods import Diffusion
from synthct.models.painting import Inpainter
from synthct.models.patch import PatchRules
from synthct.seeds import derive_seed, generator
from synthct.volume import Box, Volume, read_ct, read_labels
from synthct.volume.intensity import window_for

RADIUS_MM, LESION_MM = (10.0, 20.0), (6.0, 12.0)
#: Least number of slices of a mask that have one of it on both sides.
LEAST_INNER = 3
KIDNEYS = ("kidney_left", "kidney_right")
BOUNDS = {
    "z-jump": (0.9, 1.15),
    "worst side": (0.9, 1.2),
    "seam": (0.9, 1.15),
    "texture": (0.85, 1.15),
    "texture through": (0.85, 1.15),
}
IN_3D_STEPS = 4
#: Of the pictures: how many masks, and millimetres across.
SHOWN, SHOWN_MM = 8, 90.0


@dataclass(frozen=True, eq=False)
class Task:
    """A mask in a part of a scan.

    Attributes:
        name: Of its random streams.
        ct: HU of the part.
        mask: Where to paint, in voxels of the part.
        label: What to paint.
    """

    name: str
    ct: Volume
    mask: Mask
    label: str | None

    @property
    def region(self) -> Volume:
        """Boolean, on the grid of ``ct``."""
        whole = np.zeros(self.ct.shape, dtype=bool)
        whole[self.mask.box.slices] = self.mask.region.array
        return Volume(whole, self.ct.affine)

    @property
    def range_hu(self) -> tuple[float, float]:
        """What it is measured in."""
        return window_for(self.label, float(self.ct.array[self.region.array].mean())).range_hu


def draw_tasks(ct: Volume, tissue: Region, scan: str, label: str | None, count: int) -> list[Task]:
    """Ellipsoids that lie in a tissue; fewer than ``count`` where it has no room for more."""
    rng = generator(0, "volume-benchmark", scan, label or "")
    voxels, spacing = np.argwhere(tissue), np.array(ct.spacing_mm)
    tasks: list[Task] = []
    for _ in range(20_000):
        if len(tasks) == count:
            break
        radii = rng.uniform(*(LESION_MM if label else RADIUS_MM), 3)
        centre = voxels[rng.integers(len(voxels))]
        reach = np.ceil(radii / spacing).astype(int)
        box = Box(tuple(centre - reach), tuple(centre + reach + 1))
        if box.clip(ct.shape) != box:
            continue
        grid = [
            (np.arange(-n, n + 1) * s / r) ** 2
            for n, s, r in zip(reach, spacing, radii, strict=True)
        ]
        inside = np.add.outer(np.add.outer(grid[0], grid[1]), grid[2]) <= 1
        slices = int(inside.any(axis=(0, 1)).sum())
        if slices - 2 < LEAST_INNER or tissue[box.slices][inside].mean() < TISSUE_SHARE:
            continue
        around = np.array(margin(ct.spacing_mm)) + 1
        part = Box((0, 0, box.start_ijk[2]), (*ct.shape[:2], box.stop_ijk[2]))
        part = part.grow((0, 0, int(around[2]))).clip(ct.shape)
        shifted = box.shift([-n for n in part.start_ijk])
        here = ct.crop(part)
        mask = Mask(Volume(inside, here.crop(shifted).affine), shifted, label)
        tasks.append(Task(f"{scan}-{label}-{len(tasks)}", here, mask, label))
    return tasks


def as_volumes(tasks: Sequence[Task], settings: Diffusion) -> list[npt.NDArray[np.int16]]:
    """Each mask painted as one, every slice told of those already painted."""
    files = find_checkpoint(settings.checkpoint)
    labels = tuple({task.label for task in tasks})
    rules: PatchRules = files.network.rules(files, settings, labels)
    inpainter = Inpainter(load_checkpoint(files), settings, rules.labels)
    out = []
    for task in tasks:
        asked = Asked(task.label, is_lesion=task.label is not None)
        stack = Stack.of(task.ct, task.mask, "axial", rules, asked)

        def seed(_: int, patch: int, task: Task = task) -> int:
            return derive_seed(0, "volume-benchmark", task.name, str(patch))

        (painted,) = paint_stacks([stack], rules, inpainter.paint_all, seed)
        hu = task.ct.array.copy()
        hu[task.region.array] = stack.painted_hu(painted)
        rng = generator(0, "volume-benchmark-grain", task.name)
        done, _ = with_grain(task.ct, Volume(hu, task.ct.affine), task.region, task.range_hu, rng)
        out.append(done.array)
    return out


def inpainted(tasks: Sequence[Task], settings: Diffusion) -> list[npt.NDArray[np.int16]]:
    """Each slice of a mask painted by itself, or the mask whole by a network in 3D."""
    return [
        synthct.inpaint(
            task.ct,
            task.region,
            label=task.label,
            checkpoint=settings.checkpoint,
            num_inference_steps=settings.num_inference_steps,
        ).array
        for task in tasks
    ]


def further(tasks: Sequence[Task]) -> list[npt.NDArray[np.int16]]:
    """The same place two slices further; unchanged where the part has no more."""
    out = []
    for task in tasks:
        hu, region = task.ct.array.copy(), task.region.array
        hu[region] = np.roll(task.ct.array, -2, axis=2)[region]
        out.append(hu)
    return out


def side_seams(task: Task, painted: npt.NDArray[np.int16]) -> list[float]:
    """The seam on each side of one mask."""
    compared = task.ct.array, painted, task.region.array
    return [side_seam_ratio(*compared, *side, task.range_hu) for side in SIDES.values()]


def measures(task: Task, painted: npt.NDArray[np.int16]) -> dict[str, float]:
    """The measures of one mask; of its six side seams the one furthest from 1."""
    compared = task.ct.array, painted, task.region.array
    sides = side_seams(task, painted)
    original, image, mask = compared
    textures = [
        texture_ratio(original[:, :, k], image[:, :, k], mask[:, :, k], task.range_hu)
        for k in np.flatnonzero(mask.any(axis=(0, 1)))
    ]
    return {
        "z-jump": z_jump_ratio(*compared, 2, task.range_hu),
        "worst side": max(sides, key=lambda s: abs(math.log(s)) if s > 0 else 0.0),
        "seam": seam_ratio(*compared, task.range_hu),
        "texture": float(np.nanmedian(textures)),
        "texture through": texture_ratio(*compared, task.range_hu, erode=1, axes=[2]),
    }


def row(name: str, tasks: Sequence[Task], painted: Sequence[npt.NDArray[np.int16]]) -> str:
    """A line of the table: medians, and how many masks are within the bounds."""
    found = [measures(task, one) for task, one in zip(tasks, painted, strict=True)]
    cells = []
    for measure, (low, high) in BOUNDS.items():
        values = np.array([one[measure] for one in found])
        values = values[np.isfinite(values)]
        share = np.count_nonzero((values >= low) & (values <= high)) / max(len(values), 1)
        cells.append(f"{np.median(values):.2f} ({share:.0%})" if len(values) else "-")
    pairs = zip(tasks, painted, strict=True)
    by_side = np.nanmedian([side_seams(task, one) for task, one in pairs], axis=0)
    cells.append(f"{by_side.min():.2f} to {by_side.max():.2f}")
    errors = [
        np.abs(
            np.clip(task.ct.array, *task.range_hu).astype(float)
            - np.clip(one, *task.range_hu).astype(float)
        )[task.region.array].mean()
        for task, one in zip(tasks, painted, strict=True)
    ]
    return f"| {name} | {' | '.join(cells)} | {np.mean(errors):.1f} |"


def sheet(
    tasks: Sequence[Task], ways: Sequence[Sequence[npt.NDArray[np.int16]]]
) -> npt.NDArray[np.uint8]:
    """Axial, coronal and sagittal slices: the original and each way beside each other."""
    from skimage.transform import resize

    rows = []
    for number, task in enumerate(tasks[:SHOWN]):
        middle = [
            (a + b) // 2
            for a, b in zip(task.mask.box.start_ijk, task.mask.box.stop_ijk, strict=True)
        ]
        panels = []
        for axis in (2, 1, 0):
            for hu in (task.ct.array, *(way[number] for way in ways)):
                others = [a for a in range(3) if a != axis]
                half = [int(SHOWN_MM / 2 / task.ct.spacing_mm[a]) for a in others]
                cut: list[slice | int] = [0, 0, 0]
                cut[axis] = middle[axis]
                for a, n in zip(others, half, strict=True):
                    cut[a] = slice(max(0, middle[a] - n), middle[a] + n)
                low, high = task.range_hu
                grey = (np.clip(hu[tuple(cut)], low, high) - low) / (high - low)
                panel = resize(grey.T[::-1, ::-1].astype(float), (180, 180), order=1)
                panels.append(np.pad(np.rint(panel * 255).astype(np.uint8), 1))
        rows.append(np.concatenate(panels, axis=1))
    return np.concatenate(rows)


def main() -> None:
    """Print a table for each scan, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scan", nargs="+", default=["s0003", "y1", "s0002", "hcc_006"])
    parser.add_argument("--checkpoint", default="package:starter-2d")
    parser.add_argument("--in-3d", metavar="CHECKPOINT", help="of a network in 3D")
    parser.add_argument("--steps", type=int, help="the checkpoint's own where not given")
    parser.add_argument("--masks", type=int, default=32)
    parser.add_argument("--lesions", type=int, default=8)
    parser.add_argument("--sheet", type=Path, help="a PNG; the scan's name is put before it")
    options = parser.parse_args()
    steps = {} if options.steps is None else {"num_inference_steps": options.steps}
    settings = Diffusion(checkpoint=options.checkpoint, **steps)
    for name in options.scan:
        folder = find_scan(options.data, name)
        ct = read_ct(folder / "ct.nii.gz")
        wanted: list[tuple[str | None, Region, int]] = [
            (None, soft_tissue(ct.array), options.masks)
        ]
        kidneys = [folder / "segmentations" / f"{one}.nii.gz" for one in KIDNEYS]
        if all(file.exists() for file in kidneys):
            organ = np.any([read_labels(file).array > 0 for file in kidneys], axis=0)
            wanted.append(("tumor", organ, options.lesions))
        for label, tissue, count in wanted:
            tasks = draw_tasks(ct, tissue, folder.name, label, count)
            spacing = " x ".join(f"{s:.2f}" for s in ct.spacing_mm)
            print(f"\n{folder.name}, {len(tasks)} x {label or 'whatever fits'} ({spacing} mm)\n")
            if not tasks:
                continue
            print(
                f"| | {' | '.join(BOUNDS)} | by side | MAE HU |\n|---|{'---|' * (len(BOUNDS) + 2)}"
            )
            ways = [as_volumes(tasks, settings), inpainted(tasks, settings)]
            print(row("as one volume", tasks, ways[0]))
            print(row("slice by slice", tasks, ways[1]))
            if options.in_3d is not None:
                whole = Diffusion(checkpoint=options.in_3d, num_inference_steps=IN_3D_STEPS)
                ways.append(inpainted(tasks, whole))
                print(row("by a network in 3D", tasks, ways[2]))
            print(row("real, two slices further", tasks, further(tasks)), flush=True)
            if options.sheet:
                from PIL import Image

                file = options.sheet.with_name(
                    f"{folder.name}-{label or 'tissue'}-{options.sheet.name}"
                )
                Image.fromarray(sheet(tasks, ways)).save(file)


if __name__ == "__main__":
    main()
