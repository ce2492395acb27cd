"""How much a painted lesion has the shape of the donor's: a shape is a patient's, too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from synthct.dataset.sample import Sample
from synthct.errors import SourceError
from synthct.evaluate.stream import recipe_of, rooted_sources
from synthct.metrics.crop import Region
from synthct.metrics.shape_dice import shape_dice
from synthct.sources import CaseEntry, download, index_sources, label_table, read_case
from synthct.volume.anatomy import lesion_parts
from synthct.volume.grid import spacing_of
from synthct.volume.views import VIEW_AXIS


class DonorShapes:
    """The lesions that lent their shapes to a dataset.

    Args:
        folder: The dataset.
        roots: Source name to folder; donors of sources that are not named are not known, but for
            phantoms, which need none.
        cache_dir: Folder of cached indexes and phantoms.
    """

    def __init__(self, folder: Path, roots: Mapping[str, Path], cache_dir: Path) -> None:
        self._given = folder, roots, cache_dir
        self._lesions: dict[tuple[str, str, str, int], Region] = {}

    @cached_property
    def _cases(self) -> tuple[Mapping[str, int], Mapping[tuple[str, str], CaseEntry], set[str]]:
        """Values of label maps; cases by source and name; sources. Read when a donor is met."""
        folder, roots, cache_dir = self._given
        recipe = recipe_of(folder, roots, read=roots)
        missing = rooted_sources(folder) - roots.keys()
        known = {name: one for name, one in recipe.sources.items() if name not in missing}
        sources, labels = download(known, cache_dir), recipe.all_labels()
        index = index_sources(sources, labels, cache_dir=cache_dir)
        entries = {(name, one.case_id): one for name in sources for one in index.entries(name)}
        return label_table(sources, labels), entries, set(sources)

    def dice(self, sample: Sample) -> float | None:
        """The largest Dice of the mask of a slice with slices of its donor's lesion.

        The slices along the sample's view are compared, moved and flipped. None if it has no donor,
        or the donor's source is not at hand, or several lesions make up the mask.

        Raises:
            SynthCTError: If the donors are missing or damaged.
        """
        donor, label = sample.provenance.get("donor"), sample.facts.label
        if donor is None or label is None:
            return None
        params = sample.provenance["mask"]["params"].get("region") or {}
        if params.get("part") is None or params.get("more"):
            return None
        names, entries, sources = self._cases
        if donor["source"] not in sources:
            return None
        key = donor["source"], donor["case"], label, params["part"]
        if key not in self._lesions:
            entry = entries.get(key[:2])
            if entry is None:
                raise SourceError(f"case {key[1]} is not in {key[0]}; correct --source")
            numbers, _, _ = lesion_parts(read_case(entry, names), label)
            self._lesions[key] = numbers == params["part"]
        axis = VIEW_AXIS[sample.plane]
        spacing = entries[key[:2]].spacing_mm
        steps = _across(spacing, axis), _across(spacing_of(sample.affine), axis)
        slices = np.moveaxis(self._lesions[key], axis, 0)
        others = (_resampled(one, *steps) for one in slices if one.any())
        return shape_dice(np.asarray(sample.mask.squeeze(axis)), others)


def _across(spacing_mm: tuple[float, ...], axis: int) -> tuple[float, ...]:
    """Spacing along the two axes of a slice."""
    return tuple(float(step) for n, step in enumerate(spacing_mm) if n != axis)


def _resampled(mask: Region, from_mm: tuple[float, ...], to_mm: tuple[float, ...]) -> Region:
    """A mask on a grid of other spacing."""
    from scipy.ndimage import zoom

    factors = [one / other for one, other in zip(from_mm, to_mm, strict=True)]
    padded = np.pad(mask, 1).astype(np.float32)
    return np.asarray(zoom(padded, factors, order=1, grid_mode=True, mode="grid-constant") > 0.5)
