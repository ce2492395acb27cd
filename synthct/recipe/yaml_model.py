"""From a YAML file to a pydantic model, with ``file:line:column`` in every error.

Only mappings with text keys, lists and plain values are allowed. Anchors, aliases, tags, duplicate
keys, and files that are too large or too deeply nested are errors.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from synthct.errors import RecipeError
from synthct.recipe.yaml_errors import OWN_ERROR, Problem, describe_errors, path_text, safe_text

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000

Location = tuple[str | int, ...]
Mark = tuple[int, int]
Model = TypeVar("Model", bound=BaseModel)

# The core schema of YAML 1.2 (section 10.3.2): "yes" and "1_000" are text, "true" is not.
_NULL = re.compile(r"(?:null|Null|NULL|~)?")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}")


@dataclass(frozen=True, eq=False)
class Document:
    """The values of a YAML file and the position of each.

    Attributes:
        file: The file as the user named it.
        value: Its root mapping.
        keys: Location of a value to the line and column (from 1) of its key or list item.
        values: The same for the value itself.
    """

    file: str
    value: dict[str, Any]
    keys: dict[Location, Mark] = field(default_factory=dict, repr=False)
    values: dict[Location, Mark] = field(default_factory=dict, repr=False)

    def error(self, location: Location, message: str, *, at_key: bool = False) -> RecipeError:
        """An error at ``location``, or at its nearest parent that is written in the file."""
        place = location
        while place not in self.keys and place:
            place, at_key = place[:-1], True
        key, value = self.keys.get(place, (1, 1)), self.values.get(place, (1, 1))
        # A section that starts below its key is located at its key.
        line, column = key if at_key or value[0] > key[0] else value
        path = path_text(location)
        return _error(self.file, line, column, f"{path}: {message}" if path else message)


def load_yaml_model(
    path: Path, model_type: type[Model], *, path_keys: Sequence[str] = ("sources.*.root",)
) -> Model:
    """Read ``path`` and validate it as ``model_type``.

    Args:
        path: A YAML file.
        model_type: The model to validate; types are strict, so the text "3" is not a number.
        path_keys: Dotted locations (``*`` stands for any one key) of the values in which
            ``${NAME}`` and ``${NAME:-default}`` stand for environment variables.

    Raises:
        RecipeError: With one line ``file:line:column: key: what is wrong`` for each fault.
    """
    document = read_yaml(path)
    expand_variables(document, path_keys)
    return validate(document, model_type)


def read_yaml(path: Path) -> Document:
    """The values of a YAML file with their positions.

    Raises:
        RecipeError: If the file is missing, not UTF-8, not YAML, not a mapping, or has something
            that is not allowed (see the module's docstring).
    """
    file = str(path)
    events = _events(file, _read_text(path, file))
    root = next(events, None)
    if root is None:
        raise _error(file, 1, 1, "the file is empty; start it with 'name: ...'")
    document = Document(file, {})
    if not isinstance(root, MappingStartEvent):
        raise _error(file, *_mark(root), "expected 'key: value' lines at the top level")
    document.value.update(_build(document, events, root, ()))
    next(events, None)  # an error if a second document starts
    return document


def validate(document: Document, model_type: type[Model]) -> Model:
    """Validate a document as ``model_type``.

    Raises:
        RecipeError: With one line for each fault, in the order of the file.
    """
    try:
        # JSON mode, because only there does "strict" let a list be a tuple and a text a path.
        return model_type.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as err:
        problems = describe_errors(err, document.value, model_type)
        lines = {str(document.error(p.location, p.message, at_key=p.at_key)) for p in problems}
        raise RecipeError("\n".join(sorted(lines, key=_line_and_column))) from None


def fail_at(problems: Sequence[Problem]) -> ValidationError:
    """The error for a model's validator to raise, with problems located relative to the model."""
    return ValidationError.from_exception_data(
        "recipe",
        [
            InitErrorDetails(
                type=PydanticCustomError(OWN_ERROR, "{message}", {"message": problem.message}),
                loc=problem.location,
                input=None,
            )
            for problem in problems
        ],
    )


def expand_variables(document: Document, path_keys: Sequence[str]) -> None:
    """Replace ``${NAME:-default}`` and a leading ``~`` in the values at ``path_keys``, in place.

    Raises:
        RecipeError: If a variable without a default is not set.
    """
    for pattern in path_keys:
        for location in _matches(document.value, tuple(pattern.split(".")), ()):
            parent: Any = document.value
            for name in location[:-1]:
                parent = parent[name]
            text = parent[location[-1]]
            if isinstance(text, str):
                parent[location[-1]] = _expand(document, location, text)


def dump_yaml(value: Mapping[str, Any]) -> str:
    """``value`` (mappings, lists, text, numbers) as YAML that ``read_yaml`` reads back equal."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    yaml.allow_unicode = True
    yaml.representer.add_representer(str, _represent_text)
    stream = io.StringIO()
    yaml.dump(dict(value), stream)
    return stream.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """A text node, quoted where it could be read as another type."""
    plain = isinstance(_scalar(text), str) and "\n" not in text
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _read_text(path: Path, file: str) -> str:
    """The file as text; an error if it is not a regular UTF-8 file of at most ``MAX_BYTES``."""
    if not path.exists():
        near = _close_file(path)
        raise RecipeError(f"{file}: no such file" + (f"; did you mean '{near}'?" if near else ""))
    if not path.is_file():
        raise RecipeError(f"{file}: not a regular file; name a YAML file")
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as err:
        raise RecipeError(f"{file}: cannot be read ({err.strerror})") from err
    if len(raw) > MAX_BYTES:
        raise _error(file, 1, 1, "larger than 1 MiB, the limit of a recipe; shorten it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line, column = _place_of(raw[: err.start].decode("utf-8-sig", errors="replace"))
        raise _error(file, line, column, "not UTF-8; save the file as UTF-8") from err


def _close_file(path: Path) -> str | None:
    """The YAML file in the same folder with the most similar name, if any is similar."""
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"}]
    except OSError:
        return None
    near = get_close_matches(path.name, names, n=1)
    return str(path.with_name(near[0])) if near else None


def _events(file: str, text: str) -> Iterator[NodeEvent | MappingEndEvent | SequenceEndEvent]:
    """The nodes of the file in order; errors that need no structure are raised here."""
    depth = nodes = documents = 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    message = "a second YAML document starts here; keep only one"
                    raise _error(file, *_mark(event), message)
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                depth -= 1
                yield event
            elif isinstance(event, NodeEvent):
                _refuse(file, event)
                nodes += 1
                depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
                if nodes > MAX_NODES:
                    message = f"more than {MAX_NODES} values, the limit of a recipe; shorten it"
                    raise _error(file, *_mark(event), message)
                if depth > MAX_DEPTH:
                    message = f"nested deeper than {MAX_DEPTH} levels, the limit of a recipe"
                    raise _error(file, *_mark(event), message)
                is_empty = isinstance(event, ScalarEvent) and not (event.value or event.style)
                if not (is_empty and documents and nodes == 1):  # a file of comments only
                    yield event
    except MarkedYAMLError as err:
        mark = err.problem_mark or err.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _error(file, line, column, f"not valid YAML: {_reason(err)}") from None
    except ReaderError as err:
        line, column = _place_of(text[: err.position])
        code = err.character if isinstance(err.character, int) else ord(err.character)
        raise _error(file, line, column, f"character U+{code:04X} is not allowed in YAML") from None
    except (YAMLError, ValueError, RecursionError) as err:
        raise _error(file, 1, 1, f"not valid YAML: {err}") from None


def _refuse(file: str, event: NodeEvent) -> None:
    """Raise an error for anchors, aliases and tags."""
    if isinstance(event, AliasEvent):
        message = f"the alias '*{event.anchor}' is not allowed; write the value out"
    elif event.anchor is not None:
        message = f"the anchor '&{event.anchor}' is not allowed; remove it"
    elif (tag := getattr(event, "tag", None)) is not None:
        message = f"the tag '{tag}' is not allowed; remove it"
    else:
        return
    raise _error(file, *_mark(event), message)


def _build(document: Document, events: Iterator[Event], event: Event, location: Location) -> Any:
    """The value that starts with ``event``; its positions are stored in ``document``."""
    document.values[location] = _mark(event)
    if isinstance(event, ScalarEvent):
        value = event.value if event.style else _scalar(event.value)  # quoted values are text
        if isinstance(value, float) and not math.isfinite(value):
            number = event.value if len(event.value) <= 40 else f"{event.value[:36]} ..."
            raise document.error(location, f"{number} is not a finite number")
        return value
    if isinstance(event, SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(item := next(events), SequenceEndEvent):
            place = (*location, len(items))
            document.keys[place] = _mark(item)
            items.append(_build(document, events, item, place))
        return items
    mapping: dict[str, Any] = {}
    while not isinstance(key := next(events), MappingEndEvent):
        if not isinstance(key, ScalarEvent) or not key.value:
            message = f"{path_text(location)}: a key must be text".removeprefix(": ")
            raise _error(document.file, *_mark(key), message)
        place = (*location, key.value)
        if key.value in mapping:
            line, _ = document.keys[place]
            message = f"{path_text(place)}: duplicate key; it already stands on line {line}"
            raise _error(document.file, *_mark(key), message)
        document.keys[place] = _mark(key)
        mapping[key.value] = _build(document, events, next(events), place)
    return mapping


def _scalar(text: str) -> str | int | float | bool | None:
    """A plain scalar by the core schema; it may be infinite or NaN."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.nan if _NOT_FINITE.fullmatch(text) else text


def _matches(value: Any, pattern: Sequence[str], location: Location) -> Iterator[Location]:
    """The locations in ``value`` that match ``pattern``."""
    if not pattern:
        yield location
    elif isinstance(value, dict):
        for name in list(value) if pattern[0] == "*" else [n for n in pattern[:1] if n in value]:
            yield from _matches(value[name], pattern[1:], (*location, name))


def _expand(document: Document, location: Location, text: str) -> str:
    """``text`` with its variables replaced and a leading ``~`` expanded."""

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        value = os.environ.get(name) or default
        if value is None:
            hint = f"set it, or give a default as in ${{{name}:-folder}}"
            raise document.error(location, f"the environment variable {name} is not set; {hint}")
        return value

    if "${" in _VARIABLE.sub("", text):
        raise document.error(location, "a variable is written ${NAME} or ${NAME:-default}")
    return os.path.expanduser(_VARIABLE.sub(replace, text))  # noqa: PTH111 (the value stays text)


def _reason(err: MarkedYAMLError) -> str:
    """The parser's error in one line."""
    reason = str(err.problem or err.context or "unreadable")
    if "\\t" in reason:
        return "a tab cannot indent; use spaces"
    return " ".join(reason.split())


def _place_of(before: str) -> Mark:
    """Line and column, from 1, of the character that follows ``before``."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _mark(event: Event) -> Mark:
    """Line and column, from 1, at which an event starts."""
    return event.start_mark.line + 1, event.start_mark.column + 1


def _error(file: str, line: int, column: int, message: str) -> RecipeError:
    return RecipeError(safe_text(f"{file}:{line}:{column}: {message}"))


def _line_and_column(message: str) -> tuple[int, int]:
    match = re.search(r":(\d+):(\d+): ", message)
    return (int(match[1]), int(match[2])) if match else (0, 0)
