"""One sample: prepared (mask, patches) before the model runs, finished (pasted, measured) after.

``prepare`` runs in worker processes and makes every random decision but the noise; ``finish`` puts
the paint into the scan and proves that nothing else changed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct import metrics, seeds
from synthct.case import Case
from synthct.dataset.schema import FORMAT_VERSION, Facts, Metrics, Row, Slices, make_row
from synthct.errors import MaskError
from synthct.intensity import SOFT_TISSUE, Knots, Window
from synthct.masks import (
    Mask,
    MaskKind,
    PlacementError,
    draw_part,
    draw_slice,
    on_slice,
    paint_labels,
    take_part,
    take_slice,
)
from synthct.patch import Patch, PatchRules, cut_patches, paste_patches
from synthct.plan import SampleSpec
from synthct.recipe import Recipe
from synthct.sources import CaseEntry, read_case
from synthct.version import __version__
from synthct.volume import Volume

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A mask on a slice, ready to be painted; its variants share it.

    Attributes:
        specs: The samples to be painted, one per variant.
        plane: The host's slice, HU, one voxel thick.
        region: Boolean, on the grid of ``plane``: where to paint.
        labels: The label map after painting, on the grid of ``plane``.
        patches: What the model gets.
        label: What the model is asked to paint; None for whatever fits.
        slice_index: Of the host, along the axis of the view.
        donor: The case that lent its shape, if any.
        params: Every random decision; replaying them gives the same mask.
        facts: Numbers of the mask, such as those of ``accept``.
    """

    specs: tuple[SampleSpec, ...]
    plane: Volume
    region: Volume
    labels: npt.NDArray[Any]
    patches: tuple[Patch, ...]
    label: str | None
    slice_index: int
    donor: CaseEntry | None
    params: Mapping[str, Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """A mask that could not be made, and why; all of its samples are rejected.

    Attributes:
        specs: The samples.
        reason: A few words, the same for all masks refused for the same reason.
        detail: The whole message.
    """

    specs: tuple[SampleSpec, ...]
    reason: str
    detail: str


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
    """The samples by mask: those that differ in the variant only."""
    return [tuple(group) for _, group in groupby(specs, key=lambda spec: spec.mask_id)]


def prepare(
    specs: Sequence[SampleSpec], recipe: Recipe, rules: PatchRules, reader: CaseReader
) -> Prepared | Refused:
    """Draw the mask of some variants, choose its slice, and cut the patches.

    Args:
        specs: Samples of one mask.
        recipe: The recipe.
        rules: What the checkpoint takes.
        reader: Reads host and donor.

    Raises:
        SourceError: If a file is missing or damaged.
        CheckpointError: If the checkpoint cannot paint the label.
    """
    spec = specs[0]
    section = next(m for m in recipe.masks if m.name == spec.section)
    host = reader.read(spec.host)
    rng = seeds.generator(
        recipe.seed, "mask", spec.host.source, spec.host.case_id, spec.section, str(spec.draw)
    )
    try:
        mask, donor, drawn = _draw(section, host, spec, reader, rng)
        index = draw_slice(mask, recipe.view, section.slices, rng)
        flat = take_slice(mask, recipe.view, index)
        part = None
        if section.max_extent_mm is not None:
            part = draw_part(flat, section.max_extent_mm, rng)
            flat = take_part(flat, part) if part else flat
        plane, region = on_slice(host.scan(), flat, recipe.view)
        patches = cut_patches(plane, region, flat.label, rules)
    except MaskError as err:
        reason = err.reason if isinstance(err, PlacementError) else "cannot be painted"
        return Refused(tuple(specs), f"{section.kind}: {reason}", str(err))
    labels, _ = on_slice(host.labels, flat, recipe.view)
    # A donor of another layout may know a union that the host does not.
    unions = {**(donor.unions if donor else {}), **spec.host.unions}
    value = painted_value(section, flat.label, reader.label_names, unions)
    return Prepared(
        specs=tuple(specs),
        plane=plane,
        region=region,
        labels=paint_labels(labels, flat, section.label_policy(), value),
        patches=tuple(patches),
        label=flat.label,
        slice_index=index,
        donor=donor,
        params={"kind": section.kind, "region": drawn, "slice_index": index, "part": part},
        facts=mask.facts,
    )


def painted_value(
    section: MaskKind,
    label: str | None,
    label_names: Mapping[str, int],
    unions: Mapping[str, tuple[str, ...]],
) -> int | None:
    """The label map's value for what is painted; None where the section paints no label.

    A union has no value of its own: a tumour painted into a kidney is the union's part that says
    so (``kidney_tumor``), else its first.

    Raises:
        MaskError: If the label map has no value for the label.
    """
    if section.label_policy() != "paint" or label is None:
        return None
    if label in label_names:
        return label_names[label]
    parts = [part for part in unions.get(label, ()) if part in label_names]
    if not parts:
        raise MaskError(
            f"mask '{section.name}': no source numbers the label '{label}' "
            f"(there is: {', '.join(label_names)}); use label_map: ignore"
        )
    own = f"{getattr(section, 'into', '')}_{label}"
    return label_names[own if own in parts else parts[0]]


def finish(
    prepared: Prepared,
    spec: SampleSpec,
    painted: Sequence[FloatArray],
    recipe: Recipe,
    *,
    trained_on: frozenset[str] | None,
    generation: Mapping[str, Any],
    numerics: Mapping[str, Any],
) -> Row:
    """Paste the paint into the slice, prove that nothing else changed, measure, and describe.

    Args:
        prepared: From ``prepare``.
        spec: The variant.
        painted: One array per patch, from the model.
        recipe: The recipe.
        trained_on: Voxel hashes of the checkpoint's training scans; None if it does not say.
        generation: How it was painted: checkpoint, scheduler, steps.
        numerics: The numerics class.

    Raises:
        AssertionError: If a voxel outside the mask changed: a bug of ours, never accepted.
    """
    plane, mask = prepared.plane, prepared.region.array
    result = paste_patches(plane, prepared.region, prepared.patches, painted)
    codec = prepared.patches[0].codec
    measured = measure(plane, result, mask, codec)
    changed = measured.outside_max_abs_diff
    assert changed == 0, f"{spec.sample_id}: {changed} HU changed outside of the mask"
    host, donor = spec.host, prepared.donor
    facts = Facts(
        sample_id=spec.sample_id,
        mask_id=spec.mask_id,
        case_id=host.case_id,
        patient_id=host.patient_id,
        donor_case_id=donor.case_id if donor else None,
        donor_patient_id=donor.patient_id if donor else None,
        mask_name=spec.section,
        mask_kind=str(prepared.params["kind"]),
        label=prepared.label,
        view=recipe.view,
        slice_index=prepared.slice_index,
        variant=spec.variant,
        host_in_training=None if trained_on is None else host.voxel_sha256 in trained_on,
    )
    slices = Slices(result, plane.array, mask, prepared.labels)
    return make_row(
        slices,
        facts,
        measured,
        {
            "sample_id": spec.sample_id,
            "split": spec.split,
            "host": _case_facts(host),
            "donor": _case_facts(donor) if donor else None,
            "mask": {
                "name": spec.section,
                "params": prepared.params,
                "facts": prepared.facts,
                "label_map": _policy(recipe, spec),
            },
            "generation": {
                **generation,
                "seeds": {
                    "recipe": recipe.seed,
                    "mask": ["mask", host.source, host.case_id, spec.section, str(spec.draw)],
                    "noise": [
                        ["noise", spec.sample_id, str(n)] for n in range(len(prepared.patches))
                    ],
                },
                "codec": codec.model_dump(),
                "patches": [
                    {"size": p.size, "origin": list(p.origin), "resampled": p.is_resampled,
                     "spacing_mm": list(p.spacing_mm)}
                    for p in prepared.patches
                ],
            },
            "numerics": dict(numerics),
            "versions": {"synthct": __version__, "format": FORMAT_VERSION},
        },
        window=codec if isinstance(codec, Window) else SOFT_TISSUE,
        keep_original=recipe.keep_original,
    )  # fmt: skip


def noise_seed(recipe: Recipe, spec: SampleSpec, patch: int) -> int:
    """Seed of the noise of one patch of a sample."""
    return seeds.derive_seed(recipe.seed, "noise", spec.sample_id, str(patch))


def measure(
    plane: Volume, result: Volume, mask: npt.NDArray[np.bool_], codec: Window | Knots
) -> Metrics:
    """The measures of a sample, on the scan's own grid.

    Seam and texture are taken within the codec's window, or within the soft-tissue window where
    the codec spans all of CT: air and bone would drown everything else.
    """
    before, after = plane.array, result.array
    window = codec.range_hu if isinstance(codec, Window) else SOFT_TISSUE.range_hu
    inside, replaced = metrics.hu_stats(after[mask]), metrics.hu_stats(before[mask])
    in_plane = sorted(axis for axis in range(3) if plane.shape[axis] > 1)[:2]
    area = float(np.prod([plane.spacing_mm[axis] for axis in in_plane]))
    count = int(np.count_nonzero(mask))
    return Metrics(
        outside_max_abs_diff=metrics.outside_max_abs_diff(before, after, mask),
        painted_mean_hu=inside.mean_hu,
        painted_std_hu=inside.std_hu,
        replaced_mean_hu=replaced.mean_hu,
        replaced_std_hu=replaced.std_hu,
        seam_ratio=metrics.seam_ratio(before, after, mask, window),
        texture_ratio=metrics.texture_ratio(before, after, mask, window),
        clipped_fraction=metrics.share_outside_range(before[mask], codec.range_hu),
        mask_area_mm2=count * area,
        painted_fraction=count / mask.size,
    )


def _draw(
    section: MaskKind, host: Case, spec: SampleSpec, reader: CaseReader, rng: np.random.Generator
) -> tuple[Mask, CaseEntry | None, Mapping[str, Any]]:
    """Draw and build the 3D mask, with the first donor that can be placed."""
    candidates: tuple[CaseEntry | None, ...] = spec.donors or (None,)
    refusal: MaskError | None = None
    for entry in candidates:
        donor = reader.read(entry) if entry is not None else None
        try:
            drawn = section.draw(host, donor, rng)
        except MaskError as err:
            refusal = refusal or err
            continue
        return section.build(host, donor, drawn), entry, drawn
    assert refusal is not None
    raise refusal


def _policy(recipe: Recipe, spec: SampleSpec) -> str:
    return next(m for m in recipe.masks if m.name == spec.section).label_policy()


def _case_facts(entry: CaseEntry) -> dict[str, Any]:
    """What provenance says of a host or donor: identity, hashes and geometry; never a path."""
    return {
        "source": entry.source,
        "layout": entry.layout,
        "case": entry.case_id,
        "patient": entry.patient_id,
        "licence": entry.licence,
        "image_sha256": entry.image_sha256,
        "voxel_sha256": entry.voxel_sha256,
        "label_sha256": entry.label_sha256,
        "shape": list(entry.shape),
        "spacing_mm": [float(s) for s in entry.spacing_mm],
        "affine": [float(x) for x in entry.affine.ravel()],
    }
