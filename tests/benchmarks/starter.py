"""The yardstick of 2D checkpoints: 64 masks in each of several scans that they were not trained on.

    python tests/benchmarks/starter.py --checkpoint package:starter-2d --data ../shared/data

prints for each scan a table of the checkpoints, of biharmonic inpainting, and of two paintings that
are real tissue (the same place one slice further, and another place of the scan), and which limits
a checkpoint keeps. ``--scan`` names cases of ``totalsegmentator_v2``, ``yardsticks`` or ``free``;
where an organ is known, parts of it are painted as that label too. What is painted comes out of
``synthct.inpaint``, as users get it, and is scored on the scan's own grid with HU clipped to the
window of the label; the measures are those of ``synthct.metrics``. ``--checkpoint none`` scores the
baselines alone. The reference is biharmonic inpainting of the median-filtered surroundings: of the
surroundings as they are, it extends the noise of single pixels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from yardstick import (
    RANGE_HU,
    SCANS,
    Region,
    Task,
    Values,
    draw_tasks,
    find_scan,
    pasted,
    read_tasks,
)

import synthct
from synthct.metrics.error import mean_absolute_error, mean_error
from synthct.metrics.outside import outside_max_abs_diff
from synthct.metrics.seam import pooled_seam_ratio, seam_steps
from synthct.metrics.spectrum import spectrum_distance
from synthct.metrics.texture import texture_ratio
from synthct.volume import Box, Volume
from synthct.volume.intensity import Window
from synthct.volume.views import VIEW_AXIS

__all__ = ["RANGE_HU", "Row", "Task", "biharmonic", "draw_tasks", "paint_with_checkpoint", "score"]

#: Pixels of the median filter before the reference is inpainted.
MEDIAN = 5
SHEET_TASKS, SHEET_VOXELS = 16, 128


@dataclass(frozen=True)
class Row:
    """The figures of one way to paint the masks of a scan.

    Attributes:
        name: The checkpoint or baseline.
        mae_hu: Mean over the masks of the mean absolute error.
        mean_error_hu: Mean over the masks of the error of the mean HU, without its sign.
        texture: Median texture ratio.
        seam: Seam ratio of all borders together.
        spectrum_db: Median distance of the noise spectra.
        ms: Milliseconds per mask; None for real tissue.
        mae_of_mean_hu: As ``mae_hu``, of the mean of several variants; None for a single one.
    """

    name: str
    mae_hu: float
    mean_error_hu: float
    texture: float
    seam: float
    spectrum_db: float
    ms: float | None
    mae_of_mean_hu: float | None = None


@dataclass(frozen=True)
class Baselines:
    """What checkpoints are compared with: the reference, and two kinds of real tissue."""

    reference: Row
    neighbour: Row
    random: Row

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Baselines:
        """The baselines of some masks."""
        filled, ms = timed(biharmonic, tasks)
        return cls(
            score("biharmonic inpainting", tasks, [filled], ms),
            score("real neighbouring slice", tasks, [[t.next_values for t in tasks]], None),
            score("random real patch", tasks, [[t.other_values for t in tasks]], None),
        )


def biharmonic(task: Task) -> Values:
    """The mask filled by scikit-image's biharmonic inpainting of the smoothed surroundings."""
    from skimage.restoration import inpaint_biharmonic

    box = Box.around(task.region.array)
    assert box is not None
    crop = box.grow((16, 16, 0)).clip(task.ct.shape).slices
    mask = task.region.array[crop][:, :, 0]
    known = np.clip(task.ct.array[crop][:, :, 0].astype(np.float64), *task.range_hu)
    filled: Values = inpaint_biharmonic(_median_outside(known, mask), mask)[mask]
    return filled


