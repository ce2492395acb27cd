"""README.md of an export: where it comes from, what it holds, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthct.dataset.manifest import Release
from synthct.dataset.markdown import code, count, inert, table
from synthct.dataset.records import yaml_text
from synthct.publish.export.form import Form, files_of
from synthct.volume.views import IGNORE

#: What of the header of a card is true of an export too.
_KEPT = ("pretty_name", "license", "license_name", "license_link", "task_categories", "tags",
         "size_categories")  # fmt: skip


def page(
    release: Release,
    form: Form,
    labels: Mapping[str, int],
    header: Mapping[str, Any],
    beside: Mapping[str, str],
    *,
    keep_original: bool,
) -> str:
    """README.md of an export.

    Args:
        release: The version that was exported.
        form: The kind of export.
        labels: Values of the label map by name.
        header: That of the version's card.
        beside: What the other files are, by name.
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
        [f"`*/*_{name}.{form.suffix}`", form.files[name]] for name in files_of(form, keep_original)
    ]
    values = [
        [0, "background"],
        *sorted([v, code(n)] for n, v in labels.items()),
        [IGNORE, "ignore, where there is any: painted, and nobody knows as what"],
    ]
    sections = [
        f"---\n{yaml_text({**kept, 'configs': [config]})}---",
        f"# {inert(release.name)} {release.version}, as plain files",
        f"{count(release.rows, 'sample')} of {code(release.label)}. Where `is_painted` is true, "
        "the inside of the mask was painted anew; all else is as in the scan. What that means, "
        "whom to name and what it may be used for is said in the files beside this one.",
        f"""```python
from datasets import load_dataset

dataset = load_dataset("{form.loader}", data_dir="<this folder>")
```""",
        form.explained,
        table(["file", "what it holds"], files),
        table(["file", "what it is"], [[f"`{name}`", what] for name, what in beside.items()]),
        "Values of the label map:",
        table(["value", "name"], values),
    ]
    return "\n\n".join(sections) + "\n"
