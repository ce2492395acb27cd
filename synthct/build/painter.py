"""The model or control, and the samples it paints: prepared masks in, finished rows out.

Used by whoever makes samples: the build, and the check that makes some of them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthct.build.check import Checked
from synthct.build.draw import CaseReader, Refused, masks_of
from synthct.build.prepare import FloatArray, Outcome, Prepared
from synthct.build.provenance import generation_facts
from synthct.build.references import References, learn_references
from synthct.build.sample import LabelsOf, finish, noise_seed
from synthct.dataset.schema import StoredRow
from synthct.dataset.writer import Rejection, reject
from synthct.errors import RecipeError
from synthct.models.checkpoint import load_checkpoint
from synthct.models.methods import Diffusion
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.recipe.relabel import IMAGE, LABELS, Relabeller
from synthct.storage.defaults import default_cache_dir
from synthct.volume import Volume
from synthct.volume.views import VIEW_AXIS

if TYPE_CHECKING:
    from synthct.models.painting import Inpainter, Job
    from synthct.models.patch import Patch

logger = logging.getLogger(__name__)

#: Begins the reason of a sample that was rejected because the model gave no painting.
MODEL_FAULT = "model: "
#: Fewer pixels may be of one value by chance.
_LEAST_PAINTED = 16

#: One thread per process: several such processes beat one with all threads, and the number of
#: threads changes low bits.
THREADS = 1


@dataclass(frozen=True, eq=False)
class Painter:
    """What paints, what its paint is compared with, and what a sample's provenance says of it.

    Attributes:
        inpainter: The model; None where a control paints, which needs none.
        references: What real tissue looks like.
        trained_on: Voxel hashes of the model's training scans; None if it does not say.
        generation: Method and settings.
        numerics: The numerics class.
        relabel: Asks the user's program for label maps; None where no mask wants them.
    """

    inpainter: Inpainter | None
    references: References
    trained_on: frozenset[str] | None
    generation: Mapping[str, Any]
    numerics: Mapping[str, Any]
    relabel: LabelsOf | None = None


def load_painter(
    checked: Checked,
    device: str = "cpu",
    *,
    cache_dir: Path | None = None,
    relabel: Sequence[str] | None = None,
) -> Painter:
    """Load the model, if the recipe asks for one, and learn how real tissue looks.

    Pins what changes low bits.

    Args:
        checked: The recipe.
        device: Where the model runs.
        cache_dir: Where what is learnt is kept; by default the user's cache folder.
        relabel: The user's command for masks with ``label_map: relabel``.

    Raises:
        RecipeError: If the recipe needs that command and there is none, or the other way about.
        CheckpointError: If the checkpoint is damaged or cannot paint as the recipe asks.
        SourceError: If a scan is missing or damaged.
    """
    labels_of = _labels_of(checked, relabel)
    inpainter = _inpainter(checked, device)  # before scans are read: it may not go with the recipe
    references = learn_references(
        checked.index,
        [label for section in checked.recipe.masks for label in section.painted_labels()],
        checked.label_names,
        checked.recipe.view,
        cache_dir=cache_dir or default_cache_dir(),
    )
    for note in _unlimited(checked, references):
        logger.warning("note: %s", note)
    return Painter(
        inpainter=inpainter,
        references=references,
        trained_on=trained_on(checked),
        generation=generation_of(checked),
        numerics=_numerics(inpainter),
        relabel=labels_of,
    )


def _inpainter(checked: Checked, device: str) -> Inpainter | None:
    """The model; None where a control paints. Pins what changes low bits."""
    asked, files, rules = checked.recipe.inpaint, checked.checkpoint, checked.rules
    if not isinstance(asked, Diffusion) or files is None or rules is None:
        return None
    from synthct.models.painting import inpainter_of, pin_numerics

    pin_numerics(THREADS)
    return inpainter_of(load_checkpoint(files, device=device), asked, rules)


def _numerics(inpainter: Inpainter | None) -> Mapping[str, Any]:
    """What low bits depend on."""
    if inpainter is None:
        return {"device": "cpu", **{name: version(name) for name in ("numpy", "scipy")}}
    from synthct.models.painting import numerics_class

    return numerics_class(inpainter)


def generation_of(checked: Checked) -> dict[str, Any]:
    """How all samples of a recipe are painted; known without loading a model."""
    files = checked.checkpoint
    if files is None:
        return generation_facts(checked.recipe, {})
    named = {
        "checkpoint": files.name,
        "checkpoint_id": files.checkpoint_id,
        "revision": files.revision,
        "files": dict(files.hashes),
    }
    return generation_facts(checked.recipe, named)


def trained_on(checked: Checked) -> frozenset[str] | None:
    """Voxel hashes of the scans that the model was trained on; None if it does not say."""
    files = checked.checkpoint
    if files is None:  # a control was trained on nothing
        return frozenset()
    return files.trained_on if files.training else None


def require_command(recipe: Recipe, command: Sequence[str] | None) -> None:
    """Make sure that there is a program to ask where masks want their labels from one.

    Raises:
        RecipeError: If the recipe needs it and there is none, or the other way about.
    """
    asked = recipe.relabel
    if asked is None and command is not None:
        raise RecipeError("--relabel: no mask of the recipe says label_map: relabel")
    if asked is not None and command is None:
        message = (
            f"the label maps come from '{asked.name}', a program of yours; say how it is called "
            f"with --relabel 'PROGRAM {IMAGE} {LABELS}'"
        )
        raise recipe.error(("relabel",), message)


def _labels_of(checked: Checked, command: Sequence[str] | None) -> LabelsOf | None:
    """Asks the user's program for the label map of a painted slice.

    Raises:
        RecipeError: If the recipe needs it and there is none, or the other way about.
    """
    require_command(checked.recipe, command)
    asked = checked.recipe.relabel
    if asked is None or command is None:
        return None
    relabeller = Relabeller(asked, tuple(command), checked.label_names)
    reader = CaseReader(checked.label_names, keep=1)
    axis = VIEW_AXIS[checked.recipe.view]

    def labels_of(plane: Volume, spec: SampleSpec, index: int) -> npt.NDArray[np.uint16]:
        if asked.input == "slice":
            return relabeller.labels_of(plane, spec.sample_id)
        scan = reader.read(spec.host).scan()
        array = scan.array.copy()
        at = [slice(None)] * 3
        at[axis] = slice(index, index + 1)
        array[tuple(at)] = plane.array
        return relabeller.labels_of(Volume(array, scan.affine), spec.sample_id)[tuple(at)]

    return labels_of


def _unlimited(checked: Checked, references: References) -> Iterator[str]:
    """Limits of the recipe that a label cannot break, since nothing is known of its tissue."""
    limits = checked.recipe.quality.limits
    hosts = dict.fromkeys(spec.host.patient_id for spec in checked.plan.specs)
    labels = [label for section in checked.recipe.masks for label in section.painted_labels()]
    for label in dict.fromkeys(labels):
        known = [references.of(label, patient) for patient in hosts]
        if "hu_wasserstein" in limits and any(one.quantiles is None for one in known):
            yield f"quality: no source shows real '{label}', so hu_wasserstein does not limit it"
        if "mask_adherence" in limits and any(one.segmenter is None for one in known):
            yield (
                f"quality: for some hosts too few other patients show real '{label}', so "
                "mask_adherence does not limit it there"
            )


def paint_samples(
    checked: Checked,
    specs: Sequence[SampleSpec],
    masks: Iterator[Outcome],
    painter: Painter,
    progress: Any,
) -> tuple[list[StoredRow], list[Rejection]]:
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
    made = _Made(checked, painter, progress)

    def wanted() -> Iterator[tuple[Prepared, SampleSpec]]:
        for planned in masks_of(specs):
            outcome = next(masks)
            progress.total += sum(len(mask.specs) for mask in outcome)
            progress.total -= sum(spec.slices for spec in planned)
            for mask in outcome:
                made.expect(mask)
                if isinstance(mask, Refused):
                    continue
                for spec in mask.specs:
                    if spec.is_painted:
                        yield mask, spec
                    else:
                        made.finish(mask, spec, [])

    for mask, spec, pieces in _painted(wanted(), painter.inpainter, checked.recipe):
        made.finish(mask, spec, pieces)
    return made.rows_and_rejections()


def _painted(
    wanted: Iterator[tuple[Prepared, SampleSpec]], inpainter: Inpainter | None, recipe: Recipe
) -> Iterator[tuple[Prepared, SampleSpec, list[FloatArray]]]:
    """Samples with the model's paint for each of their patches, as batches come out of it."""
    if inpainter is None:
        yield from ((mask, spec, []) for mask, spec in wanted)
        return
    from synthct.models.painting import Job

    waiting: dict[str, tuple[Prepared, SampleSpec, dict[int, FloatArray]]] = {}

    def jobs() -> Iterator[Job[tuple[str, int]]]:
        for mask, spec in wanted:
            waiting[spec.sample_id] = mask, spec, {}
            for n, patch in enumerate(mask.patches):
                yield Job((spec.sample_id, n), patch, noise_seed(recipe, spec, n))

    for (sample_id, n), pixels in inpainter.stream(jobs()):
        mask, spec, pieces = waiting[sample_id]
        pieces[n] = pixels
        if len(pieces) == len(mask.patches):
            del waiting[sample_id]
            yield mask, spec, [pieces[i] for i in range(len(pieces))]


