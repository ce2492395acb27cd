"""One sample painted: pasted, proven to be untouched outside of the mask, measured, described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.build.context import BuildContext
from synthct.build.draw import grain_stream, noise_stream
from synthct.build.measure import measure
from synthct.build.prepare import Draft
from synthct.build.provenance import provenance
from synthct.dataset.sample import Sample
from synthct.errors import VerifyError
from synthct.metrics.outside import outside_max_abs_diff
from synthct.models.grain import with_grain
from synthct.models.patch import paste_patches
from synthct.recipe.plan import SampleSpec
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
        network, painting = recipe.inpaint.network, _pasted(draft, painted)
        if network is not None and network.grain == "surroundings":
            mask, rng = sample.volume("mask"), seeds.generator(recipe.seed, *grain_stream(spec))
            painting, grain = with_grain(original, painting, mask, sample.window.range_hu, rng)
            draft = replace(draft, paint_facts={MEASURED_GRAIN: grain and grain.as_json()})
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


def _pasted(draft: Draft, painted: Sequence[FloatArray]) -> Volume:
    """What a sample shows, with the paint in it."""
    sample, original = draft.sample, draft.sample.volume("original")
    if draft.stack is None:
        return paste_patches(original, sample.volume("mask"), draft.patches, painted)
    image = original.array.copy()
    image[sample.mask] = draft.stack.painted_hu(painted)
    return Volume(image, sample.affine)


def noise_seed(recipe: Recipe, spec: SampleSpec, patch: int) -> int:
    """Seed of the noise of one patch of a sample."""
    return seeds.derive_seed(recipe.seed, *noise_stream(spec, patch))
