"""What generators share that fill a hole in one pass, in 2D and 3D.

(B, 1, H, W) stands for (B, 1, H, W, D) as well, where D counts slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synthct.models.config import PatchFields, require_declared
from synthct.models.pipeline import InpaintPipeline


class Generator:
    """A network from a patch with a hole, the mask and a plane for each label to the whole patch.

    Its chance is dropout, which is kept when it paints.
    """

    config: Any
    training: bool
    #: Of its weights.
    memory_format = torch.channels_last

    def condition(self, image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        """The input of the generator.

        Args:
            image: (B, 1, H, W) in -1..1; values inside the mask have no influence.
            mask: (B, 1, H, W); 1 where the model paints.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``labels[n]``.

        Returns:
            (B, 2 + labels, H, W): the patch with 0 in its hole, the mask, and the mask again in the
            plane of its label.
        """
        known = (mask <= 0.5).to(image.dtype)
        planes = nn.functional.one_hot(label, 1 + len(self.config.labels))[:, 1:]
        planes = planes.reshape(*planes.shape, *(1,) * (mask.ndim - 2))
        return torch.cat([image * known, mask, mask * planes.to(mask.dtype)], dim=1)

    def drop(self, x: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        """Dropout from a generator on the CPU per sample; without them torch's, in training."""
        share = self.config.dropout
        if generators is None:
            return nn.functional.dropout(x, share, self.training)
        drawn = torch.stack([torch.rand(x.shape[1:], generator=one) for one in generators])
        return x * (drawn >= share).to(x.device, x.dtype) / (1 - share)


class GeneratorPipeline(InpaintPipeline):
    """Inpaints CT patches with a ``Generator``, in one pass.

    It works on tensors in -1..1; ``synthct.inpaint`` paints scans in HU.

    Attributes:
        fields: Those of the generator's config.
    """

    fields: ClassVar[type[PatchFields]]

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.register_modules(generator=generator)

    @classmethod
    def check_config(cls, name: str, config: Mapping[str, Any]) -> None:
        """As in ``InpaintPipeline``."""
        require_declared(name, "generator/config.json", config, cls.fields)

    def paint(self, condition: Tensor, mask: Tensor, generator: list[torch.Generator]) -> Tensor:
        """A patch of which only what is masked counts."""
        del mask
        painted: Tensor = self.generator(condition, generator)
        return painted

    @torch.no_grad()
    def __call__(
        self, image: Tensor, mask_image: Tensor, label: Tensor, generator: list[torch.Generator]
    ) -> Tensor:
        """Paint a batch.

        Args:
            image: (B, 1, H, W) in -1..1; values inside the mask have no influence.
            mask_image: (B, 1, H, W); 1 where the model paints, 0 elsewhere.
            label: (B,) int64; 0 for whatever fits, n + 1 for ``generator.config.labels[n]``.
            generator: One CPU generator per sample, so that its dropout does not depend on the
                others in the batch.

        Returns:
            (B, 1, H, W) in -1..1, equal to ``image`` outside the mask; NaN where the network
            overflowed.
        """
        condition = self.generator.condition(image, mask_image, label)
        painted = self.paint(condition, mask_image, generator).to(image.dtype)
        return torch.where(mask_image > 0.5, painted, image)
