"""Donors: which cases can lend a shape to a section of masks, and which of them a host gets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import nsmallest

from synthct.masks import MaskKind
from synthct.recipe.recipe import Split
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry
from synthct.sources.base import check_grid
from synthct.volume.anatomy import LesionFacts

#: Donors named for a mask: the one to take, and what to fall back on if it cannot be placed.
DONORS_PER_MASK = 4


def can_lend(donor: CaseEntry, section: MaskKind) -> bool:
    """Whether a case has a lesion that the section takes; true where none are indexed."""
    lesions = _lesions(donor, section)
    return lesions is None or bool(section.eligible_lesions(lesions))


def lent_ml(donor: CaseEntry, section: MaskKind) -> float:
    """Volume of the largest lesion that a donor lends, else of the label that it must have."""
    lesions = _lesions(donor, section)
    if lesions:
        return max((lesion.volume_ml for lesion in section.eligible_lesions(lesions)), default=0.0)
    return sum(
        donor.labels[name].volume_ml for name in section.shape_labels() if name in donor.labels
    )


def no_lesion_taken(source: str, pool: Sequence[CaseEntry], section: MaskKind) -> str:
    """That the query takes none of the lesions of a source, and what there is."""
    found = [lesion for donor in pool for lesion in _lesions(donor, section) or ()]
    whole = [lesion for lesion in found if not lesion.is_cut]
    cut = f", {len(found) - len(whole)} of them cut by the field of view" if whole != found else ""
    sizes = [lesion.volume_ml for lesion in whole]
    ranges = f": {min(sizes):.3g}..{max(sizes):.3g} ml" if sizes else ""
    return (
        f"takes none of the {len(found)} lesions of '{source}'{cut}{ranges}; "
        "widen it, or choose another label or source"
    )


def _lesions(donor: CaseEntry, section: MaskKind) -> tuple[LesionFacts, ...] | None:
    """The lesions of the label that the section takes; None where they are not indexed."""
    wanted = section.donor_lesions()
    return None if wanted is None else donor.lesions.get(wanted)


class DonorChooser:
    """Deals donors out evenly over their patients, within a split, never the host's own.

    Args:
        seed: The recipe's.
        section: Who takes the donors.
        pool: The cases that can lend a shape to it.
        splits: Patient to split.
        used: How often any section has used a patient so far; counted on.
    """

    #: What a host may lack, and what can be done about it.
    wanted = "a donor of another patient in its own split"
    hint = "add donors, or share the patients out to fewer splits"

    def __init__(
        self,
        seed: int,
        section: MaskKind,
        pool: Sequence[CaseEntry],
        splits: Mapping[str, Split],
        used: Counter[str],
    ) -> None:
        self._seed, self._section, self._splits = seed, section.name, splits
        self._used: Counter[str] = Counter()
        self._used_by_all = used
        self._patients: dict[Split, dict[str, list[CaseEntry]]] = defaultdict(dict)
        for donor in pool:
            if not section.accepts_split(splits[donor.patient_id]):
                continue
            cases = self._patients[splits[donor.patient_id]]
            cases.setdefault(donor.patient_id, []).append(donor)
        patients = {donor.patient_id for donor in pool}
        self._order = {name: derive_seed(seed, "donor", section.name, name) for name in patients}

    def has_donor_for(self, host: CaseEntry) -> bool:
        """Whether another patient of the host's split can lend a shape."""
        return bool(self._others(host))

    def choose(self, host: CaseEntry, draw: int) -> tuple[CaseEntry, ...]:
        """A donor from the patient used least so far, then those to fall back on."""
        others = self._others(host)
        chosen = nsmallest(DONORS_PER_MASK, others, key=self._claim)
        self._used[chosen[0]] += 1
        self._used_by_all[chosen[0]] += 1
        return tuple(self._case_of(others[patient], host, draw) for patient in chosen)

    def _claim(self, patient: str) -> tuple[int, int, int]:
        """Least first: used by this section, used by any, and a fixed random order."""
        return self._used[patient], self._used_by_all[patient], self._order[patient]

    def _case_of(self, cases: Sequence[CaseEntry], host: CaseEntry, draw: int) -> CaseEntry:
        """One of a patient's cases, at random."""
        names = ("donor", self._section, host.case_id, str(draw))
        return min(cases, key=lambda case: derive_seed(self._seed, *names, case.case_id))

    def _others(self, host: CaseEntry) -> dict[str, list[CaseEntry]]:
        patients = self._patients[self._splits[host.patient_id]]
        return {name: cases for name, cases in patients.items() if name != host.patient_id}


class OwnCase:
    """Lends each host what another source says of its own case, such as a mask of the user's.

    Args:
        pool: The cases of that source.
    """

    wanted = "a mask of its own (a file named after its case, not empty)"
    hint = "mend the pattern or the names of the files"

    def __init__(self, pool: Sequence[CaseEntry]) -> None:
        self._by_case = {entry.case_id: entry for entry in pool}

    def has_donor_for(self, host: CaseEntry) -> bool:
        """Whether the source has something for the host's case.

        Raises:
            SourceError: If that lies on another grid than the host.
        """
        own = self._by_case.get(host.case_id)
        if own is not None:
            path = next(iter(own.label_files.values()), None)
            check_grid(host.case_id, path, own.shape, own.affine, host.shape, host.affine)
        return own is not None

    def choose(self, host: CaseEntry, draw: int) -> tuple[CaseEntry, ...]:
        """The entry of the host's own case."""
        del draw
        return (self._by_case[host.case_id],)
