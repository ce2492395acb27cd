"""Transplants: a lesion of another patient, moved in millimetres into an organ of the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from synthct.errors import MaskError, counted
from synthct.masks.accept import Accept, Reason
from synthct.masks.base import (
    LabelPolicy,
    LesionChange,
    Mask,
    MaskSection,
    Params,
    PlacementError,
    Rising,
    check_drawn_for,
    make_mask,
)
from synthct.masks.deform import Displacement, draw_velocity
from synthct.masks.lesion import Lesion, find_lesion, transform_lesion
from synthct.masks.organ_site import OrganSite
from synthct.masks.place import PlacementTarget, find_place
from synthct.masks.placement import check_placement
from synthct.masks.query import Query
from synthct.masks.shape import (
    Points,
    as_rotation,
    draw_rotation,
    reflection,
    rotation_between,
    rotation_matrix,
)
from synthct.volume.anatomy import LesionFacts, OrganPart, lesions_of, organ_parts
from synthct.volume.case import Case

#: Structures that a lesion must not reach into, where the host has them.
NEIGHBOURS = (
    "adrenal_gland", "aorta", "autochthon_left", "autochthon_right", "colon", "duodenum",
    "esophagus", "gallbladder", "heart", "iliopsoas_left", "iliopsoas_right",
    "inferior_vena_cava", "kidney", "liver", "lung", "pancreas", "portal_vein_and_splenic_vein",
    "ribs", "sacrum", "small_bowel", "spinal_cord", "spleen", "stomach", "urinary_bladder",
    "vertebrae",
)  # fmt: skip

#: Range of the exophytic share for random placement: about that of real kidney tumours.
RANDOM_EXOPHYTIC = (0.1, 0.7)


class Deform(BaseModel):
    """Random transformation of the lesion.

    Attributes:
        max_displacement_mm: Greatest displacement of any point by the elastic part.
        scale: Range of the linear scale, log-uniform; the upper end is lowered where the lesion
            would get too large for the organ.
        rotate_deg: Greatest angle of a rotation about any axis.
        flip: Whether half of the lesions are mirrored, in a plane that leaves their outer side
            outside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_displacement_mm: Annotated[float, Field(ge=0, le=30)] = 6.0
    scale: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=10)]], Rising
    ] = (0.7, 1.4)
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 20.0
    flip: bool = True


