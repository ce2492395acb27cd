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
#: If the sign is wrong, air and lung lie where dense bone does, with little beside them: the least
#: share there, and what may lie above and below by that share. A padding of one value may be more.
_NEGATED_AIR, _NOT_AIR_HU, _LEAST_AIR = (600, 1100), -300, 0.15
_MORE_ABOVE, _MORE_BELOW, _LEAST_PADDING = 0.2, 0.3, 0.02
#: Where muscle and fat lie in HU, and where they do with the wrong sign, which must have so many
#: times as much. In a scan of this width there is air, so there less will do.
_SOFT, _NEGATED_SOFT, _MORE_SOFT = ((15, 75), (-130, -80)), ((-75, -15), (80, 130)), 1.5
_BROAD_MM, _LEAST_AIR_OF_BROAD, _MORE_SOFT_OF_BROAD = 120.0, 0.1, 0.75
#: The range of 8 bits; values that were cut to it reach so near to either end, in so large a share.
_BYTES, _NEAR_END, _AT_END, _FEWEST_AT_END = ((-128, 127), (0, 255)), 3, 0.001, 16
#: Scans of this width show air, which lies here, in more than this share of the voxels.
_WIDE_MM, _AIR_HU, _NO_AIR = 150.0, (-1200, -850), 0.0005


def not_hu(
    values: npt.NDArray[Any],
    low: float,
    high: float,
    width_mm: float,
    scaling: tuple[str, str] = NIFTI_SCALING,
) -> str | None:
    """Why values are not HU, with the figures that say so; None if they may be.

    Args:
        values: Some of the values (N,), as stored and scaled, rounded.
        low: Least of all values.
        high: Greatest of all values.
        width_mm: Size of the scan along the second longest of its axes.
        scaling: Names of the fields that scale stored values, slope and intercept.
    """
    slope, intercept = scaling
    if high - max(low, HU_MIN) <= _LEAST_SPAN_HU:
        return f"all values lie within {low:g}..{high:g}; convert them to HU"
    if evidence := _out_of_range(values) or _wrong_scale(values, low, high, width_mm):
        return f"{evidence} ({_figures(values, low, high)}); correct {slope} and {intercept}"
    sample = np.clip(values, HU_MIN, HU_MAX)
    inner = sample[sample > sample.min()]  # without air and paddings at the lower end
    if inner.size == 0:
        return None
    tissue = ((inner >= _SHIFTED_TISSUE[0]) & (inner <= _SHIFTED_TISSUE[1])).mean()
    has_air = (inner <= _SHIFTED_AIR_HU).mean() >= _SOME
    is_shifted = tissue >= (_WITH_AIR if has_air else _ALONE)
    if is_shifted and (inner <= _FAT_HU).mean() < _FEW:
        figures = _figures(inner, low, high)
        return f"they look like HU + 1024 ({figures}); subtract 1024 ({intercept} = -1024)"
    # A crop within an organ has no value below 0 either, but hardly one near 0: noise alone.
    if low >= 0 and (sample <= _DARK * np.percentile(inner, 99)).mean() >= _SOME:
        return (
            f"none is below 0, as in pictures of 8 bits or magnetic resonance, but in a CT air and "
            f"fat are ({_figures(inner, low, high)}); convert them to HU"
        )
    return None


def has_no_air(values: npt.NDArray[Any], width_mm: float) -> bool:
    """Whether a scan is so wide that air must be seen, and none is: its scale may be wrong.

    Args:
        values: Some of its values (N,) in HU.
        width_mm: Its size along the second longest of its axes.
    """
    return width_mm >= _WIDE_MM and _share(values, *_AIR_HU) < _NO_AIR


def _figures(values: npt.NDArray[Any], low: float, high: float) -> str:
    least, half, most = np.percentile(values, [1, 50, 99])
    return f"least {low:g}, percentiles 1/50/99 {least:g}/{half:g}/{most:g}, greatest {high:g}"


def _share(values: npt.NDArray[Any], least: float, most: float) -> float:
    return float(((values >= least) & (values <= most)).mean())


def _out_of_range(values: npt.NDArray[Any]) -> str | None:
    """Whether clipping to the range of HU would take tissue away, as with a lost offset."""
    above = float((values > HU_MAX).mean())
    if above >= _MOST_ABOVE:
        return f"{above:.0%} of them are above {HU_MAX} HU, where no tissue is"
    below = values[values < _FAR_BELOW_HU]
    if below.size >= _MOST_BELOW * values.size and np.unique(below).size >= _PADDINGS:
        return f"{below.size / values.size:.0%} of them are below {_FAR_BELOW_HU} HU and differ"
    return None


def _wrong_scale(values: npt.NDArray[Any], low: float, high: float, width_mm: float) -> str | None:
    """Whether the sign is wrong, or values were cut to 8 bits."""
    if _is_negated(values, is_broad=width_mm >= _BROAD_MM):
        return "they look like HU of the wrong sign"
    if (low, high) in _BYTES:
        ends = ((low, low + _NEAR_END), (high - _NEAR_END, high))
        least = min(_share(values, *end) for end in ends)
        if least >= _AT_END and least * values.size >= _FEWEST_AT_END:
            return "they look as if cut to 8 bits, in which values that differ by 256 are the same"
    return None


def _is_negated(values: npt.NDArray[Any], *, is_broad: bool) -> bool:
    above, counts = np.unique(values[values > _NEGATED_AIR[1]], return_counts=True)
    if counts.size and counts.max() >= _LEAST_PADDING * values.size:
        values = values[values != above[counts.argmax()]]
    air = _share(values, *_NEGATED_AIR) if values.size else 0.0
    if (
        air < (_LEAST_AIR_OF_BROAD if is_broad else _LEAST_AIR)
        or _share(values, _NEGATED_AIR[1] + 1, np.inf) > _MORE_ABOVE * air
        or _share(values, -np.inf, _NOT_AIR_HU) > _MORE_BELOW * air
    ):
        return False
    soft, negated = (sum(_share(values, *one) for one in both) for both in (_SOFT, _NEGATED_SOFT))
    return negated > (_MORE_SOFT_OF_BROAD if is_broad else _MORE_SOFT) * soft
