"""Quality against the number of steps, for every scheduler: which default a recipe should have.

    python tests/benchmarks/steps.py --checkpoint package:starter-2d --data ../shared/data

paints the first 64 masks of the yardstick (``starter.py``, whose measures these are) with each
scheduler in 1, 2, 4, 8, 16 and 32 steps, and with ddpm in 1000 if asked (``--thousand``: hours on
a CPU), and prints one table, then per scheduler the fewest steps within the yardstick's limits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from starter import Baselines, Row, add_arguments, limits_kept, paint_with_checkpoint, score, table
from yardstick import Task, draw_tasks, find_scan

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


def fewest(rows: Sequence[tuple[str, Row]], against: Baselines) -> list[str]:
    """Per scheduler its fewest steps within all limits."""
    lines = []
    for scheduler in dict.fromkeys(name for name, _ in rows):
        within = [row for name, row in rows if name == scheduler]
        kept = [row for row in within if all(limits_kept(row, against, None).values())]
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
    parser.add_argument("--scan", default="s0003", help="a scan of the yardstick; s0004 for tuning")
    parser.add_argument("--schedulers", nargs="+", choices=list(SCHEDULERS), default=SCHEDULERS)
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--thousand", action="store_true", help="also ddpm in 1000 steps")
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    options.variants = 1
    folder = find_scan(options.data, options.scan)
    tasks = draw_tasks(read_ct(folder / "ct.nii.gz"), folder.name, options.masks)
    print(
        f"{options.checkpoint}: {len(tasks)} masks in {options.scan}, {options.dtype} on ", end=""
    )
    print(f"{options.device}\n")
    against = Baselines.of(tasks)
    found = list(measured(tasks, options))
    rows = [(scheduler, row) for scheduler, row in found if isinstance(row, Row)]
    print(table([*(row for _, row in rows), against.reference], against.reference))
    print("\nFewest steps within the limits of the yardstick:")
    print("\n".join(fewest(rows, against)))
    for _, refused in found:
        if isinstance(refused, str):
            print(f"not painted: {refused}")


if __name__ == "__main__":
    main()
