"""The section of a page in which lesions are scrolled through, in NiiVue.

Library and volumes stand in the page, packed, and are opened when they are asked for. What needs
no script is there without it: slices of each lesion as flat pictures.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from synthct.dataset.sample import Sample
from synthct.publish.report.html import asset, pictured, text
from synthct.publish.report.lesions import LEAST_SLICES, middle
from synthct.publish.report.pictures import WINDOWS, outlined, rim
from synthct.volume import Box, Volume, nifti_bytes
from synthct.volume.views import VIEW_AXIS

#: Slices of a lesion that are shown as pictures.
_PICTURES = 6

_LIBRARY, _SCRIPT, _LICENCES = "vendor/niivue.umd.js", "viewer.js", "vendor/LICENSES.txt"

_PLANES = ("axial", "coronal", "sagittal")


def scripts() -> tuple[str, str]:
    """What a page with this section runs: its own script, and the library that this loads."""
    return asset(_SCRIPT), asset(_LIBRARY)


def section(lesions: Sequence[Sample]) -> str:
    """The section and its script; nothing if there are no lesions."""
    if not lesions:
        return ""
    script, library = scripts()
    windows = {key: window.range_hu for key, window in WINDOWS.items()}
    return (
        f'<div id="lesions" data-windows="{escape(json.dumps(windows))}">'
        f"<p>Some of what at least {LEAST_SLICES} neighbouring slices show, with its surroundings. "
        "As radiologists have it, the patient's right is on the left of axial and coronal "
        "pictures, and the front on the left of sagittal ones. The window is that of the samples "
        f"above.</p>{''.join(_lesion(n, one) for n, one in enumerate(lesions))}</div>\n"
        f'<template id="niivue">{_packed(library.encode())}</template>\n'
        f"<details><summary>Licences of the viewer, NiiVue</summary><pre>{escape(asset(_LICENCES))}"
        f"</pre></details>\n<script>{script}</script>"
    )


def _lesion(number: int, lesion: Sample) -> str:
    name, axis = f"lesion-{number}", VIEW_AXIS[lesion.view]
    scene = {"view": lesion.view, "start": middle(lesion), "slices": lesion.shape}
    image = lesion.volume("image")
    thick, apart = image.shape[axis], image.spacing_mm[axis]
    label = lesion.facts.label or "whatever fits"
    planes = "".join(
        f'<option value="{plane}"{" selected" * (plane == lesion.view)}>{plane}</option>'
        for plane in _PLANES
    )
    outline = Volume(rim(lesion.mask, axis), lesion.affine)
    volumes = "".join(
        f'<template id="{name}-{what}">{_packed(nifti_bytes(volume, compress=False))}</template>'
        for what, volume in (("image", image), ("rim", outline))
    )
    return (
        f'<article class="lesion" id="{name}" data-lesion="{escape(json.dumps(scene))}">'
        f"<h3>{text(lesion.facts.lesion_id)}: {text(label)}</h3>"
        f"<p>{thick} {lesion.view} slices, {apart:.3g} mm apart; variant "
        f"{(lesion.facts.variant or 0) + 1}</p>"
        f'<div class="row">{"".join(_pictures(lesion))}</div>'
        '<button type="button">Scroll through it</button> <span class="message"></span>'
        '<div class="viewer" hidden><div class="stage"><canvas aria-label="the lesion, in slices">'
        '</canvas></div><div class="controls">'
        '<label>slice <input type="range" class="slice" min="0" step="1"></label>'
        f'<label>plane <select class="plane">{planes}<option value="all">all three</option>'
        '</select></label><label><input type="checkbox" class="overlay" checked> mask</label>'
        f"<output></output></div></div>{volumes}</article>"
    )


def _pictures(lesion: Sample) -> Iterator[str]:
    """Some slices of a lesion, evenly from its first to its last."""
    axis = VIEW_AXIS[lesion.view]
    thick = lesion.shape[axis]
    for index in np.unique(np.linspace(0, thick - 1, min(_PICTURES, thick)).round().astype(int)):
        shown = lesion.crop(Box.whole(lesion.shape).slab(axis, int(index))).pictures
        hu, mask = shown["image"], shown["mask"]
        pictures = {key: outlined(hu, mask, window) for key, window in WINDOWS.items()}
        rows_mm, columns_mm = lesion.pixel_mm
        size_mm = hu.shape[0] * rows_mm, hu.shape[1] * columns_mm
        yield pictured(f"slice {index + 1}", pictures, size_mm)


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
