"""A lesion in other sizes stays in its place."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from conftest import make_tiny_case

from synthct.errors import MaskError
from synthct.masks.base import Mask, make_mask
from synthct.masks.resize import resized
from synthct.volume.case import Case


@pytest.fixture(scope="module")
def host() -> Case:
    return make_tiny_case()


def tumor(host: Case) -> Mask:
    region = host.labels.array == host.label_names["tumor"]
    return make_mask(host, region, (0, 0, 0), "tumor", {})


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.0, 2.0, 3.0])
def test_the_volume_is_the_factors_to_a_voxel(host: Case, factor: float) -> None:
    mask = tumor(host)
    voxels = np.count_nonzero(mask.region.array)
    other = resized(mask, host, factor)
    assert np.count_nonzero(other.region.array) == round(voxels * factor)
    assert other.label == "tumor"


def test_sizes_contain_each_other(host: Case) -> None:
    sizes = [resized(tumor(host), host, f).in_host(host.labels.shape) for f in (0.4, 1, 1.5, 2.5)]
    for small, large in pairwise(sizes):
        assert (large | ~small).all()


def test_it_grows_neither_into_air_nor_into_what_it_does_not_touch(host: Case) -> None:
    mask = tumor(host)
    grown = resized(mask, host, 4).in_host(host.labels.shape)
    new = grown & ~mask.in_host(host.labels.shape)
    assert host.scan().array[new].min() > -300
    touched = np.unique(host.labels.array[mask.in_host(host.labels.shape)])
    assert set(np.unique(host.labels.array[new])) <= {0, *touched.tolist()}


def test_no_room_and_nothing_left_are_told(host: Case) -> None:
    with pytest.raises(MaskError, match="choose another volume_factor"):
        resized(tumor(host), host, 1e-6)
    with pytest.raises(MaskError, match="cannot have 5000"):
        resized(tumor(host), host, 5000)


def test_label_values_go_along(host: Case) -> None:
    mask = tumor(host)
    values = np.where(mask.region.array, 7, 0).astype(np.uint8)
    own = Mask(mask.region, mask.box, None, {}, values)
    other = resized(own, host, 2)
    assert other.values is not None
    assert (other.values[other.region.array] == 7).all()
