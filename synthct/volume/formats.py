"""What a file is that was put in the place of a NIfTI file, by its first bytes."""

from __future__ import annotations

import re
import stat
from pathlib import Path

#: Bytes that mark the formats below.
START_BYTES = 352

_CONVERT = "convert it to .nii.gz"
_AGAIN = "fetch the file again"
_UNPACK = "unpack it"

#: Where the magic bytes stand, the bytes, what the file is, and what to do.
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer", "run 'git lfs pull' in its repository"),
    (0, b"/annex/objects/", "a git-annex pointer", "run 'git annex get' or 'datalad get' on it"),
    (0, b"\x1f\x8b", "gzip in gzip, compressed twice", "unzip it once"),
    (0, b"ObjectType", "MetaImage (.mha)", _CONVERT),
    (0, b"NDims", "MetaImage (.mha)", _CONVERT),
    (0, b"NRRD", "NRRD", _CONVERT),
    (128, b"DICM", "DICOM", "use layout 'dicom', or convert its series with dcm2niix"),
    (0, b"\x00\x05\x16\x07", "macOS metadata (AppleDouble, ._ files)", "remove it"),
    (0, b"\x00\x05\x16\x00", "macOS metadata (AppleSingle)", _AGAIN),
    (0, b"PK\x03\x04", "zip", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"BZh", "bzip2", _UNPACK),
    (0, b"\xfd7zXZ\x00", "xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "7z", _UNPACK),
    (0, b"Rar!", "RAR", _UNPACK),
    (0, b"\x89HDF", "HDF5", _CONVERT),
    (0, b"CDF\x01", "MINC", _CONVERT),
    (0, b"MATLAB 5.0", "a MATLAB file", _CONVERT),
    (0, b"\x93NUM", "NumPy", _CONVERT),
    (0, b"\x89PNG", "a PNG picture", "use the scan itself"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "use the scan itself"),
    (0, b"%PDF", "a PDF", _AGAIN),
)
#: Regular expression for the start of a text, what the file is, and what to do.
_TEXTS = (
    (rb"<(!doctype html|html|head|body)", "a web page (HTML)", f"{_AGAIN}, signed in if need be"),
    (rb"<\?xml|<error", "an XML message", f"it is probably a server's error; {_AGAIN}"),
    (rb"[{\[]", "JSON", f"it is probably a server's error; {_AGAIN}"),
    (rb"[\t\n\r\x20-\x7e]{32,}$|[\t\n\r\x20-\x7e]{300,}", "text", _AGAIN),
)


def describe_format(start: bytes) -> str | None:
    """What a file that begins with ``start`` looks like and what to do; None if unknown.

    Args:
        start: The first ``START_BYTES``, fewer of a shorter file; gunzipped where it is gzipped.
    """
    start = start.removeprefix(b"\xef\xbb\xbf")
    for offset, magic, name, remedy in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return f"it looks like {name}, {remedy}"
    text = start.lstrip()
    for pattern, name, remedy in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE):
            return f"it looks like {name}, {remedy}"
    if start and not any(start):
        return f"it begins with zeros only, {_AGAIN}"
    return None


def not_a_file(path: Path) -> str:
    """What stands in the place of a regular file, and what to do."""
    try:
        mode = path.stat().st_mode
    except OSError as err:
        if not path.is_symlink():
            return "no such file" if isinstance(err, FileNotFoundError) else str(err.strerror)
        target = str(path.readlink())
        annexed = "run 'git annex get' or 'datalad get' on it"
        remedy = annexed if "annex/objects/" in target else "fetch that file or remove the link"
        return f"is a link to {target}, which is not there; {remedy}"
    if stat.S_ISDIR(mode):
        inner = ", ".join(sorted(inside.name for inside in path.iterdir())[:3]) or "nothing"
        return f"is a folder, not a file (it holds {inner}); move the file out of it"
    return "is not a regular file"
