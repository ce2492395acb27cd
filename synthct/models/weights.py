"""Building one network of a checkpoint, with exactly the tensors that its config describes.

diffusers itself loads a checkpoint with a tensor missing, extra or NaN without a word; here each
is an error.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.config import OF_DIFFUSERS

Network = TypeVar("Network", bound=nn.Module)

#: What a tensor of that name is called today; None for what is a tensor no longer.
Rename = Callable[[str], str | None]


def build(name: str, build_network: Callable[[], Network]) -> Network:
    """A network without memory: its shapes suffice to check weights, and cannot ask for too much.

    Args:
        name: The checkpoint's name.
        build_network: Makes it from its config.

    Raises:
        CheckpointError: If the config describes no network.
    """
    try:
        with torch.device("meta"):
            return build_network()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as err:
        raise CheckpointError(f"checkpoint '{name}': its config is wrong ({err})") from err


def build_from_config(name: str, network: type[Network], config: Mapping[str, Any]) -> Network:
    """A network of diffusers, from its config.

    Raises:
        CheckpointError: If the config describes no such network, or says what this version of
            diffusers does not know, and would pass over.
    """
    known = inspect.signature(network.__init__).parameters
    if unknown := sorted(config.keys() - known - OF_DIFFUSERS):
        raise CheckpointError(
            f"checkpoint '{name}': its config is wrong ({network.__name__} knows no "
            f"'{unknown[0]}' in the installed diffusers)"
        )
    return build(name, lambda: network.from_config(dict(config)))  # type: ignore[attr-defined]


def fill(
    network: Network,
    name: str,
    folder: Path,
    weights: str,
    sha256: str,
    rename: Rename = lambda tensor: tensor,
) -> Network:
    """Give a network its weights, in float32.

    Args:
        network: From ``build``.
        name: The checkpoint's name.
        folder: Its folder.
        weights: The safetensors in it.
        sha256: Of these.
        rename: How its tensors are called today.

    Raises:
        CheckpointError: If a tensor is missing, extra, of another shape or type, or not finite,
            or if the weights are not those that were hashed.
    """
    expected = {n: tuple(t.shape) for n, t in network.state_dict().items()}
    try:
        with safe_open(folder / weights, framework="pt") as stored:
            shapes = {n: tuple(stored.get_slice(n).get_shape()) for n in stored.keys()}  # noqa: SIM118
        _require_shapes(name, expected, _renamed(name, shapes, rename))
        raw = (folder / weights).read_bytes()
        tensors = _renamed(name, load(raw), rename)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(f"checkpoint '{name}': {weights} is damaged ({err})") from err
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise CheckpointError(f"checkpoint '{name}': {weights} changed after it was checked")
    for tensor, values in tensors.items():
        _require_numbers(name, tensor, values)
    network.load_state_dict({n: t.float() for n, t in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _renamed(name: str, tensors: Mapping[str, Any], rename: Rename) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tensor, value in tensors.items():
        today = rename(tensor)
        if today is None:
            continue
        if today in found:
            raise CheckpointError(f"checkpoint '{name}': tensor {today} stands there twice")
        found[today] = value
    return found


def _require_shapes(
    name: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse weights of another network, before any of them is read."""
    for tensor in sorted(expected.keys() | found.keys()):
        want, have = expected.get(tensor), found.get(tensor)
        if want != have:
            raise CheckpointError(
                f"checkpoint '{name}': tensor {tensor} is {have}, the config expects {want}"
            )


def _require_numbers(name: str, tensor: str, values: Tensor) -> None:
    if not values.is_floating_point():
        raise CheckpointError(
            f"checkpoint '{name}': tensor {tensor} is {values.dtype}, not a floating-point type"
        )
    if not torch.isfinite(values.float()).all():
        raise CheckpointError(f"checkpoint '{name}': tensor {tensor} is not finite")
