"""Whether a head or face may be in the field that a sample shows, as far as that can be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from synthct.dataset.sample import Sample
from synthct.volume.grid import spacing_of
from synthct.volume.views import VIEW_AXIS

#: Parts of names of structures of the head, and of the trunk.
_HEAD = ("brain", "skull", "face", "head", "mandible", "maxilla", "eye", "nasal", "teeth", "sinus")
_TRUNK = (
    "kidney", "liver", "spleen", "pancreas", "lung", "stomach", "bladder", "colon", "bowel",
    "duodenum", "adrenal", "rib", "heart", "aorta", "hip", "sacrum", "prostate",
)  # fmt: skip
_NO_HEAD = ("femoral_head", "humeral_head", "head_of", "pancreas_head", "kidney", "rib_head")

#: A part of the body wider than this on an axial slice is no head.
_WIDTH_MM = 280.0

#: A volume is this tall at most if what is in it at one end tells what is at the other.
_TALL_MM = 150.0

#: Air is below, the body above; and every which pixel is looked at.
_BODY_HU, _STEP = -300, 4


@dataclass(frozen=True)
class Anatomy:
    """The structures of a dataset's label map that tell where in the body a slice lies.

    Attributes:
        head: Values of structures of the head.
        trunk: Values of structures of the trunk.
    """

    head: frozenset[int]
    trunk: frozenset[int]

    @classmethod
    def of(cls, labels: Mapping[str, int]) -> Anatomy:
        """From the values of the label map by name."""

        def values(parts: tuple[str, ...], but: tuple[str, ...] = ()) -> frozenset[int]:
            names = [n for n in labels if any(p in n.lower() for p in parts)]
            return frozenset(labels[n] for n in names if not any(p in n.lower() for p in but))

        return cls(values(_HEAD, _NO_HEAD), values(_TRUNK))

    def is_recognisable(self, sample: Sample) -> bool | None:
        """Whether a head or face is in the field: by label names, else by the body's width.

        Returns:
            None if neither tells; coronal and sagittal slices may reach from the trunk to the head.
        """
        shown = frozenset(int(value) for value in np.unique(sample.labels))
        if shown & self.head:
            return True
        axis = VIEW_AXIS[sample.plane]
        tall = sample.shape[2] * spacing_of(sample.affine)[2]
        if axis != 2 or tall > _TALL_MM:
            return None
        if shown & self.trunk or _width_mm(sample) > _WIDTH_MM:
            return False
        return None


def _width_mm(sample: Sample) -> float:
    """Width of the widest part of the body on the middle axial slice."""
    from scipy import ndimage

    plane = sample.image[::_STEP, ::_STEP, sample.shape[2] // 2]
    parts, _ = ndimage.label(ndimage.binary_opening(plane > _BODY_HU))
    spans = [place[0].stop - place[0].start for place in ndimage.find_objects(parts)]
    return max(spans, default=0) * _STEP * float(spacing_of(sample.affine)[0])
