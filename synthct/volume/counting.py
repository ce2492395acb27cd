"""What is counted in a whole volume, slab by slab: label values and a scan's fingerprint.

numpy counts in 8 bytes a voxel, several times what a scan itself takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from synthct.volume.grid import Box
from synthct.volume.volume import HU_MAX, HU_MIN, Array

_SLAB_VOXELS = 1 << 21


def count_values(labels: Array) -> dict[int, tuple[int, Box]]:
    """Value (but 0) of a label map (I, J, K) to its number of voxels and the box around them."""
    from scipy.ndimage import find_objects

    around = Box.around(labels)
    if around is None:
        return {}
    _, j, k = around.start_ijk
    values: dict[int, tuple[int, Box]] = {}
    for start, slab in _slabs(labels[around.slices]):
        counts = np.bincount(slab.ravel())
        for value, place in enumerate(find_objects(slab), start=1):
            if not counts[value]:
                continue
            box = Box.of_slices(place).shift((around.start_ijk[0] + start, j, k))
            voxels, earlier = values.get(value, (0, box))
            values[value] = voxels + int(counts[value]), box.join(earlier)
    return dict(sorted(values.items()))


def fingerprint(hu: Array) -> str:
    """A hash of a scan (I, J, K) that survives flips, permuted axes and a lost affine.

    Two files of one scan have the same number of voxels of each HU in -1024..3071, whatever their
    orientation, compression and voxel type; two scans do not.
    """
    counts = np.zeros(HU_MAX - HU_MIN + 1, dtype=np.int64)
    for _, slab in _slabs(hu):
        counts += np.bincount((slab.ravel() - HU_MIN).astype(np.uint16), minlength=counts.size)
    name = f"synthct/fingerprint/v1 {sorted(hu.shape)}\0".encode()
    return hashlib.sha256(name + counts.astype("<i8").tobytes()).hexdigest()


def _slabs(array: Array) -> Iterator[tuple[int, Array]]:
    """Parts of an array along its first axis, with the index of their first plane."""
    step = max(1, _SLAB_VOXELS // max(1, array[0].size))
    for start in range(0, array.shape[0], step):
        yield start, array[start : start + step]
