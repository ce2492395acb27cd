"""The 3D section of a page: a NiiVue viewer for lesions.

Library and volumes are in the page, compressed, and are opened on demand. Without scripts, the page
shows some slices of each lesion as pictures.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from synthct.dataset.sample import Sample
from synthct.dataset.tiles import windowed
from synthct.publish.pages.template import asset
from synthct.publish.report.html import Picture, pictured
from synthct.publish.report.lesions import LEAST_SLICES, middle
from synthct.publish.report.pictures import DIFFERENCE_HU, WINDOWS, rim
from synthct.publish.report.report_data import ANYTHING
from synthct.volume import Box, Volume, nifti_bytes
from synthct.volume.views import VIEW_AXIS

#: Most slices of a lesion that are shown as pictures.
_PICTURES = 6

#: The package whose files these are.
HERE = "synthct.publish.report"
_LIBRARY, _SCRIPT, _LICENCES = "vendor/niivue.umd.js", "viewer.js", "vendor/LICENSES.txt"


def scripts() -> tuple[str, str]:
    """The scripts of this section: its own, and the library."""
    return asset(_SCRIPT, HERE), asset(_LIBRARY, HERE)


def section(lesions: Sequence[Sample]) -> dict[str, Any] | None:
    """The template's values for the section; None without lesions."""
    if not lesions:
        return None
    script, library = scripts()
    return {
        "difference_hu": DIFFERENCE_HU,
        "windows": json.dumps({key: window.range_hu for key, window in WINDOWS.items()}),
        "least_slices": LEAST_SLICES,
        "lesions": [_lesion(lesion) for lesion in lesions],
        "library": _packed(library.encode()),
        "licences": asset(_LICENCES, HERE),
        "script": script,
    }


def _lesion(lesion: Sample) -> dict[str, Any]:
    axis, image = VIEW_AXIS[lesion.plane], lesion.volume("image")
    geometry = {"view": lesion.plane, "start": middle(lesion), "slices": lesion.shape}
    outline = Volume(rim(lesion.mask, axis), lesion.affine)
    return {
        "geometry": json.dumps(geometry),
        "lesion_id": lesion.facts.lesion_id,
        "label": lesion.facts.label or ANYTHING,
        "slices": lesion.shape[axis],
        "spacing": f"{image.spacing_mm[axis]:.3g}",
        "variant": (lesion.facts.variant or 0) + 1,
        "view": lesion.plane,
        "pictures": list(_pictures(lesion)),
        "image": _packed(nifti_bytes(image, compress=False)),
        **_before(lesion),
        "rim": _packed(nifti_bytes(outline, compress=False)),
    }


def _before(lesion: Sample) -> dict[str, str | None]:
    """What was there before painting and the difference to it; None if that is not known."""
    if lesion.original is None:
        return {"before": None, "difference": None}
    change = Volume(lesion.image - lesion.original, lesion.affine)
    before = lesion.volume("original")
    volumes = {"before": before, "difference": change}
    return {name: _packed(nifti_bytes(one, compress=False)) for name, one in volumes.items()}


def _pictures(lesion: Sample) -> Iterator[Picture]:
    """Some slices of a lesion, evenly spaced from the first to the last."""
    axis = VIEW_AXIS[lesion.plane]
    thick = lesion.shape[axis]
    for index in np.unique(np.linspace(0, thick - 1, min(_PICTURES, thick)).round().astype(int)):
        flat = lesion.crop(Box.whole(lesion.shape).slab(axis, int(index)))
        flat = replace(flat, facts=replace(flat.facts, view=lesion.plane))  # of a volume, a slice
        hu, mask = flat.pictures["image"], flat.pictures["mask"]
        pictures = {key: windowed(hu, window) for key, window in WINDOWS.items()}
        rows_mm, columns_mm = flat.pixel_mm
        size_mm = hu.shape[0] * rows_mm, hu.shape[1] * columns_mm
        yield pictured(f"slice {index + 1}", pictures, size_mm, mask=mask)


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
