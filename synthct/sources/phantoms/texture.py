"""What the scanner adds: blur of the kernel and correlated noise of filtered back projection."""

from __future__ import annotations

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter

from synthct.sources.phantoms.space import FloatArray

_SIGMA_PER_FWHM = 1 / 2.3548


def blur(ct: FloatArray, spacing_mm: tuple[float, float, float], fwhm_mm: float) -> FloatArray:
    """Blur by the in-plane point spread of a kernel; slices are left alone.

    Args:
        ct: HU (I, J, K).
        spacing_mm: Voxel size.
        fwhm_mm: Full width at half maximum.
    """
    sigma = [
        fwhm_mm * _SIGMA_PER_FWHM / spacing_mm[0],
        fwhm_mm * _SIGMA_PER_FWHM / spacing_mm[1],
        0,
    ]
    blurred: FloatArray = gaussian_filter(ct, sigma, truncate=3.0)
    return blurred


def scanner_noise(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    cutoff_per_mm: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Noise of unit variance with the band-pass spectrum of filtered back projection.

    The power is a ramp (from the reconstruction filter) times the roll-off of the kernel in each
    plane, and neighbouring thin slices share some of it.

    Args:
        shape: (I, J, K).
        spacing_mm: Voxel size.
        cutoff_per_mm: Where the kernel's roll-off has fallen to 1/e, in cycles per mm.
        rng: Owns the randomness.

    Returns:
        (I, J, K), mean 0, standard deviation 1.
    """
    rows, columns, slices = shape
    white = rng.standard_normal((slices, rows, columns), dtype=np.float32)
    spectrum = scipy.fft.rfft2(white, axes=(1, 2))
    fi = np.fft.fftfreq(rows, spacing_mm[0])[:, None]
    fj = np.fft.rfftfreq(columns, spacing_mm[1])[None, :]
    frequency = np.hypot(fi, fj)
    # Some power at low frequencies remains in real scanners, so the ramp starts above zero.
    power = (frequency + 0.03) * np.exp(-2 * (frequency / cutoff_per_mm) ** 2)
    spectrum *= np.sqrt(power).astype(np.float32)
    noise = scipy.fft.irfft2(spectrum, s=(rows, columns), axes=(1, 2)).transpose(1, 2, 0)
    overlap = 0.9 / spacing_mm[2]
    if overlap > 0.2:
        noise = gaussian_filter(noise, (0, 0, overlap), truncate=3.0)
    noise = np.ascontiguousarray(noise)
    unit: FloatArray = noise / np.float32(noise.std())
    return unit


def noise_level(ct: FloatArray, spacing_mm: tuple[float, float, float]) -> FloatArray:
    """How much stronger noise is where the beam crosses more tissue, relative to its mean.

    Args:
        ct: HU without noise (I, J, K).
        spacing_mm: Voxel size.

    Returns:
        (I, J, K), about 1 in the middle of the body, less at its edge and in lung and air.
    """
    steps = [max(1, int(8 / spacing)) for spacing in spacing_mm[:2]]
    density = np.clip(ct[:: steps[0], :: steps[1]] / 1000 + 1, 0, 2)
    sigma = (40 / (steps[0] * spacing_mm[0]), 40 / (steps[1] * spacing_mm[1]), 0)
    thick = gaussian_filter(density, sigma, mode="constant")
    level = 0.35 + 0.65 * np.clip(thick / max(float(thick.max()), 1e-3), 0, 1) ** 1.3
    full = np.repeat(np.repeat(level, steps[0], axis=0), steps[1], axis=1)
    full = full[: ct.shape[0], : ct.shape[1]]
    pad = [(0, size - have) for size, have in zip(ct.shape, full.shape, strict=True)]
    smooth: FloatArray = np.pad(full, pad, mode="edge").astype(np.float32)
    return smooth
