"""Turns pydantic's errors into messages for the author of a YAML file, with "did you mean".

Locations are keys and indices; ``yaml_model`` adds their lines and columns.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

#: Least similarity (0..1) of two words for one to be suggested for the other.
LEAST_LIKENESS = 0.6

#: Error type of the problems that validators locate themselves.
OWN_ERROR = "own"

_EXPECTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a mapping (key: value)",
    "mapping": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "dataclass": "a mapping (key: value)",
    "path": "a path",
    "none": "nothing",
}
#: Keys that tell the members of a union.
_TAGS = ("kind", "layout", "method")
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_BOOLS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_NUMBER_WITH_UNIT = re.compile(
    r"\s*([-+]?\d+(?:\.\d+)?)\s*(?:mm|cm|ml|hu|deg|degrees|°|%|x)\s*", re.I
)


@dataclass(frozen=True)
class Problem:
    """One problem in a file.

    Attributes:
        location: Keys and list indices from the root.
        message: What is wrong and what to do.
        at_key: Whether the key is wrong rather than its value.
    """

    location: tuple[str | int, ...]
    message: str
    at_key: bool = False


def path_text(location: Sequence[str | int]) -> str:
    """A location as people write it: ``masks[1].margin_mm``."""
    parts = [f"[{name}]" if isinstance(name, int) else f".{name}" for name in location]
    return "".join(parts).removeprefix(".")


def safe_text(text: str) -> str:
    """``text`` in one line, without terminal control characters."""
    one_line = " ".join(text.split("\n"))
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in one_line)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that ``word`` was most likely meant to be, or None.

    Case, dashes and underscores do not count; a word with a missing or wrong unit (``margin`` for
    ``margin_mm``) ranks first.
    """
    best, likeness = None, LEAST_LIKENESS
    plain = _plain(word)
    for candidate in known:
        other = _plain(candidate)
        score = SequenceMatcher(None, plain, other).ratio()
        if plain == other or (
            len(plain) > 2 and (other.startswith(plain) or _stem(plain) == _stem(other))
        ):
            score = 1 + score
        if score > likeness:
            best, likeness = candidate, score
    return best


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """End of a message about an unknown ``word``: the nearest known one, or all of them."""
    near = nearest(word, known)
    if near is not None:
        return f"; did you mean '{near}'?"
    return f"; choose one of: {', '.join(known)}" if known else ""


def describe_errors(err: ValidationError, data: Any, model_type: type[BaseModel]) -> list[Problem]:
    """One problem for each location with errors in ``data``, the input of ``model_type``."""
    by_place: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for detail in err.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":
            continue  # follows from another error
        place = _place(detail, data)
        if detail["type"] == "missing" and isinstance(place[-1], int):
            place = place[:-1]  # too short a list: the error is at the list
        by_place.setdefault(place, []).append(detail)
    # A union gives errors for each member; the deepest location belongs to the intended one.
    # A list with wrong items also counts as too short, since these do not count.
    kept = {
        place: details
        for place, details in by_place.items()
        if not (
            (_is_mismatch(details[0]) or details[0]["type"] in {"too_short", "literal_error"})
            and any(p[: len(place)] == place != p for p in by_place)
        )
    }
    unknown = {place for place, details in kept.items() if details[0]["type"] == "extra_forbidden"}
    problems = []
    for place, details in kept.items():
        kind = details[0]["type"]
        if kind == "missing" and isinstance(place[-1], str) and place not in unknown:
            keys = [str(p[-1]) for p in unknown if p[:-1] == place[:-1]]
            if any(
                nearest(key, _keys_of(place[:-1], data, model_type)) == place[-1] for key in keys
            ):
                continue  # reported as a misspelt key
        problems.append(_problem(place, details, data, model_type))
    return problems


