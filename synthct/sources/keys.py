"""What of a case goes into cache keys: everything but where its files lie."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from synthct.sources.base import CaseEntry


def case_facts(entry: CaseEntry) -> dict[str, Any]:
    """All that ``entry`` holds, for ``cache_key``: digests take the place of paths.

    An entry is what the whole section of its source comes to for one case, and all that
    ``read_case`` knows of it, so what is computed from the case follows from these facts.
    """
    facts = {field.name: getattr(entry, field.name) for field in fields(entry)}
    digests = entry.file_sha256
    files = {name: digests.get(path) for name, path in entry.label_files.items()}
    image = None if entry.image is None else digests.get(entry.image, "not indexed")
    reading = entry.label_reading  # the image whose grid labels may take is that of the entry
    return facts | {
        "image": image,
        "label_files": files,
        "file_sha256": list(digests.values()),
        "label_reading": [reading.orientation, reading.image is not None],
    }
