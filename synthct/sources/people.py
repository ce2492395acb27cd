"""One person under two ids: cases that show the same scan or the same label maps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from synthct.errors import SourceError
from synthct.sources.base import CaseEntry
from synthct.sources.facts import FileFacts


def label_fingerprint(facts: Iterable[FileFacts]) -> str | None:
    """Of all label files of a case; None if all of them are empty."""
    prints = sorted({one.fingerprint for one in facts if one.fingerprint is not None})
    return hashlib.sha256("\n".join(prints).encode()).hexdigest() if prints else None


class People:
    """Cases by what they show: the same scan or labels would let one person into two splits."""

    def __init__(self) -> None:
        self._scans: dict[str, CaseEntry] = {}
        self._entries: list[CaseEntry] = []

    def add(self, entry: CaseEntry) -> None:
        """Note a case.

        Raises:
            SourceError: If another patient has its image.
        """
        self._entries.append(entry)
        if entry.fingerprint is not None:
            first = self._scans.setdefault(entry.fingerprint, entry)
            self._refuse(first, entry, "voxels", ", as they are or mirrored and turned")

    def compare_labels(self) -> None:
        """Compare the label maps of cases without an image, once all cases are known.

        Patients whose own scans differ are two people, whatever their label maps: a user may draw
        the same mask on both.

        Raises:
            SourceError: If another patient has the label maps of a case without an image.
        """
        scanned = {entry.patient_id for entry in self._entries if entry.fingerprint is not None}
        labels: dict[str, CaseEntry] = {}
        for entry in self._entries:
            if entry.label_fingerprint is None:
                continue
            first = labels.setdefault(entry.label_fingerprint, entry)
            if not {first.patient_id, entry.patient_id} <= scanned:
                self._refuse(first, entry, "label maps", "")

    @staticmethod
    def _refuse(first: CaseEntry, second: CaseEntry, what: str, how: str) -> None:
        if first.patient_id == second.patient_id:
            return
        who = {second.case_id: first.patient_id}  # in quotes: YAML takes 02 for a number
        raise SourceError(
            f"case {second.case_id} (source '{second.source}', patient {second.patient_id}) has "
            f"the very same {what} as case {first.case_id} (source '{first.source}', patient "
            f"{first.patient_id}){how}; say that they are one person with "
            f"patients: {json.dumps(who, ensure_ascii=False)} in source '{second.source}', or "
            "exclude one"
        )
