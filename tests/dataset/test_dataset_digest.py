"""Canonical JSON, sample digests and Merkle roots."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from conftest import oblique_affine

from synthct.dataset.digest import array_digest, canonical_json, merkle_root, sample_digest


def test_the_example_of_rfc_8785() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical_json(value) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@pytest.mark.parametrize(
    ("bits", "text"),
    [  # RFC 8785, appendix B
        (0x0000000000000000, "0"),
        (0x8000000000000000, "0"),
        (0x0000000000000001, "5e-324"),
        (0x7FEFFFFFFFFFFFFF, "1.7976931348623157e+308"),
        (0x4340000000000000, "9007199254740992"),
        (0x44B52D02C7E14AF5, "9.999999999999997e+22"),
        (0x444B1AE4D6E2EF50, "1e+21"),
        (0x444B1AE4D6E2EF4F, "999999999999999900000"),
        (0x3EB0C6F7A0B5ED8D, "0.000001"),
        (0x3EB0C6F7A0B5ED8C, "9.999999999999997e-7"),
        (0x41B3DE4355555557, "333333333.33333343"),
        (0xBECBF647612F3696, "-0.0000033333333333333333"),
    ],
)
def test_numbers_as_ecmascript_spells_them(bits: int, text: str) -> None:
    (number,) = struct.unpack(">d", struct.pack(">Q", bits))
    ours = canonical_json(number)
    assert float(ours) == number
    if abs(number) < 2**53 or abs(number) >= 1e21:
        assert ours == text


def test_keys_are_sorted_by_utf16_units() -> None:
    text = canonical_json({"\ufb33": 1, "\U0001f600": 2, "a": 3})
    assert text == '{"a":3,"\U0001f600":2,"\ufb33":1}'


def test_big_seeds_keep_all_digits() -> None:
    assert json.loads(canonical_json({"seed": 2**63 - 1})) == {"seed": 2**63 - 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [1, float("nan")]}}, r"a\.b\[1\] is nan"),
        ({"a": float("inf")}, "a is inf"),
        ({"a": np.int64(1)}, "a is a int64"),
        ({"a": np.zeros(2)}, "a is a ndarray"),
        ({"a": {1: 2}}, "a has the key 1"),
        (["\ud800"], "not valid Unicode"),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canonical_json(value)


def test_array_digest_ignores_memory_layout_and_byte_order() -> None:
    array = np.arange(12, dtype="<i2").reshape(3, 4)
    same = array_digest(array)
    assert array_digest(np.asfortranarray(array)) == same
    assert array_digest(array.astype(">i2")) == same
    assert array_digest(array.reshape(4, 3)) != same
    assert array_digest(array.astype(np.uint16)) != same


def digest_of(**changes: Any) -> str:
    content: dict[str, Any] = {
        "image": np.arange(12, dtype=np.int16).reshape(3, 4),
        "mask": np.eye(3, 4, dtype=bool),
        "labels": np.ones((3, 4), dtype=np.uint8),
        "affine": oblique_affine(),
        "provenance": {"seed": 1, "draw": {"x_mm": 1.5}},
    }
    return sample_digest(**{**content, **changes})


def test_sample_digest_changes_with_all_that_is_content() -> None:
    changed = [
        digest_of(),
        digest_of(image=np.arange(1, 13, dtype=np.int16).reshape(3, 4)),
        digest_of(mask=np.zeros((3, 4), dtype=bool)),
        digest_of(labels=np.zeros((3, 4), dtype=np.uint8)),
        digest_of(affine=oblique_affine((0.8, 0.8, 2.6))),
        digest_of(provenance={"seed": 2, "draw": {"x_mm": 1.5}}),
    ]
    assert len(set(changed)) == len(changed)


def test_sample_digest_leaves_out_how_it_went() -> None:
    told = {"draw": {"x_mm": 1.5}, "seed": 1, "versions": {"torch": "9"}, "metrics": {"seam": 1.1}}
    assert digest_of(provenance=told) == digest_of()
    assert digest_of(labels=np.ones((3, 4), dtype=np.uint16)) == digest_of()


def test_merkle_root_is_that_of_rfc_6962() -> None:
    def leaf(data: bytes) -> bytes:
        return hashlib.sha256(b"\x00" + data).digest()

    def node(left: bytes, right: bytes) -> bytes:
        return hashlib.sha256(b"\x01" + left + right).digest()

    data = [bytes([n]) * 32 for n in range(5)]
    a, b, c, d, e = map(leaf, data)
    assert merkle_root([]) == hashlib.sha256().hexdigest()
    assert merkle_root([data[0].hex()]) == a.hex()
    whole = node(node(node(a, b), node(c, d)), e)
    assert merkle_root(x.hex() for x in data) == whole.hex()
    assert merkle_root(x.hex() for x in data[::-1]) != whole.hex()
