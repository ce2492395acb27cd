"""The sample strip: the same masks, painted with the same noise at intervals of a training.

Every interval adds a column to ``samples/``; ``samples.png`` shows up to ten of them between the
masked input and the original (Figure 11 of the thesis).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from synthct.models.patch import Patch
from synthct.storage.files import atomic_write
from synthct.training.draw import MaskedSlice
from synthct.training.objective import Objective
from synthct.training.validate import Validation

logger = logging.getLogger(__name__)

#: Slices in a strip, columns at most, and side of a tile in pixels.
ROWS, COLUMNS, TILE_PX = 6, 10, 128
_HEADER_PX = 14

Grey = npt.NDArray[np.uint8]


class SampleStrip:
    """The sample strip of one run.

    Args:
        validation: Paints its slices.
        output: The run's folder.
    """

    def __init__(self, validation: Validation, output: Path) -> None:
        self.validation, self.output = validation, output
        self.slices = choose_slices(validation.slices)
        self.path = output / "samples.png"

    def add(self, objective: Objective, step: int) -> None:
        """Paint a column with networks in evaluation mode, and update the strip."""
        painted = self.validation.paint(objective, self.slices)
        tiles = [
            _tile(one.patches[0], patches[0])
            for one, patches in zip(self.slices, painted, strict=True)
        ]
        png = io.BytesIO()
        Image.fromarray(np.concatenate(tiles)).save(png, format="png")
        columns = self.output / "samples"
        columns.mkdir(exist_ok=True)
        atomic_write(columns / f"step-{step:08d}.png", png.getvalue())
        self.draw()

    def draw(self) -> None:
        """Write ``samples.png`` from the columns in ``samples/``."""
        firsts = [one.patches[0] for one in self.slices]
        masked = np.concatenate([_tile(p, np.where(p.mask, -1, p.image)) for p in firsts])
        original = np.concatenate([_tile(p, p.image) for p in firsts])
        columns = {}
        for path in sorted((self.output / "samples").glob("step-*.png")):
            if (column := _column(path, original)) is not None:
                columns[f"step {step_of(path)}"] = column
        titles = list(columns)
        chosen = sorted({round(n) for n in np.linspace(0, len(columns) - 1, COLUMNS)})
        shown = [("masked", masked), *((titles[n], columns[titles[n]]) for n in chosen)]
        shown.append(("original", original))
        titled = [_titled(title, column) for title, column in shown]
        temporary = self.output / ".samples.png"
        Image.fromarray(np.concatenate(titled, axis=1)).save(temporary, format="png")
        temporary.replace(self.path)

    def remove_after(self, step: int) -> None:
        """Remove the columns of later steps, which a resumed run repeats."""
        for path in (self.output / "samples").glob("step-*.png"):
            if step_of(path) > step:
                path.unlink()


def choose_slices(slices: Sequence[MaskedSlice]) -> tuple[MaskedSlice, ...]:
    """A few slices, taken from the sections of masks in turn."""
    by_section: dict[str, list[MaskedSlice]] = {}
    for one in slices:
        by_section.setdefault(one.section, []).append(one)
    turns = zip_longest(*by_section.values())
    return tuple([one for turn in turns for one in turn if one is not None][:ROWS])


def step_of(column: Path) -> int:
    """The step at which a column was painted."""
    return int(column.stem.removeprefix("step-"))


def _column(path: Path, like: Grey) -> Grey | None:
    """A column of an earlier interval; None, with a warning, if it is damaged."""
    try:
        png = path.read_bytes()
        Image.open(io.BytesIO(png), formats=["PNG"]).verify()  # sums, which reading passes over
        column = np.array(Image.open(io.BytesIO(png), formats=["PNG"]))
        if (column.shape, column.dtype) != (like.shape, like.dtype):
            raise ValueError(f"it has the shape {column.shape}")
    except (OSError, ValueError, SyntaxError) as err:  # Pillow's, of broken PNG files
        logger.warning("%s is damaged and left out of the strip (%s)", path, err)
        return None
    return column


def _tile(patch: Patch, image: npt.NDArray[np.floating]) -> Grey:
    """A patch as a grey picture, with ``image`` inside its mask."""
    picture = np.where(patch.mask, image, patch.image)
    if picture.ndim == 3:  # the slice that shows most of the mask
        picture = picture[..., int(np.argmax(patch.mask.sum(axis=(0, 1))))]
    grey = ((picture + 1) * 127.5).clip(0, 255).astype(np.uint8)
    # Axial slices are (left-right, back-front); radiological orientation is front up, right left.
    turned = Image.fromarray(np.ascontiguousarray(grey[::-1, ::-1].T))
    return np.array(turned.resize((TILE_PX, TILE_PX), Image.Resampling.BILINEAR))


def _titled(title: str, column: Grey) -> Grey:
    header = Image.new("L", (column.shape[1], _HEADER_PX))
    ImageDraw.Draw(header).text((2, 1), title, fill=255)
    return np.concatenate([np.array(header), column])
