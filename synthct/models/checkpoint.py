"""Checkpoints: found, hashed, checked against their own config, and only then loaded and run.

Nothing but safetensors, JSON and word lists is ever opened, classes come from an allow-list, and no
code that travels with a checkpoint runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from synthct.errors import CheckpointError
from synthct.models.config import ScheduleConfig, TrainingFacts, require
from synthct.models.folder import SUMS, TRAINING, check_folder, read_json
from synthct.models.layout import SCHEDULE
from synthct.models.methods import Diffusion
from synthct.models.network import Network
from synthct.models.networks import all_files
from synthct.models.networks.palette import Palette
from synthct.models.patch import PatchRules
from synthct.storage.hub import COMMIT, HUB_ID, asking_hub

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
        training: Facts of its training (``training.json``); empty where it states none.
        network: The kind of its network.
    """

    name: str
    folder: Path
    revision: str | None
    hashes: Mapping[str, str]
    configs: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Any]
    network: type[Network] = Palette

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        """The noise schedule that the network was trained with."""
        return self.configs["scheduler"]

    @property
    def checkpoint_id(self) -> str:
        """sha256 over the names and hashes of every file used."""
        return checkpoint_id(self.hashes)

    def rules(self, inpaint: Diffusion, labels: Sequence[str | None]) -> PatchRules:
        """The patches that it takes and the labels that it provides.

        Args:
            inpaint: The recipe's section, with no ``checkpoint_settings.setting_problems``.
            labels: What its masks want painted; None for whatever fits.

        Raises:
            CheckpointError: If its config makes no sense, or a package is missing.
        """
        return self.network.rules(self, inpaint, labels)

    def facts(self) -> dict[str, Any]:
        """Name, id, revision and hashes, as a sample's provenance states them."""
        return {
            "checkpoint": self.name,
            "checkpoint_id": self.checkpoint_id,
            "revision": self.revision,
            "files": dict(self.hashes),
        }

    @property
    def trained_on(self) -> frozenset[str]:
        """Voxel hashes of the scans it was trained on, and fingerprints where they are listed."""
        cases, names = self.training.get("cases", []), ("voxel_sha256", "fingerprint")
        return frozenset(case[name] for case in cases for name in names if case.get(name))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint, ready to paint: in float32, in evaluation mode.

    Attributes:
        files: Where it came from.
        components: Its networks and what else was loaded, by name.
    """

    files: CheckpointFiles
    components: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        """A component, such as ``unet``."""
        return self.components[name]


def checkpoint_id(hashes: Mapping[str, str]) -> str:
    """The id of a checkpoint, from its files.

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
    network, hashes = check_folder(folder, name, from_hub=commit is not None)
    configs = {
        component.name: read_json(folder / component.name / "config.json", name)
        for component in network.layout.components
        if component.weights is not None
    }
    if network.layout.has_schedule:
        configs["scheduler"] = read_json(folder / SCHEDULE, name)
        require(name, "scheduler_config.json", configs["scheduler"], ScheduleConfig)
    network.check_configs(name, configs)
    training = read_json(folder / TRAINING, name) if (folder / TRAINING).exists() else {}
    require(name, TRAINING, training, TrainingFacts)
    return CheckpointFiles(
        name=name,
        folder=folder,
        revision=commit,
        hashes=hashes,
        configs=configs,
        training=training,
        network=network,
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
    return Checkpoint(files, files.network.load(files, device))


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
