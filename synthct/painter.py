"""The model, and the samples it paints: prepared masks in, finished rows out.

Used by whoever makes samples: the build, and the check that makes some of them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synthct.check import Checked
from synthct.dataset.schema import Row
from synthct.dataset.writer import Rejection
from synthct.draw import Refused, masks_of
from synthct.models.checkpoint import load_checkpoint
from synthct.plan import SampleSpec
from synthct.provenance import generation_facts
from synthct.sample import Outcome, Prepared, finish, noise_seed

if TYPE_CHECKING:
    from synthct.inpaint import Inpainter, Job

logger = logging.getLogger(__name__)

#: One thread per process: several such processes beat one with all threads, and the number of
#: threads changes low bits.
THREADS = 1


@dataclass(frozen=True, eq=False)
class Painter:
    """The model, and what every sample's provenance says of it."""

    inpainter: Inpainter
    trained_on: frozenset[str] | None
    generation: Mapping[str, Any]
    numerics: Mapping[str, Any]


def load_painter(checked: Checked, device: str = "cpu") -> Painter:
    """Load the checkpoint, and pin what changes low bits.

    Args:
        checked: The recipe.
        device: Where the model runs.

    Raises:
        CheckpointError: If the checkpoint is damaged or cannot paint as the recipe asks.
    """
    from synthct.inpaint import Inpainter, numerics_class, pin_numerics

    pin_numerics(THREADS)
    asked = checked.recipe.inpaint
    inpainter = Inpainter(
        load_checkpoint(checked.checkpoint, device=device),
        scheduler=asked.scheduler,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        batch_size=asked.batch_size,
        dtype=asked.dtype,
    )
    files = checked.checkpoint
    return Painter(
        inpainter=inpainter,
        trained_on=files.trained_on if files.training else None,
        generation=generation_facts(
            checked.recipe,
            {
                "checkpoint": files.name,
                "checkpoint_id": files.checkpoint_id,
                "revision": files.revision,
                "files": dict(files.hashes),
            },
        ),
        numerics=numerics_class(inpainter),
    )


def paint_samples(
    checked: Checked,
    specs: Sequence[SampleSpec],
    masks: Iterator[Outcome],
    painter: Painter,
    progress: Any,
) -> tuple[list[Row], list[Rejection]]:
    """Paint samples, in batches as the prepared masks come in.

    Args:
        checked: The recipe.
        specs: The planned samples, those of one mask together.
        masks: Their masks, in order; no more of them are taken than these samples have.
        painter: From ``load_painter``.
        progress: A progress bar, in samples; its total is mended as slices are counted.

    Returns:
        The rows, in the order of ``specs``, slice by slice; and what was rejected.
    """
    recipe = checked.recipe
    sample_ids: list[str] = []
    rejected: list[Rejection] = []
    waiting: dict[str, tuple[Prepared, SampleSpec]] = {}

    def jobs() -> Iterator[Job[tuple[str, int]]]:
        from synthct.inpaint import Job

        for planned in masks_of(specs):
            outcome = next(masks)
            progress.total += sum(len(mask.specs) for mask in outcome)
            progress.total -= sum(spec.slices for spec in planned)
            for mask in outcome:
                if isinstance(mask, Refused):
                    logger.debug("%s: %s", mask.specs[0].mask_id, mask.detail)
                    rejected.extend(Rejection(s.sample_id, mask.reason) for s in mask.specs)
                    progress.update(len(mask.specs))
                    continue
                for spec in mask.specs:
                    sample_ids.append(spec.sample_id)
                    waiting[spec.sample_id] = mask, spec
                    for n, patch in enumerate(mask.patches):
                        yield Job((spec.sample_id, n), patch, noise_seed(recipe, spec, n))

    painted: dict[str, dict[int, Any]] = {}
    rows: dict[str, Row] = {}
    for (sample_id, n), pixels in painter.inpainter.stream(jobs()):
        mask, spec = waiting[sample_id]
        pieces = painted.setdefault(sample_id, {})
        pieces[n] = pixels
        if len(pieces) < len(mask.patches):
            continue
        del waiting[sample_id], painted[sample_id]
        rows[sample_id] = finish(
            mask,
            spec,
            [pieces[i] for i in range(len(pieces))],
            recipe,
            trained_on=painter.trained_on,
            generation=painter.generation,
            numerics=painter.numerics,
            licence=checked.licence,
        )
        progress.update()
    return [rows[sample_id] for sample_id in sample_ids], rejected
