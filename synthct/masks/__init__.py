"""Masks: where the model paints. One file per kind; a new kind adds its name to `MaskKind`."""

from typing import Annotated

from pydantic import Field

from synthct.masks.blob import Blob
from synthct.masks.box import BoxMask
from synthct.masks.counterpart import Counterpart
from synthct.masks.ellipsoid import Ellipsoid
from synthct.masks.free_form import FreeForm
from synthct.masks.organ import Organ
from synthct.masks.own import Own
from synthct.masks.removal import Removal
from synthct.masks.transplant import Transplant

MaskKind = Annotated[
    Organ | BoxMask | Transplant | Counterpart | Ellipsoid | Removal | Blob | FreeForm | Own,
    Field(discriminator="kind"),
]
