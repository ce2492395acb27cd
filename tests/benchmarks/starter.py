"""The yardstick of 2D checkpoints: 128 ellipses in soft tissue of a scan they were not trained on.

    python tests/benchmarks/starter.py --checkpoint package:starter-2d --data ../shared/data

prints a table of the checkpoints, of biharmonic inpainting, and of two paintings that are real
tissue: the same place one slice further, and another place of the scan. Everything is scored after
pasting, on the scan's own grid, with HU clipped to the soft-tissue window; the measures are those
of ``synthct.metrics``. ``--checkpoint none`` scores the baselines alone; ``--scan s0004`` is for
tuning, so that the yardstick itself stays unseen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthct.metrics.error import mean_absolute_error, mean_error
from synthct.metrics.outside import outside_max_abs_diff
from synthct.metrics.seam import pooled_seam_ratio, seam_steps
from synthct.metrics.texture import texture_ratio
from synthct.seeds import derive_seed, generator
from synthct.volume import Box, Volume, read_ct
from synthct.volume.intensity import SOFT_TISSUE

SEED = 0
RANGE_HU = SOFT_TISSUE.range_hu
RADIUS_MM = (10.0, 20.0)
#: Least share of a mask that is soft tissue, so that no mask lies in air, lung or bone.
TISSUE_SHARE = 0.95
#: Centres of a mask and of the random real patch are at least so far apart.
APART_MM = 2 * RADIUS_MM[1]
SHEET_TASKS, SHEET_VOXELS = 16, 128

Values = npt.NDArray[np.float64]
Region = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Task:
    """One mask to paint.

    Attributes:
        index: Number of the mask, which names its random streams.
        ct: The slice, (I, J, 1).
        region: The mask on the same grid.
        next_values: HU of the same place one slice further.
        other_values: HU of another place of the scan.
    """

    index: int
    ct: Volume
    region: Volume
    next_values: Values
    other_values: Values


@dataclass(frozen=True)
class Row:
    """The figures of one way to paint."""

    name: str
    mae_hu: float
    mean_error_hu: float
    texture: float
    seam: float
    ms: float | None
    mae_of_mean_hu: float | None = None


def ellipse(
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    center: tuple[float, float],
    radii_mm: tuple[float, float],
    angle: float,
) -> Region:
    """A filled ellipse (I, J); the centre in voxels, the angle in radians."""
    i, j = np.ogrid[: shape[0], : shape[1]]
    x, y = (i - center[0]) * spacing_mm[0], (j - center[1]) * spacing_mm[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside: Region = (along / radii_mm[0]) ** 2 + (across / radii_mm[1]) ** 2 <= 1
    return inside


def soft_tissue(hu: npt.NDArray[np.int16]) -> Region:
    """Boolean (I, J, K): voxels of the soft-tissue window inside the body, without the table."""
    from scipy import ndimage

    in_plane = ndimage.generate_binary_structure(2, 1)[:, :, None]
    solid = ndimage.binary_opening(hu > -300, in_plane, iterations=4)
    parts, _ = ndimage.label(solid)
    body = parts == np.argmax(np.bincount(parts[parts > 0]))
    tissue: Region = body & (hu >= RANGE_HU[0]) & (hu <= RANGE_HU[1])
    return tissue


def draw_tasks(ct: Volume, scan: str, count: int) -> list[Task]:
    """``count`` ellipses in soft tissue, the same for the same scan, whatever the count."""
    tissue = soft_tissue(ct.array)
    return [draw_task(ct, tissue, scan, index) for index in range(count)]


def draw_task(ct: Volume, tissue: Region, scan: str, index: int) -> Task:
    """One ellipse, and another place that would hold it too."""
    rng = generator(SEED, "starter-benchmark", scan, str(index))
    shape, spacing = ct.shape[:2], ct.spacing_mm[:2]
    radii = (rng.uniform(*RADIUS_MM), rng.uniform(*RADIUS_MM))
    angle = rng.uniform(0, np.pi)

    def draw_place(last_slice: int) -> tuple[Region, tuple[int, int], int]:
        while True:
            k = int(rng.integers(last_slice + 1))
            candidates = np.argwhere(tissue[:, :, k])
            if not len(candidates):
                continue
            i, j = candidates[rng.integers(len(candidates))]
            region = ellipse(shape, spacing, (i, j), radii, angle)
            whole = i > 32 and j > 32 and i < shape[0] - 32 and j < shape[1] - 32
            if whole and tissue[:, :, k][region].mean() >= TISSUE_SHARE:
                return region, (int(i), int(j)), k

    region, center, k = draw_place(ct.shape[2] - 2)
    while True:
        other, place, other_k = draw_place(ct.shape[2] - 1)
        apart = np.hypot(*(np.subtract(place, center) * spacing))
        if apart >= APART_MM:
            break
    # The same integer centre offset gives the same voxels, so the values correspond in order.
    layer = Box((0, 0, k), (*shape, k + 1))
    return Task(
        index=index,
        ct=ct.crop(layer),
        region=Volume(region[:, :, None], ct.crop(layer).affine),
        next_values=ct.array[:, :, k + 1][region].astype(np.float64),
        other_values=ct.array[:, :, other_k][other].astype(np.float64),
    )


def biharmonic(task: Task) -> Values:
    """The mask filled by scikit-image's biharmonic inpainting of the clipped surroundings."""
    from skimage.restoration import inpaint_biharmonic

    box = Box.around(task.region.array)
    assert box is not None
    crop = box.grow((16, 16, 0)).clip(task.ct.shape).slices
    mask = task.region.array[crop][:, :, 0]
    known = np.clip(task.ct.array[crop][:, :, 0].astype(np.float64), *RANGE_HU)
    filled: Values = inpaint_biharmonic(known, mask)[mask]
    return filled


