"""What all commands share: errors as one block without traceback, logs, the options' types."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from synthct.build.launch import is_first
from synthct.errors import RecipeError, ResourceError, SynthCTError

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME=PATH", help="Root of a source; overrides the recipe's."),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Where indexes and phantoms are kept.", show_default="the user's cache folder"
    ),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only the first N samples, to try a recipe.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback with every error.")]


@contextmanager
def reporting(debug: bool = False) -> Iterator[None]:
    """Print a user's error as one block and exit with its code; bugs keep their traceback.

    Of several processes of one command, only the first says what all of them find.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    level = logging.DEBUG if debug else logging.INFO
    logging.getLogger("synthct").setLevel(level if is_first() else logging.WARNING)
    logging.getLogger("synthct.build.assemble").setLevel(level)  # each tells of its own shards
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except Exception as err:
        told = _told(err)
        if debug or told is None:
            raise
        typer.echo(f"{type(told).__name__}: {_printable(str(told))}", err=True)
        raise typer.Exit(told.exit_code) from None
    except KeyboardInterrupt:
        if is_first():
            typer.echo("interrupted; run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(err: Exception) -> SynthCTError | None:
    """What to tell the user; None for what is a bug of ours and keeps its traceback."""
    if isinstance(err, SynthCTError):
        return err
    if isinstance(err, BrokenPipeError):  # the reader of our output has enough; click ends it
        return None
    if isinstance(err, OSError):
        place = f"{err.filename}: " if err.filename else ""
        return ResourceError(f"{place}{err.strerror or err}; mend it and run the command again")
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":  # torch's
        return ResourceError(
            f"memory does not suffice ({err}); try a smaller batch_size or fewer --workers"
        )
    return None


def _printable(text: str) -> str:
    """Text whose file names cannot steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


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
    """Whether progress bars make sense."""
    return sys.stderr.isatty()
