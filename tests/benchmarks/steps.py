"""Quality against the number of steps, for every scheduler: which default a recipe should have.

    python tests/benchmarks/steps.py --checkpoint package:starter-2d --data ../shared/data

paints the first 64 masks of the yardstick (``starter.py``, whose measures these are) with each
scheduler in 1, 2, 4, 8, 16 and 32 steps, and with ddpm in 1000 if asked (``--thousand``: hours on
a CPU), and prints one table, then per scheduler the fewest steps within the yardstick's limits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from starter import (
    Row,
    Task,
    biharmonic,
    draw_tasks,
    paint_with_checkpoint,
    score,
    table,
    timed,
    verdict,
)

from synthct.errors import CheckpointError, MaskError
from synthct.models.painting import SCHEDULERS
from synthct.volume import read_ct

STEPS = (1, 2, 4, 8, 16, 32)
THOUSAND = ("ddpm", 1000)


def combinations(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Schedulers and steps, by scheduler."""
    for scheduler in options.schedulers:
        for steps in options.steps:
            yield scheduler, steps
    if options.thousand:
        yield THOUSAND


def measured(tasks: Sequence[Task], options: argparse.Namespace) -> Iterator[tuple[str, Row | str]]:
    """What every combination comes to, or why it cannot be had; with its scheduler."""
    for scheduler, steps in combinations(options):
        asked = argparse.Namespace(**{**vars(options), "scheduler": scheduler, "steps": steps})
        name = f"{scheduler} {steps}"
        try:
            variants, ms = paint_with_checkpoint(options.checkpoint, tasks, asked)
        except (CheckpointError, MaskError) as err:
            yield scheduler, f"{name}: {err}"
            continue
        yield scheduler, score(name, tasks, variants, ms)


def is_within(row: Row, reference: Row) -> bool:
    """Whether a row keeps every limit of the yardstick."""
    return "NO" not in verdict(row, reference)


def fewest(rows: Sequence[tuple[str, Row]], reference: Row) -> list[str]:
    """Per scheduler its fewest steps within all limits."""
    lines = []
    for scheduler in dict.fromkeys(name for name, _ in rows):
        kept = [row for name, row in rows if name == scheduler and is_within(row, reference)]
        found = min(kept, key=lambda row: row.ms or 0.0, default=None)
        lines.append(
            f"{scheduler}: {found.name.split()[-1]} steps, {found.ms:.0f} ms"
            if found is not None
            else f"{scheduler}: none"
        )
    return lines


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--checkpoint", default="package:starter-2d")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scan", default="s0003", help="s0003 is the yardstick, s0004 for tuning")
    parser.add_argument("--masks", type=int, default=64)
    parser.add_argument("--schedulers", nargs="+", choices=list(SCHEDULERS), default=SCHEDULERS)
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--thousand", action="store_true", help="also ddpm in 1000 steps")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    options.variants = 1
    ct = read_ct(options.data / "totalsegmentator_v2" / options.scan / "ct.nii.gz")
    tasks = draw_tasks(ct, options.scan, options.masks)
    print(
        f"{options.checkpoint}: {len(tasks)} masks in {options.scan}, {options.dtype} on ", end=""
    )
    print(f"{options.device}\n")
    filled, ms = timed(biharmonic, tasks)
    reference = score("biharmonic inpainting", tasks, [filled], ms)
    found = list(measured(tasks, options))
    rows = [(scheduler, row) for scheduler, row in found if isinstance(row, Row)]
    print(table([*(row for _, row in rows), reference], reference))
    print("\nFewest steps within the limits of the yardstick:")
    print("\n".join(fewest(rows, reference)))
    for _, refused in found:
        if isinstance(refused, str):
            print(f"not painted: {refused}")


if __name__ == "__main__":
    main()
