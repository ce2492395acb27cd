"""README.md of an export: its origin, its files, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthct.dataset.manifest import Release
from synthct.dataset.markdown import code, inert, table
from synthct.dataset.records import yaml_text
from synthct.errors import counted
from synthct.publish.export.export_format import ExportFormat, files_of
from synthct.volume.views import IGNORE

#: Fields of a card's header that also apply to an export.
_KEPT = ("pretty_name", "license", "license_name", "license_link", "task_categories", "tags",
         "size_categories")  # fmt: skip
_LOADING = """\
```python
from datasets import load_dataset

dataset = load_dataset("{loader}", data_dir="<this folder>")
```"""


def page(
    release: Release,
    fmt: ExportFormat,
    labels: Mapping[str, int],
    header: Mapping[str, Any],
    beside: Mapping[str, str],
    *,
    keep_original: bool,
) -> str:
    """README.md of an export.

    Args:
        release: The version that was exported.
        fmt: The export format.
        labels: Values of the label map by name.
        header: Header of the version's card.
        beside: Descriptions of the other files, by name.
        keep_original: Whether there is a column ``original``.
    """
    splits = [split.name for split in release.splits if split.rows]
    config = {
        "config_name": "default",
        "description": f"content {release.content_id}",
        "data_files": [{"split": split, "path": f"{split}/**"} for split in splits],
    }
    kept = {name: header[name] for name in _KEPT if name in header}
    files = [
        [f"`*/{fmt.path_of('*', name)}`", fmt.files[name]] for name in files_of(fmt, keep_original)
    ]
    values = [
        [0, "background"],
        *sorted([v, code(n)] for n, v in labels.items()),
        [IGNORE, "ignore (if it occurs): painted, with unknown content"],
    ]
    sections = [
        f"---\n{yaml_text(kept if fmt.loader is None else {**kept, 'configs': [config]})}---",
        f"# {inert(release.name)} {release.version}, as plain files",
        f"{counted(release.rows, 'sample')} of {code(release.label)}. Where `is_painted` is true, "
        "the inside of the mask was painted by a model; everything else is as in the scan. Method, "
        "attribution and permitted use are described in the files beside this one.",
        *([] if fmt.loader is None else [_LOADING.format(loader=fmt.loader)]),
        fmt.readme_text,
        table(["file", "content"], files),
        table(["file", "what it is"], [[f"`{name}`", what] for name, what in beside.items()]),
        "Values of the label map:",
        table(["value", "name"], values),
    ]
    return "\n\n".join(sections) + "\n"
