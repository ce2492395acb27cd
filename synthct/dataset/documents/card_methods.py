"""The words of a dataset card that depend on the method of painting."""

from __future__ import annotations

from typing import NamedTuple


class MethodWords(NamedTuple):
    """The parts of a card's sentences that depend on the method of painting.

    Attributes:
        who: Subject and verb: "a diffusion model has painted".
        inside: A clause about the voxels inside of the mask.
        how: A clause about what was done for each sample.
    """

    who: str
    inside: str
    how: str


#: By the recipe's ``inpaint.method``.
METHOD_WORDS = {
    "diffusion": MethodWords(
        "a diffusion model has painted",
        "the picture is synthetic",
        "a diffusion model painted the region from its surroundings on the scan's own grid (the "
        "column `provenance` says where it had to be resampled)",
    ),
    "copy_paste": MethodWords(
        "the voxels of another patient have filled",
        "it is the donor's tissue, resampled and shifted in HU",
        "the donor's voxels were carried over with its shape, shifted in HU to the host's organ "
        "(`provenance` says by how much), and faded into the host at the border",
    ),
    "noise_fill": MethodWords(
        "noise has filled",
        "the picture is noise with the statistics of the tissue that the label names",
        "noise was drawn with the mean, spread and autocorrelation of the tissue (`provenance` "
        "says where they were measured)",
    ),
}
