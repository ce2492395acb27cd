"""Loading a checkpoint: found, hashed, checked against its own config, and only then run.

Nothing but safetensors and JSON is ever opened, classes come from an allow-list, and no code that
travels with a checkpoint runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthct.errors import CheckpointError, HubError
from synthct.models.config import NetworkConfig, ScheduleConfig, TrainingFacts, require
from synthct.models.folder import FILES, SUMS, TRAINING, WEIGHTS, check_folder, read_json

if TYPE_CHECKING:
    from synthct.models.palette import PaletteUNet

PACKAGE_PREFIX = "package:"
#: A Hub id: owner and name.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint on disk whose files are there and hashed, but not yet loaded.

    Attributes:
        name: As the user wrote it; never a path of this machine.
        folder: Where it lies.
        revision: The Hub commit, if it came from there.
        hashes: sha256 of each file.
        config: The network's config.
        scheduler_config: The noise schedule it was trained with.
        training: What it was trained on (``training.json``), empty if it does not say.
    """

    name: str
    folder: Path
    revision: str | None
    hashes: Mapping[str, str]
    config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    training: Mapping[str, Any]

    @property
    def checkpoint_id(self) -> str:
        """sha256 over the names and hashes of every file used."""
        return checkpoint_id(self.hashes)

    @property
    def trained_on(self) -> frozenset[str]:
        """Voxel hashes of the scans it was trained on."""
        cases = self.training.get("cases", [])
        return frozenset(c["voxel_sha256"] for c in cases if c.get("voxel_sha256"))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded network, ready to paint.

    Attributes:
        files: Where it came from.
        unet: The network in float32, in evaluation mode.
    """

    files: CheckpointFiles
    unet: PaletteUNet = field(repr=False)

    @property
    def config(self) -> Mapping[str, Any]:
        """The network's config: labels, codecs, patch sizes, spacing range."""
        return self.files.config


def checkpoint_id(hashes: Mapping[str, str]) -> str:
    """What a checkpoint is called by its files.

    Args:
        hashes: sha256 of every file used, by name.
    """
    text = "\n".join(f"{name} {hashes[name]}" for name in sorted(hashes))
    return hashlib.sha256(b"synthct/checkpoint/v1\0" + text.encode()).hexdigest()


def find_checkpoint(name: str, *, revision: str | None = None) -> CheckpointFiles:
    """Find a checkpoint and hash its files, without loading it.

    Args:
        name: ``package:NAME`` for one that ships with synthct, a folder, or a Hub id.
        revision: Commit, tag or branch on the Hub, which a Hub id needs; resolved to a commit
            once.

    Raises:
        CheckpointError: If it is missing, incomplete, damaged, holds code or pickles in place of
            safetensors, is not of a class that synthct runs, or says of itself what cannot be.
        HubError: If the Hub does not deliver it.
    """
    commit = None
    if revision is not None:
        folder, commit = _from_hub(name, revision)
    elif name.startswith(PACKAGE_PREFIX):
        folder = _packaged(name)
    elif Path(name).is_dir():
        folder = Path(name)
        name = folder.resolve().name
    elif HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"checkpoint '{name}': no such folder; if it is a Hub repository, it needs a revision "
            "(a commit or tag), so that it stays the same"
        )
    else:
        raise CheckpointError(
            f"checkpoint '{name}' is neither a folder nor 'package:NAME' nor a Hub id 'owner/name'"
        )
    hashes = check_folder(folder, name, from_hub=commit is not None)
    config = read_json(folder / "unet/config.json", name)
    require(name, "unet/config.json", config, NetworkConfig)
    schedule = read_json(folder / "scheduler/scheduler_config.json", name)
    require(name, "scheduler_config.json", schedule, ScheduleConfig)
    training = read_json(folder / TRAINING, name) if (folder / TRAINING).exists() else {}
    require(name, TRAINING, training, TrainingFacts)
    return CheckpointFiles(
        name=name,
        folder=folder,
        revision=commit,
        hashes=hashes,
        config=config,
        scheduler_config=schedule,
        training=training,
    )


def load_checkpoint(
    name: str | CheckpointFiles, *, revision: str | None = None, device: str = "cpu"
) -> Checkpoint:
    """Load a network whose tensors are exactly those that its config describes.

    diffusers itself loads a checkpoint with a tensor missing, extra or NaN without a word; here
    each is an error.

    Raises:
        CheckpointError: If a tensor is missing, extra, of another shape or type, or not finite,
            or if the weights are not those that were hashed.
    """
    import torch
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    from synthct.models.palette import PaletteUNet
    from synthct.patch import PatchRules

    files = find_checkpoint(name, revision=revision) if isinstance(name, str) else name
    rules = PatchRules.from_config(files.config)
    try:
        # Without memory: the shapes suffice, and a wrong config cannot ask for too much.
        with torch.device("meta"):
            unet = PaletteUNet.from_config(dict(files.config))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as err:
        raise CheckpointError(f"checkpoint '{files.name}': its config is wrong ({err})") from err
    odd = [n for n in rules.patch_sizes if n % unet.size_multiple]
    if odd:
        raise CheckpointError(
            f"checkpoint '{files.name}': its config is wrong (patch_sizes {odd} are not multiples "
            f"of {unet.size_multiple})"
        )
    expected = unet.state_dict()
    try:
        with safe_open(files.folder / WEIGHTS, framework="pt") as stored:
            shapes = {n: tuple(stored.get_slice(n).get_shape()) for n in stored.keys()}  # noqa: SIM118
        _require_shapes(files.name, {n: tuple(t.shape) for n, t in expected.items()}, shapes)
        raw = (files.folder / WEIGHTS).read_bytes()
        tensors = load(raw)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(f"checkpoint '{files.name}': {WEIGHTS} is damaged ({err})") from err
    if hashlib.sha256(raw).hexdigest() != files.hashes[WEIGHTS]:
        raise CheckpointError(f"checkpoint '{files.name}': {WEIGHTS} changed after it was checked")
    for tensor, values in tensors.items():
        if not values.is_floating_point():
            raise CheckpointError(
                f"checkpoint '{files.name}': tensor {tensor} is {values.dtype}, not a "
                "floating-point type"
            )
        if not torch.isfinite(values.float()).all():
            raise CheckpointError(f"checkpoint '{files.name}': tensor {tensor} is not finite")
    unet.load_state_dict({n: t.float() for n, t in tensors.items()}, assign=True)
    unet.to(device, memory_format=torch.channels_last)
    return Checkpoint(files, unet.eval().requires_grad_(False))


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


def _packaged(name: str) -> Path:
    short = name.removeprefix(PACKAGE_PREFIX)
    root = Path(str(resources.files("synthct"))) / "checkpoints"
    names = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    if short not in names:
        raise CheckpointError(
            f"checkpoint '{name}' does not ship with synthct "
            f"(there is: {', '.join(names) or 'none'})"
        )
    return root / short


def _from_hub(name: str, revision: str) -> tuple[Path, str]:
    """Download the files of a checkpoint at one commit; a branch or tag is resolved once."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError, RevisionResolutionError  # type: ignore[attr-defined]

    if not HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"checkpoint '{name}' is no Hub id 'owner/name', but a revision is given; remove it"
        )
    allowed = [*FILES, TRAINING, SUMS, "README.md"]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=allowed))
    except (OSError, ValueError, HTTPError, RevisionResolutionError) as err:
        raise HubError(
            f"checkpoint '{name}' at revision '{revision}': the Hub did not deliver it ({err}); "
            "check both names and the connection, and log in if it is private"
        ) from err
    return folder, folder.name  # a snapshot's folder is named after its commit
