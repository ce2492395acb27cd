"""Identities of content: canonical JSON, digests of samples, and the Merkle root of a dataset.

All hashes are SHA-256 under a prefix of their own, so no value of one kind can pass for another.
A digest names decoded content: it does not change with compression, file layout, library
versions, or how fast a sample was made.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.volume import Affine

#: Top-level keys of a provenance that describe the run or judge the result, not the content.
NOT_CONTENT = frozenset(
    {"dataset", "metrics", "numerics", "preview", "review", "sample_digest", "versions"}
)

#: Strings in JSON.
_QUOTED = json.JSONEncoder(ensure_ascii=False)

#: What ``sample_digest`` hashes, and how; part of each digest.
SAMPLE_SCHEME = "synthct/sample/v1"


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: RFC 8785 (sorted keys, ES6 numbers, no white space).

    Whole numbers of any size keep all of their digits (the RFC would make them doubles).

    Raises:
        ValueError: If the value holds something that is not JSON, such as NaN or an array; says
            where.
    """
    return _canonical(value, "")


def array_digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 in hex of an array's type, shape and little-endian, C-ordered values."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    head = canonical_json({"dtype": little.dtype.str, "shape": list(little.shape)})
    hasher = hashlib.sha256(b"synthct/array/v1\0" + head.encode() + b"\0")
    hasher.update(little.reshape(-1).data)  # not copied: of volumes, it is large
    return hasher.hexdigest()


def sample_digest(
    image: npt.NDArray[np.int16],
    mask: npt.NDArray[np.bool_],
    labels: npt.NDArray[Any],
    affine: Affine,
    provenance: Mapping[str, Any],
) -> str:
    """SHA-256 in hex of what a sample is: voxels, geometry, and how it came about.

    Args:
        image: HU (rows, columns), as pictured.
        mask: The painted region (rows, columns).
        labels: Label values (rows, columns); digested as uint16 whatever their type.
        affine: (4, 4) of the picture.
        provenance: JSON-able; the top-level keys ``NOT_CONTENT`` are left out.
    """
    content = {
        "affine": array_digest(affine.astype(np.float64) + 0.0),
        "image": array_digest(image.astype(np.int16)),
        "label_map": array_digest(labels.astype(np.uint16)),
        "mask": array_digest(mask.astype(np.uint8)),
        "provenance": content_of(provenance),
    }
    return hashlib.sha256(f"{SAMPLE_SCHEME}\0{canonical_json(content)}".encode()).hexdigest()


def content_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What of a provenance counts for a digest: all but ``NOT_CONTENT``."""
    return {key: value for key, value in provenance.items() if key not in NOT_CONTENT}


def merkle_root(digests: Iterable[str]) -> str:
    """Root in hex of the Merkle tree (RFC 6962) over sample digests, in the order of the plan."""
    level = [_leaf(bytes.fromhex(digest)) for digest in digests]
    return _root(level).hex()


def _root(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256().digest()
    level = list(leaves)
    while len(level) > 1:
        # an odd one moves up as it is, which gives RFC 6962's unbalanced tree
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs] + odd
    return level[0]


def _leaf(digest: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + digest).digest()


def _canonical(value: Any, where: str) -> str:
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return _string(value, where)
        case int():
            return str(int(value))
        case float():
            return _number(float(value), where)
        case Mapping():
            return _object(value, where)
        case list() | tuple():
            items = (_canonical(item, f"{where}[{n}]") for n, item in enumerate(value))
            return f"[{','.join(items)}]"
    raise ValueError(f"{where or 'the value'} is a {type(value).__name__}, which is not JSON")


def _object(value: Mapping[Any, Any], where: str) -> str:
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{where or 'the value'} has the key {key!r}, which is no string")
    parts = [
        f"{_string(key, where)}:{_canonical(value[key], f'{where}.{key}'.lstrip('.'))}"
        for key in sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    ]
    return f"{{{','.join(parts)}}}"


def _string(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise ValueError(f"{where or 'the value'} is not valid Unicode: {value!r}") from err
    return _QUOTED.encode(value)


def _number(value: float, where: str) -> str:
    """A double as ECMAScript spells it: shortest digits, exponents below 1e-6 and from 1e21."""
    if not math.isfinite(value):
        raise ValueError(f"{where or 'the value'} is {value}, which JSON cannot express")
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e-")
    if not exponent:
        return mantissa
    if int(exponent) > 6:
        return f"{mantissa}e-{int(exponent)}"
    sign, digits = ("-" if value < 0 else ""), mantissa.lstrip("-").replace(".", "")
    return f"{sign}0.{'0' * (int(exponent) - 1)}{digits}"