class Transplant(MaskSection):
    """A donor's lesion in the host's organ.

    Attributes:
        label: The lesion label of the donor; also the label that is painted.
        into: The organ of the host; with matched placement also of the donor.
        donors: Name of the source of the donors.
        query: Which of their lesions may be used.
        part: One random lesion of the donor's matching ones, or the largest.
        placement: ``matched`` keeps the lesion's place along the organ's axes, its depth and its
            exophytic share, on the same side or mirrored on the other; ``random`` is anywhere in
            the organ.
        deform: How the lesion is transformed.
        accept: Limits that every accepted transplant keeps.
        tries: Number of places and deformations that are tried.
    """

    needs_donor: ClassVar[bool] = True
    changes_lesion: ClassVar[LesionChange | None] = "added"
    default_label_map: ClassVar[LabelPolicy] = "paint"

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

    def required_labels(self) -> tuple[str, ...]:
        """The organ."""
        return (self.into,)

    def optional_labels(self) -> tuple[str, ...]:
        """Structures that the lesion keeps clear of or must not reach into."""
        return tuple(dict.fromkeys((self.label, *self.accept.avoid, *NEIGHBOURS)))

    def donor_labels(self) -> tuple[str, ...]:
        """The lesion; with matched placement also the organ."""
        return (self.label, self.into) if self.placement == "matched" else (self.label,)

    def shape_labels(self) -> tuple[str, ...]:
        """The lesion."""
        return (self.label,)

    def donor_lesions(self) -> tuple[str, str]:
        """The lesion and its organ."""
        return self.label, self.into

    def eligible_lesions(self, lesions: Sequence[LesionFacts]) -> list[LesionFacts]:
        """The lesions of a donor that match the query and that can be placed."""
        matching = [lesion for lesion in lesions if self.query.matches(lesion)]
        if self.placement == "random":
            return matching
        return [one for one in matching if one.seat is not None and one.seat.exophytic_share < 1]

    def accepts_split(self, split: str) -> bool:
        """Whether the query allows donors of a split."""
        return not self.query.split or split in self.query.split

    def draw(self, host: Case, donor: Case | None, rng: np.random.Generator) -> Params:
        """Draw transformations and places until one try keeps all limits.

        Raises:
            MaskError: If there is no donor, or it is the host's patient.
            PlacementError: If no try keeps all limits; counts which limit each one broke.
        """
        donor = self._other_patient(host, donor)
        with _counted_as("no_lesion"):
            facts = self._draw_lesion(donor, rng)
        lesion = find_lesion(donor, self.label, facts.number)
        with _counted_as("no_organ"):
            sites = self._organ_sites(host)
        large_enough = [
            number
            for number, site in enumerate(sites, 1)
            if self._largest_scale(lesion, site) >= self.deform.scale[0]
        ]
        if not large_enough:
            raise PlacementError(
                f"case {host.case_id}: {self.label} {lesion.volume_ml:.1f} ml of donor "
                f"{donor.case_id} is more than {self.accept.organ_fraction:g} of {self.into} "
                f"{sites[0].part.volume_ml:.1f} ml even at scale {self.deform.scale[0]:g}; "
                "choose smaller donors or a smaller scale",
                Counter(organ_fraction=1),
            )
        reasons: Counter[str] = Counter()
        for attempt in range(1, self.tries + 1):
            organ_part = large_enough[int(rng.integers(len(large_enough)))]
            site = sites[organ_part - 1]
            change, bend = self._draw_change(facts, lesion, site, rng)
            transformed = transform_lesion(lesion, change, bend)
            target = self._placement_target(facts, site.part, transformed.scale, rng)
            origin, reason = find_place(site, transformed, target, rng)
            if origin is not None:
                reason = check_placement(site, transformed, origin).reason
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
            f"{lesion.volume_ml:.1f} ml of donor {donor.case_id}",
            reasons,
            "widen the limits of accept, allow a smaller scale, or more tries",
            tries=self.tries,
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
        sites = self._organ_sites(host)
        if not 1 <= params["organ_part"] <= len(sites):
            raise MaskError(
                f"case {host.case_id}: '{self.into}' has {counted(len(sites), 'part')} but part "
                f"{params['organ_part']} was drawn; was its label map changed?"
            )
        site = sites[params["organ_part"] - 1]
        placement = check_placement(
            site, transform_lesion(lesion, params), np.asarray(params["origin_mm"])
        )
        if placement.reason is not None:
            raise PlacementError(
                f"case {host.case_id}: the recorded transplant of donor {donor.case_id} breaks "
                f"the limit {placement.reason}; draw it anew with the present accept",
                Counter({str(placement.reason): 1}),
            )
        described = lesions_of(donor, self.label, self.into)[lesion.number - 1]
        facts: dict[str, Any] = {
            **placement.facts,
            "organ_volume_ml": round(site.part.volume_ml, 4),
            "organ_side": site.part.side,
            "donor_lesion": described.as_json(),
            "attempt": params["attempt"],
        }
        return make_mask(host, placement.region, placement.box.start_ijk, self.label, facts)

    def origins(self, donor: Case, params: Params, points_mm: Points) -> Points:
        """Donor coordinates (..., 3) of places in a transplant; all in RAS+ mm.

        Args:
            donor: The donor that ``params`` were drawn for.
            params: From ``draw``.
            points_mm: (..., 3) in the host.
        """
        check_drawn_for(params, "donor", donor)
        lesion = find_lesion(donor, self.label, params["part"])
        return transform_lesion(lesion, params).origins(points_mm - np.asarray(params["origin_mm"]))

    def _other_patient(self, host: Case, donor: Case | None) -> Case:
        if donor is None:
            raise MaskError(f"mask '{self.name}': a transplant needs a donor case; give one")
        if donor.patient_id == host.patient_id:
            raise MaskError(
                f"mask '{self.name}': donor {donor.case_id} and host {host.case_id} are the same "
                f"patient {host.patient_id}; choose a donor of another one"
            )
        return donor

    def _draw_lesion(self, donor: Case, rng: np.random.Generator) -> LesionFacts:
        """One of the donor's eligible lesions."""
        lesions = lesions_of(donor, self.label, self.into)
        eligible = self.eligible_lesions(lesions)
        if not eligible:
            volumes = ", ".join(f"{one.volume_ml:.3g} ml" for one in lesions[:3])
            cut = " (some cut by the field of view)" if any(o.is_cut for o in lesions) else ""
            raise MaskError(
                f"case {donor.case_id}: no {self.label} that matches the query and whose place in "
                f"{self.into} is known; there is {volumes}{cut}; widen the query, or choose "
                "placement 'random' or another donor"
            )
        return eligible[int(rng.integers(len(eligible)))] if self.part == "random" else eligible[0]

    def _organ_sites(self, host: Case) -> list[OrganSite]:
        """The connected parts of the organ without specks, the largest first."""
        known = [
            name
            for name in dict.fromkeys((self.label, *self.accept.avoid))
            if name in host.label_names or name in host.unions
        ]
        organ = host.values_of(self.into)
        avoid = {value for name in known for value in host.values_of(name)}.difference(organ)
        return [
            OrganSite(host, part, organ, tuple(sorted(avoid)), self.accept)
            for part in organ_parts(host, self.into)
        ]

    def _largest_scale(self, lesion: Lesion, site: OrganSite) -> float:
        """The greatest scale at which the lesion keeps the limit ``organ_fraction``."""
        share = self.accept.organ_fraction * site.part.volume_ml / lesion.volume_ml
        # Slightly below the limit, since volumes are rounded to whole voxels.
        return 0.999 * float(share ** (1 / 3))

    def _placement_target(
        self, facts: LesionFacts, part: OrganPart, scale: float, rng: np.random.Generator
    ) -> PlacementTarget:
        """The target for the lesion's place: the donor's own, or a random one."""
        if self.placement == "random":
            return PlacementTarget(float(rng.uniform(*RANDOM_EXOPHYTIC)))
        seat = facts.seat
        assert seat is not None
        place = seat.seen_from(part.side).place
        return PlacementTarget(seat.exophytic_share, place, seat.depth_mm * scale)

    def _draw_change(
        self,
        facts: LesionFacts,
        lesion: Lesion,
        site: OrganSite,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], Displacement | None]:
        """Scale, rotation, mirror and velocity as JSON; and the flow of that velocity."""
        low, high = self.deform.scale
        high = min(high, self._largest_scale(lesion, site))
        scale = round(float(low * (high / low) ** rng.random()), 5)
        rotation, mirror = as_rotation(self._draw_orientation(facts, site.part, rng))
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

    def _draw_orientation(
        self, facts: LesionFacts, part: OrganPart, rng: np.random.Generator
    ) -> Points:
        """Mirroring and rotation of the lesion, as an orthogonal (3, 3).

        It is mirrored to the other side of the body if the organ part is there, flipped at random,
        rotated so that its outer side faces the nearest surface at its new place, and at random.
        """
        seat = facts.seat
        outward = np.zeros(3)
        turn = np.eye(3)
        if seat is not None:
            on_side = seat.seen_from(part.side)
            outward = np.asarray(on_side.outward)
            if on_side is not seat:
                turn = reflection(np.array([1.0, 0.0, 0.0]))
        normal = rng.normal(size=3)
        normal -= outward * (outward @ normal)
        if bool(rng.integers(2)) and self.deform.flip:
            turn = reflection(normal) @ turn
        if self.placement == "matched" and seat is not None:
            place = seat.seen_from(part.side).place
            turn = rotation_between(outward, part.frame.outward(place)) @ turn
        return rotation_matrix(draw_rotation(rng, self.deform.rotate_deg)) @ turn


@contextmanager
def _counted_as(reason: Reason) -> Iterator[None]:
    """Turn a `MaskError` in the block into a `PlacementError` for ``reason``."""
    try:
        yield
    except MaskError as err:
        raise PlacementError(str(err), Counter({reason: 1})) from err
