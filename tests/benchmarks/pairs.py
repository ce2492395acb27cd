"""A forced choice of two: the same place painted and as it is, side by side; which is which?

    python tests/benchmarks/pairs.py --data ../shared/data --scan y1_abdomen --folder /tmp/p

paints masks of the yardstick (``--organ``: parts of the scan's organ, as that label) and writes the
folder for a reader: ``pairs/01.png`` and so on, the same pairs as contact sheets of eight, and
``guesses.csv`` to fill in (painted: A or B; confidence: 1, a guess, to 5, certain). Both crops of a
pair go the same way: the mask's box and 25 mm around it, in the window of the label, bicubically
enlarged three times. White ticks outside of the crops are level with the edges of the mask's box.

Nobody knows the seed that shuffles the pairs and their sides. The key lies beside the folder
(``p-key.json``) and must not be given to the reader; its hash is in ``study.json`` from the start.

    python tests/benchmarks/pairs.py --folder /tmp/p --score

tells the truth once every guess is written, and takes no other guesses afterwards.

No place may be seen in another pair's picture, where it is real on both sides: masks are taken in
the yardstick's order, without those that see or show another, in the same slice or as near as
``apart_mm`` in ``study.json``, which is less than 5 mm where the scan has not enough places.
``synthct reader-study`` asks without showing a place both ways, which is easier to paint for.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starter import add_arguments, paint_with_checkpoint
from yardstick import Task, Values, find_scan, pasted, read_tasks

from synthct.dataset.tiles import TEXT, Rgb, captioned, contact_sheet, windowed
from synthct.storage.files import atomic_write, make_folder
from synthct.studies.readers.statistics import told_apart
from synthct.studies.readers.study import CONFIDENCE, key_path
from synthct.volume import Box, Volume
from synthct.volume.intensity import Window
from synthct.volume.views import to_picture

MARGIN_MM = 25.0
TIMES = 3
#: Nearest slices in which a place may be seen; the first that leaves enough places is taken.
APART_MM = (5.0, 2.5, 0.0)
#: Share of right answers of a reader at most: 22 of 32.
AT_MOST = 22 / 32
#: Of fewer pairs all may have the painted one on the same side.
LEAST_PAIRS = 16
ON_SHEET, COLUMNS = 8, 2
#: Pixels around a crop, length of the ticks in them, and pixels between the crops of a pair.
BORDER, TICK, GAP = 14, 9, 16

SIDES = ("A", "B")
STUDY, GUESSES, RESULT = "study.json", "guesses.csv", "result.json"


def box_of(task: Task) -> Box:
    box = Box.around(task.region.array)
    assert box is not None
    return box


def crop_of(task: Task) -> Box:
    """The mask's box with its margin, in the slice."""
    margin = [round(MARGIN_MM / mm) for mm in task.ct.spacing_mm[:2]]
    return box_of(task).grow((*margin, 0)).clip(task.ct.shape)


def choose(tasks: Sequence[Task], count: int) -> tuple[list[Task], float]:
    """The first masks that no other's picture shows, and how far apart their slices are."""
    for apart_mm in APART_MM:
        chosen: list[Task] = []
        for task in tasks:
            if len(chosen) < count and not any(sees(task, one, apart_mm) for one in chosen):
                chosen.append(task)
        if len(chosen) == count:
            return chosen, apart_mm
    raise SystemExit(
        f"only {len(chosen)} of {len(tasks)} masks are not seen in another's picture, and {count} "
        "are wanted; ask for fewer --pairs, or choose from more --masks"
    )


def sees(one: Task, other: Task, apart_mm: float) -> bool:
    """Whether the picture of a mask shows the other: its slice, or one nearer than ``apart_mm``."""
    away_mm = abs(one.ct.origin_mm[2] - other.ct.origin_mm[2])
    if away_mm > max(apart_mm, one.ct.spacing_mm[2] / 2) - 1e-3:
        return False
    return overlap(crop_of(one), box_of(other)) or overlap(crop_of(other), box_of(one))


def overlap(one: Box, other: Box) -> bool:
    """Whether boxes share voxels; each task has its slice alone, so those of all lie in a plane."""
    return bool(
        (
            np.maximum(one.start_ijk, other.start_ijk) < np.minimum(one.stop_ijk, other.stop_ijk)
        ).all()
    )