def pasted(task: Task, values: Values) -> Volume:
    """The slice with ``values`` inside the mask, in the mask's voxel order, rounded to int16."""
    full = np.zeros(task.ct.shape)
    full[task.region.array] = values
    return task.ct.paste(full, where=task.region.array)


def score(
    name: str, tasks: Sequence[Task], variants: Sequence[Sequence[Values]], ms: float | None
) -> Row:
    """The figures of the first variant, and the error of the mean of all of them."""
    triples = [
        (task.ct.array, pasted(task, values).array, task.region.array)
        for task, values in zip(tasks, variants[0], strict=True)
    ]
    assert not any(outside_max_abs_diff(*triple) for triple in triples)
    mae_of_mean = None
    if len(variants) > 1:
        errors = []
        for number, (original, _, mask) in enumerate(triples):
            mean = original.astype(np.float64)
            mean[mask] = np.mean([np.clip(v[number], *RANGE_HU) for v in variants], axis=0)
            errors.append(mean_absolute_error(original, mean, mask, RANGE_HU))
        mae_of_mean = float(np.mean(errors))
    return Row(
        name=name,
        mae_hu=float(np.mean([mean_absolute_error(*t, RANGE_HU) for t in triples])),
        mean_error_hu=float(np.mean([abs(mean_error(*t, RANGE_HU)) for t in triples])),
        texture=float(np.median([texture_ratio(*t, RANGE_HU) for t in triples])),
        seam=pooled_seam_ratio(seam_steps(*t, RANGE_HU) for t in triples),
        ms=ms,
        mae_of_mean_hu=mae_of_mean,
    )


def timed(paint: Callable[[Task], Values], tasks: Sequence[Task]) -> tuple[list[Values], float]:
    """The values of every task, and milliseconds per task."""
    start = time.perf_counter()
    values = [paint(task) for task in tasks]
    return values, 1000 * (time.perf_counter() - start) / len(tasks)


def paint_with_checkpoint(
    name: str, tasks: Sequence[Task], options: argparse.Namespace
) -> tuple[list[list[Values]], float]:
    """Values by variant and task, and milliseconds per sample (cutting and pasting included)."""
    from synthct.models.checkpoint import load_checkpoint
    from synthct.models.methods import Diffusion
    from synthct.models.painting import Inpainter
    from synthct.models.patch import PatchRules, cut_patches, paste_patches

    checkpoint = load_checkpoint(name, device=options.device)
    rules = PatchRules.from_config(checkpoint["unet"].config)
    inpainter = Inpainter(
        checkpoint,
        Diffusion(
            scheduler=options.scheduler,
            num_inference_steps=options.steps,
            batch_size=options.batch_size,
            dtype=options.dtype,
        ),
    )

    def paint(chosen: Sequence[Task], variant: int) -> list[Values]:
        cut = [cut_patches(task.ct, task.region, None, rules) for task in chosen]
        seeds = [
            derive_seed(SEED, "noise", str(task.index), str(part), str(variant))
            for task, patches in zip(chosen, cut, strict=True)
            for part in range(len(patches))
        ]
        painted = iter(inpainter.paint([patch for patches in cut for patch in patches], seeds))
        values = []
        for task, patches in zip(chosen, cut, strict=True):
            own = [next(painted) for _ in patches]
            result = paste_patches(task.ct, task.region, patches, own)
            values.append(result.array[task.region.array].astype(np.float64))
        return values

    paint(tasks[:1], 0)  # not timed: the first pass of a device sets itself up
    start = time.perf_counter()
    variants = [paint(tasks, variant) for variant in range(options.variants)]
    elapsed = time.perf_counter() - start
    return variants, 1000 * elapsed / (len(tasks) * options.variants)


