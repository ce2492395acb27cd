"""Several processes of one command on this machine, by torch's elastic launch."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from synthct.errors import RecipeError, ResourceError


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process speaks for all: it is alone, or the first of its launch."""
    return not is_launched() or os.environ.get("RANK") == "0"


def processes_to_start(asked: int | None) -> int:
    """How many processes this one has to start; 0 if it shall do the work itself.

    Args:
        asked: What the user wants, if anything.

    Raises:
        RecipeError: If a launcher has started another number than was asked for.
    """
    if not is_launched():
        return asked if asked is not None and asked > 1 else 0
    running = int(os.environ["WORLD_SIZE"])
    if asked is not None and asked != running:
        raise RecipeError(
            f"--num-processes {asked}: the launcher runs {running} processes already; leave the "
            "option out, or start this command without a launcher"
        )
    return 0


def launch(num_processes: int, arguments: Sequence[str]) -> int:
    """Run ``synthct`` with the same arguments in several processes, and wait for them.

    If one dies, the others are stopped. Each has one thread; what they have to say they say on
    this process's own standard streams.

    Args:
        num_processes: How many.
        arguments: Of the command line, without its name.

    Returns:
        The exit code: 0, or that of the process that failed first, which has told why; 130 if
        all were interrupted.

    Raises:
        ResourceError: If a process was killed.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.disable(logging.ERROR)  # torch's reports are for programmers; ours come as errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",  # not the machine's own name, which need not resolve
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "synthct", *arguments)
    except ChildFailedError as err:
        rank, failure = err.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        raise ResourceError(
            f"process {rank} of {num_processes} (pid {failure.pid}) was killed by {name}, most "
            "often for lack of memory; run the same command again, with fewer --num-processes if "
            "memory ran out; finished shards are kept"
        ) from None
    except SignalException:
        return 130  # they have said so
    finally:
        logging.disable(logging.NOTSET)
    return 0
