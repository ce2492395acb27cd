"""What is used of this machine unless the user says otherwise: its cache folder and its cores."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """``$SYNTHCT_CACHE``, or ``synthct`` in the user's cache folder."""
    if chosen := os.environ.get("SYNTHCT_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "synthct"


def default_workers() -> int:
    """So many that one core is left to the model; each process of a launch has its share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    launched = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fewest = 1 if launched == 1 else 0
    return max(fewest, min(4, (cores or 1) // launched - 1))
