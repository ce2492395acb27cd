"""One sample after it was painted: pasted, proven, measured and described.

Puts the paint into the scan and proves that nothing else changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.build.measure import Painting, measure, not_painted
from synthct.build.prepare import FloatArray, Prepared
from synthct.build.provenance import provenance
from synthct.build.references import References
from synthct.dataset.patch_rows import patch_of
from synthct.dataset.schema import Facts, Slices, StoredRow, make_row
from synthct.models.patch import paste_patches
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.volume import HU_MAX, HU_MIN, Volume

#: Label map (I, J, K) of a painted slice, a sample of a host at an index along the view's axis.
LabelsOf = Callable[[Volume, SampleSpec, int], npt.NDArray[np.uint16]]


def finish(
    prepared: Prepared,
    spec: SampleSpec,
    painted: Sequence[FloatArray],
    recipe: Recipe,
    *,
    references: References,
    earlier: Sequence[npt.NDArray[np.int16]] = (),
    trained_on: frozenset[str] | None,
    generation: Mapping[str, Any],
    numerics: Mapping[str, Any],
    licence: str | None,
    relabel: LabelsOf | None = None,
) -> tuple[StoredRow, npt.NDArray[np.int16]]:
    """Paste the paint into the slice, prove that nothing else changed, measure, and describe.

    A spec that is not painted becomes the host's own slice with its own label map.

    Args:
        prepared: From ``prepare``.
        spec: The variant.
        painted: One array per patch, from the model; none where a control paints, or for a spec
            that is not painted.
        recipe: The recipe.
        references: What real tissue looks like.
        earlier: HU inside of the mask of its earlier variants.
        trained_on: Voxel hashes of the checkpoint's training scans; None if it does not say.
        generation: How it was painted: checkpoint, scheduler, steps.
        numerics: The numerics class.
        licence: SPDX id of the dataset; None if unknown.
        relabel: Asks the user's program for the label map of a painted slice.

    Returns:
        The row, whole or of what was generated only, as the recipe's release asks; and the HU
        inside of the mask.

    Raises:
        AssertionError: If a voxel outside the mask changed: a bug of ours, never accepted.
    """
    plane, mask = prepared.plane, prepared.region.array
    section = next(m for m in recipe.masks if m.name == spec.section)
    result, labels = plane, prepared.host_labels
    if spec.is_painted:
        result, labels = _pasted(prepared, spec, painted), prepared.labels
        if section.label_policy() == "relabel":
            assert relabel is not None, "a painter has what its recipe asks for"
            said = relabel(result, spec, prepared.slice_index)
            labels = np.where(mask, said, prepared.host_labels).astype(labels.dtype)
    painting = Painting(
        original=plane,
        painted=result,
        mask=mask,
        window=prepared.window,
        codec=prepared.codec,
        labelled=prepared.labelled,
        reference=references.of(prepared.label, spec.host.patient_id),
        has_truth=prepared.has_truth,
    )
    measured = measure(painting, earlier) if spec.is_painted else not_painted(painting)
    changed = measured.outside_max_abs_diff
    assert changed == 0, f"{spec.sample_id}: {changed} HU changed outside of the mask"
    facts, told = describe(
        prepared,
        spec,
        recipe,
        labels,
        trained_on=trained_on,
        generation=generation,
        numerics=numerics,
        licence=licence,
    )
    slices = Slices(result, plane.array, mask, labels)
    row = make_row(
        slices,
        facts,
        measured,
        told,
        window=prepared.window,
        keep_original=recipe.keep_original,
    )
    if recipe.release == "patch":
        generated = patch_of(row, slices, prepared.host_labels, prepared.window)
        return generated, result.array[mask]
    return row, result.array[mask]


def describe(
    prepared: Prepared,
    spec: SampleSpec,
    recipe: Recipe,
    labels: npt.NDArray[Any],
    *,
    trained_on: frozenset[str] | None,
    generation: Mapping[str, Any],
    numerics: Mapping[str, Any],
    licence: str | None,
) -> tuple[Facts, dict[str, Any]]:
    """What is said of a sample, apart from measures; it does not depend on what was painted.

    Args:
        prepared: From ``prepare``.
        spec: The variant.
        recipe: The recipe.
        labels: The label map after painting, on the grid of the slice.
        trained_on: As for ``finish``, like the others.
        generation: How it was painted.
        numerics: The numerics class.
        licence: SPDX id of the dataset.

    Returns:
        What people filter by, and the provenance.
    """
    host, donor = spec.host, prepared.donor
    section = next(m for m in recipe.masks if m.name == spec.section)
    lender = None if section.donor_is_host else donor
    change = section.changes_lesion
    facts = Facts(
        sample_id=spec.sample_id,
        mask_id=spec.mask_id,
        lesion_id=spec.lesion_id,
        case_id=host.case_id,
        patient_id=host.patient_id,
        donor_case_id=lender.case_id if lender else None,
        donor_patient_id=lender.patient_id if lender else None,
        pair_id=spec.mask_id if section.pair else None,
        is_painted=spec.is_painted,
        has_lesion=None if change is None else (change == "added") == spec.is_painted,
        mask_name=spec.section,
        mask_kind=str(prepared.params["kind"]),
        label=prepared.label,
        view=recipe.view,
        slice_index=prepared.slice_index,
        variant=spec.variant,
        host_in_training=None if trained_on is None else host.voxel_sha256 in trained_on,
    )
    told = provenance(
        spec,
        recipe,
        plane=prepared.plane,
        region=prepared.region.array,
        labels=(prepared.host_labels, labels),
        donor=donor,
        params=prepared.params,
        facts=prepared.facts,
        patches=prepared.patches,
        generation={**generation, **prepared.fill_facts},
        numerics=numerics,
        licence=licence,
    )
    return facts, told


def noise_seed(recipe: Recipe, spec: SampleSpec, patch: int) -> int:
    """Seed of the noise of one patch of a sample."""
    return seeds.derive_seed(recipe.seed, "noise", spec.sample_id, str(patch))


def _pasted(prepared: Prepared, spec: SampleSpec, painted: Sequence[FloatArray]) -> Volume:
    """The slice with the paint in it."""
    if prepared.patches:
        return paste_patches(prepared.plane, prepared.region, prepared.patches, painted)
    mask = prepared.region.array
    hu = np.zeros(mask.shape, dtype=np.float32)
    hu[mask] = np.clip(prepared.fills[spec.sample_id], HU_MIN, HU_MAX)
    return prepared.plane.paste(hu, where=mask)
