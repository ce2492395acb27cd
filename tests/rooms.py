"""The structure of synthct drawn from its imports: rooms, floors and arrows.

    python tests/rooms.py

A room is a folder or a loose file directly in ``synthct/``; a room within a room is a folder or a
file of its folder. An arrow is an import, wherever in a file it stands. Exit code 1 if two rooms
import each other, at any depth, or the house is too large.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "synthct"

MOST_ROOMS, MOST_FLOORS = 24, 9

#: Files that hold the public names of their folder and load them when they are first used.
DOOR = "__init__.py"


@dataclass(frozen=True)
class Import:
    """One import of ours.

    Attributes:
        file: The importing file.
        line: Where in it.
        module: What is imported, as parts: ``("volume", "views")`` for ``synthct.volume.views``.
    """

    file: Path
    line: int
    module: tuple[str, ...]


@cache
def imports() -> tuple[Import, ...]:
    """Everything that the files of synthct import from synthct."""
    return tuple(one for path in sorted(PACKAGE.rglob("*.py")) for one in _imports_of(path))


def _imports_of(path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        line = getattr(node, "lineno", 0)
        for name in names:
            head, *parts = name.split(".")
            if head == "synthct" and parts and (module := _module(parts)):
                yield Import(path, line, module)


def _module(parts: list[str]) -> tuple[str, ...]:
    """The longest part of a dotted name that is a folder or a file, and not a name in one."""
    for end in range(len(parts), 0, -1):
        place = PACKAGE.joinpath(*parts[:end])
        if place.is_dir() or place.with_suffix(".py").is_file():
            return tuple(parts[:end])
    return ()


def arrows(floor: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """What each room directly in the folder ``floor`` imports of its siblings.

    The doors ``__init__`` of rooms belong to them; that of ``floor`` itself is no room.
    """
    folder, depth = PACKAGE.joinpath(*floor), len(floor)
    rooms: dict[str, set[str]] = {
        path.stem: set()
        for path in sorted(folder.iterdir())
        if (path.suffix == ".py" and path.name != DOOR) or any(path.glob("*.py"))
    }
    for one in imports():
        place = one.file.relative_to(PACKAGE).with_suffix("").parts
        if place[:depth] != floor or one.module[:depth] != floor or len(one.module) == depth:
            continue
        room, other = place[depth], one.module[depth]
        if room in rooms and other in rooms and room != other:
            rooms[room].add(other)
    return rooms


def folders() -> list[tuple[str, ...]]:
    """All folders of code, ``()`` for synthct itself first."""
    places = {()} | {path.parent.relative_to(PACKAGE).parts for path in PACKAGE.rglob("*.py")}
    return sorted(places, key=lambda parts: (len(parts), parts))


def floors(rooms: Mapping[str, set[str]]) -> list[list[str]]:
    """The rooms by floor, from the ground: each stands right above the highest that it imports.

    There must be no circle.
    """
    done: list[list[str]] = []
    below: set[str] = set()
    while rest := sorted(rooms.keys() - below):
        done.append([room for room in rest if rooms[room] <= below])
        assert done[-1], f"these import each other: {', '.join(rest)}"
        below |= set(done[-1])
    return done


def circle(rooms: Mapping[str, set[str]], start: str) -> list[str] | None:
    """The shortest way along imports from a room back to itself; None if there is none."""
    paths = [[start]]
    seen: set[str] = set()
    for path in paths:
        for other in sorted(rooms[path[-1]] - seen):
            if other == start:
                return [*path, start]
            seen.add(other)
            paths.append([*path, other])
    return None


def faults() -> list[str]:
    """What is wrong with the structure."""
    circles = []
    for folder in folders():
        rooms = arrows(folder)
        for room in rooms:
            # two files of one room may be about one thing; a folder in it is a room of its own
            is_room = not folder or PACKAGE.joinpath(*folder, room).is_dir()
            if is_room and (path := circle(rooms, room)):
                place = "/".join(("synthct", *folder))
                circles.append(f"in {place} these import each other: {' -> '.join(path)}")
    if circles:
        return circles
    rooms = arrows()
    counts = [(len(rooms), MOST_ROOMS, "rooms"), (len(floors(rooms)), MOST_FLOORS, "floors")]
    return [f"{n} {what}, at most {most}" for n, most, what in counts if n > most]


def main() -> int:
    """Print the house from the top floor down, then what is wrong with it."""
    if wrong := faults():
        print(*wrong, sep="\n")
        return 1
    rooms = arrows()
    by_floor = floors(rooms)
    for number, names in reversed([*enumerate(by_floor)]):
        print(f"floor {number}")
        for name in names:
            print(f"  {name:10} -> {' '.join(sorted(rooms[name])) or '(nothing)'}")
    count = sum(len(others) for others in rooms.values())
    print(f"{len(rooms)} rooms on {len(by_floor)} floors, {count} arrows, none runs back up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
