"""One scan painted without a recipe: slice by slice, as a volume, or whole in 3D."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from synthct.build.fronts import Asked, Stack, paint_stacks
from synthct.errors import CheckpointError, MaskError, SourceError
from synthct.masks.base import Mask
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.grain import surroundings, with_grain
from synthct.models.methods import Diffusion
from synthct.models.patch import Patch, PatchRules
from synthct.models.region import cut, paste
from synthct.recipe.checkpoint_settings import setting_problems
from synthct.recipe.yaml_errors import path_text
from synthct.seeds import derive_seed, generator
from synthct.volume import Box, Volume
from synthct.volume.intensity import window_for
from synthct.volume.regions import slices_with
from synthct.volume.views import VIEW_AXIS, Plane

if TYPE_CHECKING:
    from synthct.models.painting import Inpainter

#: Parts of a mask that lie in neighbouring cubes of so many voxels get their grain together.
_CUBE = 32
#: Voxels of the largest part, with what lies around it, whose grain is made in 3D.
_MOST_VOXELS = 50_000_000


def paint_scan(
    scan: Volume,
    region: Volume,
    settings: Diffusion,
    *,
    label: str | None = None,
    view: Plane = "axial",
    together: bool = False,
    seed: int = 0,
    device: Callable[[], str] = lambda: "cpu",
    progress: bool = False,
) -> Volume:
    """Paint the masked voxels of a scan.

    A label that the checkpoint guides away from whatever fits is taken for a lesion, whose slices
    get one level where they are painted together.

    Args:
        scan: int16 HU in canonical orientation.
        region: Boolean, on the same grid: where to paint.
        settings: Checkpoint, scheduler, steps and so on.
        label: What to paint; None for whatever fits.
        view: The plane of the slices; a network in 3D goes by the scan's own.
        together: Tell a checkpoint that takes the slices beside the one it paints those already
            painted, as in datasets with ``view: volume``; else it paints each slice as if it were
            alone, as any other in 2D does.
        seed: Random seed.
        device: Says where the model runs; asked when everything else is known to be right.
        progress: Show a progress bar.

    Raises:
        SourceError: If the grids differ.
        MaskError: If the mask is empty or too large for the checkpoint.
        CheckpointError: If the checkpoint is damaged, or cannot paint the label or by the settings.
    """
    require_same_grid(scan, region)
    if not region.array.any():
        raise MaskError("the mask is empty; mark the voxels to paint with 1")
    files = find_checkpoint(settings.checkpoint, revision=settings.revision)
    for problem in setting_problems(files, settings, (label,)):
        raise CheckpointError(f"{path_text(problem.location)}: {problem.message}")
    rules = files.network.rules(files, settings, (label,))
    level = settings.level_of(label, generator(seed, "inpaint-level"))
    asked = Asked(label, level, is_lesion=label in rules.guidance)
    task = _Task(scan, region, settings, rules, asked, view, seed)
    is_whole = together and rules.neighbours and len(task.slices) > 1
    prepared = _Whole.of(task) if is_whole else _Pieces.of(task)
    from tqdm import tqdm

    from synthct.models.painting import Inpainter

    inpainter = Inpainter(load_checkpoint(files, device=device()), settings, rules.labels)
    with tqdm(total=prepared.count, unit="patch", disable=not progress) as bar:
        return prepared.paint(inpainter, bar.update)


def require_same_grid(scan: Volume, region: Volume) -> None:
    """See that a mask lies on the grid of its scan.

    Raises:
        SourceError: If not.
    """
    if not region.has_grid_of(scan):
        raise SourceError(
            f"the mask is on another grid than the scan ({region.grid_difference(scan)}); "
            "resample it first. If only its affine is wrong and its voxels are those of the scan, "
            "say so with --label-grid image (label_grid)"
        )


@dataclass(frozen=True, eq=False)
class _Task:
    """What is painted, and how.

    Attributes:
        scan: HU.
        region: Boolean, on the same grid: where to paint.
        settings: As a recipe has them.
        rules: The patches that the checkpoint takes.
        asked: What to paint.
        view: The plane of the slices.
        seed: Random seed.
    """

    scan: Volume
    region: Volume
    settings: Diffusion
    rules: PatchRules
    asked: Asked
    view: Plane
    seed: int

    @property
    def slices(self) -> list[int]:
        """The slices that show some of the mask, rising."""
        return slices_with(self.region.array, VIEW_AXIS[self.view])

    def seed_of(self, piece: str, patch: int) -> int:
        """The seed of a patch's noise."""
        return derive_seed(self.seed, "inpaint", piece, str(patch))

    def with_grain(self, piece: str, ct: Volume, painted: Volume, region: Volume) -> Volume:
        """A part of the scan with the grain that the settings ask for."""
        if self.settings.grain != "surroundings":
            return painted
        label = self.asked.label
        under_hu = float(ct.array[region.array].mean())
        window = window_for(label, under_hu, self.rules.codec(label))
        rng = generator(self.seed, "inpaint-grain", piece)
        return with_grain(ct, painted, region, window.range_hu, rng, self.asked.level_hu)[0]


@dataclass(frozen=True, eq=False)
class _Piece:
    """What of a scan is painted at once: a slice, or all of it by a network in 3D.

    Attributes:
        name: Of its random streams.
        place: Its index in the scan.
        ct: HU.
        region: Boolean, on the same grid: where to paint.
        patches: What the network gets.
    """

    name: str
    place: tuple[slice, slice, slice]
    ct: Volume
    region: Volume
    patches: Sequence[Patch]


