"""Counterparts of transplants: the same masks within the organ, painted as the organ."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from synthct.masks.base import LabelPolicy, LesionChange, Mask, Params, make_mask
from synthct.masks.transplant import Transplant
from synthct.volume.case import Case


class Counterpart(Transplant):
    """What a transplant would paint, cut to the organ and painted as it.

    Beside a section ``transplant`` of the same name and fields in another recipe with the same seed
    it gives the other half of pairs: the same masks, painted without a lesion. What is learned from
    such pairs is the lesion, not that something was painted.

    Attributes:
        label: The lesion label of the donor, whose shape is taken; ``into`` is painted.
    """

    changes_lesion: ClassVar[LesionChange | None] = None
    default_label_map: ClassVar[LabelPolicy] = "keep"

    kind: Literal["counterpart"] = "counterpart"  # type: ignore[assignment]

    def painted_labels(self) -> tuple[str, ...]:
        """The organ."""
        return (self.into,)

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The transplant's voxels in the organ.

        Raises:
            MaskError: As a transplant does.
        """
        whole = super().build(host, donor, params)
        organ = np.isin(host.labels.array[whole.box.slices], host.values_of(self.into))
        region = whole.region.array & organ
        return make_mask(host, region, whole.box.start_ijk, self.into, dict(whole.facts))
