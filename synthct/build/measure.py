"""The measures of one sample, on the scan's own grid: what a build knows of it, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthct.build.prepare import Draft
from synthct.build.references import Reference
from synthct.metrics.measure import Measures, Painting
from synthct.metrics.table import measure_all
from synthct.models.patch import slice_plane
from synthct.volume import Volume


def measure(
    draft: Draft, reference: Reference, earlier: Sequence[npt.NDArray[np.int16]] = ()
) -> Measures:
    """The measures of a sample, those of texture and edges within its window.

    Args:
        draft: The sample after painting. The host's own slice has no measures of paint.
        reference: What real tissue of the label looks like.
        earlier: HU (N,) inside of the mask of each earlier variant of the mask.
    """
    sample, labelled = draft.sample, draft.labelled
    original, spacing_mm = slice_plane(sample.volume("original"))
    if labelled is not None:
        labelled, _ = slice_plane(Volume(labelled, sample.affine))
    return measure_all(
        Painting(
            original=original,
            image=slice_plane(sample.volume("image"))[0],
            mask=slice_plane(sample.volume("mask"))[0],
            spacing_mm=spacing_mm,
            range_hu=sample.window.range_hu,
            codec_range_hu=None if draft.codec is None else draft.codec.range_hu,
            labelled=labelled,
            quantiles=reference.quantiles,
            segmenter=reference.segmenter,
            has_truth=draft.has_truth,
            is_painted=sample.facts.is_painted,
            earlier=earlier,
        )
    )
