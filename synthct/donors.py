"""Who lends a shape to which host: donors dealt out evenly over their patients."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import nsmallest

from synthct.recipe import Split
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry

#: Donors named for a mask: the one to take, and what to fall back on if it cannot be placed.
DONORS_PER_MASK = 4


class DonorChooser:
    """Deals donors out evenly over their patients, within a split, never the host's own."""

    def __init__(
        self,
        seed: int,
        section: str,
        pool: Sequence[CaseEntry],
        splits: Mapping[str, Split],
        used: Counter[str],
    ) -> None:
        self._seed, self._section, self._splits = seed, section, splits
        self._used: Counter[str] = Counter()
        self._used_by_all = used
        self._patients: dict[Split, dict[str, list[CaseEntry]]] = defaultdict(dict)
        for donor in pool:
            cases = self._patients[splits[donor.patient_id]]
            cases.setdefault(donor.patient_id, []).append(donor)
        patients = {donor.patient_id for donor in pool}
        self._order = {name: derive_seed(seed, "donor", section, name) for name in patients}

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
