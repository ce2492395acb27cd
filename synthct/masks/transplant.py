"""Transplants: a lesion of another patient, carried in millimetres into an organ of the host.

Left open on purpose: where in its own organ the donor's lesion lay (a matched placement).
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthct.case import Case
from synthct.errors import MaskError
from synthct.masks.base import (
    LabelPolicy,
    LesionChange,
    Mask,
    MaskSection,
    Params,
    PlacementError,
    check_drawn_for,
    components,
    make_mask,
    move,
    structure,
)
from synthct.masks.box import LEAST_PART_SHARE
from synthct.masks.deform import Displacement, draw_velocity
from synthct.masks.lesion import DonorParts, Lesion, carry
from synthct.masks.place import Accept, Ground, find_place, settle
from synthct.masks.shape import draw_rotation
from synthct.volume import Box

#: Other parts of a donor's label count as lesions of their own from this volume on.
LEAST_LESION_ML = 0.5

#: Structures that a lesion does not grow into, wherever a host has them.
NEIGHBOURS = (
    "adrenal_gland", "aorta", "autochthon_left", "autochthon_right", "colon", "duodenum",
    "esophagus", "gallbladder", "heart", "iliopsoas_left", "iliopsoas_right",
    "inferior_vena_cava", "kidney", "liver", "lung", "pancreas", "portal_vein_and_splenic_vein",
    "ribs", "sacrum", "small_bowel", "spinal_cord", "spleen", "stomach", "urinary_bladder",
    "vertebrae",
)  # fmt: skip


class Deform(BaseModel):
    """How the lesion is changed on its way.

    Attributes:
        max_displacement_mm: No point is moved further by the elastic part.
        scale: Linear scale, drawn evenly in its logarithm; the upper end gives way where the
            lesion would get too large for the organ.
        rotate_deg: Greatest angle of a rotation about any axis.
        mirror: Whether left and right may be exchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_displacement_mm: Annotated[float, Field(ge=0, le=30)] = 6.0
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=10)]] = (0.7, 1.4)
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    mirror: bool = True

    @field_validator("scale")
    @classmethod
    def _range_rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the range {list(value)} must rise: [least, greatest]")
        return value


