"""Donors: which cases can lend a shape to a section of masks, and which of them each host gets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest

from synthct.errors import counted
from synthct.masks import MaskKind
from synthct.recipe.shares import Split
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry
from synthct.sources.base import start_in_case
from synthct.volume.anatomy import LesionFacts

#: Donors planned for a mask: the first, and those to fall back on if it cannot be placed.
DONORS_PER_MASK = 4


def can_lend(donor: CaseEntry, section: MaskKind) -> bool:
    """Whether a case has a lesion that the section may use; true where lesions are not indexed."""
    lesions = _lesions(donor, section)
    return lesions is None or bool(section.eligible_lesions(lesions))


def donor_volume_ml(donor: CaseEntry, section: MaskKind) -> float:
    """Volume of a donor's largest eligible lesion; else of the section's ``shape_labels``."""
    lesions = _lesions(donor, section)
    if lesions:
        return max((lesion.volume_ml for lesion in section.eligible_lesions(lesions)), default=0.0)
    return sum(
        donor.labels[name].volume_ml for name in section.shape_labels() if name in donor.labels
    )


def no_match_message(source: str, pool: Sequence[CaseEntry], section: MaskKind) -> str:
    """Error message: the query matches no lesion of a source; with the range of their volumes."""
    lesions = [lesion for donor in pool for lesion in _lesions(donor, section) or ()]
    whole = [lesion for lesion in lesions if not lesion.is_cut]
    num_cut = len(lesions) - len(whole)
    cut = f", {num_cut} of them cut by the field of view" if num_cut else ""
    sizes = [lesion.volume_ml for lesion in whole]
    ranges = f": {min(sizes):.3g}..{max(sizes):.3g} ml" if sizes else ""
    return (
        f"matches none of the {counted(len(lesions), 'lesion')} of '{source}'{cut}{ranges}; "
        "widen it, or choose another label or source"
    )


def _lesions(donor: CaseEntry, section: MaskKind) -> tuple[LesionFacts, ...] | None:
    """A donor's lesions of the section's label; None where they are not indexed."""
    label_and_organ = section.donor_lesions()
    return None if label_and_organ is None else donor.lesions.get(label_and_organ)


class DonorChooser:
    """Assigns donors evenly over patients, within the host's split, never the host's own patient.

    Args:
        seed: The recipe's seed.
        section: The section of masks that needs donors.
        pool: The cases that can lend a shape to it.
        splits: Patient to split.
        used: Number of uses of each patient by all sections so far; updated.
    """

    #: What a host needs, and what the user can do where it is missing.
    requirement = "a donor of another patient in its own split"
    advice = "add donors, or use fewer splits"

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
        """A donor of the patient that was used least so far, then those to fall back on."""
        others = self._others(host)
        chosen = nsmallest(DONORS_PER_MASK, others, key=self._priority)
        self._used[chosen[0]] += 1
        self._used_by_all[chosen[0]] += 1
        return tuple(self._case_of(others[patient], host, draw) for patient in chosen)

    def _priority(self, patient: str) -> tuple[int, int, int]:
        """Sort key: uses by this section, uses by all sections, a fixed random order."""
        return self._used[patient], self._used_by_all[patient], self._order[patient]

    def _case_of(self, cases: Sequence[CaseEntry], host: CaseEntry, draw: int) -> CaseEntry:
        """One random case of a patient."""
        names = ("donor", self._section, host.case_id, str(draw))
        return min(cases, key=lambda case: derive_seed(self._seed, *names, case.case_id))

    def _others(self, host: CaseEntry) -> dict[str, list[CaseEntry]]:
        patients = self._patients[self._splits[host.patient_id]]
        return {name: cases for name, cases in patients.items() if name != host.patient_id}


class OwnCase:
    """Gives each host its own case in another source, such as a mask of the user's."""

    requirement = "a mask of its own (a file named after its case, not empty)"
    advice = "correct the pattern or the names of the files"

    def __init__(self, pool: Sequence[CaseEntry]) -> None:
        self._by_case = {entry.case_id: entry for entry in pool}

    def has_donor_for(self, host: CaseEntry) -> bool:
        """Whether the source has the host's case.

        Raises:
            SourceError: If it is neither on the grid of the host nor on a part of it.
        """
        own = self._by_case.get(host.case_id)
        if own is not None:
            start_in_case(host.case_id, next(iter(own.label_files.values())), own, host)
        return own is not None

    def notes(self, hosts: Sequence[CaseEntry]) -> Iterator[str]:
        """What the user should know of the files."""
        own = [(self._by_case[host.case_id], host) for host in hosts if self.has_donor_for(host)]
        if parts := sum(one.shape != host.shape for one, host in own):
            yield f"{parts} of {counted(len(own), 'mask')} cover a part of their scan's grid"

    def choose(self, host: CaseEntry, draw: int) -> tuple[CaseEntry, ...]:
        """The entry of the host's own case."""
        del draw
        return (self._by_case[host.case_id],)
