"""``synthct selftest crash``: kill a build everywhere, fail its disk everywhere, and go on.

Everything is imported once; each trial is a fork, so thousands fit into a minute or two. After each
kill a reader looks at the version, which must be there whole or not at all; after each resume the
version must be the same bytes as one that was never interrupted, and no shard that had been
finished may have been made again.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NoReturn

import numpy as np

from synthct.dataset.manifest import read_manifest
from synthct.dataset.version import Staging
from synthct.errors import ResourceError, SynthCTError, VerifyError
from synthct.storage.files import make_folder
from synthct.studies.selftest.faults import Faults, Kind, Strike
from synthct.studies.selftest.stand_in import StandIn, shard_path

#: What a failing disk says, and what stays so once it begins.
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE)
LASTING = (errno.ENOSPC, errno.EROFS)

#: A resume may be killed too, and the resume after it.
DEEPEST = 3


@dataclass(frozen=True)
class CrashReport:
    """What was tried.

    Attributes:
        points: At so many points a build touches the disk.
        kills: Builds that were killed.
        faults: Builds whose disk failed.
        content_id: Of the version that all of them came to.
        seconds: How long it took.
    """

    points: int
    kills: int
    faults: int
    content_id: str
    seconds: float


@dataclass(frozen=True)
class _Outcome:
    """How a build in a fork ended.

    Attributes:
        code: Its exit code; the negative number of the signal that killed it.
        kinds: The points it came past; empty if it was killed.
        said: The error it ended with; with a traceback, if it is not the user's to mend.
    """

    code: int
    kinds: tuple[Kind, ...] = ()
    said: str = ""


def crash_test(
    folder: Path,
    *,
    kills: int,
    seed: int = 0,
    jobs: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> CrashReport:
    """Kill builds and fail their disk, resume them, and compare with one that was left alone.

    First every point of a build, then chains of kills at random points, also of the resumes; then
    every point with every error of a disk.

    Args:
        folder: On the disk to test; the test's own, and deleted if all is well.
        kills: How many builds to kill at least; at most so many have a failing disk.
        seed: Of the random points.
        jobs: Trials at the same time; by default one per core.
        progress: Called after each trial.

    Returns:
        What was tried, all of it without fault.

    Raises:
        VerifyError: At the first trial that ended wrongly; its files are left for inspection.
        ResourceError: If the folder cannot be written.
    """
    started = time.monotonic()
    logging.disable(logging.WARNING)  # of thousands of builds
    trials = _Trials(folder, seed)
    chains = [*_kill_chains(trials.kinds, kills, seed)]
    faults = [[strike] for strike in _faults(trials.kinds, kills, seed)]
    pool = ProcessPoolExecutor(jobs or _cores(), mp_context=get_context("fork"))
    try:
        for _ in pool.map(trials.run, itertools.count(), chains + faults, chunksize=8):
            progress()
    finally:
        pool.shutdown(cancel_futures=True)
        logging.disable(logging.NOTSET)
    shutil.rmtree(folder, ignore_errors=True)
    return CrashReport(
        points=len(trials.kinds),
        kills=sum(len(chain) for chain in chains),
        faults=len(faults),
        content_id=trials.content_id,
        seconds=time.monotonic() - started,
    )


def _kill_chains(kinds: Sequence[Kind], kills: int, seed: int) -> Iterator[list[Strike]]:
    """Every point alone; then builds whose resumes are killed too, until there are enough."""
    rng = np.random.default_rng([seed, 1])
    alone = [Strike(at, "kill") for at in range(1, len(kinds) + 1)]
    alone += [Strike(at, "tear") for at, kind in enumerate(kinds, start=1) if kind == "write"]
    for strike in _some(alone, kills, rng):
        yield [strike]
    left = kills - len(alone)
    while left > 0:
        depth = int(rng.integers(2, DEEPEST + 1))
        # A resume has fewer points, and a kill that comes too late is none.
        ends = [len(kinds), *[len(kinds) // 2] * (depth - 1)]
        yield [Strike(int(rng.integers(1, end + 1)), "kill") for end in ends]
        left -= depth


def _faults(kinds: Sequence[Kind], most: int, seed: int) -> list[Strike]:
    points = range(1, len(kinds) + 1)
    once = [Strike(at, error) for at in points for error in ERRORS]
    lasting = [Strike(at, error, lasting=True) for at in points for error in LASTING]
    return _some(once + lasting, most, np.random.default_rng([seed, 2]))


def _some(strikes: list[Strike], most: int, rng: np.random.Generator) -> list[Strike]:
    if len(strikes) <= most:
        return strikes
    return [strikes[int(n)] for n in sorted(rng.choice(len(strikes), most, replace=False))]


class _Trials:
    """Trials in one folder, and the build without a fault that they are compared with."""

    def __init__(self, folder: Path, seed: int) -> None:
        make_folder(folder)
        self.folder, self.seed = folder.resolve(), seed
        self.stand_in = StandIn()
        final = self.folder / "whole" / "1.0.0"
        self.stand_in.build(final, seed, [])  # what is imported and set up late, forks have too
        gc.freeze()
        self.wanted = _contents(final)
        self.kinds = self._build(self.folder / "counted" / "1.0.0", None, seed).kinds
        manifest = read_manifest(final)
        assert manifest is not None
        self.content_id = manifest.release.content_id

    def run(self, number: int, chain: Sequence[Strike]) -> None:
        """Strike a build, and each resume but the last; see that it comes out right.

        Args:
            number: Of the trial; decides the order of the shards.
            chain: What happens to the build, and to one resume after the other.

        Raises:
            VerifyError: If it does not come out right.
        """
        place = self.folder / f"trial-{number}"
        final = place / "1.0.0"

        def expect(truth: bool, found: str) -> None:
            if not truth:
                kinds = " then ".join(f"{s} ({self.kinds[s.at - 1]})" for s in chain)
                raise VerifyError(
                    f"trial {number} of seed {self.seed}, {kinds}: {found}; {place} is left as it "
                    "is, please report this with your file system"
                )

        for strike in chain:
            outcome = self._build(final, strike, number)
            end = -signal.SIGKILL if isinstance(strike.how, str) else ResourceError.exit_code
            expect(outcome.code in (0, end), f"exit {outcome.code}\n{outcome.said}")
            seen = _contents(final) if final.exists() else self.wanted
            expect(seen == self.wanted, "a reader sees a torn version")
        kept = set() if final.exists() else set(Staging(final).finished())
        painted: list[int] = []
        try:
            self.stand_in.build(final, number, painted)
        except Exception as err:
            expect(False, f"cannot be resumed: {err!r}")
        left = sorted(path.name for path in place.iterdir())
        expect(left == [final.name], f"left {left}")
        expect(_contents(final) == self.wanted, "other bytes")
        remade = {shard_path(number) for number in painted} & kept
        expect(not remade, f"made {sorted(remade)} again")
        shutil.rmtree(place)

    def _build(self, final: Path, strike: Strike | None, number: int) -> _Outcome:
        """Build in a fork."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self._build_here(final, strike, number, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            said = stream.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if not said:
            return _Outcome(code)
        kinds, error = json.loads(said)
        return _Outcome(code, tuple(kinds), error)

    def _build_here(self, final: Path, strike: Strike | None, number: int, writer: int) -> NoReturn:
        """Build in this process, say how it went, and end it."""
        code, said, write = 0, "", os.write
        faults = Faults(final.parent, strike)
        try:
            faults.install()
            self.stand_in.build(final, number, [])
        except SynthCTError as err:
            code, said = err.exit_code, str(err)
        except BaseException:
            code, said = 1, traceback.format_exc()
        finally:
            write(writer, json.dumps([faults.kinds, said]).encode())
            os._exit(code)


def _contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
