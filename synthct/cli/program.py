"""The program ``synthct``: the command line with the streams of its process in order."""

from __future__ import annotations

import os
import sys

from synthct.cli import app
from synthct.errors import ResourceError


def main() -> None:
    """Run the command line; ends the process.

    Without an open standard error messages go nowhere, but the command works; a standard output
    that takes no more is reported as any full disk is.
    """
    _open_closed_streams()
    try:
        try:
            app(prog_name="synthct")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has enough
        _discard_output()
        sys.exit(1)
    except OSError as err:
        _discard_output()
        print(f"ResourceError: standard output: {err.strerror or err}", file=sys.stderr)
        sys.exit(ResourceError.exit_code)


def _open_closed_streams() -> None:
    """Open what the caller has closed: else the next file opened gets what is meant for it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _discard_output() -> None:
    """Let the interpreter flush what is left of standard output at its end to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
