"""The ``review`` section of a recipe: decisions on the samples of an earlier version."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from synthct.storage.files import sha256_of


class Review(BaseModel):
    """A table of ``synthct review``; what it rejects is left out.

    Attributes:
        table: Path of the CSV table.
        unreviewed: Whether samples without a decision are kept or rejected too.
        sha256: Of the table; a dataset's own recipe has it. By default whatever is there is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Annotated[str, Field(min_length=1)]
    unreviewed: Literal["keep", "reject"] = "keep"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def resolved(self) -> dict[str, Any]:
        """The section with the table's hash instead of its folder."""
        return {
            "table": f"./{PurePath(self.table).name}",
            "unreviewed": self.unreviewed,
            "sha256": self.sha256 or sha256_of(Path(self.table)),
        }
