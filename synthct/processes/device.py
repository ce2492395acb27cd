"""Where networks run."""

from __future__ import annotations

from synthct.errors import ResourceError


def choose_device(wanted: str | None) -> str:
    """The device that networks run on, as torch names it.

    By default ``cuda`` where torch sees a GPU, else ``cpu``. Apple's ``mps`` is used only if named,
    since torch does not promise the same bits twice there.

    Args:
        wanted: ``--device``; None if it was not given.

    Raises:
        ResourceError: If the named device cannot be used.
    """
    if wanted == "cpu":  # is always there; importing torch takes seconds
        return wanted
    import torch

    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError) as err:  # torch raises either
        reason = str(err).split("\n")[0]
        raise ResourceError(f"--device {wanted}: {reason}; use cpu, or another device") from err
    return wanted
