"""Transplants: a lesion of another patient, carried in millimetres into an organ of the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthct.errors import MaskError
from synthct.masks.accept import Accept, Reason
from synthct.masks.base import (
    LabelPolicy,
    LesionChange,
    Mask,
    MaskSection,
    Params,
    PlacementError,
    check_drawn_for,
    make_mask,
)
from synthct.masks.deform import Displacement, draw_velocity
from synthct.masks.ground import Ground
from synthct.masks.lesion import Lesion, carry, find_lesion
from synthct.masks.place import Wish, find_place
from synthct.masks.query import Query
from synthct.masks.settle import settle
from synthct.masks.shape import (
    Points,
    as_rotation,
    draw_rotation,
    reflection,
    rotation_matrix,
    turn_onto,
)
from synthct.volume.anatomy import LesionFacts, OrganPart, lesions_of, organ_parts
from synthct.volume.case import Case

#: Structures that a lesion does not grow into, wherever a host has them.
NEIGHBOURS = (
    "adrenal_gland", "aorta", "autochthon_left", "autochthon_right", "colon", "duodenum",
    "esophagus", "gallbladder", "heart", "iliopsoas_left", "iliopsoas_right",
    "inferior_vena_cava", "kidney", "liver", "lung", "pancreas", "portal_vein_and_splenic_vein",
    "ribs", "sacrum", "small_bowel", "spinal_cord", "spleen", "stomach", "urinary_bladder",
    "vertebrae",
)  # fmt: skip

#: Exophytic shares of lesions that are placed at random: about those of real kidney tumours.
RANDOM_EXOPHYTIC = (0.1, 0.7)


class Deform(BaseModel):
    """How the lesion is changed on its way.

    Attributes:
        max_displacement_mm: No point is moved further by the elastic part.
        scale: Linear scale, drawn evenly in its logarithm; the upper end gives way where the
            lesion would get too large for the organ.
        rotate_deg: Greatest angle of a rotation about any axis.
        flip: Whether half of the lesions are mirrored, on a plane that leaves their outer side
            outside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_displacement_mm: Annotated[float, Field(ge=0, le=30)] = 6.0
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=10)]] = (0.7, 1.4)
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 20.0
    flip: bool = True

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
        into: The organ, of the host; and of the donor where placement is matched.
        donors: Name of the source that the donors are from.
        query: Which of their lesions are taken.
        part: Of a donor's lesions that are taken one drawn at random, or the largest.
        placement: ``matched`` keeps the lesion's place along the organ's axes, its depth and how
            far it bulges out, on the same or, mirrored, on the other side; ``random`` puts it
            anywhere in the organ.
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
    query: Query = Query()
    part: Literal["random", "largest"] = "random"
    placement: Literal["matched", "random"] = "matched"
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
        """The lesion; and the organ, where its place in it is kept."""
        return (self.label, self.into) if self.placement == "matched" else (self.label,)

    def shape_labels(self) -> tuple[str, ...]:
        """The lesion."""
        return (self.label,)

    def donor_lesions(self) -> tuple[str, str]:
        """The lesion and its organ."""
        return self.label, self.into

    def takes(self, lesions: Sequence[LesionFacts]) -> list[LesionFacts]:
        """Those of a donor's lesions that the query asks for and that can be placed."""
        taken = [lesion for lesion in lesions if self.query.takes(lesion)]
        if self.placement == "random":
            return taken
        return [one for one in taken if one.seat is not None and one.seat.exophytic_share < 1]

    def takes_split(self, split: str) -> bool:
        """Whether the query asks for donors of a split."""
        return not self.query.split or split in self.query.split

    def label_policy(self) -> LabelPolicy:
        """Where the lesion was painted, the label map says so."""
        return self.label_map or "paint"

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw deformations and places until one keeps all limits.

        Raises:
            MaskError: If there is no donor, or it is the host's patient.
            PlacementError: If nothing legal was found; says how often each limit was in the way.
        """
        donor = self._other_patient(host, donor)
        with _counted_as("no_lesion"):
            facts = self._draw_lesion(donor, rng)
        lesion = find_lesion(donor, self.label, facts.number)
        with _counted_as("no_organ"):
            grounds = self._grounds(host)
        roomy = [
            n for n, g in enumerate(grounds, 1) if self._room(lesion, g) >= self.deform.scale[0]
        ]
        if not roomy:
            raise PlacementError(
                f"case {host.case_id}: {self.label} {lesion.volume_ml:.1f} ml of donor "
                f"{donor.case_id} is more than {self.accept.organ_fraction:g} of {self.into} "
                f"{grounds[0].part.volume_ml:.1f} ml even at scale {self.deform.scale[0]:g}; "
                "choose smaller donors or a smaller scale",
                Counter(organ_fraction=1),
            )
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            organ_part = roomy[int(rng.integers(len(roomy)))]
            ground = grounds[organ_part - 1]
            change, bend = self._draw_change(facts, lesion, ground, rng)
            carried = carry(lesion, change, bend)
            wish = self._wish(facts, ground.part, carried.scale, rng)
            origin, reason = find_place(ground, carried, wish, rng)
            if origin is not None:
                reason = settle(ground, carried, origin).reason
                if reason is None:
                    return {
                        "kind": self.kind,
                        "host": host.case_id,
                        "donor": donor.case_id,
                        "part": facts.number,
                        "organ_part": organ_part,
                        **change,
                        "origin_mm": origin.tolist(),
                        "attempt": attempt,
                        "failed": dict(reasons),
                    }
            assert reason is not None
            reasons[reason] += 1
        raise PlacementError.after_tries(
            f"case {host.case_id}: no legal place in {self.into} for {self.label} "
            f"{lesion.volume_ml:.1f} ml of donor {donor.case_id} after {self.tries} tries",
            reasons,
            "widen the limits of accept, allow a smaller scale, or more tries",
        )

    def build(self, host: Case, donor: Case | None, params: Params) -> Mask:
        """The lesion on the host's voxels; every limit is checked again.

        Raises:
            MaskError: If host or donor are not the drawn ones, or a limit is broken.
        """
        donor = self._other_patient(host, donor)
        check_drawn_for(params, "host", host)
        check_drawn_for(params, "donor", donor)
        lesion = find_lesion(donor, self.label, params["part"])
        grounds = self._grounds(host)
        if not 1 <= params["organ_part"] <= len(grounds):
            raise MaskError(
                f"case {host.case_id}: '{self.into}' has {len(grounds)} parts but part "
                f"{params['organ_part']} was drawn; was its label map changed?"
            )
        ground = grounds[params["organ_part"] - 1]
        verdict = settle(ground, carry(lesion, params), np.asarray(params["origin_mm"]))
        if verdict.reason is not None:
            reason: Reason = verdict.reason
            raise PlacementError(
                f"case {host.case_id}: the recorded transplant of donor {donor.case_id} breaks "
                f"the limit {reason}; draw it anew with the present accept",
                Counter({reason: 1}),
            )
        described = lesions_of(donor, self.label, self.into)[lesion.number - 1]
        facts: dict[str, Any] = {
            **verdict.facts,
            "organ_volume_ml": round(ground.part.volume_ml, 4),
            "organ_side": ground.part.side,
            "donor_lesion": described.as_json(),
            "attempt": params["attempt"],
        }
        return make_mask(host, verdict.region, verdict.box.start_ijk, self.label, facts)

    def origins(self, donor: Case, params: Params, points_mm: Points) -> Points:
        """Where in the donor the tissue at some places of a transplant came from.

        Args:
            donor: The donor that ``params`` were drawn for.
            params: Of ``draw``.
            points_mm: (..., 3), RAS+ mm of the host.

        Returns:
            (..., 3), RAS+ mm of the donor.
        """
        check_drawn_for(params, "donor", donor)
        lesion = find_lesion(donor, self.label, params["part"])
        return carry(lesion, params).origins(points_mm - np.asarray(params["origin_mm"]))

    def _other_patient(self, host: Case, donor: Case | None) -> Case:
        if donor is None:
            raise MaskError(f"mask '{self.name}': a transplant needs a donor case")
        if donor.patient_id == host.patient_id:
            raise MaskError(
                f"mask '{self.name}': donor {donor.case_id} and host {host.case_id} are the same "
                f"patient {host.patient_id}; choose a donor of another one"
            )
        return donor

    def _draw_lesion(self, donor: Case, rng: np.random.Generator) -> LesionFacts:
        """One of the donor's lesions that are taken."""
        lesions = lesions_of(donor, self.label, self.into)
        taken = self.takes(lesions)
        if not taken:
            found = ", ".join(f"{one.volume_ml:.3g} ml" for one in lesions[:3])
            cut = " (some cut by the field of view)" if any(o.is_cut for o in lesions) else ""
            raise MaskError(
                f"case {donor.case_id}: no {self.label} that the query takes and whose place in "
                f"{self.into} is known; there is {found}{cut}; widen the query, or choose "
                "placement 'random' or another donor"
            )
        return taken[int(rng.integers(len(taken)))] if self.part == "random" else taken[0]

    def _grounds(self, host: Case) -> list[Ground]:
        """The parts of the organ that are no specks, the largest first."""
        known = [
            name
            for name in dict.fromkeys((self.label, *self.accept.avoid))
            if name in host.label_names or name in host.unions
        ]
        organ = host.values_of(self.into)
        avoid = {value for name in known for value in host.values_of(name)}.difference(organ)
        return [
            Ground(host, part, organ, tuple(sorted(avoid)), self.accept)
            for part in organ_parts(host, self.into)
        ]

    def _room(self, lesion: Lesion, ground: Ground) -> float:
        """The greatest scale at which the lesion is not too large for the organ."""
        share = self.accept.organ_fraction * ground.part.volume_ml / lesion.volume_ml
        # A hair below the limit, since volumes are whole voxels.
        return 0.999 * float(share ** (1 / 3))

    def _wish(
        self, facts: LesionFacts, part: OrganPart, scale: float, rng: np.random.Generator
    ) -> Wish:
        """What the lesion's place shall be like."""
        if self.placement == "random":
            return Wish(float(rng.uniform(*RANDOM_EXOPHYTIC)))
        seat = facts.seat
        assert seat is not None
        place = seat.seen_from(part.side).place
        return Wish(seat.exophytic_share, place, seat.depth_mm * scale)

    def _draw_change(
        self,
        facts: LesionFacts,
        lesion: Lesion,
        ground: Ground,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], Displacement | None]:
        """Scale, rotation, mirror and velocity as JSON; and the flow of that velocity."""
        low, high = self.deform.scale
        high = min(high, self._room(lesion, ground))
        scale = round(float(low * (high / low) ** rng.random()), 5)
        rotation, mirror = as_rotation(self._draw_turn(facts, ground.part, rng))
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

    def _draw_turn(self, facts: LesionFacts, part: OrganPart, rng: np.random.Generator) -> Points:
        """How the lesion is mirrored and turned, as an orthogonal (3, 3).

        First to the other side of the body where the organ is there, then flipped, then so that
        its outer side faces the surface that is near its new place, then at random.
        """
        seat = facts.seat
        outward = np.zeros(3)
        turn = np.eye(3)
        if seat is not None:
            there = seat.seen_from(part.side)
            outward = np.asarray(there.outward)
            if there is not seat:
                turn = reflection(np.array([1.0, 0.0, 0.0]))
        normal = rng.normal(size=3)
        normal -= outward * (outward @ normal)
        if bool(rng.integers(2)) and self.deform.flip:
            turn = reflection(normal) @ turn
        if self.placement == "matched" and seat is not None:
            place = seat.seen_from(part.side).place
            turn = turn_onto(outward, part.frame.outward(place)) @ turn
        return rotation_matrix(draw_rotation(rng, self.deform.rotate_deg)) @ turn


@contextmanager
def _counted_as(reason: Reason) -> Iterator[None]:
    """Count a mask that is refused within as rejected for ``reason``."""
    try:
        yield
    except MaskError as err:
        raise PlacementError(str(err), Counter({reason: 1})) from err
