"""Checks for secrets and local paths in files before they are published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.errors import PolicyError
from synthct.publish.hub.bundle import Item

#: Suffixes of files without text: pixels and weights.
_NO_TEXT = (".png", ".jpg", ".jpeg", ".safetensors")

_SECRETS = (
    r"\bhf_[A-Za-z0-9]{20,}",  # Hugging Face
    r"\bgh[opsur]_[A-Za-z0-9]{36}",  # GitHub
    r"\bAKIA[0-9A-Z]{16}\b",  # AWS
    r"\b\w+://[^/\s:@\"']+:[^/\s:@\"']+@",  # a password in an address
)
_HOMES = (r"(?<![\w.~-])/(?:home|Users)/[^/\s\"']+/", r"\b[A-Za-z]:\\+Users\\+")


def require_no_leaks(items: Iterable[Item], secrets: Sequence[str] = ()) -> None:
    """Raise an error if a file contains a secret or a path of this machine.

    Args:
        items: The files to be published.
        secrets: Texts that must not be in any file, such as the user's token.

    Raises:
        PolicyError: For the first one; names the file, never the secret.
        ResourceError: If a file cannot be read.
    """
    folders = [str(path) for path in {Path.home(), Path.cwd()} if path != Path(path.anchor)]
    own = "|".join(rf"(?<![\w.~-]){re.escape(folder)}(?![\w-])" for folder in folders)
    paths = re.compile("|".join(filter(None, (own, *_HOMES))))
    tokens = re.compile("|".join([*map(re.escape, filter(None, secrets)), *_SECRETS]))
    for item in items:
        if PurePosixPath(item.path).suffix in _NO_TEXT:
            continue
        for text in _texts(item):
            if tokens.search(text):
                raise PolicyError(
                    f"{item.path} holds what looks like a token or password; revoke it, take it "
                    "out of where it came from (recipe, names, card) and make the folder anew"
                )
            if (match := paths.search(text)) is not None:
                raise PolicyError(
                    f"{item.path} holds a path of this machine ({match[0]}); take it out of where "
                    "it came from (recipe, names, card) and make the folder anew"
                )


def _texts(item: Item) -> Iterator[str]:
    """All text of a file, in pieces."""
    data = item.read()
    if not item.path.endswith(".parquet"):
        yield data.decode("utf-8", "replace")
        return
    shard = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    names = [field.name for field in shard.schema_arrow if pa.types.is_string(_plain(field.type))]
    yield str(shard.schema_arrow.metadata)
    for batch in shard.iter_batches(columns=names):
        for column in batch.columns:
            plain = column.storage if isinstance(column, pa.ExtensionArray) else column
            yield "\n".join(text for text in plain.to_pylist() if text is not None)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
