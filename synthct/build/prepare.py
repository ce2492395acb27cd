"""Samples before they are painted: their mask drawn and sliced, their patches cut.

Runs in worker processes, and makes every random decision but the noise of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.build.block import Block
from synthct.build.check import Checked
from synthct.build.controls import Control, control_for
from synthct.build.draw import (
    CaseReader,
    DrawnMask,
    draw,
    grain_stream,
    level_of,
    noise_stream,
    series_stream,
)
from synthct.build.fronts import Asked, Stack
from synthct.build.series import Step, parts_of
from synthct.dataset.sample import Sample
from synthct.dataset.schema import Facts
from synthct.dataset.writer import Rejection
from synthct.errors import MaskError
from synthct.masks import MaskKind
from synthct.masks.base import Mask, PlacementError
from synthct.masks.resize import resized
from synthct.masks.slicing import paint_labels, shown_box, slice_of, slices_of, within
from synthct.models.grain import surroundings
from synthct.models.patch import Patch, PatchRules, cut_patches
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.recipe.volumes import MOST_VOXELS, margin_of
from synthct.sources import CaseEntry
from synthct.volume import HU_MAX, HU_MIN, Box, Volume
from synthct.volume.case import Case
from synthct.volume.intensity import Knots, Window, window_for
from synthct.volume.views import VIEW_AXIS, View, plane_of


@dataclass(frozen=True, eq=False)
class Draft:
    """A sample on its way to be painted, and what only a build knows of it.

    Attributes:
        sample: The sample; its image is the original, or already painted by a control.
        spec: What the plan says of it.
        donor: The case that lent its shape, if any.
        params: Every random decision of the mask; replaying them gives the same mask.
        mask_facts: Numbers of the mask, such as those of ``accept``.
        patches: What the model gets, before any slice is painted; none for a control.
        stack: A volume, by its slices or whole; None for a slice, or for a control.
        paint_facts: What was measured for the paint: by a control, or for its grain.
        labelled: Boolean (I, J, K): where the painted label should be, inside of the mask and
            around it; None where the model paints whatever fits.
        around: Of a volume that a network paints: the scan as far around it as grain is measured,
            and where the sample lies in that; None where there is no more.
    """

    sample: Sample
    spec: SampleSpec
    donor: CaseEntry | None
    params: Mapping[str, Any]
    mask_facts: Mapping[str, Any]
    patches: tuple[Patch, ...]
    paint_facts: Mapping[str, Any]
    labelled: npt.NDArray[np.bool_] | None
    stack: Stack | Block | Step | None = None
    around: tuple[Volume, Box] | None = None

    @property
    def section(self) -> MaskKind:
        """The recipe's section of ``masks`` that the mask was drawn by."""
        return self.spec.section

    @property
    def is_step(self) -> bool:
        """Whether the sample shows one of several sizes of a lesion."""
        return "volume_factor" in self.params

    @cached_property
    def noise_streams(self) -> list[list[str]]:
        """Names of the random streams of the noise, by patch; a control has one."""
        if self.stack is None or not self.is_step:
            return [noise_stream(self.spec, n) for n in range(len(self.patches) or 1)]
        # The largest size has the same paint in all steps.
        counts = [sum(map(len, part.patches)) for part in parts_of(self.stack)]
        return [series_stream("noise", self.spec, n) for count in counts for n in range(count)]

    @property
    def grain_stream(self) -> list[str]:
        """Name of the random stream of the grain in the paint."""
        return series_stream("grain", self.spec) if self.is_step else grain_stream(self.spec)

    @property
    def codec(self) -> Window | Knots | None:
        """Between HU and the model's range; a control has none."""
        return self.patches[0].codec if self.patches else None


#: What becomes of the samples of one mask: slice by slice, and of each slice its variants.
Outcome = tuple[Draft | Rejection, ...]


def prepare(specs: Sequence[SampleSpec], checked: Checked, reader: CaseReader) -> Outcome:
    """Draw the mask of some variants, choose its slices, and cut their patches or fill them.

    Args:
        specs: Planned samples of one mask.
        checked: What they are planned by.
        reader: Reads host and donor.

    Raises:
        SourceError: If a file is missing or damaged.
        CheckpointError: If the checkpoint cannot paint the label.
    """
    try:
        drawn = draw(specs, checked.recipe, reader)
    except MaskError as err:
        return rejected(specs, err)
    return prepare_slices(drawn, checked)


