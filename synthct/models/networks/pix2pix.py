"""Painting with a Pix2Pix generator: one pass, and dropout as its only chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synthct.models.methods import Diffusion, MethodWords
from synthct.models.network import Checkpoint, CheckpointFiles, Network
from synthct.models.patch import Patch, PatchRules
from synthct.models.pix2pix_config import LAYOUT, Pix2PixSection, check_config

if TYPE_CHECKING:
    from torch import Tensor


class Pix2Pix(Network):
    """A ``Pix2PixInpaintPipeline``."""

    layout = LAYOUT
    section = Pix2PixSection
    takes_steps = False
    words = MethodWords(
        "a generative adversarial network has painted",
        "the picture is synthetic",
        "a generative adversarial network (Pix2Pix) painted the region from its surroundings on "
        "the scan's own grid (the column `provenance` says where it had to be resampled)",
    )

    @classmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """As in ``Network``."""
        check_config(name, configs["generator"])

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        """As in ``Network``; the checkpoint declares them."""
        del inpaint, labels
        return PatchRules.from_config(files.configs["generator"])

    @classmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        """As in ``Network``."""
        from synthct.models.pix2pix import Pix2PixGenerator
        from synthct.models.weights import load_network

        return {"generator": load_network(files, "generator", Pix2PixGenerator, device)}

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        """As in ``Network``."""
        from synthct.models.pix2pix import Pix2PixInpaintPipeline

        del inpaint, prompts
        self.pipeline = Pix2PixInpaintPipeline(checkpoint["generator"])
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
        generator(torch.zeros((1, generator.in_channels, size, size), device=self.device))
