"""Codecs: known answers, and the stated bound of the error on the way to the model and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from synthct.volume.intensity import (
    BONE,
    FULL_RANGE,
    LUNG,
    PRESETS,
    SOFT_TISSUE,
    Knots,
    Window,
    parse_codec,
    window_for,
)

Codec = Window | Knots
CT_HU = np.arange(-1024, 3072, dtype=np.int16)
CODECS: list[Codec] = [
    *PRESETS.values(),
    Window(level_hu=37.5, width_hu=81),
    Window(level_hu=1023.5, width_hu=4095),
    Knots(hu=(-1000, -200, 300, 2000), x=(-1, -0.5, 0.9, 1)),
]
every_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)


def in_range(codec: Codec) -> Any:
    return CT_HU[~codec.clipped(CT_HU)]


@pytest.mark.parametrize(
    ("window", "low", "high"),
    [(SOFT_TISSUE, -150, 250), (LUNG, -1350, 150), (BONE, -500, 1300)],
)
def test_windows_map_their_limits_to_the_ends_and_their_level_to_zero(
    window: Window, low: float, high: float
) -> None:
    assert window.range_hu == (low, high)
    hu = np.array([low, window.level_hu, high, low - 1, high + 1, -1024, 3071])
    assert window.encode(hu)[:5].tolist() == [-1, 0, 1, -1, 1]
    assert window.clipped(hu)[:5].tolist() == [False, False, False, True, True]


@every_codec
def test_whole_hu_survive_the_round_trip_within_the_stated_bound(codec: Codec) -> None:
    hu = in_range(codec)
    back = codec.decode(codec.encode(hu))
    assert np.abs(back - hu).max() < 0.01
    assert np.array_equal(np.rint(back).astype(np.int16), hu)


@every_codec
def test_model_values_survive_the_round_trip(codec: Codec) -> None:
    x = np.linspace(-1, 1, 4001, dtype=np.float32)
    hu = codec.decode(x)
    assert np.abs(codec.decode(codec.encode(hu)) - hu).max() < 0.01
    assert codec.encode(hu) == pytest.approx(x, abs=1e-4)


@every_codec
def test_codecs_rise_and_stay_within_minus_one_and_one(codec: Codec) -> None:
    x = codec.encode(CT_HU)
    assert x.dtype == np.float32
    assert x.min() >= -1
    assert x.max() <= 1
    assert (np.diff(codec.encode(in_range(codec)).astype(np.float64)) > 0).all()
    assert (np.diff(x) >= 0).all()


@every_codec
def test_values_beyond_the_range_are_clipped_and_reported(codec: Codec) -> None:
    low, high = codec.range_hu
    x = np.array([-5.0, -1.0, 1.0, 5.0])
    assert codec.decode(x) == pytest.approx([low, low, high, high], abs=1e-3)
    back = codec.decode(codec.encode(CT_HU))
    clipped = codec.clipped(CT_HU)
    assert np.abs(back - np.clip(CT_HU, low, high)).max() < 0.01
    assert np.array_equal(clipped, (low > CT_HU) | (high < CT_HU))


def test_the_full_range_codec_spans_ct_and_keeps_soft_tissue_contrast() -> None:
    assert not FULL_RANGE.clipped(CT_HU).any()
    soft_tissue = np.array([-150, 250])
    assert np.diff(FULL_RANGE.encode(soft_tissue)) == pytest.approx(1.5)
    raw = Window(level_hu=1023.5, width_hu=4095)
    assert np.diff(raw.encode(soft_tissue)) < 1.5 / 7


@every_codec
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_any_shape_and_type_encodes_alike(codec: Codec, dtype: Any) -> None:
    hu = CT_HU[:24]
    x = codec.encode(hu.reshape(2, 3, 4).astype(dtype))
    assert x.shape == (2, 3, 4)
    assert np.array_equal(x.ravel(), codec.encode(hu))
    assert codec.decode(x).shape == x.shape


def test_encoding_leaves_its_input_alone() -> None:
    hu = CT_HU.copy()
    x = SOFT_TISSUE.encode(hu)
    before = x.copy()
    SOFT_TISSUE.decode(x)
    assert np.array_equal(hu, CT_HU)
    assert np.array_equal(x, before)


@every_codec
def test_codecs_survive_their_own_fields(codec: Codec) -> None:
    assert parse_codec(codec.model_dump()) == codec


def test_presets_are_found_by_name_and_unknown_names_list_them() -> None:
    assert parse_codec("lung") is LUNG
    with pytest.raises(
        ValueError, match=r"'brain' is unknown.*soft_tissue, lung, bone, full_range"
    ):
        parse_codec("brain")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "window", "level_hu": 50, "width_hu": 0},
        {"kind": "window", "level_hu": 50, "width_hu": -400},
        {"kind": "window", "level_hu": 50, "width_hu": float("inf")},
        {"kind": "window", "level_hu": float("nan"), "width_hu": 400},
        {"kind": "window", "level_hu": 50, "width_hu": 400, "center": 1},
        {"kind": "window", "level_hu": 50},
        {"kind": "gamma", "level_hu": 50},
        {"kind": "knots", "hu": (0, 1), "x": (-1, 0, 1)},
        {"kind": "knots", "hu": (0,), "x": (-1,)},
        {"kind": "knots", "hu": (0, 0, 5), "x": (-1, 0, 1)},
        {"kind": "knots", "hu": (0, 3, 5), "x": (-1, 1, 1)},
        {"kind": "knots", "hu": (0, 3, 5), "x": (-1, 0, 0.9)},
        {"kind": "knots", "hu": (0, float("nan"), 5), "x": (-1, 0, 1)},
    ],
)
def test_fields_that_make_no_codec_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parse_codec(fields)


def test_codecs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        SOFT_TISSUE.level_hu = 40  # type: ignore[misc]


@pytest.mark.parametrize("codec", [None, FULL_RANGE])
@pytest.mark.parametrize(
    ("label", "under_hu", "window"),
    [
        ("kidney", 40.0, SOFT_TISSUE),
        ("kidney", None, SOFT_TISSUE),
        (None, None, SOFT_TISSUE),
        (None, -150.0, SOFT_TISSUE),
        (None, 250.0, SOFT_TISSUE),
        (None, -151.0, LUNG),
        ("tumor", -800.0, LUNG),
        ("lung", -800.0, LUNG),
        ("lung", 40.0, LUNG),
        ("lung_upper_lobe_left", None, LUNG),
        (None, 700.0, BONE),
    ],
)
def test_the_window_follows_from_the_label_and_from_what_is_under_the_mask(
    label: str | None, under_hu: float | None, window: Window, codec: Codec | None
) -> None:
    assert window_for(label, under_hu, codec) == window


def test_a_model_that_paints_in_a_window_is_judged_in_it() -> None:
    narrow = Window(level_hu=40, width_hu=80)
    assert window_for("lung", -800.0, narrow) == narrow
