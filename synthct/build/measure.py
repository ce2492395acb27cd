"""The measures of one sample, on the scan's own grid, as the columns of a dataset name them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthct.build.prepare import Prepared
from synthct.build.references import Reference
from synthct.metrics import Measures, Painting, measure_all
from synthct.models.patch import slice_plane
from synthct.volume import Volume


def measure(
    prepared: Prepared,
    image: Volume,
    reference: Reference,
    earlier: Sequence[npt.NDArray[np.int16]] = (),
    *,
    is_painted: bool = True,
) -> Measures:
    """The measures of a slice after painting, those of texture and edges within its window.

    Args:
        prepared: The slice before painting, and its mask.
        image: The slice after painting.
        reference: What real tissue of the label looks like.
        earlier: HU (N,) inside of the mask of each earlier variant of the mask.
        is_painted: False for the host's own slice, which has no measures of paint.
    """
    original, spacing_mm = slice_plane(prepared.plane)
    labelled = prepared.labelled
    if labelled is not None:
        labelled, _ = slice_plane(Volume(labelled, image.affine))
    return measure_all(
        Painting(
            original=original,
            image=slice_plane(image)[0],
            mask=slice_plane(prepared.region)[0],
            spacing_mm=spacing_mm,
            range_hu=prepared.window.range_hu,
            codec_range_hu=None if prepared.codec is None else prepared.codec.range_hu,
            labelled=labelled,
            quantiles=reference.quantiles,
            segmenter=reference.segmenter,
            has_truth=prepared.has_truth,
            is_painted=is_painted,
            earlier=earlier,
        )
    )
