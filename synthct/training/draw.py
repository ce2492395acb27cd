"""Masks drawn in one scan and cut to patches of slices or boxes, as in a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.errors import MaskError
from synthct.masks import MaskKind
from synthct.masks.base import PlacementError
from synthct.masks.slicing import draw_slices, on_slice, slice_of
from synthct.models.patch import Patch, PatchRules, cut_patches
from synthct.models.region import cut, parts_of
from synthct.sources import read_case
from synthct.training.coarse import coarser, thicker
from synthct.training.plan import HostJob, can_donate
from synthct.training.recipe import TrainingRecipe
from synthct.training.remake import MaskedCrop, MaskPart, crop_around, remake_box, remake_slice
from synthct.volume import HU_MAX, HU_MIN, Volume
from synthct.volume.case import Case
from synthct.volume.views import VIEW_AXIS, Plane, View, plane_of

#: Attempts per mask that has no legal place or cannot be cut, before it is left out.
TRIES = 10


@dataclass(frozen=True, eq=False)
class MaskedSlice:
    """A mask on a slice, or in a box of a scan, with the patches that cover it.

    Attributes:
        case_id: The scan.
        section: Name of the mask's section of the recipe.
        plane: HU; of a slice, one voxel thick.
        region: Boolean, on the grid of ``plane``.
        label: What is painted; None for whatever fits.
        view: Orientation of the slice, or of the slices of the box.
        patches: What the network gets.
        targets: What it learns to paint, one in -1..1 per patch, where that is not the patch's own
            image.
    """

    case_id: str
    section: str
    plane: Volume
    region: Volume
    label: str | None
    view: Plane
    patches: tuple[Patch, ...]
    targets: tuple[npt.NDArray[np.float32], ...] | None = None


@dataclass
class Tally:
    """Counts of drawn and failed masks.

    Attributes:
        drawn: Slices or boxes by section.
        left_out: Masks that could not be drawn, by section and reason.
    """

    drawn: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def draw_masks(
    recipe: TrainingRecipe,
    rules: PatchRules,
    job: HostJob,
    names: Mapping[str, int],
    *,
    slices: int,
    tally: Tally,
) -> Iterator[tuple[MaskedSlice, np.random.Generator]]:
    """Draw the masks of a job, each from its own random stream.

    Args:
        recipe: Sections of masks, data augmentation and seed.
        rules: The patches that the network takes.
        job: One scan and what to draw in it.
        names: Value of each structure in label maps, the same for all cases.
        slices: Slices of each 3D mask.
        tally: Counts are added to it.

    Yields:
        The slices, each with its random stream for further choices.

    Raises:
        SourceError: If a file is missing or damaged.
    """
    case = read_case(job.host, names)
    donors = [(entry, read_case(entry, names)) for entry in job.donors]
    resampled = {(1, False): case}
    cutter = _Cutter(recipe, rules, job.side == "train")
    for draw in job.draws:
        section = recipe.masks[draw.section]
        key = (draw.factor, draw.thick)
        if key not in resampled:
            thick = thicker(case) if draw.thick else case
            resampled[key] = coarser(thick, draw.factor) if draw.factor > 1 else thick
        suitable = [donor for entry, donor in donors if can_donate(entry, section)]
        rng = seeds.generator(recipe.seed, "mask", job.side, str(draw.number))
        drawn = _draw_mask(cutter, section, resampled[key], suitable, slices, rng)
        if isinstance(drawn, str):
            tally.left_out[f"{section.name}: {drawn}"] += 1
            continue
        tally.drawn[section.name] += len(drawn)
        for one in drawn:
            yield one, rng


@dataclass(frozen=True)
class _Cutter:
    """Makes patches of masks.

    Attributes:
        recipe: How scans are remade.
        rules: The patches that the network takes.
        to_learn: The patches are learned from; else they are painted.
    """

    recipe: TrainingRecipe
    rules: PatchRules
    to_learn: bool

    def cut(
        self, section: str, host: Case, part: MaskPart, rng: np.random.Generator
    ) -> MaskedSlice:
        """A mask with its patches."""
        crop, label = self._crop(host.scan(), part, rng), part.flat.label
        patches = self._patches(crop.plane, crop.region, label, crop.neighbours)
        targets = None
        if crop.target is not None:
            truth = self._patches(crop.target, crop.region, label)
            targets = tuple(patch.image for patch in truth)
        return MaskedSlice(
            host.case_id, section, crop.plane, crop.region, label,
            plane_of(part.view, crop.plane.spacing_mm), tuple(patches), targets,
        )  # fmt: skip

    def _crop(self, scan: Volume, part: MaskPart, rng: np.random.Generator) -> MaskedCrop:
        """What of the scan is shown, to learn from it as another scanner would have made it."""
        data, rules = self.recipe.data, self.rules
        if part.view == "volume":
            if self.to_learn:
                return remake_box(scan, part.flat, data, rules, rng)
            return MaskedCrop(*crop_around(scan, part.flat, rules))
        if self.to_learn and self.recipe.remakes:
            return remake_slice(scan, part, data, rules, rng)
        plane, region = on_slice(scan, part.flat, part.view)
        return MaskedCrop(jitter_attenuation(plane, data.attenuation_jitter, rng), region)

    def _patches(
        self,
        ct: Volume,
        region: Volume,
        label: str | None,
        neighbours: npt.NDArray[np.float32] | None = None,
    ) -> list[Patch]:
        if self.rules.depth == 1:
            return cut_patches(ct, region, label, self.rules, neighbours)
        boxes = cut(ct, region, label, self.rules)
        if not self.to_learn:
            return boxes
        return [part for box in boxes for part in parts_of(box, self.rules)]


def _draw_mask(
    cutter: _Cutter,
    section: MaskKind,
    host: Case,
    donors: Sequence[Case],
    slices: int,
    rng: np.random.Generator,
) -> list[MaskedSlice] | str:
    """One 3D mask on some of its slices, or the commonest reason why it cannot be drawn."""
    reasons: Counter[str] = Counter()
    for _ in range(TRIES):
        donor = donors[int(rng.integers(len(donors)))] if section.needs_donor else None
        try:
            mask, _ = section.drawn(host, donor, rng)
            view = _draw_view(cutter.recipe.data.views, host.scan(), cutter.rules, rng)
            drawn = []
            for _ in range(slices):
                chosen = draw_slices(mask, view, section.slices, section.max_extent_mm, rng)
                flat = slice_of(mask, view, chosen[int(rng.integers(len(chosen)))])
                drawn.append(cutter.cut(section.name, host, MaskPart(mask, flat, view), rng))
        except PlacementError as err:
            reasons[err.reason] += 1
        except MaskError as err:
            reasons[str(err)] += 1
        else:
            return drawn
    return reasons.most_common(1)[0][0]


def jitter_attenuation(plane: Volume, jitter: float, rng: np.random.Generator) -> Volume:
    """Scale the attenuation (HU + 1000) of a slice by a random factor.

    Args:
        plane: HU.
        jitter: Greatest relative change, drawn uniformly; nothing is drawn for 0.
        rng: The random stream.
    """
    if not jitter:
        return plane
    factor = np.float32(1 + rng.uniform(-jitter, jitter))
    hu = np.rint((plane.array + np.float32(1000)) * factor - np.float32(1000))
    return Volume(np.clip(hu, HU_MIN, HU_MAX).astype(np.int16), plane.affine)


def _draw_view(
    views: Mapping[Plane, float], ct: Volume, rules: PatchRules, rng: np.random.Generator
) -> View:
    """Draw a view by weight; axial if the drawn one is too coarse or has too few slices."""
    if rules.depth > 1:
        return "volume"
    names = list(views)
    weights = np.array([views[name] for name in names])
    view = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    low, high = rules.spacing_range_mm
    plane = (s for axis, s in enumerate(ct.spacing_mm) if axis != VIEW_AXIS[view])
    sides = [n for axis, n in enumerate(ct.shape) if axis != VIEW_AXIS[view]]
    fits = all(low <= s <= high for s in plane) and min(sides) >= rules.patch_sizes[0] // 2
    return view if fits else "axial"
