"""The model, and the samples it paints: prepared masks in, finished rows out.

Used by whoever makes samples: the build, and the check that makes some of them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthct.check import Checked, default_cache_dir
from synthct.dataset.schema import Row
from synthct.dataset.writer import Rejection, reject
from synthct.draw import Refused, masks_of
from synthct.models.checkpoint import load_checkpoint
from synthct.plan import SampleSpec
from synthct.provenance import generation_facts
from synthct.references import References, learn_references
from synthct.sample import Outcome, Prepared, finish, noise_seed

if TYPE_CHECKING:
    from synthct.inpaint import Inpainter, Job

logger = logging.getLogger(__name__)

#: One thread per process: several such processes beat one with all threads, and the number of
#: threads changes low bits.
THREADS = 1


@dataclass(frozen=True, eq=False)
class Painter:
    """The model, what its paint is compared with, and what a sample's provenance says of it."""

    inpainter: Inpainter
    references: References
    trained_on: frozenset[str] | None
    generation: Mapping[str, Any]
    numerics: Mapping[str, Any]


def load_painter(
    checked: Checked, device: str = "cpu", *, cache_dir: Path | None = None
) -> Painter:
    """Load the checkpoint, pin what changes low bits, and learn how real tissue looks.

    Args:
        checked: The recipe.
        device: Where the model runs.
        cache_dir: Where what is learnt is kept; by default the user's cache folder.

    Raises:
        CheckpointError: If the checkpoint is damaged or cannot paint as the recipe asks.
        SourceError: If a scan is missing or damaged.
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
    references = learn_references(
        checked.index,
        [section.label for section in checked.recipe.masks if section.label is not None],
        checked.label_names,
        checked.recipe.view,
        cache_dir=cache_dir or default_cache_dir(),
    )
    return Painter(
        inpainter=inpainter,
        references=references,
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
        The rows, in the order of ``specs``, slice by slice; and what was rejected, likewise.
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
                sample_ids.extend(spec.sample_id for spec in mask.specs)
                if isinstance(mask, Refused):
                    logger.debug("%s: %s", mask.specs[0].mask_id, mask.detail)
                    rejected.extend(Rejection(s.sample_id, mask.reason) for s in mask.specs)
                    progress.update(len(mask.specs))
                    continue
                for spec in mask.specs:
                    waiting[spec.sample_id] = mask, spec
                    for n, patch in enumerate(mask.patches):
                        yield Job((spec.sample_id, n), patch, noise_seed(recipe, spec, n))

    painted: dict[str, dict[int, Any]] = {}
    variants: dict[str, list[npt.NDArray[np.int16]]] = {}
    rows: dict[str, Row] = {}
    for (sample_id, n), pixels in painter.inpainter.stream(jobs()):
        mask, spec = waiting[sample_id]
        pieces = painted.setdefault(sample_id, {})
        pieces[n] = pixels
        if len(pieces) < len(mask.patches):
            continue
        del waiting[sample_id], painted[sample_id]
        earlier = variants.setdefault(spec.mask_id, [])  # variants come in their order
        row, hu = finish(
            mask,
            spec,
            [pieces[i] for i in range(len(pieces))],
            recipe,
            references=painter.references,
            earlier=earlier,
            trained_on=painter.trained_on,
            generation=painter.generation,
            numerics=painter.numerics,
            licence=checked.licence,
        )
        progress.update()
        broken = recipe.quality.broken(asdict(row.metrics))
        if broken is not None:
            rejected.append(reject(row, broken.reason, broken.measure, broken.value))
            continue
        earlier.append(hu)
        rows[sample_id] = row
    place = {sample_id: n for n, sample_id in enumerate(sample_ids)}
    rejected.sort(key=lambda one: place[one.sample_id])
    return [rows[sample_id] for sample_id in sample_ids if sample_id in rows], rejected
