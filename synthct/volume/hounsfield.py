"""Whether a picture can be a CT in Hounsfield units, judged by what is plain to see.

Each rule needs evidence of something else, not only a lack of air or fat: crops within an organ
or within the skull are CT too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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


def not_hu(sample: npt.NDArray[np.int16], low: float, high: float) -> str | None:
    """Why values are not HU, with the figures that say so; None if they may be.

    Args:
        sample: Some of the values, clipped to the range of HU.
        low: Least of all values, as stored and scaled.
        high: Greatest of all values.
    """
    if high - low <= _LEAST_SPAN_HU:
        return f"all values lie within {low:g}..{high:g}; convert them to HU"
    inner = sample[sample > sample.min()]  # without air and paddings at the lower end
    if inner.size == 0:
        return None
    least, half, most = (float(q) for q in np.percentile(inner, [1, 50, 99]))
    figures = f"least {low:g}, percentiles 1/50/99 {least:g}/{half:g}/{most:g}, greatest {high:g}"
    tissue = ((inner >= _SHIFTED_TISSUE[0]) & (inner <= _SHIFTED_TISSUE[1])).mean()
    has_air = (inner <= _SHIFTED_AIR_HU).mean() >= _SOME
    is_shifted = tissue >= (_WITH_AIR if has_air else _ALONE)
    if is_shifted and (inner <= _FAT_HU).mean() < _FEW:
        return f"they look like HU + 1024 ({figures}); subtract 1024 (scl_inter = -1024)"
    # A crop within an organ has no value below 0 either, but hardly one near 0: noise alone.
    if low >= 0 and (sample <= _DARK * most).mean() >= _SOME:
        return (
            f"none is below 0, as in pictures of 8 bits or magnetic resonance, but in a CT air and "
            f"fat are ({figures}); convert them to HU"
        )
    return None
