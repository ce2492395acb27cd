"""Whether the default limits notice what is wrong: real tissue, made wrong on purpose.

    PYTHONPATH=tests python tests/benchmarks/falsifiers.py --data ../shared/data

learns the default limits of each scan as a build does, alters the tissue under the masks of the
yardstick, and prints the share of masks that break a limit, and which. Real tissue pasted back must
break none, and of the neighbouring slices at most 5 % texture or spectrum (their seam is honestly
high). Noise of twice or half the strength, blur, and noise of a softer or a sharper kernel must
break one. The same tissue 40 HU darker stands for a lesion, and is held to the limits of a label
that is painted over other tissue.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from falsified import FALSIFIERS, falsified
from yardstick import SCANS, Region, Task, find_scan, pasted, read_tasks

from synthct.build.limits import PLACES, limits_of
from synthct.build.real_tissue import compare_real
from synthct.metrics.grain import grain_ratio
from synthct.metrics.seam import seam_ratio
from synthct.metrics.spectrum import spectrum_distance
from synthct.metrics.texture import texture_ratio
from synthct.recipe.quality import Quality, Standard
from synthct.seeds import generator
from synthct.volume import Box, Volume
from synthct.volume.case import Case

#: Most of them that may break texture or spectrum.
MOST_NEIGHBOURS = 0.05
#: Least share of falsified masks that must break a limit.
LEAST_NOTICED = 0.8
#: Pixels around a mask in which its noise is altered.
MARGIN = 24
#: What stands for a lesion differs from the tissue under its mask by so many HU.
LESION_HU = -40.0


def standard_of(
    ct: Volume, label: str | None, organ: Region | None, *, is_lesion: bool
) -> Standard:
    """The default limits that a build of this scan alone would have."""
    values = np.zeros(ct.shape, np.uint8) if organ is None else organ.astype(np.uint8)
    names = {label: 1} if label else {}
    case = Case("case", "patient", "hosts", ct, Volume(values, ct.affine), names)
    pairs = compare_real(case, label, "axial", None, PLACES)
    limits = limits_of([pairs], with_other_places=is_lesion)
    return Standard(Quality.model_validate(limits), is_default=True)


def paintings(task: Task, shift_hu: float) -> Iterator[tuple[str, Volume]]:
    """The slice of a mask with each kind of tissue under it, so much brighter than it is."""
    inside = task.region.array
    own = task.ct.array[inside].astype(np.float64)
    yield "real tissue pasted back", pasted(task, own + shift_hu)
    yield "real neighbouring slice", pasted(task, task.next_values + shift_hu)
    box = Box.around(inside)
    assert box is not None
    crop = box.grow((MARGIN, MARGIN, 0)).clip(task.ct.shape).slices
    hu, mask = task.ct.array[crop][:, :, 0], inside[crop][:, :, 0]
    for kind in FALSIFIERS:
        rng = generator(0, "falsifier", kind, str(task.index))
        yield kind, pasted(task, falsified(hu, kind, rng)[mask] + shift_hu)


def broken_limits(
    tasks: Sequence[Task], standard: Standard, shift_hu: float
) -> dict[str, Counter[str]]:
    """By kind of tissue: how many masks break which limit, and ``any``, and any but the seam's."""
    counts: dict[str, Counter[str]] = {}
    for task in tasks:
        for kind, painted in paintings(task, shift_hu):
            given = task.ct.array, painted.array, task.region.array, task.range_hu
            measures = {
                "seam_ratio": seam_ratio(*given),
                "texture_ratio": texture_ratio(*given),
                "spectrum_distance": spectrum_distance(*given),
                "grain_ratio": grain_ratio(*given[1:]),
            }
            broken = {
                name
                for name, value in measures.items()
                if (standard.strain({**dict.fromkeys(measures), name: value}) or 0) > 1
            }
            count = counts.setdefault(kind, Counter())
            count.update(broken)
            count["any"] += bool(broken)
            count["but the seam's"] += bool(broken - {"seam_ratio"})
    return counts


def is_as_it_should(kind: str, count: Counter[str], masks: int) -> bool:
    """Whether real tissue passes, or what is wrong is noticed."""
    if kind == "real tissue pasted back":
        return count["any"] == 0
    if kind == "real neighbouring slice":
        return count["but the seam's"] <= MOST_NEIGHBOURS * masks
    return count["any"] >= LEAST_NOTICED * masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scan", nargs="+", default=[*SCANS, "acrin_flt"])
    parser.add_argument("--masks", type=int, default=100)
    options = parser.parse_args()
    for scan in options.scan:
        for title, ct, organ, tasks in read_tasks(find_scan(options.data, scan), options.masks):
            for shift_hu in (0.0, LESION_HU):
                is_lesion = bool(shift_hu)
                label, where = (None, None) if is_lesion else (tasks[0].label, organ)
                standard = standard_of(ct, label, where, is_lesion=is_lesion)
                limits = standard.limits.limits
                shown = {k: v.model_dump(exclude_none=True) for k, v in limits.items()}
                print(f"\n{title}{', as a lesion' if is_lesion else ''}: {shown}\n")
                names = ("any", "but the seam's", *limits)
                print(f"| | {' | '.join(names)} | |\n|---|{'---|' * (len(names) + 1)}")
                for kind, count in broken_limits(tasks, standard, shift_hu).items():
                    shares = " | ".join(f"{100 * count[n] / len(tasks):.0f} %" for n in names)
                    verdict = "yes" if is_as_it_should(kind, count, len(tasks)) else "NO"
                    print(f"| {kind} | {shares} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