class _Made:
    """What has become of the samples of a shard so far.

    Args:
        checked: The recipe.
        painter: From ``load_painter``.
        progress: A progress bar, in samples.
    """

    def __init__(self, checked: Checked, painter: Painter, progress: Any) -> None:
        self.checked, self.painter, self.progress = checked, painter, progress
        self._sample_ids: list[str] = []
        self._rows: dict[str, StoredRow] = {}
        self._rejected: list[Rejection] = []
        self._variants: dict[str, list[npt.NDArray[np.int16]]] = {}

    def expect(self, mask: Prepared | Refused) -> None:
        """Note the samples of a mask, in their order; those of a refused one are rejected."""
        self._sample_ids.extend(spec.sample_id for spec in mask.specs)
        if isinstance(mask, Refused):
            logger.debug("%s: %s", mask.specs[0].mask_id, mask.detail)
            self._rejected.extend(Rejection(s.sample_id, mask.reason) for s in mask.specs)
            self.progress.update(len(mask.specs))

    def finish(self, mask: Prepared, spec: SampleSpec, pieces: Sequence[FloatArray]) -> None:
        """Make the row of a sample; reject it for a faulty painting or a measure out of limits."""
        if fault := _fault(mask.patches, pieces):
            self._rejected.append(Rejection(spec.sample_id, fault))
            self.progress.update()
            return
        earlier = self._variants.setdefault(spec.mask_id, [])  # variants come in their order
        row, hu = finish(
            mask,
            spec,
            pieces,
            self.checked.recipe,
            references=self.painter.references,
            earlier=earlier,
            trained_on=self.painter.trained_on,
            generation=self.painter.generation,
            numerics=self.painter.numerics,
            licence=self.checked.licence,
            relabel=self.painter.relabel,
        )
        self.progress.update()
        if spec.is_painted:
            broken = self.checked.recipe.quality.broken(asdict(row.metrics))
            if broken is not None:
                self._rejected.append(reject(row, broken.reason, broken.measure, broken.value))
                return
            earlier.append(hu)
        self._rows[spec.sample_id] = row

    def rows_and_rejections(self) -> tuple[list[StoredRow], list[Rejection]]:
        """Both in the order of the samples; a pair of which no painting is left is no pair."""
        painted = {row.facts.pair_id for row in self._rows.values() if row.facts.is_painted}
        rows, rejected = [], list(self._rejected)
        for sample_id in self._sample_ids:
            row = self._rows.get(sample_id)
            if row is None:
                continue
            if row.facts.is_painted or row.facts.pair_id in painted:
                rows.append(row)
            else:
                rejected.append(Rejection(sample_id, "pair: no painting of it was accepted"))
        place = {sample_id: n for n, sample_id in enumerate(self._sample_ids)}
        return rows, sorted(rejected, key=lambda one: place[one.sample_id])


def _fault(patches: Sequence[Patch], painted: Sequence[FloatArray]) -> str | None:
    """Why what the model gave is no painting at all; None if it may be one."""
    for patch, pixels in zip(patches, painted, strict=False):
        inside, before = pixels[patch.own], patch.image[patch.own]
        if not np.isfinite(inside).all():
            return f"{MODEL_FAULT}not finite"
        if inside.size >= _LEAST_PAINTED and np.ptp(inside) == 0 and np.ptp(before) > 0:
            return f"{MODEL_FAULT}one value throughout"
    return None
