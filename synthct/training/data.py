"""Endless batches of training patches, drawn with the same masks and cut as in a build.

A visit draws one 3D mask in one case and cuts patches from several of its slices; a shuffle buffer
mixes the visits. All cases stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from synthct import seeds
from synthct.case import Case
from synthct.errors import MaskError, RecipeError, SynthCTError
from synthct.masks import (
    VIEW_AXIS,
    MaskKind,
    View,
    draw_slices,
    on_slice,
    slice_of,
)
from synthct.patch import Patch, PatchRules, cut_patches
from synthct.recipe import donor_source
from synthct.sources import CaseEntry, Index, label_table, read_case
from synthct.training.recipe import TrainingRecipe
from synthct.volume import Box, Volume

Batch = dict[str, Tensor]
T = TypeVar("T")

#: Draws that may fail in a row (no legal place, empty slice) before training gives up.
MAX_FAILURES = 200

#: Side of the patches that ``batch_size`` counts; other sizes come to the same number of pixels.
FULL_BATCH_PX = 128


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What patches are drawn from.

    Attributes:
        hosts: Cases with an image, with the weight of their source.
        donors: Cases that lend shapes, of every source that a mask takes them from.
        facts: What was read, for the checkpoint's card (ids, hashes, licences; no paths).
    """

    hosts: tuple[tuple[Case, float], ...]
    donors: tuple[Case, ...]
    facts: tuple[Mapping[str, str | None], ...]


def load_training_set(recipe: TrainingRecipe, index: Index) -> TrainingSet:
    """Read every case of the recipe into memory, with coarser copies where it asks for them.

    Raises:
        RecipeError: If no case has an image.
    """
    names = label_table(recipe.sources, recipe.wanted_labels)
    hosts: list[tuple[Case, float]] = []
    donors: list[Case] = []
    entries: list[CaseEntry] = []
    for source in recipe.sources:
        found = index.entries(source)
        weight = recipe.data.source_weights.get(source, 1.0)
        for entry in found:
            case = read_case(entry, names)
            entries.append(entry)
            if source in recipe.donors:
                donors.append(case)
            if case.ct is None:
                continue
            coarse = [coarser(case, n) for n in (2, 3)] if recipe.data.coarsen > 0 else []
            # A source's weight is shared by its cases; a case's by its copies.
            share = weight / len(found)
            fine = 1 - recipe.data.coarsen if coarse else 1.0
            hosts.append((case, share * fine))
            hosts += [(copy, share * (1 - fine) / len(coarse)) for copy in coarse]
    if not hosts:
        raise RecipeError(f"{recipe.name}: no case of its sources has an image to train on")
    facts = tuple(
        {
            "source": e.source,
            "layout": e.layout,
            "case_id": e.case_id,
            "patient_id": e.patient_id,
            "licence": e.licence,
            "voxel_sha256": e.voxel_sha256,
        }
        for e in entries
    )
    return TrainingSet(tuple(hosts), tuple(donors), facts)


