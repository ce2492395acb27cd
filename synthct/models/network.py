"""The door between networks and what builds, checks and publishes: one class per kind of network.

A checkpoint's ``model_index.json`` names the class (``networks.NETWORKS``). What is known from the
files alone is asked of the class; an instance is a loaded checkpoint that paints. Nothing outside
``models/`` knows which class it is. Implementations import torch inside their functions, since
recipes are checked without it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from synthct.models.config import PatchFields
from synthct.models.layout import Layout
from synthct.models.methods import DIFFUSION_WORDS, REPAINT, Diffusion, MethodWords
from synthct.models.patch import Patch, PatchRules

if TYPE_CHECKING:
    import torch


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
    network: type[Network]

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
            inpaint: The recipe's section, which ``declared.unfit`` has nothing against.
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


class Misfit(NamedTuple):
    """A setting of a recipe that does not go with its checkpoint.

    Attributes:
        key: Where, below the recipe's section ``inpaint``; empty for the section itself.
        message: What is wrong and what to do.
    """

    key: tuple[str, ...]
    message: str


class Network(ABC):
    """A kind of network; an instance is a loaded checkpoint and how it is to paint.

    Attributes:
        layout: The files and classes of its pipeline.
        settings: The settings of ``inpaint`` that it takes beside those of every checkpoint.
        packages: Packages that it needs beside those of every build; named in the lock.
        numeric_packages: Those of them on whose version the low bits depend.
        section: The section ``model`` of the training recipes that make such checkpoints; None
            where ``synthct train`` makes none, which are neither published nor trained further.
        words: What a dataset's card says of its paintings.
        device: Where the loaded network is.
        passes: Passes of the network for one batch.
    """

    layout: ClassVar[Layout]
    settings: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    numeric_packages: ClassVar[tuple[str, ...]] = ()
    section: ClassVar[type[PatchFields] | None] = None
    words: ClassVar[MethodWords] = DIFFUSION_WORDS

    device: torch.device
    passes: int = 1

    @classmethod
    @abstractmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse configs that describe no network that can be painted with.

        Args:
            name: The checkpoint's name.
            configs: The config of each component, and of the scheduler if there is one.

        Raises:
            CheckpointError: With the first key that is wrong, and why.
        """

    @classmethod
    def misfits(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> Iterator[Misfit]:
        """Settings that do not go with a checkpoint, or that it needs and that are missing.

        Args:
            files: The checkpoint.
            inpaint: The recipe's section.
            labels: What its masks want painted; None for whatever fits.
        """
        del labels
        if inpaint.scheduler == REPAINT:
            yield Misfit(
                ("scheduler",),
                f"'{REPAINT}' is for unconditional models, and {described(files)}; choose "
                "another, such as dpmsolver++",
            )

    @classmethod
    @abstractmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        """The patches that a checkpoint takes and the labels that it provides.

        Args:
            files: The checkpoint.
            inpaint: The recipe's section, for which ``misfits`` has none.
            labels: What its masks want painted; None for whatever fits.

        Raises:
            CheckpointError: If the config makes no sense, or a package is missing.
        """

    @classmethod
    @abstractmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        """The components with their weights, by name, in evaluation mode.

        Raises:
            CheckpointError: If the weights are not exactly those that the configs describe.
        """

    @abstractmethod
    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        """Prepare to paint.

        Args:
            checkpoint: Of this kind.
            inpaint: How it is to paint.
            prompts: What to say for each label, whatever fits first; None for nothing.

        Raises:
            CheckpointError: If the checkpoint cannot paint like that.
        """

    @abstractmethod
    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> torch.Tensor:
        """Paint patches of one size and strength together.

        A sample's bits may depend on the shape of the batch, but not on its place or companions.

        Args:
            patches: The patches.
            seeds: Seeds of the noise, one per patch.

        Returns:
            (B, S, S) in -1..1, equal to the images outside of the masks; NaN where the network or
            the scheduler overflowed.
        """

    @abstractmethod
    def probe(self, size: int) -> None:
        """One pass of the network on an empty patch, to measure how long it takes."""


def described(files: CheckpointFiles) -> str:
    """The beginning of a message about a checkpoint and the kind of its network."""
    return f"checkpoint '{files.name}' is {files.network.layout.what}"
