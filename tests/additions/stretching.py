"""An objective as somebody would add it: what trains the membrane."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from synthct.models.networks.membrane import Membrane  # type: ignore[import-not-found]
from synthct.models.patch import PatchRules
from synthct.training.data import Batch
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe


class Stretching(Objective):
    """One weight."""

    network = Membrane

    def __init__(self, recipe: TrainingRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.networks = {"tension": nn.Linear(1, 1)}
        self.optimizers = {"tension": torch.optim.SGD(self.networks["tension"].parameters())}
        self.rules = PatchRules.from_config(recipe.model.model_dump())

    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        yield "tension", nets["tension"](batch["image"].mean()[None]).square().sum()

    def validation_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return next(loss for _, loss in self.losses(self.networks, batch, generator))

    def pipeline(self) -> DiffusionPipeline:
        raise NotImplementedError
