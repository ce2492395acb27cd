"""A generator trained against a discriminator of patches (PatchGAN), in 2D or 3D.

Isola et al., "Image-to-image translation with conditional adversarial networks", 2017: the
discriminator looks at overlapping windows of condition and picture, and the generator's loss is how
real it looks plus a weighted mean absolute error.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from synthct.models.network import CheckpointFiles
from synthct.training.data import Batch
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe

#: Loss of scores against the answer that they should give.
Criterion = Callable[[Tensor, Tensor], Tensor]
cross_entropy: Criterion = nn.functional.binary_cross_entropy_with_logits
least_squares: Criterion = nn.functional.mse_loss

#: Betas of Adam, for both networks.
BETAS = (0.5, 0.999)


class PatchDiscriminator(nn.Module):
    """Scores windows of 70 pixels: five convolutions of 4 pixels, three of them of stride 2.

    Norms are over each sample by itself (instance norms with scale and shift), which batch norms
    are too at the published batch of one.

    Args:
        in_channels: Of condition and picture together.
        dimensions: 2 for pictures, 3 for volumes.
        base_channels: Of the first layer; the next have 2, 4 and 8 times as many.
        slope: Of the leaky ReLUs for negative values.
        dropout: After each convolution of stride 2.
        bias_before_norm: Whether convolutions before a norm have a bias too.
        eps: Of the norms.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dimensions: Literal[2, 3] = 2,
        base_channels: int = 64,
        slope: float = 0.2,
        dropout: float = 0.0,
        bias_before_norm: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dimensions == 2 else nn.Conv3d
        norm = nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d
        drop = nn.Dropout2d if dimensions == 2 else nn.Dropout3d
        channels = [in_channels, *(base_channels * n for n in (1, 2, 4, 8))]
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(pairwise(channels)):
            stride, is_normed = 2 if depth < 3 else 1, depth > 0
            bias = bias_before_norm or not is_normed
            layers.append(conv(before, after, 4, stride, padding=1, bias=bias))
            if is_normed:
                layers.append(norm(after, eps=eps, affine=True))
            layers.append(nn.LeakyReLU(slope))
            if dropout and stride == 2:
                layers.append(drop(dropout))
        layers.append(conv(channels[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, condition: Tensor, picture: Tensor) -> Tensor:
        """Scores, high for real: (B, 1, ...), one for each window."""
        scores: Tensor = self.layers(torch.cat([condition, picture], dim=1))
        return scores


class Adversarial(Objective):
    """A generator and a discriminator, each with an Adam; the discriminator steps first.

    A class of it states ``network`` and says what the networks are, what they are given and what is
    real.

    Attributes:
        criterion: Of the scores: ``cross_entropy`` or ``least_squares``.
        l1_weight: Weight of the mean absolute error in the generator's loss.
    """

    may_collapse = True
    criterion: Criterion = staticmethod(cross_entropy)
    l1_weight: float

    def __init__(self, recipe: TrainingRecipe) -> None:
        """As in ``Objective``."""
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.generator, self.discriminator, self.base = self.make_networks()
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        optim = recipe.optim
        self.optimizers = {
            name: torch.optim.AdamW(
                network.parameters(),
                lr=optim.learning_rate,
                betas=BETAS,
                weight_decay=optim.weight_decay,
            )
            for name, network in self.networks.items()
        }
        self.rules = recipe.rules

    @abstractmethod
    def make_networks(self) -> tuple[nn.Module, nn.Module, CheckpointFiles | None]:
        """Generator, discriminator, and the checkpoint that training starts from, if any."""

    @abstractmethod
    def condition(self, batch: Batch) -> Tensor:
        """What both networks are given: (B, C, ...), nothing of what is masked."""

    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """As in ``Objective``; the discriminator's loss is halved, so it learns at half the pace.

        The mean absolute error is over the whole patch, and so is what the discriminator sees.
        """
        del generator  # its chance is dropout, which the training loop seeds
        condition, real = self.condition(batch), batch["image"]
        painted = nets["generator"](condition)
        # One pass over both, as a network that is wrapped for several processes needs; norms are
        # over each sample by itself.
        pictures = torch.cat([real, painted.detach().to(real.dtype)])
        scores = nets["discriminator"](torch.cat([condition, condition]), pictures)
        on_real, on_painted = scores.chunk(2)
        yield "discriminator", (self._answer(on_real, 1.0) + self._answer(on_painted, 0.0)) / 2
        # The gradient passes through the discriminator without staying in it.
        self.discriminator.requires_grad_(False)
        fooled = self._answer(self.discriminator(condition, painted), 1.0)
        self.discriminator.requires_grad_(True)
        error = (painted.float() - real).abs().mean()
        yield "generator", fooled + self.l1_weight * error

    def validation_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The mean absolute error inside the mask."""
        del generator
        mask = batch["mask"]
        error = (self.generator(self.condition(batch)).float() - batch["image"]).abs()
        return (error * mask).sum() / mask.sum()

    def _answer(self, scores: Tensor, right: float) -> Tensor:
        """The loss of scores that should all say ``right``."""
        return self.criterion(scores.float(), torch.full_like(scores, right, dtype=torch.float32))
