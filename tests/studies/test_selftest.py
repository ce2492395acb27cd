"""The kill harness: that it finds nothing here, and that it would find what it looks for."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from synthct.dataset.version import Staging
from synthct.errors import VerifyError
from synthct.processes.group import Group
from synthct.studies.selftest.crash import crash_test

#: Where flushing costs nothing: what a kill leaves in the page cache is the same on any disk.
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield tmp_path / "crash"
        return
    folder = Path(tempfile.mkdtemp(prefix="synthct-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
def test_kills_and_disk_errors_come_to_the_same_bytes(folder: Path) -> None:
    found = crash_test(folder, kills=100)
    assert found.kills >= 100
    assert found.points > 80
    assert found.faults == 100
    assert not folder.exists()


@pytest.mark.full
def test_the_command_kills_at_every_point_and_fails_with_every_error(folder: Path) -> None:
    """As a process of its own, whose forks are small: here torch is imported."""
    words = [sys.executable, "-m", "synthct", "selftest", "crash", "--points", "2000"]
    done = subprocess.run(
        [*words, "--output", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tried = re.match(r"([\d,]+) kills and (\d+) disk errors at (\d+) points", done.stdout)
    assert tried is not None, done.stdout
    kills, faults, points = (int(number.replace(",", "")) for number in tried.groups())
    assert kills >= 2000
    assert faults == points * (4 + 2) > 480
    assert not list(folder.iterdir())


def test_the_forking_process_holds_no_torch() -> None:
    code = "import sys, synthct.studies.selftest.crash; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def copied(source: Path, target: Path) -> Path:
    """Not one step."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        if path.is_dir():
            (target / path.relative_to(source)).mkdir()
        else:
            (target / path.relative_to(source)).write_bytes(path.read_bytes())
    return target


@pytest.mark.long
def test_a_version_that_is_copied_into_its_place_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    monkeypatch.setattr(
        Path, "rename", lambda s, t: copied(s, t) if s.name == "tree" else rename(s, t)
    )
    with pytest.raises(VerifyError, match=r"trial \d+ of seed 0, kill at .*torn version"):
        crash_test(folder, kills=40)


@pytest.mark.long
def test_finished_shards_that_are_made_again_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Staging, "finished", lambda self: {})
    crash = import_module("synthct.studies.selftest.crash")
    real = import_module("synthct.dataset.journal").finished_shards

    class Honest(Staging):
        def finished(self) -> Any:
            return real(self.journal, self.tree)

    monkeypatch.setattr(crash, "Staging", Honest)
    with pytest.raises(VerifyError, match="again"):
        crash_test(folder, kills=40)


@pytest.mark.long
def test_shards_believed_without_a_look_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that is not atomic, and a journal written before the shard."""
    journal = import_module("synthct.dataset.journal")
    assemble = import_module("synthct.build.assemble")
    version = import_module("synthct.dataset.version")
    writer = import_module("synthct.dataset.writer")
    monkeypatch.setattr(version, "finished_shards", lambda j, f: journal.recorded_shards(j))

    def early(folder: Path, path: str, rows: Sequence[Any], **options: Any) -> Any:
        data = writer.shard_bytes(rows, options["schema"])
        digest = import_module("hashlib").sha256(data).hexdigest()
        record = writer.ShardRecord(
            path, options["split"], len(rows), len(data), digest, tuple(options["rejected"])
        )
        journal.record_shard(folder.parent / "journal", record)
        return writer.write_shard(folder, path, rows, **options)

    monkeypatch.setattr(assemble, "write_shard", early)
    with pytest.raises(VerifyError, match=r"cannot be resumed|other bytes|exit"):
        crash_test(folder, kills=40)


@pytest.mark.long
def test_a_disk_error_that_nobody_expects_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = import_module("synthct.storage.files")
    kept = import_module("synthct.storage.cache")

    def careless(path: Path, data: bytes) -> None:
        temporary = path.with_name(f".{secrets.token_hex(4)}.part")
        files._write_new(temporary, data)
        temporary.replace(path)

    monkeypatch.setattr(kept, "atomic_write", careless)
    with pytest.raises(VerifyError, match=r"exit 1\n(.|\n)*Traceback"):
        crash_test(folder, kills=20)


def test_order_does_not_depend_on_the_group(folder: Path) -> None:
    """Harness builds take their shards in another order each; a plain group keeps the plan's."""
    assert list(Group().take([2, 0, 1])) == [2, 0, 1]
    stand_in = import_module("synthct.studies.selftest.stand_in")
    orders = {tuple(stand_in.ShuffledGroup(n).take(range(3))) for n in range(40)}
    assert len(orders) == 6


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_messages_of_disk_errors_name_the_disk(folder: Path, error: int) -> None:
    faults = import_module("synthct.studies.selftest.faults")
    crash = import_module("synthct.studies.selftest.crash")
    trials = crash._Trials(folder, 0)
    at = trials.kinds.index("write") + 1
    outcome = trials._build(folder / "full" / "1.0.0", faults.Strike(at, error, True), 0)
    assert outcome.code == 5
    assert os.strerror(error) in outcome.said
    assert str(folder / "full") in outcome.said
