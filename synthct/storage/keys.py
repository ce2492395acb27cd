"""Keys of caches: sha256 of all that a cached content is computed from, the code included.

A key holds no place of a file and nothing of the machine: the caller gives the digest of a
file instead of its path.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = Path(__file__).resolve().parents[1]


def cache_key(*modules: str, **inputs: Any) -> str:
    """The key of a cached content.

    Args:
        modules: Names of the modules that compute it, usually ``__name__``; the source text of
            everything of ours that they import is part of the key. Modules of others are not.
        inputs: All values that the content follows from: plain values, arrays, dataclasses,
            pydantic models, and collections of them. Mappings count in their order.

    Raises:
        TypeError: If a value is a path, or of a kind that has no fixed form.
    """
    code = {module: code_sha256(module) for module in modules if _file_of(module) is not None}
    text = json.dumps([code, _plain(inputs)], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_sha256(module: str) -> str:
    """sha256 of the source text of a module of ours and of all that it imports of ours."""
    digest = hashlib.sha256()
    for path in source_files(module):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {content}\n".encode())
    return digest.hexdigest()


@cache
def source_files(module: str) -> tuple[Path, ...]:
    """The files of a module of ours and of all that it imports of ours, wherever it does so.

    A name that a package's ``__init__`` imports from elsewhere leads to where it is defined, so
    that one name of a room does not draw in the whole room.
    """
    found: dict[Path, None] = {}
    waiting = [_file_of(module)]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in found:
            found[path] = None
            waiting += _imported_files(path)
    return tuple(sorted(found))


@cache
def _imported_files(path: Path) -> tuple[Path, ...]:
    files = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            files += [_file_of(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            files += [_file_defining(node.module or "", alias.name) for alias in node.names]
    return tuple(file for file in files if file is not None)


def _file_defining(module: str, name: str) -> Path | None:
    """The file behind ``from module import name``; None if it is not ours."""
    path = _file_of(f"{module}.{name}") or _file_of(module)
    if path is not None and path.name == "__init__.py":
        for node in _tree(path).body:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _file_defining(node.module, alias.name)
    return path


def _file_of(module: str) -> Path | None:
    """The file of a module; None if there is none among ours."""
    package, *parts = module.split(".")
    if package != PACKAGE.name:
        return None
    folder = PACKAGE.joinpath(*parts)
    for path in (folder.with_suffix(".py") if parts else folder, folder / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    """A value in the one JSON form that its content has."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return ["array", value.dtype.str, list(value.shape), content]
    if isinstance(value, Mapping):
        return ["mapping", *([_plain(k), _plain(v)] for k, v in value.items())]
    if isinstance(value, Set):
        return ["set", *sorted(json.dumps(_plain(item)) for item in value)]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(type(value), "model_fields"):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    raise TypeError(f"a cache key cannot hold {value!r}; give a plain value or a digest")
