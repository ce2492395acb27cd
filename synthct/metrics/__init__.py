"""Measures of a sample: one small file each, on numpy arrays, knowing nothing of recipes or models.

``MEASURES`` lists those that every dataset stores as columns.

Every measure takes HU of the same shape as the boolean mask: (H, W), (I, J, K), or a slice as a
volume one voxel thick, in which the thin axis is ignored. ``range_hu`` clips both pictures first:
give a codec's ``range_hu``, so that a model is not blamed for what its codec cannot express.
"""

from synthct.metrics.adherence import Segmenter, local_features, near
from synthct.metrics.distribution import Quantiles, hu_quantiles, hu_wasserstein
from synthct.metrics.error import mean_absolute_error, mean_error, psnr, ssim
from synthct.metrics.hu import HuStats, hu_stats, share_outside_range
from synthct.metrics.measure import Measure, Measures, Painting
from synthct.metrics.outside import outside_max_abs_diff
from synthct.metrics.seam import (
    SeamSteps,
    pooled_seam_ratio,
    seam_overshoot,
    seam_ratio,
    seam_steps,
)
from synthct.metrics.slices import z_jump_ratio
from synthct.metrics.spectrum import spectrum_distance
from synthct.metrics.table import MEASURES, measure_all
from synthct.metrics.texture import texture_ratio
from synthct.metrics.variants import variant_diversity

__all__ = [
    "MEASURES",
    "HuStats",
    "Measure",
    "Measures",
    "Painting",
    "Quantiles",
    "SeamSteps",
    "Segmenter",
    "hu_quantiles",
    "hu_stats",
    "hu_wasserstein",
    "local_features",
    "mean_absolute_error",
    "mean_error",
    "measure_all",
    "near",
    "outside_max_abs_diff",
    "pooled_seam_ratio",
    "psnr",
    "seam_overshoot",
    "seam_ratio",
    "seam_steps",
    "share_outside_range",
    "spectrum_distance",
    "ssim",
    "texture_ratio",
    "variant_diversity",
    "z_jump_ratio",
]
