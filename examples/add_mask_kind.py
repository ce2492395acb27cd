"""Add a mask kind: a ball at a random place of an organ.

A kind is one frozen model: its fields are its section of a recipe, ``draw`` makes every random
decision and returns it as JSON (which becomes provenance), ``build`` makes the mask from that JSON
and is deterministic. To use it in recipes, put the class into a file in ``synthct/masks/`` and its
name into ``MaskKind`` there.

    python examples/add_mask_kind.py
"""

import json
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from synthct.masks.base import Mask, MaskSection, Params, make_mask, voxel_centres
from synthct.volume import Box
from synthct.volume.case import Case


class Ball(MaskSection):
    """A ball around a random voxel of an organ.

    Attributes:
        within: The organ.
        radius_mm: Of the ball.
    """

    kind: Literal["ball"] = "ball"
    within: str
    radius_mm: Annotated[float, Field(gt=0, le=100)] = 10.0

    def required_labels(self) -> tuple[str, ...]:
        """Hosts without the organ are of no use."""
        return (self.within,)

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Choose the centre, in RAS+ mm."""
        voxels = np.argwhere(host.region(self.within))
        voxel = voxels[rng.integers(len(voxels))]
        affine = host.labels.affine
        centre_mm = affine[:3, :3] @ voxel + affine[:3, 3]
        return {"kind": self.kind, "host": host.case_id, "centre_mm": centre_mm.tolist()}

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """All voxels nearer to the centre than the radius."""
        whole = Box((0, 0, 0), host.labels.shape)
        offsets_mm = voxel_centres(whole, host.labels.affine) - params["centre_mm"]
        region = np.linalg.norm(offsets_mm, axis=-1) <= self.radius_mm
        return make_mask(host, region, whole.start_ijk, self.label, {})


def main() -> None:
    """Draw a ball in a phantom's liver, and make it again from what was recorded."""
    from synthct.sources.phantoms import PHANTOM_LABELS
    from synthct.sources.scanner import Scanner

    ct, labels = Scanner(shape=(64, 64, 16)).scan(seed=0, patient=0)
    host = Case("phantom", "phantom", "hosts", ct, labels, dict(PHANTOM_LABELS))
    ball = Ball(name="balls", within="liver", radius_mm=15)
    params = ball.draw(host, None, np.random.default_rng(0))
    mask = ball.build(host, None, params)
    again = ball.build(host, None, json.loads(json.dumps(params)))
    same = np.array_equal(mask.region.array, again.region.array)
    print(f"a ball of {mask.volume_ml:.1f} ml; the same from its record: {same}")


if __name__ == "__main__":
    main()