def crop_picture(task: Task, volume: Volume) -> Rgb:
    """One side of a pair: the crop of a slice, enlarged, with ticks around it."""
    low, high = task.range_hu
    crop = crop_of(task).slices
    grey = windowed(
        to_picture(volume.array[crop], "axial"),
        Window(level_hu=(low + high) / 2, width_hu=high - low),
    )
    rows, columns = (TIMES * n for n in grey.shape[:2])
    enlarged = Image.fromarray(grey).resize((columns, rows), Image.Resampling.BICUBIC)
    out = np.pad(np.asarray(enlarged), ((BORDER, BORDER), (BORDER, BORDER), (0, 0)))
    inside = to_picture(task.region.array[crop], "axial")
    for axis in (0, 1):
        level = np.flatnonzero(inside.any(axis=1 - axis))
        for at in (TIMES * level[0], TIMES * (level[-1] + 1) - 1):
            for tick in (slice(0, TICK), slice(-TICK, None)):
                out[(BORDER + at, tick) if axis == 0 else (tick, BORDER + at)] = 255
    return out


def pair_picture(name: str, task: Task, values: Values, painted: str) -> Rgb:
    """Both sides of a pair, with their letters beneath."""
    volumes = (pasted(task, values), task.ct)
    ordered = volumes if painted == SIDES[0] else volumes[::-1]
    sides = [
        captioned(crop_picture(task, volume), [[(f"pair {name}: {side}", TEXT)]])
        for side, volume in zip(SIDES, ordered, strict=True)
    ]
    return np.hstack([sides[0], np.zeros_like(sides[0][:, :GAP]), sides[1]])


def make(options: argparse.Namespace) -> None:
    """Paint, and write the folder and its key."""
    folder: Path = options.folder
    if folder.exists() or key_path(folder).exists():
        raise SystemExit(f"{folder} or its key is there already; give another --folder")
    drawn = list(read_tasks(find_scan(options.data, options.scan), options.masks))
    if options.organ and len(drawn) < 2:
        raise SystemExit(f"no organ of {options.scan} is known to the yardstick")
    title, ct, _, tasks = drawn[int(options.organ)]
    chosen, apart_mm = choose(tasks, options.pairs)
    [painted], _ = paint_with_checkpoint(options.checkpoint, chosen, options)
    seed = secrets.randbits(128)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(chosen))
    sides = [SIDES[n] for n in rng.integers(2, size=len(chosen))]
    names = [f"{n:02}" for n in range(1, len(chosen) + 1)]
    key = {
        "seed": str(seed),
        "painted": dict(zip(names, sides, strict=True)),
        "mask": dict(zip(names, (chosen[n].index for n in order), strict=True)),
    }
    secret = f"{json.dumps(key, indent=1)}\n".encode()
    make_folder(folder / "pairs")
    atomic_write(key_path(folder), secret)
    pictures = [
        pair_picture(name, chosen[n], painted[n], side)
        for name, n, side in zip(names, order, sides, strict=True)
    ]
    for name, picture in zip(names, pictures, strict=True):
        write_png(folder / "pairs" / f"{name}.png", [picture], 1)
    for start in range(0, len(pictures), ON_SHEET):
        last = min(start + ON_SHEET, len(pictures))
        some = pictures[start:last]
        write_png(folder / f"sheet_{names[start]}-{names[last - 1]}.png", some, COLUMNS)
    lines = ["pair,painted,confidence", *(f"{name},," for name in names)]
    atomic_write(folder / GUESSES, ("\n".join(lines) + "\n").encode())
    study = {
        "what": title,
        "spacing_mm": [round(mm, 3) for mm in ct.spacing_mm],
        "checkpoint": options.checkpoint,
        "window_hu": list(chosen[0].range_hu),
        "apart_mm": apart_mm,
        "pairs": len(names),
        "key_sha256": hashlib.sha256(secret).hexdigest(),
    }
    atomic_write(folder / STUDY, f"{json.dumps(study, indent=1)}\n".encode())
    print(f"{len(names)} pairs of {title} in {folder}; fill in {GUESSES}, then --score")


def write_png(path: Path, pictures: Sequence[Rgb], columns: int) -> None:
    sheet = contact_sheet(pictures, columns)
    assert sheet is not None
    atomic_write(path, sheet)


