"""Loading the weights of a network: exactly the tensors that its config describes.

A missing, extra or NaN tensor is an error; diffusers accepts them.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.config import OF_DIFFUSERS
from synthct.models.network import CheckpointFiles

Network = TypeVar("Network", bound=nn.Module)

#: The current name of a stored tensor; None for one that is obsolete.
Rename = Callable[[str], str | None]


def load_network(
    files: CheckpointFiles, component: str, network: type[Network], device: str
) -> Network:
    """Load a network of diffusers, channels last unless it says otherwise.

    Args:
        files: The checkpoint.
        component: Its name in the checkpoint.
        network: Its class.
        device: Where it runs.

    Raises:
        CheckpointError: If the weights are not exactly those that the config describes.
    """
    blank = build_from_config(files.name, network, files.configs[component])
    weights = f"{component}/diffusion_pytorch_model.safetensors"
    loaded = fill(blank, files.name, files.folder, weights, files.hashes[weights], _current_name)
    memory_format = getattr(network, "memory_format", torch.channels_last)
    return loaded.to(device, memory_format=memory_format)  # type: ignore[call-overload]


def _current_name(tensor: str) -> str:
    """Rename attention tensors of checkpoints older than diffusers 0.17."""
    old = _OLD_ATTENTION.fullmatch(tensor)
    return tensor if old is None else f"{old[1]}.{_ATTENTION[old[2]]}.{old[3]}"


_OLD_ATTENTION = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def build(name: str, build_network: Callable[[], Network]) -> Network:
    """Build a network on the meta device, where it takes no memory before its weights are checked.

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
        CheckpointError: If the config describes no such network, or has a key that the installed
            diffusers would ignore.
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
        sha256: Their hash.
        rename: From stored to current names.

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
    renamed: dict[str, Any] = {}
    for tensor, value in tensors.items():
        current = rename(tensor)
        if current is None:
            continue
        if current in renamed:
            raise CheckpointError(f"checkpoint '{name}': tensor {current} is there twice")
        renamed[current] = value
    return renamed


def _require_shapes(
    name: str, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse weights of another network, before any of them is read."""
    for tensor in sorted(expected.keys() | stored.keys()):
        want, have = expected.get(tensor), stored.get(tensor)
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
