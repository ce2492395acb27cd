"""A planned mask drawn in its host: every random decision of a sample but the noise.

It knows nothing of checkpoints; ``prepare`` cuts what a model needs, ``sample`` paints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from synthct import seeds
from synthct.build.several import with_more
from synthct.dataset.sample import Sample
from synthct.errors import MaskError
from synthct.masks import MaskKind
from synthct.masks.base import Mask, Params
from synthct.masks.slicing import draw_slices
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.sources import CaseEntry, read_case
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.grid import start_within


@dataclass(frozen=True, eq=False)
class DrawnMask:
    """A 3D mask in its host, and which slices of it become samples.

    Attributes:
        specs: The planned samples, one per variant.
        section: The recipe's section of ``masks`` that it was drawn by.
        host: The case that is painted into.
        donor: The case that lent the shape, if any.
        donor_entry: The same in the index.
        mask: The 3D mask.
        params: What ``section.build`` makes the mask from.
        slices: What ``slice_of`` takes of it, one for each slice.
    """

    specs: tuple[SampleSpec, ...]
    section: MaskKind
    host: Case
    donor: Case | None
    donor_entry: CaseEntry | None
    mask: Mask
    params: Params
    slices: tuple[Params, ...]


class CaseReader:
    """Reads cases, keeping the last few: samples come host by host.

    Args:
        label_names: Structure to value, dataset-wide.
        keep: Number of cases kept in memory.
    """

    def __init__(self, label_names: Mapping[str, int], keep: int = 3) -> None:
        self.label_names, self.keep = label_names, keep
        self._cases: OrderedDict[tuple[str, str], Case] = OrderedDict()

    def read(self, entry: CaseEntry) -> Case:
        """The case of an index entry.

        Raises:
            SourceError: If a file is missing or damaged.
        """
        key = entry.source, entry.case_id
        if key not in self._cases:
            self._cases[key] = read_case(entry, self.label_names)
        self._cases.move_to_end(key)
        while len(self._cases) > self.keep:
            self._cases.popitem(last=False)
        return self._cases[key]


def masks_of(specs: Sequence[SampleSpec]) -> list[tuple[SampleSpec, ...]]:
    """The planned samples by 3D mask: those that differ in the variant only."""
    return [tuple(group) for _, group in groupby(specs, key=lambda spec: spec.lesion_id)]


def shown_of(sample: Sample, host: CaseEntry) -> Box:
    """What a sample shows of its host, in voxels of the canonical scan."""
    start = start_within(sample, host)
    assert start is not None, "a sample is a part of its host"
    return Box((0, 0, 0), sample.shape).shift(start)


def mask_stream(spec: SampleSpec) -> list[str]:
    """Name of the random stream that the mask of a sample is drawn from."""
    return ["mask", spec.host.source, spec.host.case_id, spec.section.name, str(spec.draw)]


def level_of(spec: SampleSpec, label: str | None, recipe: Recipe) -> float | None:
    """The median HU that a mask is to be painted with; None where the recipe leaves it open."""
    network = recipe.inpaint.network
    if network is None:
        return None
    return network.level_of(label, seeds.generator(recipe.seed, "level", *mask_stream(spec)[1:]))


def noise_stream(spec: SampleSpec, patch: int) -> list[str]:
    """Name of the random stream of the noise in one patch of a sample; a control uses patch 0."""
    return ["noise", spec.sample_id, str(patch)]


def slice_noise_stream(spec: SampleSpec) -> list[str]:
    """Name of the random stream of noise that changes little through the slices of a volume.

    The steps of a series have the same, so that a lesion stays alike where it was.
    """
    return ["slice-noise", spec.lesion_id, str(spec.variant)]


def grain_stream(spec: SampleSpec) -> list[str]:
    """Name of the random stream of the grain in the paint of a sample."""
    return ["grain", spec.sample_id]


def series_stream(name: str, spec: SampleSpec, *more: int) -> list[str]:
    """Name of a random stream that all sizes of a lesion have in common."""
    return [name, spec.lesion_id, str(spec.variant), *map(str, more)]


def draw(specs: Sequence[SampleSpec], recipe: Recipe, reader: CaseReader) -> DrawnMask:
    """Draw the 3D mask of some variants, with the first donor that can be placed, and its slices.

    Args:
        specs: Planned samples of one mask.
        recipe: Has the seed and the view.
        reader: Reads host and donor.

    Raises:
        MaskError: If no donor can be placed (the first one's error), or no slice shows enough.
        SourceError: If a file is missing or damaged.
    """
    spec, section = specs[0], specs[0].section
    host = reader.read(spec.host)
    rng = seeds.generator(recipe.seed, *mask_stream(spec))
    first_error: MaskError | None = None
    for entry in spec.donors or (None,):
        donor = reader.read(entry) if entry is not None else None
        try:
            mask, params = section.drawn(host, donor, rng)
        except MaskError as err:
            first_error = first_error or err
            continue
        if recipe.masks_per_sample is not None:
            mask, params = with_more((mask, params), spec, recipe, host, donor)
        slices = draw_slices(mask, recipe.view, section.slices, section.max_extent_mm, rng)
        if recipe.series is not None:
            slices = [{**slices[0], "volume_factor": f} for f in recipe.series.factors]
        return DrawnMask(tuple(specs), section, host, donor, entry, mask, params, tuple(slices))
    assert first_error is not None
    raise first_error
