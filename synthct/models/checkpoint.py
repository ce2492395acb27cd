"""Loading a checkpoint: found, hashed, checked against its own config, and only then run.

Nothing but safetensors, JSON and word lists is ever opened, classes come from an allow-list, and no
code that travels with a checkpoint runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthct.errors import CheckpointError
from synthct.models.config import NetworkConfig, ScheduleConfig, TrainingFacts, require
from synthct.models.folder import SUMS, TRAINING, check_folder, read_json
from synthct.models.foreign import require_foreign
from synthct.models.layout import PALETTE, SCHEDULE, TEXT, UNCONDITIONAL, Layout, all_files
from synthct.storage.hub import COMMIT, HUB_ID, asking_hub

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

    from synthct.models.palette import PaletteUNet
    from synthct.models.text import TextModel

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint on disk whose files are there and hashed, but not yet loaded.

    Attributes:
        name: As the user wrote it; never a path of this machine.
        folder: Where it lies.
        revision: The Hub commit, if it came from there.
        hashes: sha256 of each file.
        configs: The config of each component; of the scheduler, the noise schedule that the
            network was trained with.
        training: What it was trained on (``training.json``), empty if it does not say.
        layout: Which pipeline it is.
    """

    name: str
    folder: Path
    revision: str | None
    hashes: Mapping[str, str]
    configs: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    layout: Layout = PALETTE

    @property
    def config(self) -> Mapping[str, Any]:
        """The U-Net's config; of a checkpoint of synthct, also what patches it takes."""
        return self.configs["unet"]

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The noise schedule that the network was trained with."""
        return self.configs["scheduler"]

    @property
    def checkpoint_id(self) -> str:
        """sha256 over the names and hashes of every file used."""
        return checkpoint_id(self.hashes)

    @property
    def trained_on(self) -> frozenset[str]:
        """Voxel hashes of the scans it was trained on, and fingerprints where they are listed."""
        cases, names = self.training.get("cases", []), ("voxel_sha256", "fingerprint")
        return frozenset(case[name] for case in cases for name in names if case.get(name))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Loaded networks, ready to paint: in float32, in evaluation mode.

    Attributes:
        files: Where they came from.
        unet: What predicts the noise; of the class that the layout says.
        vae: Between pixels and latents; None where the network sees pixels.
        text: What reads prompts; None where nothing is told by text.
    """

    files: CheckpointFiles
    unet: PaletteUNet | UNet2DModel | UNet2DConditionModel = field(repr=False)
    vae: AutoencoderKL | None = field(default=None, repr=False)
    text: TextModel | None = field(default=None, repr=False)

    @property
    def config(self) -> Mapping[str, Any]:
        """The U-Net's config."""
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
    layout, hashes = check_folder(folder, name, from_hub=commit is not None)
    configs = {
        component.name: read_json(folder / component.name / "config.json", name)
        for component in layout.components
        if component.weights is not None
    }
    configs["scheduler"] = read_json(folder / SCHEDULE, name)
    if layout == PALETTE:
        require(name, "unet/config.json", configs["unet"], NetworkConfig)
    require(name, "scheduler_config.json", configs["scheduler"], ScheduleConfig)
    require_foreign(name, layout, configs)
    training = read_json(folder / TRAINING, name) if (folder / TRAINING).exists() else {}
    require(name, TRAINING, training, TrainingFacts)
    return CheckpointFiles(
        name=name,
        folder=folder,
        revision=commit,
        hashes=hashes,
        configs=configs,
        training=training,
        layout=layout,
    )


def load_checkpoint(
    name: str | CheckpointFiles, *, revision: str | None = None, device: str = "cpu"
) -> Checkpoint:
    """Load networks whose tensors are exactly those that their configs describe.

    Raises:
        CheckpointError: If a tensor is missing, extra, of another shape or type, or not finite,
            if the weights are not those that were hashed, or if what reads text is not installed.
    """
    files = find_checkpoint(name, revision=revision) if isinstance(name, str) else name
    if files.layout == TEXT:
        return _load_text(files, device)
    if files.layout == UNCONDITIONAL:
        from diffusers import UNet2DModel

        return Checkpoint(files, _load(files, "unet", UNet2DModel, device))
    return Checkpoint(files, _load_palette(files, device))


def _load_text(files: CheckpointFiles, device: str) -> Checkpoint:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from synthct.models.text import load_text_model

    return Checkpoint(
        files,
        unet=_load(files, "unet", UNet2DConditionModel, device),
        vae=_load(files, "vae", AutoencoderKL, device),
        text=load_text_model(
            files.name, files.folder, files.hashes, files.configs["text_encoder"], device
        ),
    )


def _load_palette(files: CheckpointFiles, device: str) -> PaletteUNet:
    from synthct.models.palette import PaletteUNet
    from synthct.models.patch import PatchRules
    from synthct.models.weights import build_from_config

    rules = PatchRules.from_config(files.config)
    multiple = build_from_config(files.name, PaletteUNet, files.config).size_multiple
    if odd := [n for n in rules.patch_sizes if n % multiple]:
        raise CheckpointError(
            f"checkpoint '{files.name}': its config is wrong (patch_sizes {odd} are not multiples "
            f"of {multiple})"
        )
    return _load(files, "unet", PaletteUNet, device)


def _load(files: CheckpointFiles, component: str, network: type[Any], device: str) -> Any:
    """One network of diffusers."""
    import torch

    from synthct.models.weights import build_from_config, fill

    blank = build_from_config(files.name, network, files.configs[component])
    weights = f"{component}/diffusion_pytorch_model.safetensors"
    filled = fill(blank, files.name, files.folder, weights, files.hashes[weights], _todays_name)
    return filled.to(device, memory_format=torch.channels_last)


def _todays_name(tensor: str) -> str:
    """How diffusers calls a tensor since 0.17; published autoencoders and DDPMs are older."""
    old = _OLD_ATTENTION.fullmatch(tensor)
    return tensor if old is None else f"{old[1]}.{_ATTENTION[old[2]]}.{old[3]}"


_OLD_ATTENTION = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _packaged(name: str) -> Path:
    short = name.removeprefix(PACKAGE_PREFIX)
    root = Path(str(resources.files("synthct.models"))) / "checkpoints"
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

    if not HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"checkpoint '{name}' is no Hub id 'owner/name', but a revision is given; remove it"
        )
    allowed = [*all_files(), TRAINING, SUMS, "README.md"]
    with asking_hub(f"checkpoint '{name}' at revision '{revision}'"):
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=allowed))
        commit = folder.name  # a snapshot's folder is named after its commit
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"it calls a commit '{commit}'")
    return folder, commit
