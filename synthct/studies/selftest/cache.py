"""``synthct selftest cache``: damage everything that is kept between runs, and see that it is told.

One trial flips a bit of a kept file, cuts it short, or exchanges it for another one, and then has
it used as the next run would. Right is the content as it was, made anew, or a refusal; both with a
message that names the file or its folder.
"""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthct.errors import SynthCTError, VerifyError
from synthct.storage.files import make_folder
from synthct.studies.selftest.kept import KeptFiles, every_kind

DAMAGES = ("flip", "cut", "swap")


@dataclass
class Tally:
    """What came of the trials of one kind of kept files.

    Attributes:
        trials: Files that were damaged.
        mended: Made anew, or the content before taken, with a message.
        refused: Ended with an error of ours that names what is damaged.
        silent: Used as if nothing were wrong, or mended without a word.
        tracebacks: Ended with any other error.
        first: The first trial that ended wrongly, in words.
    """

    trials: int = 0
    mended: int = 0
    refused: int = 0
    silent: int = 0
    tracebacks: int = 0
    first: str = ""


@dataclass(frozen=True)
class CacheReport:
    """What was tried: a tally by kind of kept files, and how long it took."""

    kinds: Mapping[str, Tally]
    seconds: float

    def require_good(self, folder: Path) -> None:
        """See that no trial ended wrongly.

        Raises:
            VerifyError: With the first trial that did.
        """
        for name, tally in self.kinds.items():
            if tally.first:
                raise VerifyError(
                    f"{name}: of {tally.trials} damaged files {tally.silent} were not noticed and "
                    f"{tally.tracebacks} ended in a traceback, first this one: {tally.first}\n"
                    f"{folder} is left as it is, please report this"
                )


def cache_test(
    folder: Path, *, trials: int, seed: int = 0, progress: Callable[[], object] = lambda: None
) -> CacheReport:
    """Damage kept files of every kind, use them, and compare with what they held.

    Args:
        folder: On the disk to test; the test's own, and deleted if all is well.
        trials: Damaged files of each kind.
        seed: Of the random places.
        progress: Called after each trial.

    Raises:
        ResourceError: If the folder cannot be written.
    """
    started = time.monotonic()
    make_folder(folder)
    with _listening() as messages:
        kinds = every_kind(folder)
        tallies = {kind.name: Tally() for kind in kinds}
        for number, kind in enumerate(kinds):
            trial = _Trial(kind, messages, np.random.default_rng([seed, number]))
            for _ in range(trials):
                trial.run(tallies[kind.name])
                progress()
    report = CacheReport(tallies, time.monotonic() - started)
    if not any(tally.first for tally in tallies.values()):
        shutil.rmtree(folder, ignore_errors=True)
    return report


class _Trial:
    """Damage to one kind of kept files, which are as they were before each trial."""

    def __init__(self, kind: KeptFiles, messages: list[str], rng: np.random.Generator) -> None:
        self.kind, self.messages, self.rng = kind, messages, rng
        self.good = _contents(kind.folder)
        self.victims = [path for path in self.good if path in {*kind.folder.rglob(kind.victims)}]
        messages.clear()
        self.expected = {kind.use()}
        if messages:
            raise VerifyError(f"{kind.name}: damaged before anything was done: {messages[0]}")
        if kind.refuses:  # then the content before is as good
            for path in self.victims:
                path.unlink()
            self.expected = {kind.use()}
            self._restore()

    def run(self, tally: Tally) -> None:
        """Damage a file, use it, note what came of it, and put everything back."""
        path = self.victims[int(self.rng.integers(len(self.victims)))]
        how, harmed = self._damage(path)
        self.messages.clear()
        tally.trials += 1
        try:
            content = self.kind.use()
        except SynthCTError as err:
            if _names(harmed, [str(err)]):
                tally.refused += 1
            else:
                tally.silent += 1
                tally.first = tally.first or f"{how}: an error that names no file: {err}"
        except Exception:
            tally.tracebacks += 1
            tally.first = tally.first or f"{how}: {traceback.format_exc()}"
        else:
            if content in self.expected and _names(harmed, self.messages):
                tally.mended += 1
            else:
                tally.silent += 1
                what = "no message" if content in self.expected else "other content"
                tally.first = tally.first or f"{how}: {what} {self.messages}"
        self._restore()

    def _damage(self, path: Path) -> tuple[str, list[Path]]:
        """Damage a file so that its bytes differ; says how, and which files are damaged then."""
        content = self.good[path]
        others = [p for p in self.good if p != path and self.good[p] != content]
        how = DAMAGES[int(self.rng.integers(3 if others else 2))]
        name = path.relative_to(self.kind.folder)
        if how == "swap":
            other = others[int(self.rng.integers(len(others)))]
            path.write_bytes(self.good[other])
            other.write_bytes(content)
            return f"{name} exchanged with {other.relative_to(self.kind.folder)}", [path, other]
        at = int(self.rng.integers(len(content)))
        if how == "cut":
            path.write_bytes(content[:at])
            return f"{name} cut to {at} of {len(content)} bytes", [path]
        bit = int(self.rng.integers(8))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        return f"{name} with bit {bit} of byte {at} flipped", [path]

    def _restore(self) -> None:
        for path in _contents(self.kind.folder).keys() - self.good.keys():
            path.unlink()
        for path, content in self.good.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _names(harmed: Sequence[Path], messages: Sequence[str]) -> bool:
    """Whether a message names one of the files, or its folder."""
    return any(
        path.name in text or path.parent.name in text for path in harmed for text in messages
    )


def _contents(folder: Path) -> dict[Path, bytes]:
    """The files of a folder, but for locks, which hold nothing."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in paths if path.suffix != ".lock"}


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The warnings of this package, which otherwise would fill the screen."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, listener = logging.getLogger("synthct"), Listener(logging.WARNING)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates
