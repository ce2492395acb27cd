"""Tissue made wrong on purpose: what measures of texture and noise must notice."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Falsifier = Literal["doubled noise", "halved noise", "blur", "softer kernel", "sharper kernel"]
FALSIFIERS: tuple[Falsifier, ...] = get_args(Falsifier)


def falsified(
    hu: npt.NDArray[Any], kind: Falsifier, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """A picture with another noise; what is seen in it otherwise stays.

    Noise is what a median over 5 x 5 pixels, then a Gaussian of 1 pixel, takes away. A kernel's
    noise has the strength of that of the picture (by its median, so that edges do not count).

    Args:
        hu: HU (H, W).
        kind: What is made wrong.
        rng: Draws the noise of another kernel.
    """
    picture = hu.astype(np.float64)
    smooth = ndimage.gaussian_filter(ndimage.median_filter(picture, 5), 1.0)
    noise = picture - smooth
    white = rng.standard_normal(picture.shape)
    strength = 1.4826 * np.median(np.abs(noise))
    match kind:
        case "doubled noise":
            return picture + noise
        case "halved noise":
            return picture - noise / 2
        case "blur":
            return np.asarray(ndimage.gaussian_filter(picture, 1.0))
        case "softer kernel":
            grain = ndimage.gaussian_filter(white, 1.2)
        case "sharper kernel":
            grain = white - ndimage.gaussian_filter(white, 0.6)
    return np.asarray(smooth + strength * grain / grain.std())
