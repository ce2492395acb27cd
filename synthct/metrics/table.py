"""The table of all measures of a sample.

Columns of datasets, limits in recipes, and the texts of card, report, evaluation and exports follow
from it. A new measure is a file with its definition, and its name in the table.
"""

from __future__ import annotations

from synthct.metrics.adherence import MASK_ADHERENCE
from synthct.metrics.area import MASK_AREA, MASK_VOLUME, PAINTED_FRACTION
from synthct.metrics.distribution import HU_WASSERSTEIN
from synthct.metrics.error import MAE, PSNR, SSIM
from synthct.metrics.grain import GRAIN_RATIO
from synthct.metrics.hu import (
    CLIPPED_FRACTION,
    PAINTED_MEAN,
    PAINTED_STD,
    REPLACED_MEAN,
    REPLACED_STD,
)
from synthct.metrics.measure import Measure, Measures, Painting
from synthct.metrics.outside import OUTSIDE_MAX_ABS_DIFF
from synthct.metrics.seam import SEAM_OVERSHOOT, SEAM_RATIO
from synthct.metrics.sides import SIDE_SEAMS
from synthct.metrics.slices import Z_JUMP_RATIO
from synthct.metrics.spectrum import SPECTRUM_DISTANCE, SPECTRUM_DISTANCE_THROUGH
from synthct.metrics.texture import TEXTURE_RATIO, TEXTURE_RATIO_THROUGH
from synthct.metrics.variants import VARIANT_DIVERSITY

#: Measures by name, in the order of the columns.
MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        OUTSIDE_MAX_ABS_DIFF,
        PAINTED_MEAN,
        PAINTED_STD,
        REPLACED_MEAN,
        REPLACED_STD,
        SEAM_RATIO,
        SEAM_OVERSHOOT,
        TEXTURE_RATIO,
        SPECTRUM_DISTANCE,
        GRAIN_RATIO,
        HU_WASSERSTEIN,
        MASK_ADHERENCE,
        VARIANT_DIVERSITY,
        MAE,
        PSNR,
        SSIM,
        CLIPPED_FRACTION,
        MASK_AREA,
        PAINTED_FRACTION,
        Z_JUMP_RATIO,
        *SIDE_SEAMS,
        TEXTURE_RATIO_THROUGH,
        SPECTRUM_DISTANCE_THROUGH,
        MASK_VOLUME,
    )
}


def measure_all(painting: Painting) -> Measures:
    """Every measure of a painting, by name."""
    return {
        name: measure.of(painting) if painting.is_painted or not measure.needs_paint else None
        for name, measure in MEASURES.items()
    }
