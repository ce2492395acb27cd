"""Per-sample measures: one small file each, on numpy arrays, knowing nothing of recipes or models.

Every measure takes HU of the same shape as the boolean mask: (H, W), (I, J, K), or a slice as a
volume one voxel thick, in which the thin axis is ignored. ``range_hu`` clips both pictures first:
give a codec's ``range_hu``, so that a model is not blamed for what its codec cannot express.
"""

from synthct.metrics.error import mean_absolute_error, mean_error
from synthct.metrics.hu import HuStats, hu_stats, share_outside_range
from synthct.metrics.outside import outside_max_abs_diff
from synthct.metrics.seam import SeamSteps, pooled_seam_ratio, seam_ratio, seam_steps
from synthct.metrics.texture import texture_ratio

__all__ = [
    "HuStats",
    "SeamSteps",
    "hu_stats",
    "mean_absolute_error",
    "mean_error",
    "outside_max_abs_diff",
    "pooled_seam_ratio",
    "seam_ratio",
    "seam_steps",
    "share_outside_range",
    "texture_ratio",
]
