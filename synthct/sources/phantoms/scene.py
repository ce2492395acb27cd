"""The canvas that organs are painted on, and what holds for the whole patient.

Organs are painted back to front: each covers what lies under it by its share of the voxel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from synthct.sources.phantoms.space import Box, FloatArray, Space, coverage, stream

Phase = Literal["none", "arterial", "portal", "delayed"]

PHANTOM_LABELS: Mapping[str, int] = MappingProxyType(
    {
        "spleen": 1,
        "kidney_right": 2,
        "kidney_left": 3,
        "gallbladder": 4,
        "liver": 5,
        "stomach": 6,
        "pancreas": 7,
        "lung_left": 8,
        "lung_right": 9,
        "heart": 10,
        "aorta": 11,
        "inferior_vena_cava": 12,
        "portal_vein_and_splenic_vein": 13,
        "vertebrae": 14,
        "ribs": 15,
        "colon": 16,
        "small_bowel": 17,
        "duodenum": 18,
        "esophagus": 19,
        "trachea": 20,
        "spinal_cord": 21,
        "sternum": 22,
        "kidney_tumor": 23,
        "kidney_cyst": 24,
        "liver_tumor": 25,
        "liver_cyst": 26,
    }
)

# Tissue without a name in the label map; kept while painting so that lesions know where fat is.
SOLID = 255

_PHASES: tuple[Phase, ...] = ("none", "arterial", "portal", "delayed")

# HU of each tissue by phase, in the order of _PHASES.
_TISSUE_HU: dict[str, tuple[float, float, float, float]] = {
    "skin": (30, 40, 45, 45),
    "fat": (-103, -103, -102, -102),
    "visceral_fat": (-101, -101, -100, -100),
    "muscle": (52, 56, 62, 60),
    "liver": (58, 68, 110, 92),
    "hepatic_vein": (42, 62, 168, 112),
    "portal_vein": (42, 125, 180, 116),
    "hepatic_artery": (42, 290, 160, 112),
    "spleen": (48, 128, 122, 92),
    "pancreas": (42, 102, 92, 74),
    "gallbladder": (8, 8, 8, 10),
    "organ_wall": (38, 78, 82, 66),
    "bowel_content": (22, 22, 24, 26),
    "kidney_cortex": (34, 186, 200, 146),
    "kidney_medulla": (31, 82, 192, 150),
    "urine": (6, 6, 9, 420),
    "aorta": (42, 310, 160, 114),
    "cava_low": (42, 62, 132, 110),
    "cava_high": (42, 130, 158, 112),
    "renal_vein": (42, 190, 168, 114),
    "vein": (42, 70, 145, 110),
    "heart_left": (42, 290, 158, 112),
    "heart_right": (42, 210, 156, 112),
    "myocardium": (46, 104, 112, 92),
    "pulmonary": (42, 230, 156, 112),
    "marrow": (165, 168, 172, 170),
    "kidney_tumor": (32, 112, 92, 72),
    "liver_tumor": (42, 96, 70, 66),
    "cord": (38, 40, 42, 42),
}


@dataclass(frozen=True)
class Patient:
    """What varies from one person and one examination to the next.

    Attributes:
        phase: Contrast phase of the scan.
        hu: HU of each tissue in this phase and patient.
        fat_mm: Thickness of subcutaneous fat at the flank.
        visceral: 0 lean to 1 with much visceral fat.
        muscle: Relative bulk of muscles.
        marbling: Fat between the bundles of muscles, about 0.2 (young) to 2 (old).
        proportions: Scale along x, y, z against the standard body.
    """

    phase: Phase
    hu: Mapping[str, float]
    fat_mm: float
    visceral: float
    muscle: float
    marbling: float
    proportions: tuple[float, float, float]


def draw_patient(seed: int, patient: int) -> Patient:
    """Draw a person and a contrast phase."""
    rng = stream(seed, patient, "patient")
    phase_index = int(rng.choice(4, p=[0.18, 0.3, 0.37, 0.15]))
    strength = float(np.clip(rng.normal(1.0, 0.08), 0.82, 1.2))
    hu = {}
    for name, by_phase in _TISSUE_HU.items():
        plain, enhanced = by_phase[0], by_phase[phase_index]
        hu[name] = plain + (enhanced - plain) * strength + float(rng.normal(0, 2.5))
    # A fatty liver is darker in every phase.
    steatosis = float(max(rng.normal(-4, 9), -6))
    hu["liver"] -= max(steatosis, 0.0)
    hu["marrow"] = float(np.clip(rng.normal(hu["marrow"], 38), 90, 270))
    size = rng.normal(1.0, 0.045)
    proportions = tuple(float(np.clip(size * rng.normal(1.0, 0.035), 0.86, 1.16)) for _ in range(3))
    return Patient(
        phase=_PHASES[phase_index],
        hu=hu,
        fat_mm=float(np.clip(rng.gamma(4.5, 4.2), 7, 42)),
        visceral=float(np.clip(rng.beta(2.2, 2.0), 0.08, 1)),
        muscle=float(np.clip(rng.normal(1.0, 0.1), 0.78, 1.2)),
        marbling=float(rng.uniform(0.25, 1.7)),
        proportions=(proportions[0], proportions[1], proportions[2]),
    )


class Scene:
    """A scan in the making.

    Attributes:
        space: The voxels in body coordinates.
        who: The patient.
        ct: HU so far, float32 (I, J, K).
        labels: Labels so far, uint8; ``SOLID`` is tissue that has no name.
    """

    def __init__(self, space: Space, who: Patient, seed: int, patient: int) -> None:
        self.space = space
        self.who = who
        self._key = (seed, patient)
        self.ct = np.full(space.shape, -1000.0, np.float32)
        self.labels = np.zeros(space.shape, np.uint8)

    def rng(self, name: str) -> np.random.Generator:
        """The generator of one named part of the anatomy."""
        return stream(*self._key, name)

    @cached_property
    def bumps(self) -> FloatArray:
        """Unit random field with features of 16 mm, for organ surfaces."""
        return self.space.field("bumps", 16.0)

    @cached_property
    def grain(self) -> FloatArray:
        """Unit random field with features of 6 mm, for lobulation and parenchyma."""
        return self.space.field("grain", 6.0)

    @cached_property
    def fine(self) -> FloatArray:
        """Unit random field with features of 3 mm, for strands, trabeculae and stool."""
        return self.space.field("fine", 3.2)

    def paint(
        self,
        box: Box,
        alpha: FloatArray,
        hu: float | FloatArray,
        label: str | None = None,
        *,
        keep_label: bool = False,
    ) -> npt.NDArray[np.bool_]:
        """Cover the voxels of a box.

        Args:
            box: Where.
            alpha: Share of each voxel that is covered.
            hu: HU of what covers it.
            label: Name in the label map; None marks unnamed tissue.
            keep_label: Leave the label map as it is, for vessels inside an organ.

        Returns:
            Voxels of the box that are mostly covered.
        """
        region = self.ct[box]
        region += alpha * (hu - region)
        inside = alpha >= 0.5
        if not keep_label:
            self.labels[box][inside] = SOLID if label is None else PHANTOM_LABELS[label]
        return inside

    def fill(
        self,
        box: Box,
        sdf: FloatArray,
        hu: float | FloatArray,
        label: str | None = None,
        *,
        keep_label: bool = False,
    ) -> npt.NDArray[np.bool_]:
        """Paint a shape given by its signed distance."""
        return self.paint(box, coverage(sdf), hu, label, keep_label=keep_label)
