"""All measures of one sample, on the scan's own grid, as the columns of a dataset name them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthct import metrics
from synthct.build.references import Reference
from synthct.dataset.schema import Metrics
from synthct.models.patch import slice_plane
from synthct.volume import Volume
from synthct.volume.intensity import Knots, Window

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Painting:
    """A painted slice, and what it is measured against.

    Attributes:
        original: int16 HU (I, J, K), one voxel thick.
        painted: The same slice after painting.
        mask: Boolean (I, J, K): what was painted.
        window: In which it is measured.
        codec: The codec that it was painted in; None where a control painted.
        labelled: Boolean (I, J, K): where the painted label should be, inside of the mask and
            around it; None where no label was asked for.
        reference: What is known of the label.
        has_truth: Whether the replaced tissue is what should have been painted.
    """

    original: Volume
    painted: Volume
    mask: BoolArray
    window: Window
    codec: Window | Knots | None
    labelled: BoolArray | None
    reference: Reference
    has_truth: bool


def measure(one: Painting, earlier: Iterable[npt.NDArray[np.int16]] = ()) -> Metrics:
    """The measures of a sample, those of texture and edges within its window.

    Args:
        one: The painted slice.
        earlier: HU inside of the mask of its earlier variants.
    """
    before, after, mask = one.original.array, one.painted.array, one.mask
    window = one.window.range_hu
    inside, replaced = metrics.hu_stats(after[mask]), metrics.hu_stats(before[mask])
    triple = before, after, mask
    return Metrics(
        outside_max_abs_diff=metrics.outside_max_abs_diff(*triple),
        painted_mean_hu=inside.mean_hu,
        painted_std_hu=inside.std_hu,
        replaced_mean_hu=replaced.mean_hu,
        replaced_std_hu=replaced.std_hu,
        seam_ratio=metrics.seam_ratio(*triple, window),
        seam_overshoot=metrics.seam_overshoot(after, mask, window),
        texture_ratio=metrics.texture_ratio(*triple, window),
        spectrum_distance=metrics.spectrum_distance(*triple, window),
        hu_wasserstein=_hu_wasserstein(one, window),
        mask_adherence=_mask_adherence(one),
        variant_diversity=metrics.variant_diversity(after[mask], earlier),
        mae_hu=metrics.mean_absolute_error(*triple, window) if one.has_truth else None,
        psnr_db=metrics.psnr(*triple, window) if one.has_truth else None,
        ssim=metrics.ssim(*triple, window) if one.has_truth else None,
        clipped_fraction=None
        if one.codec is None
        else metrics.share_outside_range(before[mask], one.codec.range_hu),
        mask_area_mm2=_area_mm2(one),
        painted_fraction=int(np.count_nonzero(mask)) / mask.size,
    )


def not_painted(one: Painting) -> Metrics:
    """The measures of a slice that is as the scanner gave it: there is no paint to be judged."""
    return Metrics.of_unpainted(_area_mm2(one))


def _area_mm2(one: Painting) -> float:
    _, spacing = slice_plane(one.original)
    return int(np.count_nonzero(one.mask)) * spacing[0] * spacing[1]


def _hu_wasserstein(one: Painting, window: tuple[float, float]) -> float | None:
    if one.labelled is None or one.reference.quantiles is None:
        return None
    tissue = one.painted.array[one.labelled & one.mask]
    return metrics.hu_wasserstein(tissue, one.reference.quantiles, window) if tissue.size else None


def _mask_adherence(one: Painting) -> float | None:
    if one.labelled is None or one.reference.segmenter is None:
        return None
    hu, spacing = slice_plane(one.painted)
    labelled, _ = slice_plane(Volume(one.labelled, one.painted.affine))
    return one.reference.segmenter.adherence(hu, labelled, spacing)
