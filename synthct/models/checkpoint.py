"""Finding checkpoints, checking and hashing their files, and loading them.

Only safetensors, JSON and word lists are opened, classes come from an allow-list, and no code of a
checkpoint runs.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from synthct.errors import CheckpointError
from synthct.models.config import ScheduleConfig, TrainingFacts, require
from synthct.models.folder import TRAINING, check_folder, download_folder, read_json
from synthct.models.layout import SCHEDULE
from synthct.models.network import Checkpoint, CheckpointFiles
from synthct.models.networks import layouts, network_of
from synthct.storage.hub import HUB_ID

PACKAGE_PREFIX = "package:"


def find_checkpoint(name: str, *, revision: str | None = None) -> CheckpointFiles:
    """Find a checkpoint and hash its files, without loading it.

    Args:
        name: ``package:NAME`` for one that ships with synthct, a folder, or a Hub id.
        revision: Commit, tag or branch of a Hub repository, which a Hub id needs.

    Raises:
        CheckpointError: If it is missing, incomplete or damaged, holds code or pickles in place of
            safetensors, is of an unknown class, or has an invalid config.
        HubError: If the Hub does not deliver it.
    """
    commit = None
    if revision is not None:
        folder, commit = download_folder(name, revision, layouts())
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
    layout, hashes = check_folder(folder, name, layouts(), from_hub=commit is not None)
    network = network_of(layout.class_name)
    assert network is not None, "every layout is that of a network"
    configs = {
        component.name: read_json(folder / component.name / "config.json", name)
        for component in layout.components
        if component.weights is not None
    }
    if layout.has_schedule:
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
    """Load a checkpoint, by name or as found by ``find_checkpoint``.

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
