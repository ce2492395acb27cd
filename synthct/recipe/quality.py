"""The ``quality`` section of a recipe: which samples are good enough to keep.

Knows the names of the measures and the limits, not how a measure is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = Annotated[float, Field(allow_inf_nan=False)]


class Limits(BaseModel):
    """The least and the greatest value that a sample may have; both are allowed values.

    Attributes:
        min: Below this a sample is rejected.
        max: Above this a sample is rejected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing would be kept")
        return self


class Broken(NamedTuple):
    """A limit that a sample breaks.

    Attributes:
        measure: Name of the measure.
        value: The sample's.
        reason: A few words, the same for all samples that break this limit.
    """

    measure: str
    value: float
    reason: str


class Quality(BaseModel):
    """Limits on the measures of a sample; what breaks one goes to ``rejected.parquet``.

    A measure that is not defined for a sample (no texture in a mask of three pixels) breaks no
    limit.

    Attributes:
        seam_ratio: Step across the mask's border, painted over original.
        seam_overshoot: How far the mean HU of the mask's rim lies beyond both of its sides.
        texture_ratio: Fine texture inside of the mask, painted over original.
        spectrum_distance: Difference of the noise power spectra in dB, painted to original.
        hu_wasserstein: Distance in HU to the real tissue of the label.
        mask_adherence: Dice of what looks like the label with the region that should be it.
        variant_diversity: 1 less the correlation with the most similar earlier variant.
        painted_mean_hu: Mean inside of the mask.
        painted_std_hu: Standard deviation inside of the mask.
        clipped_fraction: Share of the replaced values that the codec cannot express.
        mae_hu: Mean absolute error, where the replaced tissue is the truth.
        psnr_db: Peak signal-to-noise ratio, where the replaced tissue is the truth.
        ssim: Structural similarity, where the replaced tissue is the truth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seam_ratio: Limits | None = None
    seam_overshoot: Limits | None = None
    texture_ratio: Limits | None = None
    spectrum_distance: Limits | None = None
    hu_wasserstein: Limits | None = None
    mask_adherence: Limits | None = None
    variant_diversity: Limits | None = None
    painted_mean_hu: Limits | None = None
    painted_std_hu: Limits | None = None
    clipped_fraction: Limits | None = None
    mae_hu: Limits | None = None
    psnr_db: Limits | None = None
    ssim: Limits | None = None

    @property
    def limits(self) -> dict[str, Limits]:
        """The measures that are limited, in the order of the fields."""
        return {
            name: limits
            for name in type(self).model_fields
            if (limits := getattr(self, name)) is not None
        }

    def broken(self, measures: Mapping[str, float | None]) -> Broken | None:
        """The first limit that a sample breaks; None if it is good enough.

        Args:
            measures: The sample's measures by name; None or NaN where one is not defined.
        """
        for name, limits in self.limits.items():
            value = measures[name]
            if value is None:
                continue
            # Comparisons with NaN are false, so what is not defined breaks nothing.
            if limits.min is not None and value < limits.min:
                return Broken(name, value, f"{name} below {limits.min:g}")
            if limits.max is not None and value > limits.max:
                return Broken(name, value, f"{name} above {limits.max:g}")
        return None
