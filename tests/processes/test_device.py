"""Networks run on a GPU where there is one, unless the user says otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from synthct.errors import ResourceError
from synthct.processes.device import choose_device
from synthct.processes.join import join_group


@pytest.mark.parametrize(("has_gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_default_is_what_is_there(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device(None) == device
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_told_before_any_work() -> None:
    with pytest.raises(ResourceError, match="--device nonsense: "), join_group("nonsense"):
        pytest.fail("no work")


def test_a_single_process_that_paints_nothing_waits_for_no_torch() -> None:
    code = (
        "import sys\nfrom synthct.processes.join import join_group\n"
        "with join_group() as group: assert group.is_first\n"
        "assert not {'torch', 'accelerate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
