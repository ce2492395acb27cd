"""The measures of one sample, on the scan's own grid: what a build knows of it, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthct.build.prepare import Draft
from synthct.build.references import Reference
from synthct.metrics.measure import Measures, Painting
from synthct.metrics.table import measure_all
from synthct.volume.views import VIEW_AXIS


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
    is_volume = sample.view == "volume"
    spacing_mm = sample.volume("mask").spacing_mm
    thin = () if is_volume else (VIEW_AXIS[sample.plane],)
    assert sample.original is not None, "a build knows what was there before"
    return measure_all(
        Painting(
            original=sample.original.squeeze(thin),
            image=sample.image.squeeze(thin),
            mask=sample.mask.squeeze(thin),
            spacing_mm=tuple(s for n, s in enumerate(spacing_mm) if n not in thin),
            range_hu=sample.window.range_hu,
            codec_range_hu=None if draft.codec is None else draft.codec.range_hu,
            labelled=None if labelled is None else labelled.squeeze(thin),
            quantiles=reference.quantiles,
            segmenter=reference.segmenter,
            has_truth=draft.section.has_truth(),
            is_painted=sample.facts.is_painted,
            earlier=earlier,
            axis=VIEW_AXIS[sample.plane] if is_volume else None,
        )
    )