def _median_outside(picture: Values, mask: Region) -> Values:
    """Median filter that sees nothing of what is under the mask; 0 there."""
    seen = np.pad(np.where(mask, np.nan, picture), MEDIAN // 2, mode="symmetric")
    out = np.zeros(picture.shape)
    out[~mask] = np.nanmedian(sliding_window_view(seen, (MEDIAN, MEDIAN))[~mask], axis=(-2, -1))
    return out


def score(
    name: str, tasks: Sequence[Task], variants: Sequence[Sequence[Values]], ms: float | None
) -> Row:
    """The figures of the first variant, and the error of the mean of all of them."""
    scored = [
        (task.ct.array, pasted(task, values).array, task.region.array, task.range_hu)
        for task, values in zip(tasks, variants[0], strict=True)
    ]
    assert not any(outside_max_abs_diff(*one[:3]) for one in scored)
    mae_of_mean = None
    if len(variants) > 1:
        errors = []
        for number, (original, _, mask, range_hu) in enumerate(scored):
            mean = original.astype(np.float64)
            mean[mask] = np.mean([np.clip(v[number], *range_hu) for v in variants], axis=0)
            errors.append(mean_absolute_error(original, mean, mask, range_hu))
        mae_of_mean = float(np.mean(errors))
    return Row(
        name=name,
        mae_hu=float(np.mean([mean_absolute_error(*one) for one in scored])),
        mean_error_hu=float(np.mean([abs(mean_error(*one)) for one in scored])),
        texture=float(np.nanmedian([texture_ratio(*one) for one in scored])),
        seam=pooled_seam_ratio(seam_steps(*one) for one in scored),
        spectrum_db=float(np.nanmedian([spectrum_distance(*one) for one in scored])),
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
    """Values by variant and task, and milliseconds per sample (loading the network included).

    The slices of all tasks are painted as one stack, which to a 2D checkpoint is the same as one by
    one, and quicker.
    """
    stack = Volume(np.concatenate([task.ct.array for task in tasks], axis=2), tasks[0].ct.affine)
    masks = Volume(np.concatenate([t.region.array for t in tasks], axis=2), stack.affine)

    def paint(variant: int) -> list[Values]:
        painted = synthct.inpaint(
            stack,
            masks,
            label=tasks[0].label,
            checkpoint=name,
            scheduler=options.scheduler,
            num_inference_steps=options.steps,
            seed=variant,
            device=options.device,
            batch_size=options.batch_size,
            dtype=options.dtype,
        )
        return [
            painted.array[:, :, n][task.region.array[:, :, 0]].astype(np.float64)
            for n, task in enumerate(tasks)
        ]

    start = time.perf_counter()
    variants = [paint(variant) for variant in range(options.variants)]
    elapsed = time.perf_counter() - start
    return variants, 1000 * elapsed / (len(tasks) * options.variants)


def table(rows: Sequence[Row], reference: Row) -> str:
    """The rows as markdown; ratios are to ``reference``."""
    lines = [
        "| | MAE HU | error of mean HU | texture ratio | seam ratio | spectrum dB | ms per sample "
        "| MAE of the mean of variants HU | MAE / biharmonic |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = "" if row.ms is None else f"{row.ms:.0f}"
        of_mean = "" if row.mae_of_mean_hu is None else f"{row.mae_of_mean_hu:.1f}"
        lines.append(
            f"| {row.name} | {row.mae_hu:.1f} | {row.mean_error_hu:.1f} | {row.texture:.2f} "
            f"| {row.seam:.2f} | {row.spectrum_db:.2f} | {ms} | {of_mean} "
            f"| {row.mae_hu / reference.mae_hu:.2f} |"
        )
    return "\n".join(lines)


def limits_kept(row: Row, against: Baselines, label: str | None) -> dict[str, bool]:
    """The limits of the yardstick, each with whether a checkpoint keeps it.

    An organ is known only to the network, so errors are limited for whatever fits alone.
    """
    kept = {
        "texture 0.85..1.15": 0.85 <= row.texture <= 1.15,
        "seam 0.9..1.15": 0.9 <= row.seam <= 1.15,
    }
    if label is not None:
        return kept
    mean, random_mean = against.reference.mean_error_hu, against.random.mean_error_hu
    return {
        **kept,
        f"error of mean <= {0.9 * mean:.1f}": row.mean_error_hu <= 0.9 * mean,
        f"error of mean <= half of random's, {random_mean / 2:.1f}": (
            row.mean_error_hu <= random_mean / 2
        ),
        f"MAE <= {1.25 * against.reference.mae_hu:.1f}": (
            row.mae_hu <= 1.25 * against.reference.mae_hu
        ),
        f"spectrum <= {1.5 * against.neighbour.spectrum_db:.2f}": (
            row.spectrum_db <= 1.5 * against.neighbour.spectrum_db
        ),
    }


def verdict(row: Row, against: Baselines, label: str | None = None) -> str:
    """Which limits of the yardstick a checkpoint keeps, in a line."""
    kept = limits_kept(row, against, label)
    said = "; ".join(f"{name} {'yes' if is_kept else 'NO'}" for name, is_kept in kept.items())
    return f"{row.name}: {'PASS' if all(kept.values()) else 'FAIL'}: {said}"


def write_sheet(path: Path, tasks: Sequence[Task], painted: Sequence[Values]) -> None:
    """A PNG of masked input, painted and original, for up to 16 masks in two columns."""
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(tasks) - 1, SHEET_TASKS).astype(int))
    strips = []
    for number in chosen:
        task = tasks[number]
        low, high = task.range_hu
        window = Window(level_hu=(low + high) / 2, width_hu=high - low)
        box = Box.around(task.region.array)
        assert box is not None
        side = min(SHEET_VOXELS, *task.ct.shape[:2])
        start = [
            min(max(0, (a + b - side) // 2), n - side)
            for a, b, n in zip(box.start_ijk[:2], box.stop_ijk[:2], task.ct.shape[:2], strict=True)
        ]
        crop = tuple(slice(a, a + side) for a in start)
        panels = []
        for kind in ("masked", "painted", "original"):
            volume = pasted(task, painted[number]) if kind == "painted" else task.ct
            grey = np.rint((window.encode(volume.array) + 1) * 127.5).astype(np.uint8)
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that all yardsticks share."""
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--checkpoint", nargs="+", default=["package:starter-2d"])
    parser.add_argument("--scan", nargs="+", default=SCANS, help="s0004 is for tuning")
    parser.add_argument("--view", choices=list(VIEW_AXIS), default="axial")
    parser.add_argument("--steps", type=int, help="by default as in a recipe")
    parser.add_argument("--scheduler", default="dpmsolver++")
    parser.add_argument("--variants", type=int, default=1)
    parser.add_argument("--no-organs", action="store_true", help="whatever fits only")
    parser.add_argument("--sheet", type=Path, help="folder for a PNG of 16 masks of each scan")
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    names = [name for name in options.checkpoint if name != "none"]
    print(
        f"{options.masks} masks in each, {options.scheduler}, {options.steps or 'default'} steps, ",
        end="",
    )
    print(f"{options.dtype} on {options.device}")
    verdicts = []
    for scan in options.scan:
        folder = find_scan(options.data, scan)
        for title, ct, _, tasks in read_tasks(folder, options.masks, options.view):
            label = tasks[0].label
            if options.no_organs and label is not None:
                continue
            against = Baselines.of(tasks)
            rows: list[Row] = []
            shown = None
            for name in names:
                variants, ms = paint_with_checkpoint(name, tasks, options)
                rows.append(score(name, tasks, variants, ms))
                shown = shown or variants[0]
            spacing = " x ".join(f"{s:.2f}" for s in ct.spacing_mm)
            baselines = [against.reference, against.neighbour, against.random]
            print(f"\n{title} ({spacing} mm)\n\n{table([*rows, *baselines], against.reference)}")
            verdicts += [f"{title}: {verdict(row, against, label)}" for row in rows]
            if options.sheet and shown:
                options.sheet.mkdir(parents=True, exist_ok=True)
                write_sheet(options.sheet / f"{title.replace(' ', '_')}.png", tasks, shown)
    print("\n" + "\n".join(verdicts))


if __name__ == "__main__":
    main()
