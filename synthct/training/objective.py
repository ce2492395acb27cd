"""The door between networks and what trains them: one class per kind of network.

An objective has the networks and their optimisers, by name, and says what each is to minimise.
Steps, running means, states, validation and release work on these names alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch.optim import Optimizer

from synthct.models.network import CheckpointFiles, Network
from synthct.models.patch import PatchRules
from synthct.training.data import Batch

if TYPE_CHECKING:
    from synthct.training.recipe import TrainingRecipe


class Objective(ABC):
    """What is trained, and towards what.

    Attributes:
        network: The kind of network, as it paints when it is finished.
        networks: What is trained, by name; all are saved in states and have a running mean.
        optimizers: The optimisers of their parameters, by name, in the order of their steps.
        base: The checkpoint that training starts from, if any.
        rules: The patches that it takes.
    """

    network: ClassVar[type[Network]]

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    base: CheckpointFiles | None = None
    rules: PatchRules

    @abstractmethod
    def __init__(self, recipe: TrainingRecipe) -> None:
        """Make networks and optimisers, all random numbers from the recipe's seed.

        Raises:
            CheckpointError: If the checkpoint that training starts from does not fit.
            PolicyError: If the recipe states a looser licence than that checkpoint has.
        """

    @abstractmethod
    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """The losses of a batch, one after the other.

        Before the next one is asked for, the optimiser named has taken its step and the gradients
        of all its parameters are zero again. A loss may not leave gradients in parameters of other
        optimisers.

        Args:
            nets: ``networks``, wrapped for several processes where there are several.
            batch: Patches, on the device of the networks.
            generator: On the CPU, so that a batch's noise is the same on every device.

        Yields:
            Name of an optimiser and the loss that it is to lower.
        """

    @abstractmethod
    def validation_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss that is reported and by which training may stop early."""

    @abstractmethod
    def pipeline(self) -> DiffusionPipeline:
        """What is saved and paints: the finished networks and their noise schedule, if any."""
