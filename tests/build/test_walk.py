"""The way of a sample stays short: few records, one context, few parameters."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import synthct

ROOT = Path(synthct.__file__).parent

#: Where a sample is on its way, from the plan to the writer and back from a dataset.
WALK = [
    "recipe.plan", "build.draw", "build.prepare", "build.painter", "build.measure",
    "build.sample", "build.provenance", "dataset.sample", "dataset.schema", "dataset.rows",
    "dataset.patch_rows", "dataset.row_check", "dataset.stack",
]  # fmt: skip

#: Records in these files that are not one sample: they hold many, or describe a column.
OTHERS = {"Plan", "Shard", "Column"}

MOST_RECORDS, MOST_PARAMETERS = 6, 5


def modules() -> Iterator[ModuleType]:
    yield from (import_module(f"synthct.{name}") for name in WALK)


def test_a_sample_is_at_most_six_records_on_its_way() -> None:
    records = {
        name
        for module in modules()
        for name, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__
        and (is_dataclass(value) or hasattr(value, "_fields") or "Protocol" in str(value.__bases__))
    }
    assert {"SampleSpec", "DrawnMask", "Draft", "Sample", "Facts"} <= records
    assert len(records - OTHERS) <= MOST_RECORDS, sorted(records - OTHERS)


def test_no_function_on_the_way_takes_more_than_five_parameters() -> None:
    for module in modules():
        if module.__name__ == "synthct.recipe.plan":
            continue
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
                names += [a.arg for a in node.args.kwonlyargs]
                counted = [name for name in names if name not in ("self", "cls")]
                assert len(counted) <= MOST_PARAMETERS, f"{module.__name__}.{node.name}: {counted}"


def test_nobody_searches_for_a_samples_section() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ".masks if m.name ==" not in text, path