def prepare_slices(drawn: DrawnMask, checked: Checked) -> Outcome:
    """Cut the patches of a drawn mask's slices, or fill them.

    Raises:
        CheckpointError: If the checkpoint cannot paint the label.
    """
    try:
        plane = plane_of(checked.recipe.view, drawn.host.labels.spacing_mm)
        control = control_for(drawn, checked.recipe.inpaint, plane)
    except MaskError as err:
        return rejected(drawn.specs, err)
    return tuple(
        one
        for ordinal in range(len(drawn.slices))
        for one in _prepare_slice(drawn, ordinal, checked, control)
    )


def rejected(specs: Iterable[SampleSpec], err: MaskError) -> tuple[Rejection, ...]:
    """The samples of a mask that cannot be drawn, sliced or painted."""
    reason = err.reason if isinstance(err, PlacementError) else "cannot be painted"
    return tuple(
        Rejection(spec.sample_id, f"{spec.section.kind}: {reason}", detail=str(err))
        for spec in specs
    )


@dataclass(frozen=True, eq=False)
class _Shown:
    """What of a host the samples of a slice show, or those of a volume.

    Attributes:
        flat: The mask on the slice, or all of it; of a series, in this sample's size.
        largest: The same in the largest size of the series; ``flat`` where there is none.
        box: The part of the host that is shown.
        plane: HU of it.
        labels: The host's label map of it.
        region: Boolean: where ``flat`` is in it.
    """

    flat: Mask
    largest: Mask
    box: Box
    plane: Volume
    labels: Volume
    region: Volume

    @classmethod
    def of(cls, drawn: DrawnMask, ordinal: int, recipe: Recipe) -> _Shown:
        """What is shown of a drawn mask.

        Raises:
            MaskError: If the mask cannot have that size, or a volume would be too large.
        """
        host, params = drawn.host, drawn.slices[ordinal]
        flat = largest = slice_of(drawn.mask, recipe.view, params)
        if recipe.series is not None:
            flat = resized(flat, host, params["volume_factor"])
            largest = resized(largest, host, max(recipe.series.factors))
        box = shown_box(host.labels.shape, largest, recipe.view, margin_of(recipe))
        if (voxels := math.prod(box.shape)) > MOST_VOXELS and recipe.view == "volume":
            message = f"{voxels:,} voxels are more than the {MOST_VOXELS:,} of the largest sample"
            raise MaskError(f"mask '{drawn.section.name}': {message}; lower margin_mm")
        # In one piece: the voxels of a slice lie far apart in a scan, and are looked at often.
        crops = (host.scan().crop(box), host.labels.crop(box))
        plane, labels = (Volume(np.ascontiguousarray(one.array), one.affine) for one in crops)
        region = Volume(within(flat, box), plane.affine)
        return cls(flat, largest, box, plane, labels, region)


def _prepare_slice(
    drawn: DrawnMask, ordinal: int, checked: Checked, control: Control | None
) -> Outcome:
    """The variants of one slice of a drawn mask, or of all of it."""
    recipe, rules, section = checked.recipe, checked.rules, drawn.section
    specs = tuple(spec.on_slice(ordinal) for spec in drawn.specs)
    patches: Sequence[Patch] = ()
    stack: Stack | Block | Step | None = None
    around: tuple[Volume, Box] | None = None
    try:
        shown = _Shown.of(drawn, ordinal, recipe)
        label = shown.flat.label
        if rules is not None:
            label = rules.paintable(label) if section.label is None else label
            level = level_of(specs[0], label, recipe)
            if recipe.view == "volume":
                asked = Asked(label, level, is_lesion=section.changes_lesion == "added")
                stack = _stack(drawn.host.scan(), shown, rules, asked)
                patches = [patch for own in stack.patches for patch in own]
                around = _around(drawn.host.scan(), shown.box)
            else:
                cut = cut_patches(shown.plane, shown.region, label, rules)
                patches = [replace(patch, level_hu=level) for patch in cut]
    except MaskError as err:
        return rejected(specs, err)
    flat, plane, host_labels, region = shown.flat, shown.plane, shown.labels, shown.region
    if control is not None and recipe.series is not None:
        control = control.sized(flat)
    slice_index = shown.box.start_ijk[_first_axis(recipe.view)]
    # A donor of another layout may know a union that the host does not.
    unions = {**(drawn.donor_entry.unions if drawn.donor_entry else {}), **specs[0].host.unions}
    value = painted_value(section, flat.label, checked.label_names, unions)
    painted_labels = paint_labels(host_labels, flat, section.label_policy(), value)
    labelled = _labelled(section, label, drawn.host, host_labels, region.array)
    under_hu = float(plane.array[region.array].mean())
    window = window_for(label, under_hu, patches[0].codec if patches else None)
    drafts = []
    for spec in specs:
        image, labels = plane.array, host_labels.array
        if spec.is_painted:
            labels = painted_labels
            if control is not None:
                rng = seeds.generator(recipe.seed, *noise_stream(spec, 0))
                image = _filled(plane, shown.box, slices_of(flat, recipe.view), control, rng)
        sample = Sample(
            facts=_facts(spec, drawn, slice_index, label, checked),
            affine=plane.affine,
            original=plane.array,
            image=image,
            mask=region.array,
            labels=labels,
            host_labels=host_labels.array,
            window=window,
        )
        draft = Draft(
            sample=sample,
            spec=spec,
            donor=drawn.donor_entry,
            params={"kind": section.kind, "region": drawn.params, **drawn.slices[ordinal]},
            mask_facts=drawn.mask.facts,
            patches=tuple(patches),
            paint_facts=control.facts if control is not None else {},
            labelled=labelled,
            stack=stack,
            around=around,
        )
        drafts.append(draft)
    return tuple(drafts)


