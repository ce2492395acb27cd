"""The content of a file, plain or gzipped, read once, in order, and to its end.

The end of a gzip stream holds the checksum of all that was read: a reader that stops earlier, as
most readers of NIfTI files do, takes damaged voxels for good ones.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from synthct.errors import SourceError, counted
from synthct.volume.formats import not_a_file

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 18

#: Deflate cannot make more of a byte than this (zlib's technical notes).
GREATEST_RATIO = 1032


class Content:
    """What a file holds, unzipped.

    Args:
        path: Of the file, for messages.
        file: Opened for reading, at its start.
        sha256: What the file's bytes must hash to; None for any.
    """

    def __init__(self, path: Path, file: BinaryIO, sha256: str | None = None) -> None:
        self.path = path
        self.file_size = os.fstat(file.fileno()).st_size
        self._file, self._expected_sha256 = file, sha256
        self._hash = hashlib.sha256() if sha256 is not None else None
        self._gunzip: Any = None
        self._zipped = self._ahead = b""
        self._plain = self._fetch()
        if self._plain.startswith(_GZIP):
            self._zipped, self._plain = self._plain, b""
            self._gunzip = self._new_member()

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end of the content; they are read again later.

        Raises:
            SourceError: If the gzip stream is damaged.
        """
        while len(self._ahead) < size and (part := self._decode(size - len(self._ahead))):
            self._ahead += part
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            SourceError: If the content ends before, or its gzip stream is damaged.
        """
        parts, missing = [], size
        while missing:
            part = self._some(missing)
            if not part:
                lacks = counted(missing, "byte is", "bytes are")
                raise self._error(f"cut short: {lacks} missing; fetch the file again")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over the next ``size`` bytes; raises what ``read`` raises."""
        while size:
            size -= len(self.read(min(size, _BLOCK)))

    def rest(self) -> bytes:
        """All that has not been read yet.

        Raises:
            SourceError: If the gzip stream is damaged.
        """
        return b"".join(iter(lambda: self._some(_BLOCK), b""))

    def require_size(self, size: int) -> None:
        """Refuse a file that cannot hold ``size`` bytes, before memory is allocated for them.

        Args:
            size: Number of bytes of header and voxels, by the header.

        Raises:
            SourceError: If it holds, or by its gzip trailer must hold, another number of bytes.
        """
        if self._gunzip is None:
            if self.file_size != size:
                raise self._error(
                    f"damaged or cut short: {self.file_size} bytes, but its header tells of "
                    f"{size}; fetch the file again"
                )
            return
        if size > self.file_size * GREATEST_RATIO:
            raise self._error(
                f"damaged: its header claims {size} bytes, but {self.file_size} bytes of gzip hold "
                f"at most {self.file_size * GREATEST_RATIO}"
            )
        position = self._file.tell()
        self._file.seek(-4, os.SEEK_END)
        (trailer,) = struct.unpack("<I", self._file.read(4))
        self._file.seek(position)
        # The trailer counts modulo 2**32, and for the last of several members only.
        if trailer > size % 2**32 and size < 2**32:
            raise self._error(
                f"damaged or cut short: its header tells of {size} bytes, its gzip trailer of "
                f"{trailer}; fetch the file again"
            )

    def finish(self) -> None:
        """Make sure that nothing is left, that checksums agree, and that it is the file meant.

        Raises:
            SourceError: If not.
        """
        if self._some(1):
            raise self._error("damaged: it goes on after the last voxel of its header")
        if self._hash is not None and self._hash.hexdigest() != self._expected_sha256:
            raise self._error(
                "is not the file that was indexed; run the command again. If it says so again, the "
                "file is damaged: restore it, or touch it if it is right"
            )

    def _some(self, most: int) -> bytes:
        """Up to ``most`` bytes; none at the end of the content."""
        if self._ahead:
            part, self._ahead = self._ahead[:most], self._ahead[most:]
            return part
        return self._decode(most)

    def _decode(self, most: int) -> bytes:
        """As ``_some``, past what was peeked at."""
        if self._gunzip is None:
            if not self._plain:
                self._plain = self._fetch()
            part, self._plain = self._plain[:most], self._plain[most:]
            return part
        while True:
            if self._gunzip.eof and not self._next_member():
                return b""
            position = self._file.tell()
            try:
                part = bytes(self._gunzip.decompress(self._zipped, most))
            except _damages() as err:
                place = f"between bytes {position - len(self._zipped)} and {position}"
                raise self._error(f"damaged {place} ({err}); fetch the file again") from err
            ended = self._gunzip.eof
            unused = self._gunzip.unused_data.lstrip(b"\0")
            self._zipped = unused if ended else self._gunzip.unconsumed_tail
            if part:
                return part
            if not ended and not self._zipped:
                self._zipped = self._fetch()
                if not self._zipped:
                    raise self._error(f"cut short at byte {self.file_size}; fetch the file again")

    def _next_member(self) -> bool:
        """Begin with the next gzip stream of the file; false at the file's end.

        Zeros may follow a stream (tapes and some programs pad files to whole blocks).
        """
        while not self._zipped:
            block = self._fetch()
            if not block:
                return False
            self._zipped = block.lstrip(b"\0")
        position = self._file.tell() - len(self._zipped)
        if len(self._zipped) < len(_GZIP):
            self._zipped += self._fetch()
        if not self._zipped.startswith(_GZIP):
            raise self._error(f"damaged: bytes follow the gzip stream's end at byte {position}")
        self._gunzip = self._new_member()
        return True

    def _fetch(self) -> bytes:
        try:
            block = self._file.read(_BLOCK)
        except OSError as err:
            raise self._error(f"cannot be read ({err.strerror})") from err
        if self._hash is not None:
            self._hash.update(block)
        return block

    @staticmethod
    def _new_member() -> Any:
        from isal import isal_zlib

        return isal_zlib.decompressobj(wbits=31)

    def _error(self, message: str) -> SourceError:
        return SourceError(f"{self.path}: {message}")


@contextmanager
def open_content(path: Path, sha256: str | None = None) -> Iterator[Content]:
    """Open a file for reading; anything but a regular file is refused unopened.

    Raises:
        SourceError: If it is missing, cannot be read, or is no regular file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError(f"{path}: {not_a_file(path)}")
        with path.open("rb", buffering=0) as file:
            yield Content(path, file, sha256)
    except FileNotFoundError as err:
        raise SourceError(f"{path}: {not_a_file(path)}") from err
    except (OSError, ValueError) as err:  # ValueError: a null byte in the path
        reason = err.strerror if isinstance(err, OSError) else err
        raise SourceError(f"{path}: cannot be read ({reason})") from err


def _damages() -> tuple[type[Exception], ...]:
    from isal import isal_zlib

    error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stubs err
    return (error,)
