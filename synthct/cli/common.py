"""Shared by all commands: error messages without traceback, logging, types of options."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from synthct.errors import (
    NO_DOCSTRINGS,
    RecipeError,
    ResourceError,
    SynthCTError,
    printable,
)
from synthct.processes.group import Interrupt
from synthct.processes.launch import GONE, LauncherWatch, interrupt, is_first, world_size
from synthct.storage.files import check_utf8

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
DatasetFolder = Annotated[
    Path, typer.Argument(help="The folder of a version: OUTPUT/name/1.0.0.", show_default=False)
]
InceptionWeights = Annotated[
    Path | None,
    typer.Option(help="The FID weights: a file, or OWNER/REPOSITORY/FILE in the Hub's cache."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME=PATH", help="Root of a source; overrides the recipe's."),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of cached indexes and phantoms.", show_default="the user's cache folder"
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="SAMPLES",
        help="Build only the first so many samples (not masks); the version is named after it.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where networks run: cpu, cuda, mps, ...", show_default="a GPU if there is one"
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse what lies outside the checkpoint's range.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say only what was written, warnings and errors."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object; messages go to standard error."),
]


@dataclass
class Console:
    """Standard output, for people or for programs.

    Attributes:
        quiet: Whether only results are wanted.
        as_json: Whether a program reads it, as one JSON object.
    """

    quiet: bool = False
    as_json: bool = False
    _has_reported: bool = False

    @property
    def progress(self) -> bool:
        """Whether to show progress bars; they go to standard error."""
        return not self.quiet and sys.stderr is not None and sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Print text for people; not with ``--json``."""
        if not self.quiet:
            self.result(text)

    def result(self, text: object) -> None:
        """Print what the command has come to, such as the path of what was written."""
        if not self.as_json:
            typer.echo(printable(f"{text}"))

    def report(self, **facts: Any) -> None:
        """Print the JSON object, if one is wanted and was not printed yet; paths are text."""
        if self.as_json and not self._has_reported:
            self._has_reported = True
            typer.echo(json.dumps(facts, indent=2, default=str))


@contextmanager
def reporting(
    debug: bool = False, *, quiet: bool = False, as_json: bool = False
) -> Iterator[Console]:
    """Print a user's error without traceback and exit with its code; bugs keep their traceback.

    Of several processes of one command, only the first prints errors; each ends when the launcher
    ends. A hang-up (SIGHUP) and SIGTERM end the command like Ctrl-C. With ``as_json`` an error is
    an object with ``error`` on standard output too, unless the launcher prints it.
    """
    console = Console(quiet, as_json)
    output = logging.StreamHandler()
    output.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[output])
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    logging.getLogger("synthct").setLevel(level if is_first() else logging.WARNING)
    logging.getLogger("synthct.build.assemble").setLevel(level)  # each process logs its own shards
    watch = LauncherWatch()
    before = {number: signal.signal(number, interrupt) for number in _ending_signals()}
    try:
        _check_surroundings()
        yield console
    except Exception as err:
        user_error = _user_error(err)
        if debug or user_error is None:
            raise
        raise _reported(user_error, console) from None
    except KeyboardInterrupt as err:
        if watch.is_gone and is_first():
            raise _reported(ResourceError(GONE), console) from None
        if is_first() or isinstance(err, Interrupt):
            signal_name = f" by {err.args[0]}" if err.args else ""
            typer.echo(
                f"interrupted{signal_name}; run the same command again to continue", err=True
            )
            report_error(console, "Interrupt", "interrupted", 130)
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Printable(logging.Formatter):
    """The message of a record, in which no name of a file can steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The message as one or more printable lines."""
        return printable(super().format(record))


def _check_surroundings() -> None:
    """See that Python and the names on the command line are fit for what is to come.

    Raises:
        RecipeError: If Python runs without docstrings, or a path is no UTF-8, which neither Parquet
            nor ``load_dataset`` can handle.
    """
    if sys.flags.optimize > 1:
        raise RecipeError(NO_DOCSTRINGS)
    for text in (*sys.argv[1:], str(Path.cwd())):
        check_utf8(text)


def _ending_signals() -> list[signal.Signals]:
    """The signals that end a process, without those that ``nohup`` ignores."""
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    return [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]


def report_error(console: Console, kind: str, message: str, exit_code: int) -> None:
    """Print an error as JSON, if that is wanted; of a launch, the launcher does it."""
    if world_size() == 1:
        console.report(error={"kind": kind, "message": message, "exit_code": exit_code})


def _reported(err: SynthCTError, console: Console) -> typer.Exit:
    """Print an error; returns the exit with its code."""
    typer.echo(f"{type(err).__name__}: {printable(str(err))}", err=True)
    report_error(console, type(err).__name__, str(err), err.exit_code)
    return typer.Exit(err.exit_code)


def _user_error(err: Exception) -> SynthCTError | None:
    """The error as a `SynthCTError`; None for a bug, which keeps its traceback."""
    if isinstance(err, SynthCTError):
        return err
    if isinstance(err, BrokenPipeError):  # click handles a closed pipe
        return None
    if isinstance(err, OSError):
        name = err.filename2 or err.filename  # of a copy, the second is the one that is written
        place = f"{name}: " if name else ""
        return ResourceError(f"{place}{err.strerror or err}; fix this and run the command again")
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":  # torch's
        return ResourceError(f"out of memory ({err}); try a smaller batch_size or fewer --workers")
    return None


def roots_of(pairs: Sequence[str] | None, option: str = "--source") -> dict[str, Path]:
    """``NAME=PATH`` options as a mapping.

    Raises:
        RecipeError: If one has no ``=`` or no name.
    """
    roots = {}
    for pair in pairs or ():
        name, sign, path = pair.partition("=")
        if not sign or not name or not path:
            raise RecipeError(
                f"{option} {pair}: write NAME=PATH, such as hosts=/data/kits23/dataset"
            )
        roots[name] = Path(path)
    return roots
