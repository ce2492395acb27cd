"""Shared by all commands: error messages without traceback, logging, types of options."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from synthct.errors import (
    NO_DOCSTRINGS,
    RecipeError,
    ResourceError,
    SynthCTError,
    printable,
)
from synthct.processes.group import Interrupt
from synthct.processes.launch import GONE, LauncherWatch, interrupt, is_first
from synthct.storage.files import check_utf8

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
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
    int | None, typer.Option(min=1, help="Only the first N samples, to try a recipe.")
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


@contextmanager
def reporting(debug: bool = False) -> Iterator[None]:
    """Print a user's error without traceback and exit with its code; bugs keep their traceback.

    Of several processes of one command, only the first prints errors; each ends when the launcher
    ends. A hang-up (SIGHUP) and SIGTERM end the command like Ctrl-C.
    """
    output = logging.StreamHandler()
    output.setFormatter(_Printable())
    logging.basicConfig(level=logging.WARNING, handlers=[output])
    level = logging.DEBUG if debug else logging.INFO
    logging.getLogger("synthct").setLevel(level if is_first() else logging.WARNING)
    logging.getLogger("synthct.build.assemble").setLevel(level)  # each process logs its own shards
    watch = LauncherWatch()
    before = {number: signal.signal(number, interrupt) for number in _ending_signals()}
    try:
        _check_surroundings()
        yield
    except Exception as err:
        user_error = _user_error(err)
        if debug or user_error is None:
            raise
        raise _reported(user_error) from None
    except KeyboardInterrupt as err:
        if watch.is_gone and is_first():
            raise _reported(ResourceError(GONE)) from None
        if is_first() or isinstance(err, Interrupt):
            signal_name = f" by {err.args[0]}" if err.args else ""
            typer.echo(
                f"interrupted{signal_name}; run the same command again to continue", err=True
            )
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


def _reported(err: SynthCTError) -> typer.Exit:
    """Print an error; returns the exit with its code."""
    typer.echo(f"{type(err).__name__}: {printable(str(err))}", err=True)
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


def on_terminal() -> bool:
    """Whether to show progress bars."""
    return sys.stderr is not None and sys.stderr.isatty()
