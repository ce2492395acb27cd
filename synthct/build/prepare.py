"""One sample before it is painted: its mask drawn and sliced, its patches cut.

Runs in worker processes, and makes every random decision but the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.build.controls import Control, control_for
from synthct.build.draw import CaseReader, Drawn, Refused, draw, refused
from synthct.errors import MaskError
from synthct.masks import MaskKind, on_slice, paint_labels, slice_of
from synthct.models.methods import Diffusion
from synthct.models.patch import Patch, PatchRules, cut_patches
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.sources import CaseEntry
from synthct.volume import Volume
from synthct.volume.case import Case
from synthct.volume.intensity import LUNG, SOFT_TISSUE, Knots, Window

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A mask on a slice, ready to be painted by a model, or painted already by a control.

    Attributes:
        specs: The samples: one per variant, and the host's own slice in a pair.
        plane: The host's slice, HU, one voxel thick.
        region: Boolean, on the grid of ``plane``: where to paint.
        host_labels: The host's label map, on the grid of ``plane``.
        labels: The same after painting.
        labelled: Boolean, on the same grid: where the painted label should be, inside of the mask
            and around it; None where the model paints whatever fits.
        has_truth: Whether what was there is what is to be painted.
        patches: What the model gets; none where a control paints.
        fills: By sample, what a control paints: HU (N,) of the voxels of ``region``, in C order.
        fill_facts: What was measured for it.
        label: What the model is asked to paint; None for whatever fits.
        donor: The case that lent its shape, if any.
        params: Every random decision; replaying them gives the same mask.
        facts: Numbers of the mask, such as those of ``accept``.
    """

    specs: tuple[SampleSpec, ...]
    plane: Volume
    region: Volume
    host_labels: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    labelled: npt.NDArray[np.bool_] | None
    has_truth: bool
    patches: tuple[Patch, ...]
    fills: Mapping[str, FloatArray]
    fill_facts: Mapping[str, Any]
    label: str | None
    donor: CaseEntry | None
    params: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def slice_index(self) -> int:
        """Index of the slice in the host, along the axis of the view."""
        return int(self.params["slice_index"])

    @property
    def codec(self) -> Window | Knots | None:
        """Between HU and the model's range; a control has none."""
        return self.patches[0].codec if self.patches else None

    @property
    def window(self) -> Window:
        """In which the sample is looked at, by eyes and by measures.

        Where a codec spans all of CT, air and bone would drown everything else.
        """
        if self.patches:
            return self.codec if isinstance(self.codec, Window) else SOFT_TISSUE
        return LUNG if self.label == "lung" else SOFT_TISSUE


#: What becomes of the slices of one mask.
Outcome = tuple[Prepared | Refused, ...]


def prepare(
    specs: Sequence[SampleSpec], recipe: Recipe, rules: PatchRules | None, reader: CaseReader
) -> Outcome:
    """Draw the mask of some variants, choose its slices, and cut their patches or fill them.

    Args:
        specs: Planned samples of one mask.
        recipe: The recipe.
        rules: What the checkpoint takes; None where a control paints.
        reader: Reads host and donor.

    Returns:
        One item for each slice; for a mask that cannot be drawn, one that says why.

    Raises:
        SourceError: If a file is missing or damaged.
        CheckpointError: If the checkpoint cannot paint the label.
    """
    drawn = draw(specs, recipe, reader)
    if isinstance(drawn, Refused):
        return (drawn,)
    return prepare_slices(drawn, recipe, rules, reader.label_names)


def prepare_slices(
    drawn: Drawn, recipe: Recipe, rules: PatchRules | None, label_names: Mapping[str, int]
) -> Outcome:
    """Cut the patches of a drawn mask's slices, or fill them.

    Args:
        drawn: The mask.
        recipe: The recipe.
        rules: What the checkpoint takes; None where a control paints.
        label_names: Structure to value, dataset-wide.
    """
    control = None
    if not isinstance(recipe.inpaint, Diffusion):
        try:
            control = control_for(drawn, recipe.inpaint, recipe.view)
        except MaskError as err:
            return (refused(drawn.specs, drawn.section, err),)
    return tuple(
        _prepare_slice(drawn, ordinal, recipe, rules, control, label_names)
        for ordinal in range(len(drawn.slices))
    )


def _prepare_slice(
    drawn: Drawn,
    ordinal: int,
    recipe: Recipe,
    rules: PatchRules | None,
    control: Control | None,
    label_names: Mapping[str, int],
) -> Prepared | Refused:
    """One slice of a drawn mask: its patches or its paint, and its label map after painting."""
    section, chosen, view = drawn.section, drawn.slices[ordinal], recipe.view
    specs = tuple(spec.on_slice(ordinal) for spec in drawn.specs)
    flat = slice_of(drawn.mask, view, chosen)
    plane, region = on_slice(drawn.host.scan(), flat, view)
    label = flat.label
    patches: Sequence[Patch] = ()
    fills: dict[str, FloatArray] = {}
    try:
        if rules is not None:
            label = rules.paintable(label) if section.label is None else label
            patches = cut_patches(plane, region, label, rules)
    except MaskError as err:
        return refused(specs, section, err)
    if control is not None:
        for spec in specs:
            if spec.is_painted:
                rng = seeds.generator(recipe.seed, "noise", spec.sample_id, "0")
                fills[spec.sample_id] = control.paint(flat, rng)
    labels, _ = on_slice(drawn.host.labels, flat, view)
    # A donor of another layout may know a union that the host does not.
    donor = drawn.donor_entry
    unions = {**(donor.unions if donor else {}), **specs[0].host.unions}
    value = painted_value(section, flat.label, label_names, unions)
    return Prepared(
        specs=specs,
        plane=plane,
        region=region,
        host_labels=labels.array,
        labels=paint_labels(labels, flat, section.label_policy(), value),
        labelled=_labelled(section, label, drawn.host, labels, region.array),
        has_truth=section.label_policy() != "paint",
        patches=tuple(patches),
        fills=fills,
        fill_facts=control.facts if control is not None else {},
        label=label,
        donor=donor,
        params={"kind": section.kind, "region": drawn.params, **chosen},
        facts=drawn.mask.facts,
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
    known = [
        v for name in (label, *host.unions.get(label, ())) if (v := host.label_names.get(name))
    ]
    there: npt.NDArray[np.bool_] = np.isin(labels.array, known)
    is_painted_over = section.label_policy() != "paint" and bool((there & mask).any())
    return there if is_painted_over else there | mask
