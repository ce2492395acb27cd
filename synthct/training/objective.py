"""The interface of what is trained: one class per kind of network.

An objective holds networks and optimisers by name and computes their losses. The training loop,
moving averages, states, validation and checkpoints work on these names alone.
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
    """The networks of a training, their optimisers and their losses.

    Attributes:
        network: The kind of network that the checkpoint will be.
        may_collapse: Whether a training can end in networks that are worth nothing though their
            loss is finite; such ones are not written as a checkpoint (``Validation.collapse``).
        varies: Whether another seed gives another painting.
        networks: What is trained, by name; each is saved in states and has a moving average.
        optimizers: By name, in the order of their steps. A group of parameters may have a ``pace``,
            by which the recipe's learning rate is multiplied.
        base: The checkpoint that training starts from, if any.
        rules: The patches that the networks take.
    """

    network: ClassVar[type[Network]]
    may_collapse: ClassVar[bool] = False
    varies: bool = True

    networks: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    base: CheckpointFiles | None = None
    rules: PatchRules

    @abstractmethod
    def __init__(self, recipe: TrainingRecipe) -> None:
        """Initialise networks and optimisers from the recipe's seed.

        Raises:
            CheckpointError: If the checkpoint that training starts from does not fit.
            PolicyError: If the recipe states a looser licence than that checkpoint has.
        """

    @abstractmethod
    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """Compute the losses of a batch, one after the other.

        After each one, the optimiser named takes its step and its gradients are set to zero before
        the next loss is computed. A loss must not leave gradients in parameters of other
        optimisers.

        Args:
            nets: ``networks``, wrapped for several processes if there are several.
            batch: Patches, on the device of the networks.
            generator: On the CPU, so that a batch's noise is the same on every device.

        Yields:
            Name of an optimiser and the loss that it minimises.
        """

    @abstractmethod
    def validation_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss that is reported and that early stopping may use."""

    @abstractmethod
    def pipeline(self) -> DiffusionPipeline:
        """The pipeline that is saved and paints."""
