"""One sample painted: pasted, proven to be untouched outside of the mask, measured, described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.build.block import Block
from synthct.build.context import BuildContext
from synthct.build.fronts import Stack
from synthct.build.measure import measure
from synthct.build.prepare import Draft
from synthct.build.provenance import provenance
from synthct.build.series import Step, parts_of, shown_of_largest
from synthct.dataset.sample import Sample
from synthct.errors import VerifyError
from synthct.metrics.outside import outside_max_abs_diff
from synthct.models.grain import with_grain
from synthct.models.patch import paste_patches
from synthct.recipe.recipe import Recipe
from synthct.volume import Volume

FloatArray = npt.NDArray[np.float32]

#: The key of a provenance for what was measured of the grain around the mask and of the paint.
MEASURED_GRAIN = "measured_grain"


def finish(
    draft: Draft,
    painted: Sequence[FloatArray],
    context: BuildContext,
    earlier: Sequence[npt.NDArray[np.int16]] = (),
) -> Sample:
    """Paste the paint into the slice, prove that nothing else changed, measure, and describe.

    Args:
        draft: From ``prepare``.
        painted: From the model, one array in -1..1 per patch; none where a control painted,
            or for the host's own slice.
        context: What all samples of the build share.
        earlier: HU inside of the mask of earlier variants.

    Raises:
        VerifyError: If a voxel outside of the mask changed, which would be a bug of ours.
    """
    sample, spec, recipe = draft.sample, draft.spec, context.checked.recipe
    original, image = sample.volume("original"), sample.image
    if spec.is_painted and draft.patches:
        painting, facts = _painted(draft, painted, recipe)
        draft = replace(draft, paint_facts=facts or draft.paint_facts)
        image = painting.array
    changed = outside_max_abs_diff(original.array, image, sample.mask)
    if changed:
        raise VerifyError(
            f"{spec.sample_id}: {changed} HU changed outside of the mask, so it is not stored; "
            "this is a bug of synthct, report it with the recipe"
        )
    sample = replace(sample, image=image)
    if spec.is_painted and draft.section.label_policy() == "relabel":
        assert context.relabel is not None, "a context has what its recipe asks for"
        labels = sample.volume("host_labels").array.copy()
        labels[sample.mask] = context.relabel(sample, spec.host)[sample.mask]
        sample = replace(sample, labels=labels.astype(sample.labels.dtype))
    reference = context.references.of(sample.facts.label, spec.host.patient_id)
    sample = replace(sample, metrics=measure(replace(draft, sample=sample), reference, earlier))
    return replace(sample, provenance=provenance(replace(draft, sample=sample), context))


def _painted(
    draft: Draft, painted: Sequence[FloatArray], recipe: Recipe
) -> tuple[Volume, Mapping[str, Any]]:
    """What a sample shows with the paint in it, and what was measured for the paint."""
    sample, stack = draft.sample, draft.stack
    original, mask = sample.volume("original"), sample.volume("mask")
    if stack is None:
        pasted = paste_patches(original, mask, draft.patches, painted)
        return _with_grain(pasted, mask, draft, recipe)
    own = parts_of(stack)[0]
    count = sum(map(len, own.patches))
    pasted = _pasted(original, mask, own, painted[:count])
    painting, facts = _with_grain(pasted, mask, draft, recipe)
    if isinstance(stack, Step):
        pasted = _pasted(original, stack.region, stack.largest, painted[count:])
        largest, _ = _with_grain(pasted, stack.region, draft, recipe)
        painting = shown_of_largest(painting, largest, mask, draft.patches[0].level_hu)
    return painting, facts


def _pasted(
    original: Volume, mask: Volume, part: Stack | Block, painted: Sequence[FloatArray]
) -> Volume:
    """A volume with the paint of a mask in it, as the network gave it."""
    image = original.array.copy()
    image[mask.array] = part.painted_hu(painted)
    return Volume(image, original.affine)


def _with_grain(
    painting: Volume, mask: Volume, draft: Draft, recipe: Recipe
) -> tuple[Volume, Mapping[str, Any]]:
    """A painting with the grain that the recipe asks for, and what was measured of it."""
    network, sample = recipe.inpaint.network, draft.sample
    if network is None or network.grain != "surroundings":
        return painting, {}
    rng = seeds.generator(recipe.seed, *draft.grain_stream)
    settings = sample.window.range_hu, rng, draft.patches[0].level_hu
    if draft.around is None:
        original = sample.volume("original")
        painting, grain = with_grain(original, painting, mask, *settings)
    else:
        scan, box = draft.around
        image, inside = scan.array.copy(), np.zeros(scan.shape, bool)
        image[box.slices], inside[box.slices] = painting.array, mask.array
        larger, region = Volume(image, scan.affine), Volume(inside, scan.affine)
        larger, grain = with_grain(scan, larger, region, *settings)
        painting = Volume(larger.array[box.slices], painting.affine)
    return painting, {MEASURED_GRAIN: grain and grain.as_json()}


def noise_seed(recipe: Recipe, draft: Draft, patch: int) -> int:
    """Seed of the noise of one patch of a sample."""
    return seeds.derive_seed(recipe.seed, *draft.noise_streams[patch])
