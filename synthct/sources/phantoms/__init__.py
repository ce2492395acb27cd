"""Procedural CTs of abdomen and chest with known truth: any number of patients from a seed.

``make_phantom`` is all that others need. Anatomy is written in millimetres of the patient
(``space``), painted back to front (``scene``), then seen by a scanner (``texture``).
"""

from __future__ import annotations

from synthct.sources.phantoms.make import Phantom, make_phantom
from synthct.sources.phantoms.scene import PHANTOM_LABELS

__all__ = ["PHANTOM_LABELS", "Phantom", "make_phantom"]