@dataclass(frozen=True, eq=False)
class _Pieces:
    """A scan whose pieces know nothing of each other."""

    task: _Task
    pieces: Sequence[_Piece]

    @classmethod
    def of(cls, task: _Task) -> _Pieces:
        """Cut the patches of a scan.

        Raises:
            MaskError: If the mask is too large for the checkpoint.
        """
        return cls(task, list(_pieces(task)))

    @property
    def count(self) -> int:
        """Number of patches."""
        return sum(len(one.patches) for one in self.pieces)

    def paint(self, inpainter: Inpainter, update: Callable[[], object]) -> Volume:
        """The scan with paint in it."""
        patches = [patch for one in self.pieces for patch in one.patches]
        seeds = [
            self.task.seed_of(one.name, n) for one in self.pieces for n in range(len(one.patches))
        ]
        painted = iter(inpainter.paint(patches, seeds, update))
        out = self.task.scan.array.copy()
        for one in self.pieces:
            pasted = paste(one.ct, one.region, one.patches, [next(painted) for _ in one.patches])
            out[one.place] = self.task.with_grain(one.name, one.ct, pasted, one.region).array
        return Volume(out, self.task.scan.affine)


def _pieces(task: _Task) -> Iterator[_Piece]:
    """A scan as a network takes it."""

    def patches(ct: Volume, where: Volume) -> list[Patch]:
        found = cut(ct, where, task.asked.label, task.rules)
        return [replace(patch, level_hu=task.asked.level_hu) for patch in found]

    scan, region = task.scan, task.region
    whole = Box.whole(scan.shape)
    if task.rules.depth > 1:
        yield _Piece("volume", whole.slices, scan, region, patches(scan, region))
        return
    axis = VIEW_AXIS[task.view]
    for index in task.slices:
        plane, part = scan.slab(axis, index), region.slab(axis, index)
        try:
            own = patches(plane, part)
        except MaskError as err:
            raise MaskError(f"{task.view} slice {index}: {err}") from err
        yield _Piece(str(index), whole.slab(axis, index).slices, plane, part, own)


@dataclass(frozen=True, eq=False)
class _Whole:
    """A scan whose slices are told of each other."""

    task: _Task
    stack: Stack

    @classmethod
    def of(cls, task: _Task) -> _Whole:
        """Cut the patches of a scan.

        Raises:
            MaskError: If the mask is too large for the checkpoint.
        """
        box = Box.around(task.region.array)
        assert box is not None, "an empty mask is refused"
        mask = Mask(task.region.crop(box), box, task.asked.label)
        return cls(task, Stack.of(task.scan, mask, task.view, task.rules, task.asked))

    @property
    def count(self) -> int:
        """Number of patches."""
        own = sum(len(one) for one in self.stack.patches)
        return own + len(self.stack.alone(self.task.rules))

    def paint(self, inpainter: Inpainter, update: Callable[[], object]) -> Volume:
        """The scan with paint in it."""
        task = self.task
        (painted,) = paint_stacks(
            [self.stack],
            task.rules,
            lambda patches, seeds: inpainter.paint(patches, seeds, update),
            lambda _, patch: task.seed_of("volume", patch),
        )
        hu = task.scan.array.copy()
        hu[task.region.array] = self.stack.painted_hu(painted)
        out = hu.copy()
        for name, box, part in self._parts():
            ct = task.scan.crop(box)
            pasted = Volume(np.where(part.array, hu[box.slices], ct.array), ct.affine)
            done = task.with_grain(name, ct, pasted, part)
            out[box.slices][part.array] = done.array[part.array]
        return Volume(out, task.scan.affine)

    def _parts(self) -> Iterator[tuple[str, Box, Volume]]:
        """Parts of the mask that lie together, each in as much of the scan as its grain needs."""
        scan, axis = self.task.scan, VIEW_AXIS[self.task.view]
        numbers, boxes = _together(self.task.region.array)
        for number, box in enumerate(boxes, 1):
            around = surroundings(box, scan.shape, scan.spacing_mm)
            planes = [around]
            if np.prod(around.shape) > _MOST_VOXELS:
                planes = [around.slab(axis, n) for n in range(around.shape[axis])]
            for n, one in enumerate(planes):
                part = numbers[one.slices] == number
                if part.any():
                    yield f"volume {number} {n}", one, Volume(part, scan.crop(one).affine)


def _together(region: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], list[Box]]:
    """Parts of a mask that lie near each other: (I, J, K), 0 outside, and the box of each."""
    from scipy.ndimage import find_objects
    from scipy.ndimage import label as connected_components

    padded = np.pad(region, [(0, -n % _CUBE) for n in region.shape])
    i, j, k = (n // _CUBE for n in padded.shape)
    cubes = padded.reshape(i, _CUBE, j, _CUBE, k, _CUBE).any(axis=(1, 3, 5))
    numbers, _ = connected_components(cubes, structure=np.ones((3, 3, 3)))
    for axis in range(3):
        numbers = numbers.repeat(_CUBE, axis)
    i, j, k = region.shape
    shown: npt.NDArray[np.int32] = np.where(region, numbers[:i, :j, :k], 0).astype(np.int32)
    return shown, [Box.of_slices(found) for found in find_objects(shown)]
