"""A training that is killed for real, for tests of what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from synthct.training.objective import Objective


def kill_at_first_state(command: Sequence[str], run: Path) -> str:
    """Start a training that writes to the folder ``run``, and kill it once a state is there.

    Returns:
        What it printed.
    """
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((run / "states").glob("step-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    return said


def interrupted(kind: type[Objective], after: int) -> type[Objective]:
    """An objective that stops when one optimiser has taken its step and the next has not.

    Args:
        kind: The objective.
        after: Losses of one run that are minimised before.
    """

    class Interrupted(kind):  # type: ignore[valid-type, misc]
        taken = 0

        def losses(self, *given: Any) -> Iterator[tuple[str, torch.Tensor]]:
            for one in super().losses(*given):
                yield one
                self.taken += 1
                if self.taken == after:
                    raise KeyboardInterrupt

    return Interrupted
