"""Names as in BIDS: ``sub-01/ses-2/ct/sub-01_ses-2_ct.nii.gz``.

Label maps of such scans lie in trees of their own, below ``derivatives``, where no folder has the
name of the case alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

_NAME = re.compile(r"(?P<case>(?P<who>sub-[A-Za-z0-9]+)(_ses-[A-Za-z0-9]+)?)(?P<after>[_.].*)")
_FOLDER = re.compile("^(sub|ses)-.*")


def bids_patterns(root: Path, files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Files by pattern and case, a case being a session, or a person without sessions.

    Args:
        root: The folder that they lie in.
        files: Relative to it; those of other names are left out.
    """
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in files:
        if match := _NAME.fullmatch(path.name):
            case = match["case"]
            parts = ["{case}" if one == case else _FOLDER.sub(r"\1-*", one)
                     for one in path.parts[:-1]]  # fmt: skip
            found["/".join((*parts, f"{{case}}{match['after']}"))][case] = root / path
    return found


def bids_patients(cases: Sequence[str]) -> dict[str, str]:
    """Each case's person, where one has several; none where each has one, or names are others."""
    people = {one: match["who"] for one in cases if (match := _NAME.fullmatch(f"{one}_"))}
    return people if len(set(people.values())) < len(people) else {}
