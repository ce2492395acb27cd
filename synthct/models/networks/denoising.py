"""What networks share that ``synthct train`` makes to inpaint by diffusion, in 2D and in 3D."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from synthct.errors import CheckpointError
from synthct.models.denoiser_config import DenoiserConfig
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint, CheckpointFiles, Misfit
from synthct.models.networks.trained import Trained
from synthct.models.patch import Patch

if TYPE_CHECKING:
    from torch import Tensor

    from synthct.models.denoiser import DiffusionInpaintPipeline


class Denoising(Trained):
    """A ``DiffusionInpaintPipeline`` and how it is to paint.

    Attributes:
        config: The fields of its network.
    """

    part = "unet"
    settings = ("level_hu",)
    config: ClassVar[type[DenoiserConfig]]

    @staticmethod
    @abstractmethod
    def classes() -> tuple[type[Any], type[DiffusionInpaintPipeline]]:
        """The classes of its network and of its pipeline."""

    @classmethod
    def misfits(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> Iterator[Misfit]:
        """As in ``Network``; levels beyond what a label's codec can express, too."""
        for label, (low, high) in inpaint.levels.items():
            least, greatest = cls.rules(files, inpaint, labels).codec(label).range_hu
            if low < least or high > greatest:
                message = (
                    f"the checkpoint paints '{label}' within {least:g} to {greatest:g} HU; "
                    f"{low if low < least else high:g} is outside of it"
                )
                yield Misfit(("level_hu", label), message)
        yield from super().misfits(files, inpaint, labels)

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        """As in ``Network``."""
        from synthct.models.painting.schedulers import (
            make_scheduler,
            require_levels,
            require_steps,
        )

        del prompts
        unet, scheduler, steps = checkpoint["unet"], inpaint.scheduler, inpaint.num_inference_steps
        stated = inpaint.guidance_scale
        if stated not in (None, 1) and unet.null_label is None:
            raise CheckpointError(
                f"checkpoint '{checkpoint.files.name}' was trained without label_dropout and "
                f"cannot be guided; set guidance_scale to 1, not {stated:g}"
            )
        sampler = make_scheduler(scheduler, checkpoint.files.scheduler_config)
        require_steps(sampler, scheduler, steps)
        if unet.trained_steps is not None:
            require_levels(sampler, scheduler, unet.trained_steps)
        self.steps = steps
        self.device = next(unet.parameters()).device
        self.pipeline = self.classes()[1](unet, sampler)
        scales = unet.config.guidance.values() if stated is None else (stated,)
        self.passes = len(sampler.timesteps) * (2 if any(scale != 1 for scale in scales) else 1)

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        """As in ``Network``."""
        import torch

        from synthct.models.painting.tensors import (
            as_tensors,
            level_tensor,
            neighbours_tensor,
            noise_tensor,
        )

        image, mask, generators = as_tensors(patches, seeds, self.device)
        painted: Tensor = self.pipeline(
            image=image,
            mask_image=mask,
            label=torch.tensor([p.label for p in patches], device=self.device),
            spacing_mm=torch.tensor([p.spacing_mm for p in patches]).to(self.device),
            generator=generators,
            num_inference_steps=self.steps,
            strength=patches[0].strength,
            guidance_scale=patches[0].guidance_scale,
            neighbours=neighbours_tensor(patches, self.device),
            noise=noise_tensor(patches, self.device),
            level=level_tensor(patches, self.device),
        )
        return painted[:, 0]

    def probe(self, size: int) -> None:
        """As in ``Network``."""
        import torch

        depth = getattr(self.pipeline.unet.config, "depth", None)
        sides = (size, size) if depth is None else (size, size, depth)
        blank = torch.zeros((1, 1, *sides), device=self.device)
        label = torch.zeros(1, dtype=torch.int64, device=self.device)
        spacing = torch.ones((1, len(sides)), device=self.device)
        self.pipeline.unet(blank, label, blank, blank, label, spacing)
