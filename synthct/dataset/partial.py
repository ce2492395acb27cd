"""The samples of a shard that is not finished yet, kept one by one for the case of an interruption.

A file of lines, each with a hash of itself and the file's name. What a killed process was just
writing, and all that follows damage, counts for nothing and is made again. Finished shards do not
need it any more.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.writer import Rejection
from synthct.storage.files import make_folder

#: How often it is made sure that the disk has what was written; a killed process loses nothing.
_SYNC_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Made:
    """What has become of a sample.

    Attributes:
        sample_id: Its id in the plan.
        row: By column; None if it was rejected.
        rejection: Why it was rejected; None if it was not.
        inside: HU inside of the mask, which later variants are compared with; None if they are not.
    """

    sample_id: str
    row: Mapping[str, Any] | None = None
    rejection: Rejection | None = None
    inside: npt.NDArray[np.int16] | None = None


class PartialShard:
    """The samples of one shard as they are made.

    Where the disk takes no more, it warns and keeps nothing: a shard can do without.

    Args:
        path: The file; need not be there.

    Attributes:
        made: What earlier runs have made, by sample.
        is_damaged: Whether there is more in the file that cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_damaged = False
        self.made: dict[str, Made] = {}
        self._file: int | None = None
        self._is_given_up = False
        self._length = 0
        self._synced = 0.0
        try:
            with path.open("rb") as lines:
                for line in lines:
                    if (one := _opened(line, path.name)) is None:
                        self.is_damaged = True
                        break
                    self.made[one.sample_id] = one
                    self._length += len(line)
        except OSError:  # usually that there is none
            pass

    def add(self, one: Made) -> None:
        """Keep one more sample."""
        if self._is_given_up:
            return
        try:
            if self._file is None:
                make_folder(self.path.parent)
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
                os.ftruncate(self._file, self._length)
                os.lseek(self._file, self._length, os.SEEK_SET)
            rest = memoryview(_sealed(one, self.path.name))
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if time.monotonic() > self._synced + _SYNC_S:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as err:
            logger.warning(
                "%s: %s; an interruption would lose this shard's samples", self.path, err.strerror
            )
            self._is_given_up = True

    def remove(self) -> None:
        """Delete the file: the shard is finished. Where that fails it does no harm."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _sealed(one: Made, name: str) -> bytes:
    content = {
        "sample_id": one.sample_id,
        "row": one.row,
        "rejection": None if one.rejection is None else asdict(one.rejection),
        "inside": None if one.inside is None else one.inside.astype("<i2").tobytes(),
    }
    body = json.dumps(content, default=_plain).encode()
    return _hash(body, name) + b" " + body + b"\n"


def _opened(line: bytes, name: str) -> Made | None:
    """The sample of a line; None if it is damaged or was not written to its end."""
    digest, _, body = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or digest != _hash(body, name):
        return None
    content = json.loads(body, object_hook=_restored)
    rejection, inside = content["rejection"], content["inside"]
    return Made(
        content["sample_id"],
        content["row"],
        None if rejection is None else Rejection(**rejection),
        None if inside is None else np.frombuffer(inside, "<i2").astype(np.int16),
    )


def _hash(body: bytes, name: str) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + body).hexdigest().encode()


def _plain(value: Any) -> Any:
    """What JSON has no word for: bytes, and numpy's numbers."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value.item()


def _restored(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if value.keys() == {"base64"} else value
