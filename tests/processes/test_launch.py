"""What a launcher says in the environment, and that processes end with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from synthct.processes.launch import is_first, processes_to_start, world_size

CHILD = """
import sys, time, typer
from synthct.cli.common import reporting
try:
    with reporting():
        print("begun", flush=True)
        time.sleep(60)
except typer.Exit as end:
    sys.exit(end.exit_code)
"""

PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep({seconds})
"""


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_ends_with_its_launcher(rank: str) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(seconds=60), CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WORLD_SIZE": "2", "RANK": rank},
    )
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "begun\n"
    launcher.kill()
    started = time.monotonic()
    _, said = launcher.communicate(timeout=50)  # returns when the child has ended too
    assert time.monotonic() - started < 30
    assert "Traceback" not in said
    assert ("the launcher or the other processes" in said) == (rank == "0")


def test_a_command_ends_with_the_one_that_started_it() -> None:
    starting = (
        "import subprocess, sys, time\n"
        "from synthct.processes.launch import ending_with_this\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=ending_with_this())\n"
        "time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", starting, CHILD], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "begun\n"
    starter.kill()
    starter.communicate(timeout=50)  # returns when the child has ended too


def test_a_process_whose_launcher_died_before_it_looked_ends_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "WORLD_SIZE": "2", "RANK": "0", "SYNTHCT_LAUNCHER_PID": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_mpi_says_it_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("MASTER_PORT", "29500")
    for name, value in {"SIZE": "2", "RANK": "1", "LOCAL_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    assert world_size() == 2
    assert not is_first()
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"


def test_a_launch_of_one_process_only_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``accelerate launch --cpu --num_processes 2`` starts one process."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert processes_to_start(None) == 0
    assert "has started one process only" in caplog.text