class Transplant(MaskSection):
    """A donor's lesion in the host's organ.

    Attributes:
        label: The donor's structure, and what is painted.
        into: The host's organ.
        donors: Name of the source that the donors are from.
        part: The donor's largest lesion, or one drawn among all of half a millilitre or more.
        deform: How it is changed.
        accept: Limits that every accepted transplant keeps.
        tries: So many places and deformations are tried.
    """

    needs_donor: ClassVar[bool] = True
    changes_lesion: ClassVar[LesionChange | None] = "added"

    kind: Literal["transplant"] = "transplant"
    label: str
    into: str
    donors: str = "donors"
    part: Literal["largest", "random"] = "largest"
    deform: Deform = Deform()
    accept: Accept = Accept()
    tries: Annotated[int, Field(ge=1, le=100)] = 10

    def wanted_labels(self) -> tuple[str, ...]:
        """The organ."""
        return (self.into,)

    def useful_labels(self) -> tuple[str, ...]:
        """What the lesion keeps clear of, and organs that it does not grow into."""
        return tuple(dict.fromkeys((self.label, *self.accept.avoid, *NEIGHBOURS)))

    def donor_labels(self) -> tuple[str, ...]:
        """The lesion."""
        return (self.label,)

    def label_policy(self) -> LabelPolicy:
        """Where the lesion was painted, the label map says so."""
        return self.label_map or "paint"

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw deformations and places until one keeps all limits.

        Raises:
            MaskError: If a label is missing or empty.
            PlacementError: If nothing legal was found; says how often each limit was in the way.
        """
        donor = self._other_patient(host, donor)
        parts = DonorParts.find(donor, self.label)
        found = parts.whole()
        usable = [n for n, ml in found if ml >= LEAST_LESION_ML] or [found[0][0]]
        number = usable[int(rng.integers(len(usable)))] if self.part == "random" else found[0][0]
        lesion = parts.lesion(number)
        grounds = self._grounds(host)
        roomy = [
            n for n, g in enumerate(grounds, 1) if self._room(lesion, g) >= self.deform.scale[0]
        ]
        if not roomy:
            raise PlacementError(
                f"case {host.case_id}: {self.label} {lesion.volume_ml:.1f} ml of donor "
                f"{donor.case_id} is more than {self.accept.organ_fraction:g} of {self.into} "
                f"{grounds[0].volume_ml:.1f} ml even at scale {self.deform.scale[0]:g}; "
                "choose smaller donors or a smaller scale",
                Counter(organ_fraction=1),
            )
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            organ_part = roomy[int(rng.integers(len(roomy)))]
            ground = grounds[organ_part - 1]
            change, bend = self._draw_change(lesion, ground, rng)
            carried = carry(lesion, change, bend)
            origin, reason = find_place(ground, carried, rng)
            if origin is not None:
                verdict = settle(ground, carried, origin)
                if verdict.reason is None:
                    return {
                        "kind": self.kind,
                        "host": host.case_id,
                        "donor": donor.case_id,
                        "part": number,
                        "organ_part": organ_part,
                        **change,
                        "origin_mm": origin.tolist(),
                        "attempt": attempt,
                        "failed": dict(reasons),
                    }
                reason = verdict.reason
            reasons[reason] += 1
        counted = ", ".join(f"{name} {n}" for name, n in reasons.most_common())
        raise PlacementError(
            f"case {host.case_id}: no legal place in {self.into} for {self.label} "
            f"{lesion.volume_ml:.1f} ml of donor {donor.case_id} after {self.tries} tries "
            f"({counted}); widen the limits of accept, allow a smaller scale, or more tries",
            reasons,
        )

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The lesion on the host's voxels; every limit is checked again.

        Raises:
            MaskError: If host or donor are not the drawn ones, or a limit is broken.
        """
        donor = self._other_patient(host, donor)
        check_drawn_for(params, "host", host)
        check_drawn_for(params, "donor", donor)
        lesion = DonorParts.find(donor, self.label).lesion(params["part"])
        carried = carry(lesion, params)
        grounds = self._grounds(host)
        if not 1 <= params["organ_part"] <= len(grounds):
            raise MaskError(
                f"case {host.case_id}: '{self.into}' has {len(grounds)} parts but part "
                f"{params['organ_part']} was drawn; was its label map changed?"
            )
        ground = grounds[params["organ_part"] - 1]
        verdict = settle(ground, carried, np.asarray(params["origin_mm"]))
        if verdict.reason is not None:
            raise MaskError(
                f"case {host.case_id}: the recorded transplant of donor {donor.case_id} breaks "
                f"the limit {verdict.reason}; draw it anew with the present accept"
            )
        bend = carried.bend
        facts: dict[str, Any] = {
            **verdict.facts,
            "donor_volume_ml": round(lesion.volume_ml, 4),
            "organ_volume_ml": round(ground.volume_ml, 4),
            "jacobian_min": 1.0 if bend is None else round(bend.jacobian_min, 4),
            "jacobian_max": 1.0 if bend is None else round(bend.jacobian_max, 4),
            "attempt": params["attempt"],
        }
        return make_mask(host, verdict.region, verdict.box.start_ijk, self.label, facts)

    def _other_patient(self, host: Case, donor: Case | None) -> Case:
        if donor is None:
            raise MaskError(f"mask '{self.name}': a transplant needs a donor case")
        if donor.patient_id == host.patient_id:
            raise MaskError(
                f"mask '{self.name}': donor {donor.case_id} and host {host.case_id} are the same "
                f"patient {host.patient_id}; choose a donor of another one"
            )
        return donor

    def _grounds(self, host: Case) -> list[Ground]:
        """The parts of the organ that are no specks, the largest first."""
        region, box = structure(host, [self.into])
        parts, counts = components(region)
        avoid = [
            value
            for name in dict.fromkeys((self.label, *self.accept.avoid))
            if name in host.label_names or name in host.unions
            for value in host.values_of(name)
        ]
        organ = host.values_of(self.into)
        grounds = []
        for number in range(1, 1 + int((counts >= LEAST_PART_SHARE * counts[0]).sum())):
            part = parts == number
            tight = Box.around(part)
            assert tight is not None
            grounds.append(
                Ground(
                    host,
                    np.ascontiguousarray(part[tight.slices]),
                    move(tight, box.start_ijk),
                    organ,
                    tuple(v for v in avoid if v not in organ),
                    self.accept,
                )
            )
        return grounds

    def _room(self, lesion: Lesion, ground: Ground) -> float:
        """The greatest scale at which the lesion is not too large for the organ."""
        share = self.accept.organ_fraction * ground.volume_ml / lesion.volume_ml
        # A hair below the limit, since volumes are whole voxels.
        return 0.999 * float(share ** (1 / 3))

    def _draw_change(
        self, lesion: Lesion, ground: Ground, rng: np.random.Generator
    ) -> tuple[dict[str, Any], Displacement | None]:
        """Scale, rotation, mirror and velocity as JSON; and the flow of that velocity."""
        low, high = self.deform.scale
        high = min(high, self._room(lesion, ground))
        scale = round(float(low * (high / low) ** rng.random()), 5)
        rotation = draw_rotation(rng, self.deform.rotate_deg)
        mirror = bool(rng.integers(2)) and self.deform.mirror
        elastic = draw_velocity(
            rng, lesion.radius_mm * scale, lesion.reach_mm * scale, self.deform.max_displacement_mm
        )
        velocity, bend = elastic or (None, None)
        return {
            "scale": scale,
            "rotation": list(rotation),
            "mirror": mirror,
            "velocity": None if velocity is None else velocity.as_json(),
        }, bend
