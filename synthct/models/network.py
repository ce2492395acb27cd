"""The interface of networks that paint, and the checkpoint that one is loaded from.

There is one class per kind of network, chosen by the pipeline in a checkpoint's
``model_index.json`` (``networks.NETWORKS``). Its class methods answer what is known from the files
alone; an instance is a loaded checkpoint that paints. Nothing outside ``models/`` knows which class
it is. Implementations import torch inside functions, since recipes are checked without it.
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
from synthct.models.methods import (
    DIFFUSION_WORDS,
    NO_SCHEDULER,
    ONE_PASS,
    REPAINT,
    Diffusion,
    MethodWords,
)
from synthct.models.patch import Patch, PatchRules

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CheckpointFiles:
    """A checkpoint on disk: checked and hashed, but not loaded.

    Attributes:
        name: As in the recipe; for a folder only its last part.
        folder: Where it is.
        revision: The Hub commit, if it came from there.
        hashes: sha256 of each file that painting depends on.
        configs: The config of each component, and the noise schedule as ``scheduler``.
        training: ``training.json``; empty if there is none.
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
        """sha256 over the names and hashes of its files."""
        return checkpoint_id(self.hashes)

    def facts(self) -> dict[str, Any]:
        """Name, id, revision and hashes, as in the provenance of a sample."""
        return {
            "checkpoint": self.name,
            "checkpoint_id": self.checkpoint_id,
            "revision": self.revision,
            "files": dict(self.hashes),
        }

    @property
    def trained_on(self) -> frozenset[str]:
        """Voxel hashes and fingerprints of the scans it was trained on, as far as it lists them."""
        cases, names = self.training.get("cases", []), ("voxel_sha256", "fingerprint")
        return frozenset(case[name] for case in cases for name in names if case.get(name))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint, in float32 and evaluation mode.

    Attributes:
        files: Where it came from.
        components: Networks and other parts of the pipeline, by name.
    """

    files: CheckpointFiles
    components: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        """A component, such as ``unet``."""
        return self.components[name]


def checkpoint_id(hashes: Mapping[str, str]) -> str:
    """The id of a checkpoint from the sha256 of each of its files, by name."""
    text = "\n".join(f"{name} {hashes[name]}" for name in sorted(hashes))
    return hashlib.sha256(b"synthct/checkpoint/v1\0" + text.encode()).hexdigest()


class Misfit(NamedTuple):
    """A setting of a recipe that does not go with its checkpoint.

    Attributes:
        key: Its place below the recipe's section ``inpaint``; empty for the section itself.
        message: What is wrong and what to do.
    """

    key: tuple[str, ...]
    message: str


class Network(ABC):
    """A kind of network; an instance is a loaded checkpoint with its sampler.

    The methods take a checkpoint's ``files``, the recipe's section ``inpaint``, and the ``labels``
    that its masks are to be painted with (None for whatever fits).

    Attributes:
        layout: The files and classes of its pipeline.
        settings: The optional settings of ``inpaint`` that it takes.
        packages: Further packages that it needs; named in the lock.
        numeric_packages: Those of them on whose version low bits depend.
        section: The section ``model`` of the training recipes that make such checkpoints; None for
            networks that are neither trained nor published here.
        takes_steps: Whether it paints by a schedule; if not, in one pass.
        words: How a dataset's card describes its paintings.
        takes_noise: Whether it starts from the noise of a patch, where that has some.
        device: Where the loaded network is.
        passes: Forward passes per batch.
    """

    layout: ClassVar[Layout]
    settings: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    numeric_packages: ClassVar[tuple[str, ...]] = ()
    section: ClassVar[type[PatchFields] | None] = None
    takes_steps: ClassVar[bool] = True
    words: ClassVar[MethodWords] = DIFFUSION_WORDS
    takes_noise: ClassVar[bool] = False

    device: torch.device
    passes: int = 1

    @classmethod
    @abstractmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """Validate the configs of the checkpoint ``name``; see ``CheckpointFiles.configs``.

        Raises:
            CheckpointError: With the first key that is wrong, and why.
        """

    @classmethod
    def misfits(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> Iterator[Misfit]:
        """Settings that do not go with the checkpoint, and required ones that are missing."""
        del labels
        if not cls.takes_steps:
            for key, only in ONE_PASS.items():
                if key in inpaint.model_fields_set and getattr(inpaint, key) not in (None, only):
                    message = f"{described(files)}, which paints in one pass; remove {key}"
                    yield Misfit((key,), message)
            return
        if inpaint.scheduler == NO_SCHEDULER:
            message = f"{described(files)}, which paints in steps; choose one, such as dpmsolver++"
            yield Misfit(("scheduler",), message)
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
        """The patches that the checkpoint takes and the labels that it provides.

        ``inpaint`` must have no ``misfits``.

        Raises:
            CheckpointError: If the config makes no sense, or a package is missing.
        """

    @classmethod
    @abstractmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        """Load the components by name, in evaluation mode.

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
            inpaint: Scheduler, steps, guidance and so on.
            prompts: The prompt of each label, whatever fits first; None for no prompt.

        Raises:
            CheckpointError: If the checkpoint cannot paint with these settings.
        """

    @abstractmethod
    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> torch.Tensor:
        """Paint patches of one size, strength and scale of guidance.

        The bits of a sample may depend on the shape of the batch, but not on its other samples.

        Args:
            patches: B of them.
            seeds: Of the noise, one per patch.

        Returns:
            (B, S, S) in -1..1, equal to the images outside the masks; NaN where the network or the
            scheduler overflowed.
        """

    @abstractmethod
    def probe(self, size: int) -> None:
        """One forward pass on an empty patch, to measure its duration."""


def described(files: CheckpointFiles) -> str:
    """The beginning of a message about a checkpoint: its name and its kind of network."""
    return f"checkpoint '{files.name}' is {files.network.layout.what}"
