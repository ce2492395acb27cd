"""Several processes of one command: started here by torch's elastic launch, or by a launcher.

What runs several on one machine: ``synthct build --num-processes N``, ``torchrun
--nproc-per-node N --no-python synthct build``, ``accelerate launch --multi_gpu --num_processes N
--no_python synthct build`` (without a GPU too), and MPI, alone or by ``accelerate launch --cpu
--mpirun_hostfile``. ``accelerate launch --cpu --num_processes N`` starts one process whatever N is.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence

from synthct.errors import RecipeError, ResourceError
from synthct.processes.workers import exit_reason

logger = logging.getLogger(__name__)

#: What processes say whose launcher is gone, or whose key-value store it held.
GONE = (
    "the launcher or the other processes of this command cannot be reached any more; run the same "
    "command again, finished samples are kept"
)

#: After the launcher has ended, so long a process may take to end in good order.
_GRACE_S = 20.0

#: Set by ``launch``, to whose processes it says whose end is theirs.
_LAUNCHER = "SYNTHCT_LAUNCHER_PID"

#: The same for a single command that another one has started.
_STARTER = "SYNTHCT_STARTER_PID"

#: Where MPI says what the other launchers say by ``WORLD_SIZE`` (Open MPI, MPICH, MVAPICH).
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def world_size() -> int:
    """How many processes a launcher has started, by its environment; 1 without a launcher."""
    if "WORLD_SIZE" not in os.environ and any(name in os.environ for name in _MPI_SIZES):
        _translate_mpi()
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process speaks for all: it is alone, or the first of its launch."""
    return world_size() == 1 or os.environ.get("RANK") == "0"


def processes_to_start(wanted: int | None) -> int:
    """How many processes this one has to start; 0 if it shall do the work itself.

    Args:
        wanted: ``--num-processes``; None if it was not given.

    Raises:
        RecipeError: If a launcher has started another number.
    """
    running = world_size()
    if running == 1:
        if wanted is None and _is_lone_cpu_launch():
            logger.warning(
                "accelerate launch --cpu has started one process only; for more use synthct's own "
                "--num-processes, or torchrun"
            )
        return wanted if wanted is not None and wanted > 1 else 0
    if wanted is not None and wanted != running:
        raise RecipeError(
            f"--num-processes {wanted}: the launcher runs {running} processes already; leave the "
            "option out, or start this command without a launcher"
        )
    return 0


def launch(num_processes: int, arguments: Sequence[str]) -> int:
    """Run ``synthct`` with the same arguments in several processes, and wait for them.

    If one dies, the others are stopped. Each has one thread and writes to this process's own
    standard streams.

    Args:
        num_processes: How many.
        arguments: Of the command line, without the program's name.

    Returns:
        The exit code: 0, or that of the process that failed first, which has printed why; 130 if
        all were interrupted.

    Raises:
        ResourceError: If a process was killed.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ[_LAUNCHER] = str(os.getpid())
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
        raise ResourceError(
            f"process {rank} of {num_processes} (pid {failure.pid}) "
            f"{exit_reason(failure.exitcode)}; run the same command again, with fewer "
            "--num-processes if memory ran out; finished samples are kept"
        ) from None
    except SignalException:
        return 130  # they have printed it
    finally:
        logging.disable(logging.NOTSET)
    return 0


def ending_with_this() -> dict[str, str]:
    """The environment for a command of ours that is to end when this process does."""
    return {**os.environ, _STARTER: str(os.getpid())}


def interrupt(number: int, frame: object) -> None:
    """A signal handler that ends the main thread like Ctrl-C, and says which signal it was."""
    del frame
    raise KeyboardInterrupt(signal.Signals(number).name)


class LauncherWatch:
    """Ends this process when the launcher that started it is gone.

    Without it, processes wait for each other in calls of torch that no signal interrupts.

    Attributes:
        is_gone: Whether the launcher has ended.
    """

    def __init__(self) -> None:
        self.is_gone = False
        starter = os.environ.pop(_STARTER, None)
        self._parent = int(starter or os.environ.get(_LAUNCHER) or os.getppid())
        if starter is not None or world_size() > 1:
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(1)
        self.is_gone = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(_GRACE_S)
        os._exit(ResourceError.exit_code)


def _is_lone_cpu_launch() -> bool:
    """Whether ``accelerate launch --cpu`` was called with more processes than it starts."""
    return "MASTER_ADDR" in os.environ and os.environ.get("ACCELERATE_USE_CPU") == "True"


def _translate_mpi() -> None:
    """Say what MPI says in the words of the other launchers, as Accelerate understands it."""
    from accelerate.utils.environment import get_cpu_distributed_information

    world = get_cpu_distributed_information()
    os.environ |= {
        "WORLD_SIZE": str(world.world_size),
        "RANK": str(world.rank),
        "LOCAL_RANK": str(world.local_rank),
        "LOCAL_WORLD_SIZE": str(world.local_world_size),
    }
    if world.local_world_size == world.world_size:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
