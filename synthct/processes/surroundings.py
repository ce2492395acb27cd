"""What synthct runs on: versions, processor, devices. For reports of problems."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from synthct.version import __version__

#: Extras of this package that are no user's.
_OF_DEVELOPERS = ("dev", "docs")


def surroundings() -> dict[str, Any]:
    """Versions of synthct, Python and the system, cores and devices, as JSON."""
    import torch

    devices = ["cpu"]
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        devices.append(f"cuda:{number} {facts.name} {facts.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        devices.append("mps")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "synthct": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": cores,
        "devices": devices,
    }


def packages() -> dict[str, str | None]:
    """The packages that synthct needs or can use, with their versions; None for those not there."""
    found: dict[str, str | None] = {}
    for requirement in requires("synthct") or ():
        extra = re.search(r"extra == [\"']([\w-]+)[\"']", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if name is None or (extra and extra[1] in _OF_DEVELOPERS):
            continue
        try:
            found[name[0]] = version(name[0])
        except PackageNotFoundError:
            found[name[0]] = None
    return found
