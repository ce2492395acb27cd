"""Pictures: orientation, affines, and lossless PNG."""

from __future__ import annotations

import io
from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from conftest import oblique_affine
from PIL import Image

from synthct.dataset.png import (
    decode_hu,
    decode_labels,
    decode_mask,
    decode_preview,
    encode_hu,
    encode_labels,
    encode_mask,
    encode_preview,
)
from synthct.errors import VerifyError
from synthct.volume import Array
from synthct.volume.intensity import SOFT_TISSUE
from synthct.volume.views import View, from_picture, picture_affine, to_picture

THICKNESS_AXIS: dict[View, int] = {"axial": 2, "coronal": 1, "sagittal": 0}


def slice_shape(view: View) -> tuple[int, int, int]:
    shape = [5, 7, 9]
    shape[THICKNESS_AXIS[view]] = 1
    return shape[0], shape[1], shape[2]


@pytest.mark.parametrize("view", THICKNESS_AXIS)
def test_picture_can_be_reversed(view: View) -> None:
    array = np.random.default_rng(0).integers(-1024, 3072, slice_shape(view), dtype=np.int16)
    back = from_picture(to_picture(array, view), view)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@pytest.mark.parametrize(
    ("view", "upward", "leftward"),
    [("axial", 1, 0), ("coronal", 2, 0), ("sagittal", 2, 1)],
)
def test_up_is_anterior_or_superior_and_left_is_right_or_anterior(
    view: View, upward: int, leftward: int
) -> None:
    shape = slice_shape(view)
    voxel = np.indices(shape)
    up, left = to_picture(voxel[upward], view), to_picture(voxel[leftward], view)
    assert (np.diff(up, axis=0) == -1).all()
    assert (np.diff(left, axis=1) == -1).all()
    assert up.shape == (shape[upward], shape[leftward])


@pytest.mark.parametrize("view", THICKNESS_AXIS)
def test_picture_affine_gives_each_pixel_the_place_of_its_voxel(view: View) -> None:
    shape = slice_shape(view)
    affine = oblique_affine((0.7, 0.9, 2.5))
    ours = picture_affine(affine, shape, view)
    voxels = np.stack([to_picture(index, view) for index in np.indices(shape)])
    rows, columns = np.indices(voxels.shape[1:])
    by_picture = nib.affines.apply_affine(
        ours, np.stack([rows, columns, np.zeros_like(rows)], axis=-1)
    )
    by_voxel = nib.affines.apply_affine(affine, np.moveaxis(voxels, 0, -1))
    np.testing.assert_allclose(by_picture, by_voxel, atol=1e-9)


@pytest.mark.parametrize("view", THICKNESS_AXIS)
def test_picture_with_its_affine_is_a_volume_in_the_same_place(view: View) -> None:
    shape = slice_shape(view)
    affine = oblique_affine()
    array = np.random.default_rng(1).integers(-1024, 3072, shape, dtype=np.int16)
    picture = to_picture(array, view)[:, :, None]
    image = nib.as_closest_canonical(nib.Nifti1Image(picture, picture_affine(affine, shape, view)))
    assert np.array_equal(np.asarray(image.dataobj), array)
    np.testing.assert_allclose(image.affine, affine, atol=1e-9)


def test_picture_refuses_a_slice_of_another_view() -> None:
    with pytest.raises(ValueError, match=r"coronal.*\(5, 7, 1\)"):
        to_picture(np.zeros((5, 7, 1)), "coronal")


def test_every_hu_survives_the_png() -> None:
    hu = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)
    png = encode_hu(hu)
    assert np.array_equal(decode_hu(png), hu)
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "I;16")
        assert np.array_equal(np.asarray(image).astype(np.int16) - 1024, hu)


def test_hu_outside_of_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"-1025\.\.0"):
        encode_hu(np.array([[-1025, 0]], dtype=np.int16))


def test_same_picture_same_bytes() -> None:
    hu = np.random.default_rng(2).integers(-1024, 3072, (40, 30), dtype=np.int16)
    assert encode_hu(hu) == encode_hu(np.asfortranarray(hu.copy()))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_keep_values_and_type(dtype: type) -> None:
    labels: Array = np.array([[0, 1, 255], [np.iinfo(dtype).max, 3, 4]], dtype=dtype)
    back = decode_labels(encode_labels(labels))
    assert back.dtype == dtype
    assert np.array_equal(back, labels)


def test_mask_is_white_on_black() -> None:
    mask = np.random.default_rng(3).random((9, 8)) > 0.5
    png = encode_mask(mask)
    assert np.array_equal(decode_mask(png), mask)
    assert set(np.unique(decode_labels(png))) == {0, 255}


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 7), (5, 300)])
def test_pictures_of_any_size_are_read_as_they_were_written(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1024, 3072, shape, dtype=np.int16)
    mask, labels = rng.random(shape) < 0.5, rng.integers(0, 2**16, shape, dtype=np.uint16)
    assert np.array_equal(decode_hu(encode_hu(hu)), hu)
    assert np.array_equal(decode_mask(encode_mask(mask)), mask)
    assert np.array_equal(decode_labels(encode_labels(labels)), labels)
    assert np.array_equal(decode_hu(encode_hu(np.asfortranarray(hu))), hu)
    assert decode_preview(encode_preview(hu, SOFT_TISSUE)).shape == (*shape, 3)


def test_preview_outlines_the_mask_without_covering_it() -> None:
    hu = np.full((20, 20), 50, dtype=np.int16)
    hu[:2], hu[-2:] = -1000, 2000
    mask = np.zeros_like(hu, dtype=bool)
    mask[8:12, 8:12] = True
    with Image.open(io.BytesIO(encode_preview(hu, SOFT_TISSUE, mask))) as image:
        rgb = np.asarray(image.convert("RGB")).astype(int)
    coloured = (rgb.max(axis=2) - rgb.min(axis=2)) > 0
    assert coloured.sum() == 6 * 6 - 4 * 4
    assert not coloured[mask].any()
    assert (rgb[0] == 0).all()
    assert (rgb[-1] == 255).all()
    assert (np.abs(rgb[mask] - 127) <= 1).all()


@pytest.mark.parametrize("damage", [lambda b: b[:60], lambda b: b"", lambda b: b[::-1]])
def test_damaged_png_is_named_so(damage: Callable[[bytes], bytes]) -> None:
    png = encode_hu(np.zeros((30, 30), dtype=np.int16))
    with pytest.raises(VerifyError, match=r"cut off|damaged"):
        decode_hu(damage(png))


def test_picture_of_another_kind_is_refused() -> None:
    with pytest.raises(VerifyError, match="mode L"):
        decode_hu(encode_mask(np.zeros((3, 3), dtype=bool)))
    with pytest.raises(VerifyError, match="0 and 255"):
        decode_mask(encode_labels(np.array([[0, 1]], dtype=np.uint8)))
