"""How a process joins the others of its launch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from synthct.processes.device import choose_device
from synthct.processes.group import START_S, STORE_S, Group, LaunchedGroup, asking
from synthct.processes.launch import world_size

#: A process that builds twice has two groups.
_joined = itertools.count()


@contextmanager
def join_group(wanted_device: str | None = None) -> Iterator[Group]:
    """The group of this process: that of its launcher, or itself alone.

    A process alone starts nothing of torch's.

    Args:
        wanted_device: As for ``choose_device``.

    Raises:
        ResourceError: If the device cannot be used, or another process has died or is stopped.
    """
    if world_size() == 1:
        group = Group(wanted_device)
        if wanted_device is not None:
            _ = group.device  # an error is raised before any work
        yield group
        return
    import accelerate

    device = choose_device(wanted_device)
    with _launched() as launched:
        launched.meet(device)
        yield launched
        launched.part()
        accelerate.PartialState().destroy_process_group()


@contextmanager
def watching() -> Iterator[None]:
    """Watch over the other processes of a launch while code of Accelerate's waits for them.

    A single process has no other to watch.

    Raises:
        ResourceError: If another process has died or is stopped.
    """
    if world_size() == 1:
        yield
        return
    with _launched() as launched:
        yield
        launched.part()


def _launched() -> LaunchedGroup:
    """This process among those of its launch, which tell each other about themselves."""
    from torch.distributed import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    is_there = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    with asking():
        patience = timedelta(seconds=STORE_S if is_there else START_S)
        store, rank, size = next(iter(rendezvous("env://", timeout=patience)))
    return LaunchedGroup(PrefixStore(f"group-{next(_joined)}", store), rank, size)