def read_guesses(path: Path, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Side called painted and confidence, by pair; refuses anything but one guess for each."""
    guesses: dict[str, tuple[str, int]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as err:
        raise SystemExit(f"{path}: cannot be read as UTF-8 text ({err})") from err
    for row in csv.DictReader(text.splitlines()):
        name, side, confidence = (
            (row.get(column) or "").strip() for column in ("pair", "painted", "confidence")
        )
        name = name.zfill(2)  # spreadsheets drop zeros
        if name not in names or name in guesses:
            raise SystemExit(f"{path}: pair '{name}' is none of this study, or there twice")
        if side.upper() not in SIDES or confidence not in map(str, CONFIDENCE):
            raise SystemExit(
                f"{path}: pair {name} has painted '{side}', confidence '{confidence}'; write A "
                f"or B, and {CONFIDENCE[0]} to {CONFIDENCE[-1]}; nothing is told before"
            )
        guesses[name] = side.upper(), int(confidence)
    if missing := [name for name in names if name not in guesses]:
        raise SystemExit(f"{path}: no guess for {', '.join(missing)}; nothing is told before")
    return {name: guesses[name] for name in names}


def read_json(path: Path) -> dict[str, Any]:
    """A file that was written with the pictures."""
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise SystemExit(f"{path}: cannot be read ({err}); was it made by this script?") from err
    return data


def score(folder: Path) -> None:
    """Print what a reader got right, and write it down with the guesses."""
    study = read_json(folder / STUDY)
    names = [f"{n:02}" for n in range(1, study["pairs"] + 1)]
    guesses = read_guesses(folder / GUESSES, names)
    written = {name: list(guess) for name, guess in guesses.items()}
    told = folder / RESULT
    if told.exists() and read_json(told)["guesses"] != written:
        raise SystemExit(
            f"{folder / GUESSES} was changed after the truth had been told; see {told}"
        )
    painted = read_json(key_path(folder))["painted"]
    if hashlib.sha256(key_path(folder).read_bytes()).hexdigest() != study["key_sha256"]:
        raise SystemExit(f"{key_path(folder)} is not the key that {folder} was made with")
    # Ratings as of the reader study: positive for "A is painted", the further from 0 the surer.
    truth = np.array([painted[name] == SIDES[0] for name in names])
    ratings = np.array([c if side == SIDES[0] else -c for side, c in guesses.values()])
    found = told_apart(truth, ratings)
    right = int(((ratings > 0) == truth).sum())
    value, low, high = found.accuracy
    result = {
        **study,
        "right": right,
        "accuracy": [round(share, 4) for share in found.accuracy],
        "p_value": round(found.p_value, 4),
        "guesses": written,
        "truth": painted,
    }
    atomic_write(told, f"{json.dumps(result, indent=1)}\n".encode())
    print("pair  painted  guess  confidence")
    for name, (side, confidence) in guesses.items():
        mark = "" if side == painted[name] else "  wrong"
        print(f"{name}    {painted[name]}        {side}      {confidence}{mark}")
    print(
        f"\n{study['what']}: {right} of {len(names)} right, {100 * value:.1f} % (95 %: "
        f"{100 * low:.1f} to {100 * high:.1f} %), p {found.p_value:.3g} against guessing; "
        f"at most {int(AT_MOST * len(names))}: {'PASS' if value <= AT_MOST else 'FAIL'}"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the reader")
    parser.add_argument("--score", action="store_true", help="tell the truth to finished guesses")
    parser.add_argument("--scan", default="y1_abdomen")
    parser.add_argument("--organ", action="store_true", help="parts of the scan's organ, as label")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--checkpoint", default="package:starter-2d")
    parser.add_argument("--steps", type=int, help="by default as in a recipe")
    parser.add_argument("--scheduler", default="dpmsolver++")
    add_arguments(parser)
    parser.set_defaults(masks=256, variants=1)
    options = parser.parse_args()
    if options.pairs < LEAST_PAIRS:
        parser.error(f"--pairs {options.pairs}: at least {LEAST_PAIRS}")
    return options


def main() -> None:
    options = parse_arguments()
    if options.score:
        score(options.folder)
    else:
        make(options)


if __name__ == "__main__":
    main()
