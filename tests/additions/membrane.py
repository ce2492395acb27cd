"""A network as somebody would add it: fills masks smoothly, with a little noise, by no weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from synthct.models.config import PatchFields
from synthct.models.layout import Layout
from synthct.models.methods import Diffusion, MethodWords
from synthct.models.network import Checkpoint, CheckpointFiles, Network
from synthct.models.patch import Patch, PatchRules
from synthct.volume.intensity import SOFT_TISSUE

if TYPE_CHECKING:
    import torch


class MembraneSection(PatchFields):
    """The section ``model`` of a training recipe."""

    kind: Literal["membrane"] = "membrane"


class Membrane(Network):
    """Has neither weights, steps nor a scheduler."""

    section = MembraneSection
    layout = Layout("MembranePipeline", "a membrane", (), has_schedule=False)
    packages = ("pydantic",)
    words = MethodWords("a membrane has filled", "it is smooth", "a membrane was stretched over it")

    @classmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        assert configs == {}

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        return PatchRules(("kidney", "tumor"), {"default": SOFT_TISSUE}, (32,), (0.01, 100.0))

    @classmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        return {}

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        import torch

        self.device = torch.device("cpu")

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> torch.Tensor:
        import torch

        from synthct.models.denoiser import smooth_fill
        from synthct.models.painting.tensors import as_tensors

        image, mask, generators = as_tensors(patches, seeds, self.device)
        noise = torch.stack([torch.randn(image.shape[1:], generator=g) for g in generators])
        filled = smooth_fill(image, 1 - mask) + 0.05 * noise
        return torch.where(mask > 0.5, filled.clamp(-1, 1), image)[:, 0]

    def probe(self, size: int) -> None:
        pass
