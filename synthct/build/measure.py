"""All measures of one sample, on the scan's own grid, as the columns of a dataset name them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from synthct import metrics
from synthct.dataset.schema import Metrics
from synthct.models.patch import slice_plane
from synthct.build.prepare import Draft
from synthct.build.references import Reference
from synthct.volume import Volume

Hu = npt.NDArray[np.int16]


def measure(draft: Draft, reference: Reference, earlier: Iterable[Hu] = ()) -> Metrics:
    """The measures of a painted sample, those of texture and edges within its window.

    Args:
        draft: The sample after painting. The host's own slice has no measures of paint.
        reference: What real tissue of the label looks like.
        earlier: HU (N,) inside of the mask of each earlier variant.
    """
    sample, codec = draft.sample, draft.codec
    before, after, mask = sample.volume("original").array, sample.image, sample.mask
    _, spacing = slice_plane(sample.volume("mask"))
    area_mm2 = int(np.count_nonzero(mask)) * spacing[0] * spacing[1]
    if not sample.facts.is_painted:
        return Metrics.of_unpainted(area_mm2)
    window = sample.window.range_hu
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
        hu_wasserstein=_hu_wasserstein(draft, reference),
        mask_adherence=_mask_adherence(draft, reference),
        variant_diversity=metrics.variant_diversity(after[mask], earlier),
        mae_hu=metrics.mean_absolute_error(*triple, window) if draft.has_truth else None,
        psnr_db=metrics.psnr(*triple, window) if draft.has_truth else None,
        ssim=metrics.ssim(*triple, window) if draft.has_truth else None,
        clipped_fraction=None
        if codec is None
        else metrics.share_outside_range(before[mask], codec.range_hu),
        mask_area_mm2=area_mm2,
        painted_fraction=int(np.count_nonzero(mask)) / mask.size,
    )


def _hu_wasserstein(draft: Draft, reference: Reference) -> float | None:
    if draft.labelled is None or reference.quantiles is None:
        return None
    sample = draft.sample
    tissue, window = sample.image[draft.labelled & sample.mask], sample.window.range_hu
    return metrics.hu_wasserstein(tissue, reference.quantiles, window) if tissue.size else None


def _mask_adherence(draft: Draft, reference: Reference) -> float | None:
    if draft.labelled is None or reference.segmenter is None:
        return None
    hu, spacing = slice_plane(draft.sample.volume("image"))
    labelled, _ = slice_plane(Volume(draft.labelled, draft.sample.affine))
    return reference.segmenter.adherence(hu, labelled, spacing)
