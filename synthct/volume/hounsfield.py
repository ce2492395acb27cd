"""Whether a picture can be a CT in Hounsfield units, judged by what is plain to see.

Each rule needs evidence of something else, not only a lack of air or fat: crops within an organ
or within the skull are CT too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.volume.volume import HU_MAX, HU_MIN

#: The fields of a NIfTI header that scale stored values, slope and intercept.
NIFTI_SCALING = ("scl_slope", "scl_inter")
#: Noise alone spans more HU than this.
_LEAST_SPAN_HU = 16
#: Stored values of scanners that leave out the offset of -1024: where tissue lies then, and the
#: least share of voxels there, with air at the other end or alone.
_SHIFTED_TISSUE, _WITH_AIR, _ALONE = (850, 1250), 0.15, 0.9
_SHIFTED_AIR_HU, _SOME = 200, 0.02
#: Fat and air are below this; a share of them that noise around 0 may have.
_FAT_HU, _FEW = -50, 0.005
#: Up to this share of its brightest parts a picture is dark.
_DARK = 0.02
#: Metal and contrast medium take up less of a scan than this; padding below air is of one value.
_MOST_ABOVE, _MOST_BELOW, _FAR_BELOW_HU, _PADDINGS = 0.25, 0.05, -1200, 16
#: Where air and soft tissue are if the sign is wrong, and the least shares of them.
_NEGATED_AIR, _NEGATED_TISSUE, _LEAST_AIR, _LEAST_TISSUE = (900, 1100), (-75, -15), 0.15, 0.1
#: The range of 8 bits; values that were cut to it reach so near to either end, in so large a share.
_BYTES, _NEAR_END, _AT_END, _FEWEST_AT_END = ((-128, 127), (0, 255)), 3, 0.001, 16
#: Scans of this width show air, which is below this.
_WIDE_MM, _AIR_HU = 200.0, -300


def not_hu(
    values: npt.NDArray[Any], low: float, high: float, scaling: tuple[str, str] = NIFTI_SCALING
) -> str | None:
    """Why values are not HU, with the figures that say so; None if they may be.

    Args:
        values: Some of the values (N,), as stored and scaled, rounded.
        low: Least of all values.
        high: Greatest of all values.
        scaling: Names of the fields that scale stored values, slope and intercept.
    """
    slope, intercept = scaling
    if high - max(low, HU_MIN) <= _LEAST_SPAN_HU:
        return f"all values lie within {low:g}..{high:g}; convert them to HU"
    if evidence := _out_of_range(values) or _wrong_scale(values, low, high):
        least, half, most = (float(q) for q in np.percentile(values, [1, 50, 99]))
        figures = f"least {low:g}, percentiles 1/50/99 {least:g}/{half:g}/{most:g}"
        return f"{evidence} ({figures}, greatest {high:g}); correct {slope} and {intercept}"
    sample = np.clip(values, HU_MIN, HU_MAX)
    inner = sample[sample > sample.min()]  # without air and paddings at the lower end
    if inner.size == 0:
        return None
    least, half, most = (float(q) for q in np.percentile(inner, [1, 50, 99]))
    figures = f"least {low:g}, percentiles 1/50/99 {least:g}/{half:g}/{most:g}, greatest {high:g}"
    tissue = ((inner >= _SHIFTED_TISSUE[0]) & (inner <= _SHIFTED_TISSUE[1])).mean()
    has_air = (inner <= _SHIFTED_AIR_HU).mean() >= _SOME
    is_shifted = tissue >= (_WITH_AIR if has_air else _ALONE)
    if is_shifted and (inner <= _FAT_HU).mean() < _FEW:
        return f"they look like HU + 1024 ({figures}); subtract 1024 ({intercept} = -1024)"
    # A crop within an organ has no value below 0 either, but hardly one near 0: noise alone.
    if low >= 0 and (sample <= _DARK * most).mean() >= _SOME:
        return (
            f"none is below 0, as in pictures of 8 bits or magnetic resonance, but in a CT air and "
            f"fat are ({figures}); convert them to HU"
        )
    return None


def has_no_air(low: float, extent_mm: tuple[float, float, float]) -> bool:
    """Whether a scan is so wide that air must be seen, and none is: its scale may be wrong.

    Args:
        low: Least of its values in HU.
        extent_mm: Its size along the axes.
    """
    return low > _AIR_HU and sorted(extent_mm)[1] >= _WIDE_MM


def _out_of_range(values: npt.NDArray[Any]) -> str | None:
    """Whether clipping to the range of HU would take tissue away, as with a lost offset."""
    above = float((values > HU_MAX).mean())
    if above >= _MOST_ABOVE:
        return f"{above:.0%} of them are above {HU_MAX} HU, where no tissue is"
    below = values[values < _FAR_BELOW_HU]
    if below.size >= _MOST_BELOW * values.size and np.unique(below).size >= _PADDINGS:
        return f"{below.size / values.size:.0%} of them are below {_FAR_BELOW_HU} HU and differ"
    return None


def _wrong_scale(values: npt.NDArray[Any], low: float, high: float) -> str | None:
    """Whether the sign is wrong, or values were cut to 8 bits."""

    def share(between: tuple[float, float]) -> float:
        return float(((values >= between[0]) & (values <= between[1])).mean())

    tissue = share(_NEGATED_TISSUE)
    mirrored = share((-_NEGATED_TISSUE[1], -_NEGATED_TISSUE[0]))
    if (
        share(_NEGATED_AIR) >= _LEAST_AIR
        and share((_NEGATED_AIR[1], np.inf)) < _SOME
        and tissue >= max(_LEAST_TISSUE, 2 * mirrored)
    ):
        return "they look like HU of the wrong sign"
    if (low, high) in _BYTES:
        ends = ((low, low + _NEAR_END), (high - _NEAR_END, high))
        least = min(share(end) for end in ends)
        if least >= _AT_END and least * values.size >= _FEWEST_AT_END:
            return "they look as if cut to 8 bits, in which values that differ by 256 are the same"
    return None