def _problem(
    place: tuple[str | int, ...],
    details: list[ErrorDetails],
    data: Any,
    model_type: type[BaseModel],
) -> Problem:
    """The problem at one location."""
    value = _value_at(place, data)
    # Of the members of a union a list is meant for the one that takes lists, a word for the words.
    own = (d for d in details if (isinstance(value, list) and not _is_mismatch(d))
           or (isinstance(value, str) and d["type"] == "literal_error"))  # fmt: skip
    detail = next(own, details[0])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(place, f"unknown key{_hint_for_key(place, data, model_type)}", at_key=True)
    if kind == "missing":
        if isinstance(value, list):
            return Problem(place, f"the list {_show(value)} is too short")
        return Problem(place, "this key is missing; add it")
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _tag_problem(place, value, context, data, model_type)
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        word = value if isinstance(value, str) else str(value)
        return Problem(place, f"{_show(value)} is not known{did_you_mean(word, known)}")
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return Problem(
            place, f"{_show(value)} is out of range; it must be {words} {context[bound]}"
        )
    if kind in {"too_short", "too_long"}:
        least, most = context.get("min_length"), context.get("max_length")
        limit = f"at least {least}" if kind == "too_short" else f"at most {most}"
        return Problem(place, f"a list of {context.get('actual_length')}; it takes {limit}")
    if _is_mismatch(detail):
        return Problem(place, _mismatch(value, details, _keys_of((*place, 0), data, model_type)))
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern"))
        name = re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-")
        meant = f"; did you mean '{name}'?" if re.fullmatch(pattern, name) else ""
        return Problem(place, f"{_show(value)} does not match {pattern}{meant}")
    message = str(context["error"]) if kind == "value_error" else detail["msg"]
    return _at_named_key(place, message, value)


def _mismatch(value: Any, details: list[ErrorDetails], item_keys: Sequence[str]) -> str:
    """Message for a value of the wrong type: the expected type, and a suggestion."""
    types = [_mismatch_of(detail["type"]) or "string" for detail in details]
    expected = list(dict.fromkeys(_EXPECTED[name] for name in types))
    hint = ""
    if isinstance(value, str):
        number = _NUMBER_WITH_UNIT.fullmatch(value)
        if "true or false" in expected and value.lower() in _BOOLS:
            hint = f"; did you mean {_BOOLS[value.lower()]}?"
        elif any("number" in word for word in expected) and number:
            meant = f"{number[1]}? The key names the unit"
            if value.rstrip().endswith("%"):
                meant = f"{float(number[1]) / 100:g}? It is a fraction"
            hint = f"; did you mean {meant}"
        elif any("number" in word for word in expected) and _NUMBER.fullmatch(value):
            hint = f"; did you mean {value}, without quotes?"
    elif expected == ["text"] and value is not None and not isinstance(value, dict | list):
        hint = "; put it in quotes as it stands there"  # not as it was read: 01 is a name, too
    elif expected == ["a whole number"] and isinstance(value, float) and value == int(value):
        hint = f"; did you mean {int(value)}?"
    if expected == ["a list"] and not hint and value is not None and not isinstance(value, dict):
        hint = "; begin each of its parts with '-'" if item_keys else f"; did you mean [{value}]?"
    return f"expected {' or '.join(expected)}, not {_show(value)}{hint}"


def _tag_problem(
    place: tuple[str | int, ...],
    value: Any,
    context: dict[str, Any],
    data: Any,
    model_type: type[BaseModel],
) -> Problem:
    """The problem of a section whose ``kind`` (or ``layout``, ...) is unknown or missing."""
    key = str(context["discriminator"]).strip("'()")
    known = [tag for model in _models_at(place, data, model_type) for tag in _literals(model, key)]
    if isinstance(value, dict) and key in value:
        word = value[key]
        return Problem((*place, key), f"{_show(word)} is not known{did_you_mean(str(word), known)}")
    if isinstance(value, dict):
        for name in value:
            if nearest(name, [key]) and not any(
                name in m.model_fields for m in _models_at(place, data, model_type)
            ):
                return Problem((*place, name), f"unknown key; did you mean '{key}'?", at_key=True)
    if not isinstance(value, dict):
        return Problem(place, f"expected a mapping (key: value), not {_show(value)}")
    return Problem((*place, key), f"this key is missing; choose one of: {', '.join(known)}")


def _hint_for_key(place: tuple[str | int, ...], data: Any, model_type: type[BaseModel]) -> str:
    """Suggestion for the unknown key at ``place``: a similar key, or the section it belongs to."""
    key = str(place[-1])
    known = _keys_of(place[:-1], data, model_type)
    written = _value_at(place[:-1], data)
    free = [name for name in known if not (isinstance(written, dict) and name in written)]
    near = nearest(key, free) or nearest(key, known)
    if near is not None:
        return f"; did you mean '{near}'?"
    siblings = [m for m in _models_at(place[:-1], None, model_type) if key in m.model_fields]
    for tag in _TAGS:
        if of := [text for model in siblings for text in _literals(model, tag)]:
            return f"; it is of {tag} {', '.join(of)}"
    for name, field in model_type.model_fields.items():
        if any(key in model.model_fields for model in _models_within(field.annotation)):
            return f"; it belongs in '{name}'"
    return f"; known keys: {', '.join(known)}"


