"""What networks share that ``synthct train`` makes to fill a hole in one pass, in 2D and in 3D."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint
from synthct.models.networks.trained import Trained
from synthct.models.patch import Patch

if TYPE_CHECKING:
    from torch import Tensor

    from synthct.models.generator import GeneratorPipeline


class OnePass(Trained):
    """A ``GeneratorPipeline``; dropout is its only chance."""

    takes_steps = False
    part = "generator"

    @staticmethod
    @abstractmethod
    def classes() -> tuple[type[Any], type[GeneratorPipeline]]:
        """The classes of its generator and of its pipeline."""

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        """As in ``Network``."""
        del inpaint, prompts
        self.pipeline = self.classes()[1](checkpoint["generator"])
        self.device = next(checkpoint["generator"].parameters()).device

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Network``."""
        import torch

        from synthct.models.painting.tensors import as_tensors

        image, mask, generators = as_tensors(patches, seeds, self.device)
        label = torch.tensor([p.label for p in patches], device=self.device)
        painted: Tensor = self.pipeline(image, mask, label, generators)
        return painted[:, 0]

    def probe(self, size: int) -> None:
        """As in ``Network``."""
        import torch

        generator = self.pipeline.generator
        depth = getattr(generator.config, "depth", None)
        sides = (size, size) if depth is None else (size, size, depth)
        generator(torch.zeros((1, generator.in_channels, *sides), device=self.device))