def _stack(scan: Volume, shown: _Shown, rules: PatchRules, asked: Asked) -> Stack | Block | Step:
    """A volume as a network takes it: by its slices, or whole by one in 3D."""
    plane = plane_of("volume", scan.spacing_mm)
    kind = Stack if rules.depth == 1 else Block
    stack = kind.of(scan, shown.flat, plane, rules, asked)
    if shown.flat.volume_ml >= shown.largest.volume_ml:
        return stack
    of_largest = kind.of(scan, shown.largest, plane, rules, asked)
    return Step(stack, of_largest, Volume(within(shown.largest, shown.box), shown.plane.affine))


def _around(scan: Volume, box: Box) -> tuple[Volume, Box] | None:
    """The scan as far around a box as grain is looked at, and the box in it; None if no further."""
    larger = surroundings(box, scan.shape, scan.spacing_mm)
    if larger == box:
        return None
    inner = box.shift([-start for start in larger.start_ijk])
    return scan.crop(larger), inner


def _first_axis(view: View) -> int:
    """The axis that ``slice_index`` counts along."""
    return VIEW_AXIS["axial" if view == "volume" else view]


def _facts(
    spec: SampleSpec, drawn: DrawnMask, slice_index: int, label: str | None, checked: Checked
) -> Facts:
    """What people filter samples by; it does not depend on what is painted."""
    host, section, trained_on = spec.host, spec.section, checked.trained_on
    change = section.changes_lesion
    lender = None if section.donor_is_host else drawn.donor_entry
    return Facts(
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
        mask_name=section.name,
        mask_kind=section.kind,
        label=label,
        view=checked.recipe.view,
        slice_index=slice_index,
        variant=spec.variant,
        host_in_training=None
        if trained_on is None
        else not trained_on.isdisjoint({host.voxel_sha256, host.fingerprint}),
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
    if section.label_policy() != "paint" or section.values_by_voxel or label is None:
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


def _filled(
    plane: Volume, box: Box, parts: Sequence[Mask], control: Control, rng: np.random.Generator
) -> Any:
    """What a sample shows, with the HU of a control in the slices of its mask."""
    for flat in parts:
        mask = within(flat, box)
        hu = np.zeros(mask.shape, dtype=np.float32)
        hu[mask] = np.clip(control.paint(flat, rng), HU_MIN, HU_MAX)
        plane = plane.paste(hu, where=mask)
    return plane.array


def _labelled(
    section: MaskKind,
    label: str | None,
    host: Case,
    labels: Volume,
    mask: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_] | None:
    """Where ``label`` should be after painting: where it was, and where it is painted anew."""
    if label is None:
        return None
    names = (label, *host.unions.get(label, ()))
    values = [value for name in names if (value := host.label_names.get(name))]
    before: npt.NDArray[np.bool_] = np.isin(labels.array, values)
    is_painted_over = section.label_policy() != "paint" and bool((before & mask).any())
    return before if is_painted_over else before | mask