def table(rows: Sequence[Row], reference: Row) -> str:
    """The rows as markdown; ratios are to ``reference``."""
    lines = [
        "| | MAE HU | error of mean HU | texture ratio | seam ratio | ms per sample "
        "| MAE of the mean of variants HU | MAE / biharmonic | mean of variants / biharmonic |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = "" if row.ms is None else f"{row.ms:.0f}"
        of_mean, of_mean_ratio = "", ""
        if row.mae_of_mean_hu is not None:
            of_mean = f"{row.mae_of_mean_hu:.1f}"
            of_mean_ratio = f"{row.mae_of_mean_hu / reference.mae_hu:.2f}"
        lines.append(
            f"| {row.name} | {row.mae_hu:.1f} | {row.mean_error_hu:.1f} | {row.texture:.2f} "
            f"| {row.seam:.2f} | {ms} | {of_mean} | {row.mae_hu / reference.mae_hu:.2f} "
            f"| {of_mean_ratio} |"
        )
    return "\n".join(lines)


def verdict(row: Row, reference: Row) -> str:
    """Which limits of the yardstick a checkpoint keeps."""
    limits = {
        "texture 0.85..1.15": 0.85 <= row.texture <= 1.15,
        "seam 0.9..1.15": 0.9 <= row.seam <= 1.15,
        "error of the mean below biharmonic": row.mean_error_hu < reference.mean_error_hu,
        "MAE at most 1.35 x biharmonic": row.mae_hu <= 1.35 * reference.mae_hu,
    }
    if row.mae_of_mean_hu is not None:
        limits["MAE of the mean of variants at most biharmonic"] = (
            row.mae_of_mean_hu <= reference.mae_hu
        )
    return f"{row.name}: " + "; ".join(
        f"{name} {'yes' if kept else 'NO'}" for name, kept in limits.items()
    )


def write_sheet(path: Path, tasks: Sequence[Task], painted: Sequence[Values]) -> None:
    """A PNG of masked input, painted and original, for up to 16 masks in two columns."""
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(tasks) - 1, SHEET_TASKS).astype(int))
    strips = []
    for number in chosen:
        task = tasks[number]
        box = Box.around(task.region.array)
        assert box is not None
        start = [
            min(max(0, (a + b - SHEET_VOXELS) // 2), n - SHEET_VOXELS)
            for a, b, n in zip(box.start_ijk[:2], box.stop_ijk[:2], task.ct.shape[:2], strict=True)
        ]
        crop = tuple(slice(a, a + SHEET_VOXELS) for a in start)
        panels = []
        for kind in ("masked", "painted", "original"):
            volume = pasted(task, painted[number]) if kind == "painted" else task.ct
            grey = np.rint((SOFT_TISSUE.encode(volume.array) + 1) * 127.5).astype(np.uint8)
            rgb = np.repeat(grey, 3, axis=2)
            if kind == "masked":
                rgb[task.region.array[:, :, 0]] = (70, 110, 160)
            # Radiological view of RAS+: anterior up, the patient's right on the left.
            panels.append(np.pad(rgb[crop][::-1, ::-1].swapaxes(0, 1), ((1, 1), (1, 1), (0, 0))))
        strips.append(np.concatenate(panels, axis=1))
    strips += [np.zeros_like(strips[0])] * (len(strips) % 2)
    half = len(strips) // 2
    columns = [np.concatenate(strips[:half]), np.concatenate(strips[half:])]
    sheet = np.concatenate([columns[0], np.zeros_like(columns[0][:, :8]), columns[1]], axis=1)
    Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2)).save(path)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--checkpoint", nargs="+", default=["package:starter-2d"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scan", default="s0003", help="s0003 is the yardstick, s0004 for tuning")
    parser.add_argument("--masks", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scheduler", default="dpmsolver++")
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sheet", type=Path, help="write a PNG of 16 masks")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    ct = read_ct(options.data / "totalsegmentator_v2" / options.scan / "ct.nii.gz")
    tasks = draw_tasks(ct, options.scan, options.masks)
    spacing = " x ".join(f"{s:.2f}" for s in ct.spacing_mm)
    print(f"{len(tasks)} masks in {options.scan} ({spacing} mm), {options.scheduler}, ", end="")
    print(f"{options.steps} steps, {options.dtype} on {options.device}\n")

    filled, ms = timed(biharmonic, tasks)
    reference = score("biharmonic inpainting", tasks, [filled], ms)
    baselines = [
        reference,
        score("real neighbouring slice", tasks, [[t.next_values for t in tasks]], None),
        score("random real patch", tasks, [[t.other_values for t in tasks]], None),
    ]
    checkpoints: list[Row] = []
    shown = filled
    for name in options.checkpoint:
        if name == "none":
            continue
        variants, ms = paint_with_checkpoint(name, tasks, options)
        shown = variants[0] if not checkpoints else shown
        checkpoints.append(score(name, tasks, variants, ms))
    print(table([*checkpoints, *baselines], reference))
    for row in checkpoints:
        print(f"\n{verdict(row, reference)}")
    if options.sheet:
        write_sheet(options.sheet, tasks, shown)


if __name__ == "__main__":
    main()