def coarser(case: Case, factor: int) -> Case:
    """A copy at 1/factor of the in-plane resolution: block means of HU, block centres of labels."""
    ct = case.scan()
    stop = [n - n % factor for n in ct.shape[:2]]
    box = Box((0, 0, 0), (stop[0], stop[1], ct.shape[2]))
    cut, labels = ct.crop(box), case.labels.crop(box)
    blocks = cut.array.reshape(stop[0] // factor, factor, stop[1] // factor, factor, -1)
    affine = ct.affine.copy()
    affine[:3, :2] *= factor
    # The first voxel's centre moves to the middle of its block.
    affine[:3, 3] += ct.affine[:3, :2].sum(axis=1) * (factor - 1) / 2
    mean = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.int16)
    middle = labels.array[factor // 2 :: factor, factor // 2 :: factor]
    return Case(
        f"{case.case_id}/{factor}",
        case.patient_id,
        case.source,
        Volume(mean, affine),
        Volume(np.ascontiguousarray(middle), affine),
        case.label_names,
        case.unions,
    )


class PatchBatches(IterableDataset[Batch]):
    """Endless batches, every one of a single patch size.

    Args:
        recipe: What to draw.
        data: What to draw it from.
        rules: The checkpoint's patches.
        stream: Names of the random stream, such as the step and the process it starts from.

    Raises:
        RecipeError: If a section of masks has no host, or no donor, to draw from.
    """

    def __init__(
        self, recipe: TrainingRecipe, data: TrainingSet, rules: PatchRules, *stream: str
    ) -> None:
        self.recipe, self.data, self.rules, self.stream = recipe, data, rules, stream
        self.able = {
            section.name: [(case, weight) for case, weight in data.hosts if _offers(case, section)]
            for section in recipe.masks
        }
        self.lenders = {
            section.name: [case for case in data.donors if _lends(case, section)]
            for section in recipe.masks
        }
        for section in recipe.masks:
            if not self.able[section.name]:
                wanted = ", ".join(section.wanted_labels())
                raise RecipeError(
                    f"{recipe.name}: masks '{section.name}': no case has {wanted}; "
                    "drop the section or add a source"
                )
            if section.needs_donor and not self.lenders[section.name]:
                wanted, source = ", ".join(section.donor_labels()), donor_source(section)
                raise RecipeError(
                    f"{recipe.name}: masks '{section.name}': no case of '{source}' has {wanted}; "
                    "drop the section or take donors from another source"
                )

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        name = str(worker.id if worker else 0)
        rng = seeds.generator(self.recipe.seed, "train", *self.stream, name)
        pools: dict[int, list[Patch]] = {}
        for patch in self._patches(rng):
            pools.setdefault(patch.size, []).append(patch)
            if sum(map(len, pools.values())) < self.recipe.data.shuffle_buffer:
                continue
            # The size with most batches in wait goes first, so each size gets its share of steps.
            size = max(pools, key=lambda n: len(pools[n]) / self.patches_per_batch(n))
            pool = pools[size]
            count = min(self.patches_per_batch(size), len(pool))
            picked = rng.choice(len(pool), size=count, replace=False)
            yield collate([self._joined(pool[n], pool, rng) for n in picked])
            for n in sorted(picked, reverse=True):
                pool.pop(n)

    def patches_per_batch(self, size: int) -> int:
        """As many patches of one size as have the pixels of ``batch_size`` of 128 pixels."""
        return max(1, round(self.recipe.optim.batch_size * FULL_BATCH_PX**2 / size**2))

    def _joined(self, patch: Patch, pool: list[Patch], rng: np.random.Generator) -> Patch:
        """Some patches of whatever fits, their mask joined with another's: more is learned."""
        if patch.label != 0 or rng.random() >= self.recipe.data.join_masks:
            return patch
        other = pool[int(rng.integers(len(pool)))]
        return replace(patch, mask=patch.mask | other.mask)

    def _patches(self, rng: np.random.Generator) -> Iterator[Patch]:
        failures = 0
        while True:
            try:
                drawn = list(self._visit(rng))
            except MaskError as err:
                failures, reason = failures + 1, err
                if failures > MAX_FAILURES:
                    raise MaskError(
                        f"{self.recipe.name}: {failures} masks in a row could not be drawn; "
                        f"the last: {reason}"
                    ) from err
                continue
            failures = 0
            yield from drawn

    def _visit(self, rng: np.random.Generator) -> Iterator[Patch]:
        """Draw one mask in one case and cut patches from slices of it."""
        section = _choose(rng, [(m, m.weight) for m in self.recipe.masks])
        host = _choose(rng, self.able[section.name])
        donor = None
        if section.needs_donor:
            lenders = self.lenders[section.name]
            shapes = [c for c in lenders if c.patient_id != host.patient_id]
            if not shapes:
                raise MaskError(f"mask '{section.name}': no donor but the host itself")
            donor = shapes[int(rng.integers(len(shapes)))]
        mask = section.build(host, donor, section.draw(host, donor, rng))
        view: View = _choose(rng, list(self.recipe.data.views.items()))
        if not self._takes(host.scan(), view):
            view = "axial"
        for _ in range(self.recipe.data.patches_per_mask):
            shown = draw_slices(mask, view, section.slices, section.max_extent_mm, rng)
            flat = slice_of(mask, view, shown[int(rng.integers(len(shown)))])
            plane, region = on_slice(host.scan(), flat, view)
            patches = cut_patches(plane, region, flat.label, self.rules)
            patch = patches[int(rng.integers(len(patches)))]
            # The first axis of a sagittal slice runs from back to front: no mirror symmetry there.
            mirrored = view != "sagittal" and rng.random() < self.recipe.data.flip
            yield _flip(patch) if mirrored else patch

    def _takes(self, ct: Volume, view: View) -> bool:
        """Whether the scan's spacing in that view needs no resampling."""
        low, high = self.rules.spacing_range_mm
        plane = (s for axis, s in enumerate(ct.spacing_mm) if axis != VIEW_AXIS[view])
        return all(low <= s <= high for s in plane)


class _Told(IterableDataset[Batch | SynthCTError]):
    """Batches, and a user's error as the last item.

    An error raised in a worker process would reach the user as torch's traceback of it.
    """

    def __init__(self, batches: PatchBatches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch | SynthCTError]:
        try:
            yield from self.batches
        except SynthCTError as err:
            yield err


def draw_batches(batches: PatchBatches) -> Iterator[Batch]:
    """The batches, drawn ahead by one worker process while the model runs.

    Raises:
        MaskError: If the worker cannot draw masks any more.
    """
    # The cases go to the worker by fork: they are shared, not copied.
    loader = DataLoader(
        _Told(batches),
        batch_size=None,
        num_workers=1,
        prefetch_factor=8,
        multiprocessing_context="fork",
    )
    for item in loader:
        if isinstance(item, SynthCTError):
            raise item
        yield item


def collate(patches: list[Patch]) -> Batch:
    """Stack patches of one size: image and mask (B, 1, S, S), label (B,), spacing (B, 2)."""
    return {
        "image": torch.from_numpy(np.stack([p.image for p in patches])[:, None]),
        "mask": torch.from_numpy(np.stack([p.mask for p in patches])[:, None].astype(np.float32)),
        "label": torch.tensor([p.label for p in patches], dtype=torch.int64),
        "spacing_mm": torch.tensor([p.spacing_mm for p in patches], dtype=torch.float32),
    }


def _choose(rng: np.random.Generator, weighted: Sequence[tuple[T, float]]) -> T:
    weights = np.array([w for _, w in weighted])
    return weighted[int(rng.choice(len(weighted), p=weights / weights.sum()))][0]


def _offers(case: Case, section: MaskKind) -> bool:
    """Whether the case can be a host."""
    return _has(case, section.wanted_labels())


def _lends(case: Case, section: MaskKind) -> bool:
    """Whether the case can be a donor."""
    return case.source == donor_source(section) and _has(case, section.donor_labels())


def _has(case: Case, labels: Sequence[str]) -> bool:
    try:
        return all(case.region(name).any() for name in labels)
    except MaskError:
        return False


def _flip(patch: Patch) -> Patch:
    """Left and right swapped: the first axis of a canonical axial slice."""
    return replace(
        patch,
        image=np.ascontiguousarray(patch.image[::-1]),
        mask=np.ascontiguousarray(patch.mask[::-1]),
        own=np.ascontiguousarray(patch.own[::-1]),
    )
