"""Validation on held-out slices: the loss, and the measures of painted tissue.

The same masks are painted with the same noise each time, so that only the weights differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from synthct.metrics.error import mean_absolute_error, mean_error
from synthct.metrics.seam import pooled_seam_ratio, seam_steps
from synthct.metrics.texture import texture_ratio
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint, CheckpointFiles
from synthct.models.painting import Inpainter
from synthct.models.patch import Patch
from synthct.models.region import paste
from synthct.seeds import derive_seed, generator
from synthct.training.data import Batch
from synthct.training.draw import MaskedSlice
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe
from synthct.volume import HU_MAX, HU_MIN, Volume
from synthct.volume.intensity import window_for

FloatArray = npt.NDArray[np.float32]

#: Noise levels per patch at which the loss is taken.
LEVELS = 4

#: Slices that are painted twice to find out whether a generator has collapsed, the least mean
#: difference between the two (in -1..1), and the greatest error (a quarter of the range).
LOOKED_AT, LEAST_DIVERSITY, GREATEST_ERROR = 6, 1e-4, 0.5


#: Standard deviation of normal noise over its median absolute deviation.
MAD_TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class Measures:
    """The measures of a validation; those in HU are taken on the scan's grid.

    Attributes:
        loss: Mean over the patches, at fixed noise.
        mae_hu: Mean absolute error of the painted voxels.
        mean_error_hu: Mean over the masks of the absolute error of the mean.
        seam_ratio: Steps across the masks' borders, painted over original.
        texture_ratio: Median over the masks of the texture, painted over original.
    """

    loss: float
    mae_hu: float
    mean_error_hu: float
    seam_ratio: float
    texture_ratio: float

    def as_json(self) -> dict[str, float | None]:
        """Rounded to five decimals; None for a measure that is not finite."""
        return {
            name: round(value, 5) if math.isfinite(value) else None
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, float | None]) -> Measures:
        """The inverse of ``as_json``."""
        return cls(**{name: math.nan if v is None else v for name, v in values.items()})


class Validation:
    """Paints held-out slices and measures the result.

    Args:
        recipe: Scheduler, steps and seed.
        slices: What is painted.
        batch_size: Patches of 128 pixels painted together.
    """

    def __init__(
        self, recipe: TrainingRecipe, slices: Sequence[MaskedSlice], batch_size: int = 8
    ) -> None:
        self.recipe, self.slices, self.batch_size = recipe, slices, batch_size

    def measure(self, objective: Objective) -> Measures:
        """Measure networks that are in evaluation mode."""
        pasted = [
            paste(one.plane, one.region, one.patches, painted)
            for one, painted in zip(self.slices, self.paint(objective, self.slices), strict=True)
        ]
        return replace(measure_painted(self.slices, pasted), loss=self.loss(objective))

    def noise_fill(self) -> Measures:
        """What a network has to beat: noise of the level and the spread of what each mask hides.

        They are known only here, so it is closer than the control ``noise_fill`` can be, which has
        them from elsewhere in the scan: by median and median deviation, which are those of the
        tissue where vessels or a border are in the mask. Its loss is NaN.
        """
        return measure_painted(
            self.slices,
            [
                _filled(one, generator(self.recipe.seed, "noise-fill", str(n)))
                for n, one in enumerate(self.slices)
            ],
        )

    @torch.no_grad()
    def loss(self, objective: Objective) -> float:
        """The mean loss of the patches, at fixed noise levels."""
        device = next(next(iter(objective.networks.values())).parameters()).device
        patches = [patch for one in self.slices for patch in one.patches]
        losses = []
        for number, patch in enumerate(patches):
            seed = derive_seed(self.recipe.seed, "validation-loss", str(number))
            batch = {k: v.to(device) for k, v in _batch(patch, LEVELS).items()}
            generator = torch.Generator().manual_seed(seed)
            with torch.autocast(device.type, torch.bfloat16, self.recipe.precision == "bfloat16"):
                losses.append(float(objective.validation_loss(batch, generator)))
        return float(np.mean(losses))

    def collapse(self, objective: Objective) -> str | None:
        """Why networks in evaluation mode are worth nothing; None if nothing says so.

        They are if their paintings do not change with the seed although the network has chance, or
        are far from the tissue and further than the mid-grey of an empty hole is.

        Raises:
            MaskError: If they paint values that are not finite.
        """
        slices = self.slices[:LOOKED_AT]
        masked = [patch for one in slices for patch in one.patches]
        first, second = (
            [p for one in self.paint(objective, slices, stream) for p in one]
            for stream in ("validation", "diversity")
        )
        inside = [patch.mask for patch in masked]
        real, once, again = (
            np.concatenate([image[mask] for image, mask in zip(images, inside, strict=True)])
            for images in ([patch.image for patch in masked], first, second)
        )
        diversity = float(np.abs(once - again).mean())
        if objective.varies and diversity < LEAST_DIVERSITY:
            return f"it paints the same whatever its noise (mean difference {diversity:.1e})"
        error, empty = float(np.abs(once - real).mean()), float(np.abs(real).mean())
        if error > max(GREATEST_ERROR, empty):
            return f"its error {error:.2f} is greater than that of an empty hole, {empty:.2f}"
        return None

    def paint(
        self, objective: Objective, slices: Sequence[MaskedSlice], stream: str = "validation"
    ) -> list[list[FloatArray]]:
        """Paint the patches of each slice: float32 in -1..1, of their shape."""
        validation = self.recipe.validation
        inpaint = Diffusion(
            scheduler=validation.scheduler if validation else "dpmsolver++",
            num_inference_steps=self.recipe.painting_steps,
            batch_size=self.batch_size,
            dtype=self.recipe.precision,
        )
        checkpoint = as_checkpoint(objective, self.recipe.name)
        inpainter = Inpainter(checkpoint, inpaint, objective.rules.labels)
        patches = [patch for one in slices for patch in one.patches]
        seeds = [derive_seed(self.recipe.seed, stream, str(n)) for n in range(len(patches))]
        painted = iter(inpainter.paint(patches, seeds))
        return [[next(painted) for _ in one.patches] for one in slices]


def measure_painted(slices: Sequence[MaskedSlice], painted: Sequence[Volume]) -> Measures:
    """The measures of painted slices; the loss is NaN.

    Args:
        slices: The slices with their masks.
        painted: HU of each, on the same grid.
    """
    errors, mean_errors, textures, seams = [], [], [], []
    for one, after in zip(slices, painted, strict=True):
        before, mask = one.plane.array, one.region.array
        compared: Any = (before, after.array, mask, range_of(one))
        errors.append(mean_absolute_error(*compared))
        mean_errors.append(abs(mean_error(*compared)))
        textures.append(texture_ratio(*compared))
        seams.append(seam_steps(*compared))
    return Measures(
        loss=math.nan,
        mae_hu=float(np.mean(errors)),
        mean_error_hu=float(np.mean(mean_errors)),
        seam_ratio=pooled_seam_ratio(seams),
        texture_ratio=float(np.median([t for t in textures if not math.isnan(t)] or [np.nan])),
    )


def _filled(one: MaskedSlice, rng: np.random.Generator) -> Volume:
    hidden = one.plane.array[one.region.array].astype(np.float64)
    level = np.median(hidden)
    spread = MAD_TO_DEVIATION * np.median(np.abs(hidden - level))
    hu = level + spread * rng.standard_normal(one.plane.shape)
    return one.plane.paste(np.clip(hu, HU_MIN, HU_MAX), where=one.region.array)


def range_of(one: MaskedSlice) -> tuple[float, float]:
    """The HU in which a slice is measured."""
    mean = float(one.plane.array[one.region.array].mean())
    return window_for(one.label, mean, one.patches[0].codec).range_hu


def as_checkpoint(objective: Objective, name: str) -> Checkpoint:
    """The networks in training as a loaded checkpoint."""
    components = objective.pipeline().components
    files = CheckpointFiles(
        name=name,
        folder=Path(),
        revision=None,
        hashes={},
        configs={part: dict(component.config) for part, component in components.items()},
        training={},
        network=objective.network,
    )
    return Checkpoint(files, components)


def _batch(patch: Patch, count: int) -> Batch:
    """One patch, ``count`` times."""
    image, mask = torch.from_numpy(patch.image), torch.from_numpy(patch.mask).float()
    return {
        "image": image.expand(count, 1, *image.shape),
        "mask": mask.expand(count, 1, *mask.shape),
        "label": torch.full((count,), patch.label, dtype=torch.int64),
        "spacing_mm": torch.tensor([patch.spacing_mm] * count, dtype=torch.float32),
    }
