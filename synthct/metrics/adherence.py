"""Mask adherence: whether a segmenter trained on other patients finds the label where it should be.

The segmenter is a logistic regression on all products of a few local features (HU, means over 1, 2
and 4 mm, roughness, gradient). It is trained in well under a second, draws no random numbers, and
on real scans separates an organ from its surroundings as well as a random forest would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.metrics.measure import Measure, Painting

Features = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]

#: A label is compared within this distance of its border.
REACH_MM = 10.0

#: HU are clipped to this range.
_RANGE_HU = (-1000.0, 400.0)
#: Range of HU of soft tissue, for the finer features.
_FINE_HU = (-200.0, 300.0)

_MEANS_MM, _ROUGH_MM, _EDGE_MM = (1.0, 2.0, 4.0), 3.0, 2.0

#: Weight of the ridge penalty, and the number of Newton steps.
_RIDGE, _STEPS = 0.1, 20


def local_features(hu: npt.NDArray[Any], spacing_mm: Sequence[float]) -> Features:
    """The segmenter's features of each pixel, (H, W, F)."""
    from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

    wide = np.clip(hu.astype(np.float32), *_RANGE_HU)
    fine = np.clip(wide, *_FINE_HU)

    def mean(picture: Features, sigma_mm: float) -> Features:
        return np.asarray(gaussian_filter(picture, [sigma_mm / s for s in spacing_mm]))

    squares, centre = mean(fine * fine, _ROUGH_MM), mean(fine, _ROUGH_MM)
    features = [
        wide,
        fine,
        *(mean(fine, sigma_mm) for sigma_mm in _MEANS_MM),
        np.sqrt(np.maximum(squares - centre * centre, 0)),
        gaussian_gradient_magnitude(fine, [_EDGE_MM / s for s in spacing_mm]),
    ]
    return np.stack(features, axis=-1).astype(np.float32)


def near(region: Region, spacing_mm: Sequence[float]) -> Region:
    """The region and all pixels within ``REACH_MM`` of it."""
    from scipy.ndimage import distance_transform_edt

    within: Region = distance_transform_edt(~region, sampling=list(spacing_mm)) <= REACH_MM
    return within


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained segmenter of one label.

    Attributes:
        mean: (F,) mean of the training features.
        std: (F,) standard deviation of the training features.
        weights: Weights of the constant, the features and their products.
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, features: Features, inside: Region) -> Segmenter:
        """Train on pixels.

        Args:
            features: (N, F), from ``local_features``.
            inside: (N,), whether a pixel belongs to the label.

        Raises:
            ValueError: If all pixels are inside, or none.
        """
        if inside.all() or not inside.any():
            raise ValueError("a segmenter needs pixels inside and outside of the label")
        mean = features.mean(axis=0, dtype=np.float64)
        std = np.maximum(features.std(axis=0, dtype=np.float64), 1e-6)
        design = _products(features, mean, std)
        weights = np.zeros(design.shape[1])
        ridge = _RIDGE * np.eye(design.shape[1])
        for _ in range(_STEPS):  # Newton's method on the penalised likelihood
            chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
            slope = design.T @ (chance - inside) + _RIDGE * weights
            curve = (design * (chance * (1 - chance))[:, None]).T @ design + ridge
            step = np.linalg.solve(curve, slope)
            weights = weights - step
            if np.abs(step).max() < 1e-6:
                break
        return cls(mean, std, weights)

    def predict(self, features: Features) -> Region:
        """Whether each pixel (N, F) looks like the label."""
        looks: Region = _products(features, self.mean, self.std) @ self.weights > 0
        return looks

    def adherence(
        self, painted: npt.NDArray[Any], labelled: Region, spacing_mm: Sequence[float]
    ) -> float:
        """Dice of the predicted and the given label, within ``REACH_MM`` of the latter's border.

        Args:
            painted: HU of a slice, (H, W), or of a stack of slices, (N, H, W).
            labelled: Boolean, of the same shape: where the label should be.
            spacing_mm: Size of a pixel along the last two axes.

        Returns:
            Between 0 and 1; NaN if ``labelled`` is empty.
        """
        both = either = 0
        if painted.ndim == 2:
            painted, labelled = painted[None], labelled[None]
        for hu, region in zip(painted, labelled, strict=True):
            if region.any():
                window = _around(region, spacing_mm)
                judged = near(region[window], spacing_mm)
                looks = self.predict(local_features(hu[window], spacing_mm)[judged])
                truth = region[window][judged]
                both += int(np.count_nonzero(looks & truth))
                either += int(np.count_nonzero(looks) + np.count_nonzero(truth))
        return float(2 * both / either) if either else float("nan")


def _around(region: Region, spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """The box around a region, with a margin for ``near`` and the filters."""
    window = []
    for axis, spacing in enumerate(spacing_mm):
        margin = int(np.ceil((REACH_MM + 4 * max(_MEANS_MM)) / spacing))
        hit = np.flatnonzero(region.any(axis=1 - axis))
        window.append(slice(max(0, int(hit[0]) - margin), int(hit[-1]) + 1 + margin))
    return tuple(window)


def _products(
    features: Features, mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """A constant, the standardised features, and all their products of two."""
    z = (features - mean) / std
    first, second = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, first] * z[:, second]], axis=1)


def _of_label(painting: Painting) -> float | None:
    """None without a label, or if too few other patients have it."""
    if painting.labelled is None or painting.segmenter is None:
        return None
    image, labelled, spacing_mm = painting.image, painting.labelled, painting.spacing_mm
    if (axis := painting.axis) is not None:  # in the slices that the mask lies in
        painted = np.moveaxis(painting.mask, axis, 0).any(axis=(1, 2))
        image, labelled = (np.moveaxis(a, axis, 0)[painted] for a in (image, labelled))
        spacing_mm = tuple(s for n, s in enumerate(spacing_mm) if n != axis)
    return painting.segmenter.adherence(image, labelled, spacing_mm)


MASK_ADHERENCE = Measure(
    "mask_adherence", "what looks like the label against what should (Dice)", worse="lower",
    of=_of_label,
)  # fmt: skip