def _at_named_key(place: tuple[str | int, ...], message: str, value: Any) -> Problem:
    """A validator's own message, located at the key that it starts with, if any."""
    head = re.match(r"'?([A-Za-z_][A-Za-z0-9_]*)", message)
    if head and isinstance(value, dict) and head[1] in value:
        return Problem((*place, head[1]), message.removeprefix(f"{head[1]}: "))
    return Problem(place, message)


def _is_mismatch(detail: ErrorDetails) -> bool:
    return _mismatch_of(detail["type"]) is not None


def _mismatch_of(kind: str) -> str | None:
    """The expected type in an error kind such as ``float_parsing``; None for other kinds."""
    match = re.fullmatch(
        r"(\w+?)(?:_attributes|_instance)?_(?:type|parsing|from_float|required)", kind
    )
    return match[1] if match and match[1] in _EXPECTED else None


def _place(detail: ErrorDetails, data: Any) -> tuple[str | int, ...]:
    """An error's location in ``data``, without pydantic's names of union members."""
    place: list[str | int] = []
    value = data
    for index, name in enumerate(detail["loc"]):
        is_last = index == len(detail["loc"]) - 1
        if _has(value, name) or (is_last and detail["type"] in {"missing", OWN_ERROR}):
            place.append(name)
            value = _value_at([name], value)
    return tuple(place)


def _has(value: Any, name: str | int) -> bool:
    """Whether a mapping has the key, or a list the index, ``name``."""
    if isinstance(value, list):
        return isinstance(name, int) and name < len(value)
    return isinstance(value, dict) and name in value


def _value_at(place: Sequence[str | int], data: Any) -> Any:
    """The value at ``place``; None if there is none."""
    for name in place:
        try:
            data = data[name]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _keys_of(place: Sequence[str | int], data: Any, model_type: type[BaseModel]) -> list[str]:
    """The keys that the section at ``place`` may have."""
    models = _models_at(place, data, model_type)
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _models_at(
    place: Sequence[str | int], data: Any, model_type: type[BaseModel]
) -> list[type[BaseModel]]:
    """The models that the section at ``place`` may be, chosen by its ``kind`` if it has one."""
    annotations: list[Any] = [model_type]
    for name in place:
        annotations = [
            inner
            for annotation in annotations
            for alternative in _alternatives(annotation)
            if _may_be(alternative, data)
            for inner in _inside(alternative, name)
        ]
        data = _value_at([name], data)
    models = [model for annotation in annotations for model in _models(annotation)]
    return [model for model in models if _may_be(model, data)] or models


def _may_be(annotation: Any, data: Any) -> bool:
    """Whether ``data`` agrees with every literal field (``kind``, ``layout``) of a model."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return True
    if not isinstance(data, dict):
        return True
    tags = {n: _literals(annotation, n) for n in _TAGS if n in data}
    return all(not known or data[name] in known for name, known in tags.items())


def _literals(model: type[BaseModel], name: str) -> list[str]:
    """The allowed texts of a literal field of ``model``."""
    field = model.model_fields.get(name)
    if field is None or get_origin(field.annotation) is not Literal:
        return []
    return [str(text) for text in get_args(field.annotation)]


def _inside(annotation: Any, name: str | int) -> Iterator[Any]:
    """The annotation of the item at key or index ``name`` of a value of ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(name))
        if field is not None:
            yield field.annotation
    elif isinstance(name, int):
        yield from get_args(annotation)[:1]
    else:
        yield from get_args(annotation)[1:2]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models among the alternatives of an annotation."""
    alternatives = _alternatives(annotation)
    return [a for a in alternatives if isinstance(a, type) and issubclass(a, BaseModel)]


def _models_within(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models of an annotation and of the lists and mappings in it."""
    for alternative in _alternatives(annotation):
        yield from _models(alternative)
        for argument in get_args(alternative):
            yield from _models_within(argument)


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself, without ``Annotated``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [a for argument in get_args(annotation) for a in _alternatives(argument)]
    return [annotation]


def _plain(word: str) -> str:
    """A word without case, dashes and underscores."""
    return re.sub(r"[\W_]+", "", word).lower()


def _stem(plain: str) -> str:
    """A word without the unit at its end."""
    return re.sub(r"(mm|cm|ml|hu|deg)$", "", plain)


def _show(value: Any) -> str:
    """A value for a message, short and in quotes if it is text."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str):
        text = f"'{value}'"
    return text if len(text) <= 60 else text[:56] + " ..."
