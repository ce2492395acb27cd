"""The one Hub of a test run: whoever asks for a Hub, here or in a subprocess, gets this one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hub.server import HubServer

#: A token that must never be seen anywhere, and whose it is.
TOKEN, OWNER = "hf_canaryCANARYcanaryCANARYcanary", "jane"

HUB = HubServer()
_HOME = Path(tempfile.mkdtemp(prefix="hub-home-"))


def announce() -> None:
    """Set the environment, before anything imports ``huggingface_hub`` and reads it."""
    if os.environ.get("HF_ENDPOINT") == HUB.url:
        return
    assert "huggingface_hub" not in sys.modules
    os.environ.update(
        HF_ENDPOINT=HUB.url,
        HF_HOME=str(_HOME),
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    os.environ.pop("HF_TOKEN", None)


def forget() -> None:
    """Remove what clients have kept."""
    shutil.rmtree(_HOME, ignore_errors=True)
