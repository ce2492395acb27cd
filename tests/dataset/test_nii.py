"""Volumes as NIfTI columns: lossless, and nothing beside the voxels."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from conftest import oblique_affine

from synthct.dataset import nii
from synthct.errors import VerifyError

AFFINE = oblique_affine()
HU = np.random.default_rng(0).integers(-1024, 3072, (7, 6, 5)).astype(np.int16)


def test_voxels_and_affine_come_back() -> None:
    labels = (HU % 300).astype(np.uint16)
    assert np.array_equal(nii.decode_hu(nii.encode_hu(HU, AFFINE), AFFINE), HU)
    assert np.array_equal(nii.decode_mask(nii.encode_mask(HU > 0, AFFINE), AFFINE), HU > 0)
    assert np.array_equal(nii.decode_labels(nii.encode_labels(labels, AFFINE), AFFINE), labels)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(nii.encode_hu(HU, AFFINE)))
    assert np.allclose(image.affine, AFFINE, atol=1e-5)
    assert nii.encode_hu(HU, AFFINE) == nii.encode_hu(np.asfortranarray(HU), AFFINE)


def test_what_is_no_hu_is_refused() -> None:
    with pytest.raises(ValueError, match="not within"):
        nii.encode_hu(HU + np.int16(2000), AFFINE)
    with pytest.raises(ValueError, match="uint8 or uint16"):
        nii.encode_labels(HU, AFFINE)


def _text(raw: bytes) -> bytes:
    return raw[:148] + b"Jane Doe" + raw[156:]


def _scaled(raw: bytes) -> bytes:
    return raw[:112] + np.float32(2).tobytes() + raw[116:]


def _floats(raw: bytes) -> bytes:
    image = nibabel.Nifti1Image(HU.astype(np.float32), AFFINE)
    stream = io.BytesIO()
    image.to_stream(stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_text, "header is not that"),
        (_scaled, "header is not that"),
        (_floats, "float32"),
        (lambda raw: raw[:-2], "bytes of voxels"),
        (lambda raw: raw + b"more", "bytes of voxels"),
        (lambda raw: raw[:300], "cut off"),
        (lambda raw: b"", "cut off"),
    ],
)
def test_anything_beside_the_voxels_is_found(
    change: Callable[[bytes], bytes], problem: str
) -> None:
    raw = gzip.decompress(nii.encode_hu(HU, AFFINE))
    with pytest.raises(VerifyError, match=problem):
        nii.decode_hu(gzip.compress(change(raw)), AFFINE)


def test_every_flipped_bit_is_found() -> None:
    data = nii.encode_hu(HU, AFFINE)
    for place in range(0, len(data), 7):
        flipped = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        try:
            assert np.array_equal(nii.decode_hu(flipped, AFFINE), HU)  # gzip's own header
            assert place < 10
        except VerifyError:
            pass
    with pytest.raises(VerifyError, match="cut off"):
        nii.decode_hu(data[:-5], AFFINE)
    with pytest.raises(VerifyError, match="followed"):
        nii.decode_hu(data + data, AFFINE)


def test_another_affine_than_the_columns_is_found() -> None:
    other = AFFINE.copy()
    other[0, 3] += 1
    with pytest.raises(VerifyError, match="affine"):
        nii.decode_hu(nii.encode_hu(HU, AFFINE), other)
    with pytest.raises(VerifyError, match="0 and 1"):
        nii.decode_mask(nii.encode_labels((HU > 0).astype(np.uint8) * 2, AFFINE), AFFINE)
