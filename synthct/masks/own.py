"""Masks of the user's own: drawn by hand or by another program, one file per host."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from synthct.errors import MaskError
from synthct.masks.base import LabelPolicy, Mask, MaskSection, Params, check_drawn_for, make_mask
from synthct.volume import Box
from synthct.volume.case import Case
from synthct.volume.regions import components, move, structure


class Own(MaskSection):
    """What a source says about the host's own case: no shape is drawn.

    The source is any that ``sources`` can name, most often a ``nifti`` folder with a pattern for
    the files, such as ``structures: {mask: "{case}_mask.nii.gz"}``; its cases are named as the
    hosts. A host without a file, or with an empty one, is left out.

    Attributes:
        source: Name of the source that holds the masks.
        region: The structure of that source that is the mask; by default ``label``, else ``mask``.
        part: The whole mask, or one connected part drawn at random.
    """

    needs_donor: ClassVar[bool] = True
    donor_key: ClassVar[str] = "source"
    donor_is_host: ClassVar[bool] = True

    kind: Literal["own"] = "own"
    source: str = "masks"
    region: str | None = None
    part: Literal["all", "random"] = "all"

    @property
    def masked(self) -> str:
        """The structure that is the mask."""
        return self.region or self.label or "mask"

    def donor_labels(self) -> tuple[str, ...]:
        """The structure that is the mask."""
        return (self.masked,)

    def label_policy(self) -> LabelPolicy:
        """What is painted as something is labelled so; of the rest nobody knows what it is."""
        return self.label_map or ("paint" if self.label else "ignore")

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Choose the part.

        Raises:
            MaskError: If the mask is empty or lies on another grid than the host.
        """
        mask = self._on_the_hosts_grid(host, donor)
        region, _ = structure(mask, [self.masked])
        _, counts = components(region)
        return {
            "kind": self.kind,
            "host": host.case_id,
            "region": self.masked,
            "part": 1 + int(rng.integers(len(counts))) if self.part == "random" else 0,
            "voxels": int(counts.sum()),
        }

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The mask, or the part that was drawn.

        Raises:
            MaskError: If it is not the mask that the parameters were drawn for.
        """
        check_drawn_for(params, "host", host)
        mask = self._on_the_hosts_grid(host, donor)
        region, box = structure(mask, [params["region"]])
        parts, counts = components(region)
        if int(counts.sum()) != params["voxels"]:
            raise MaskError(
                f"case {host.case_id}: the mask has {int(counts.sum())} voxels but "
                f"{params['voxels']} when it was drawn; was its file changed?"
            )
        if params["part"]:
            region = parts == params["part"]
            tight = Box.around(region)
            assert tight is not None, "the number of parts follows from the mask"
            region, box = region[tight.slices], move(tight, box.start_ijk)
        return make_mask(host, region, box.start_ijk, self.label, {"parts": len(counts)})

    def _on_the_hosts_grid(self, host: Case, mask: Case | None) -> Case:
        if mask is None:
            raise MaskError(f"mask '{self.name}': case {host.case_id} has none in '{self.source}'")
        if mask.labels.has_grid_of(host.labels):
            return mask
        raise MaskError(
            f"case {host.case_id}: the mask of '{self.source}' lies on another grid than the scan "
            f"({mask.labels.grid_difference(host.labels)}); resample it first"
        )
