"""Markdown out of names and numbers, such that no name can be more than text."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

#: Signs that mean something anywhere in a line of Markdown or HTML.
_ACTIVE = frozenset("\\`*_[]<>&|~$#@!{}")


def inert(text: str) -> str:
    """Text as one line of Markdown that shows it and does nothing else (a plain URL may link).

    Control and direction characters go, white space becomes single spaces, and signs of Markdown
    and HTML become character references, which are never taken for signs. So do those that only
    mean something at the start of a line, such as in ``1.`` and ``-``.
    """
    line = one_line(text)
    start = len(line) - len(line.lstrip(string.digits + string.punctuation + " "))
    return "".join(
        f"&#{ord(char)};" if char in (string.punctuation if n < start else _ACTIVE) else char
        for n, char in enumerate(line)
    )


def code(text: str) -> str:
    """Text as a code span, in which nothing is interpreted; a bar is broken, to fit in tables."""
    line = one_line(text).replace("|", "\N{BROKEN BAR}") or " "
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def one_line(text: str) -> str:
    """Text without control and direction characters, white space as single spaces."""
    spaced = " ".join(text.split())
    return "".join(char for char in spaced if not unicodedata.category(char).startswith("C"))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; cells are Markdown, whole numbers get thousands separators and stand right."""
    numeric = [bool(rows) and isinstance(cell, int) for cell in (rows[-1] if rows else head)]
    rule = ["---:" if number else "---" for number in numeric]
    cells = [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(head), rule, *cells])


def bullets(lines: Iterable[str]) -> str:
    """A list, its lines being Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def figure(value: float) -> str:
    """A number with about three digits that matter."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
