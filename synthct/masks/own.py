"""The user's own masks: drawn by hand or by another program, one file per host."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from synthct.errors import MaskError, counted
from synthct.masks.base import LabelPolicy, Mask, MaskSection, Params, check_drawn_for, make_mask
from synthct.volume import Box, Volume
from synthct.volume.case import Case
from synthct.volume.grid import padded, start_within
from synthct.volume.regions import components, move, structure


class Own(MaskSection):
    """A mask from a file of the host's case in another source.

    The source is any of ``sources``, most often a ``nifti`` folder with a file pattern such as
    ``structures: {mask: "{case}_mask.nii.gz"}``; its case ids are those of the hosts. A file lies
    on the grid of its scan or on a part of it. Hosts without a file, or with an empty one, are
    skipped.

    Attributes:
        source: Name of the source that holds the masks.
        region: The structure of that source that is the mask; by default ``label``, else ``mask``.
        part: The whole mask, or one random connected part.
    """

    needs_donor: ClassVar[bool] = True
    donor_key: ClassVar[str] = "source"
    donor_is_host: ClassVar[bool] = True

    kind: Literal["own"] = "own"
    source: str = "masks"
    region: str | None = None
    part: Literal["all", "random"] = "all"

    @property
    def structure_name(self) -> str:
        """The structure that is the mask."""
        return self.region or self.label or "mask"

    def donor_labels(self) -> tuple[str, ...]:
        """The structure that is the mask."""
        return (self.structure_name,)

    def label_policy(self) -> LabelPolicy:
        """``paint`` where the section names a label, else ``ignore``."""
        return self.label_map or ("paint" if self.label else "ignore")

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Choose the part, and record the size of the mask.

        Raises:
            MaskError: If the mask is empty or lies on another grid than the host.
        """
        mask = self._on_the_hosts_grid(host, donor)
        region, _ = structure(mask, [self.structure_name])
        _, counts = components(region)
        return {
            "kind": self.kind,
            "host": host.case_id,
            "region": self.structure_name,
            "part": 1 + int(rng.integers(len(counts))) if self.part == "random" else 0,
            "voxels": int(counts.sum()),
        }

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The mask, or the part that was drawn.

        Raises:
            MaskError: If the mask has changed since the parameters were drawn.
        """
        check_drawn_for(params, "host", host)
        mask = self._on_the_hosts_grid(host, donor)
        region, box = structure(mask, [params["region"]])
        parts, counts = components(region)
        if int(counts.sum()) != params["voxels"]:
            raise MaskError(
                f"case {host.case_id}: the mask has {counted(int(counts.sum()), 'voxel')} but "
                f"{params['voxels']} when it was drawn; was its file changed?"
            )
        if params["part"]:
            region = parts == params["part"]
            tight = Box.around(region)
            assert tight is not None, "each part has voxels"
            region, box = region[tight.slices], move(tight, box.start_ijk)
        return make_mask(host, region, box.start_ijk, self.label, {"parts": len(counts)})

    def _on_the_hosts_grid(self, host: Case, mask: Case | None) -> Case:
        if mask is None:
            raise MaskError(
                f"mask '{self.name}': case {host.case_id} has no mask in source '{self.source}'; "
                "add the file, or correct its name"
            )
        if mask.labels.has_grid_of(host.labels):
            return mask
        if (start := start_within(mask.labels, host.labels)) is not None:
            whole = padded(mask.labels.array, start, host.labels.shape)
            return replace(mask, labels=Volume(whole, host.labels.affine))
        raise MaskError(
            f"case {host.case_id}: the mask of '{self.source}' lies on another grid than the scan "
            f"({mask.labels.grid_difference(host.labels)}); resample it first"
        )
