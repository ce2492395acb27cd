"""What the sections ``inpaint`` and ``adapt`` of recipes hold."""

from __future__ import annotations

from typing import Any

import pytest

from synthct.models.methods import Diffusion


@pytest.mark.parametrize("how", [{}, {"exclude_unset": True}, {"exclude_defaults": True}])
@pytest.mark.parametrize("stated", [{}, {"grain": "checkpoint"}, {"slice_noise_mm": 0}])
def test_settings_survive_a_dump(stated: dict[str, Any], how: dict[str, Any]) -> None:
    settings = Diffusion(checkpoint="a-folder", **stated)
    assert Diffusion(**settings.model_dump(**how)) == settings


def test_settings_of_the_first_format_are_dumped_as_then() -> None:
    """Their names are part of the identity of datasets, and there was no ``grain``."""
    assert "grain" not in Diffusion(grain="checkpoint").model_dump()
    assert Diffusion().model_dump()["grain"] == "surroundings"


def test_a_card_says_levels_in_words() -> None:
    stated = Diffusion(level_hu={"kidney": 35, "tumor": (30, 90)})
    assert stated.settings()["level_hu"] == "kidney 35, tumor 30 to 90"
