"""What all samples of a build share: the checked recipe, the loaded model, what it is judged by.

Used by what makes samples: the build, and the check that makes some of them again.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthct.build.check import Checked
from synthct.build.copies import TrainingCopies, training_copies
from synthct.build.draw import CaseReader, shown_of
from synthct.build.limits import DefaultLimits, learn_limits
from synthct.build.references import References, learn_references
from synthct.dataset.sample import Sample
from synthct.errors import RecipeError
from synthct.models.checkpoint import load_checkpoint
from synthct.recipe.quality import Standard
from synthct.recipe.recipe import Recipe
from synthct.recipe.relabel import IMAGE, LABELS, Relabeller
from synthct.sources import CaseEntry
from synthct.storage.defaults import default_cache_dir
from synthct.volume import Volume

if TYPE_CHECKING:
    from synthct.models.painting import Inpainter

logger = logging.getLogger(__name__)

#: One thread per process: several such processes beat one with all threads, and the number of
#: threads changes low bits.
THREADS = 1

#: Label map (I, J, K) that the user's program gives a painted slice of a host.
Relabel = Callable[[Sample, CaseEntry], npt.NDArray[np.uint16]]


@dataclass(frozen=True, eq=False)
class BuildContext:
    """What all samples of a build share.

    Attributes:
        checked: The recipe, with plan, sources, checkpoint and licence.
        numerics: The numerics class.
        inpainter: The model; None where a control paints, or nothing is going to be painted.
        references: What real tissue looks like, by label.
        relabel: Asks the user's program for label maps; None where no mask wants them.
        limits: Default limits; none where the recipe sets its own.
    """

    checked: Checked
    numerics: Mapping[str, Any]
    inpainter: Inpainter | None = None
    references: References = field(default_factory=lambda: References({}))
    relabel: Relabel | None = None
    limits: DefaultLimits = field(default_factory=dict)

    @cached_property
    def standards(self) -> Mapping[str, Standard]:
        """What samples are judged by, by the name of their section of masks."""
        return self.checked.recipe.standards(self.limits)

    @cached_property
    def copies(self) -> TrainingCopies | None:
        """What paintings must not be too like; None if the recipe does not ask for it."""
        return training_copies(self.checked.recipe, self.checked.checkpoint)

    @cached_property
    def generation(self) -> dict[str, Any]:
        """How all samples are painted: checkpoint, method and settings."""
        settings = self.checked.recipe.inpaint.model_dump(
            mode="json", exclude={"checkpoint", "revision"}
        )
        files = self.checked.checkpoint
        if files is not None and self.checked.recipe.view == "volume":
            settings["slice_noise_mm"] = self.checked.slice_noise_mm
        return {**(files.facts() if files else {}), **settings, "blend": "paste"}


def load_context(
    checked: Checked,
    device: Callable[[], str],
    *,
    cache_dir: Path | None = None,
    relabel: Sequence[str] | None = None,
    limits: DefaultLimits | None = None,
    progress: bool = False,
) -> BuildContext:
    """Load the model, if the recipe asks for one, and learn how real tissue looks.

    Pins what changes low bits.

    Args:
        checked: The recipe.
        device: Says where the model runs; not called where no model paints, since finding out
            takes seconds.
        cache_dir: Where what is learnt is kept; by default the user's cache folder.
        relabel: The user's command for masks with ``label_map: relabel``.
        limits: Default limits of an earlier build; by default they are learned.
        progress: Show a progress bar.

    Raises:
        RecipeError: If the recipe needs that command and there is none, or the other way about.
        CheckpointError: If the checkpoint is damaged or cannot paint as the recipe asks.
        SourceError: If a scan is missing or damaged.
    """
    asks_for_labels = _relabel(checked, relabel)
    inpainter = _inpainter(checked, device)  # before scans are read: it may not go with the recipe
    references = references_of(checked, cache_dir, progress=progress)
    for note in _unlimited(checked, references):
        logger.warning("note: %s", note)
    if limits is None:
        limits = learn_limits(checked, cache_dir=cache_dir or default_cache_dir())
    numerics = _numerics(inpainter)
    return BuildContext(checked, numerics, inpainter, references, asks_for_labels, limits)


def references_of(
    checked: Checked, cache_dir: Path | None, *, progress: bool = False
) -> References:
    """How real tissue of the labels that a recipe paints looks.

    Raises:
        SourceError: If a scan is missing or damaged.
    """
    return learn_references(
        checked.index,
        [label for section in checked.recipe.masks for label in section.painted_labels()],
        checked.label_names,
        checked.recipe.plane,
        cache_dir=cache_dir or default_cache_dir(),
        progress=progress,
    )


def _inpainter(checked: Checked, device: Callable[[], str]) -> Inpainter | None:
    """The model; None where a control paints. Pins what changes low bits."""
    inpaint, files, rules = checked.recipe.inpaint.network, checked.checkpoint, checked.rules
    if inpaint is None or files is None or rules is None:
        return None
    from synthct.models.painting import Inpainter, pin_numerics

    pin_numerics(THREADS)
    return Inpainter(load_checkpoint(files, device=device()), inpaint, rules.labels)


def _numerics(inpainter: Inpainter | None) -> Mapping[str, Any]:
    """What low bits depend on."""
    if inpainter is None:
        # No kind that torch knows, since a control needs no torch; numpy chooses kernels by these.
        kinds = np.show_config(mode="dicts")["SIMD Extensions"]
        arch = " ".join([platform.machine(), *kinds["baseline"], *kinds.get("found", ())])
        versions = {name: version(name) for name in ("numpy", "scipy")}
        return {"device": "cpu", "arch": arch, **versions}
    from synthct.models.painting import numerics_class

    return numerics_class(inpainter)


def require_command(recipe: Recipe, command: Sequence[str] | None) -> None:
    """Make sure that there is a program to ask where masks want their labels from one.

    Raises:
        RecipeError: If the recipe needs it and there is none, or the other way about.
    """
    section = recipe.relabel
    if section is None and command is not None:
        raise RecipeError("--relabel: no mask of the recipe says label_map: relabel")
    if section is not None and command is None:
        message = (
            f"the label maps come from '{section.name}', a program of yours; say how it is called "
            f"with --relabel 'PROGRAM {IMAGE} {LABELS}'"
        )
        raise recipe.error(("relabel",), message)


def _relabel(checked: Checked, command: Sequence[str] | None) -> Relabel | None:
    """Asks the user's program for the label map of a painted slice.

    Raises:
        RecipeError: If the recipe needs it and there is none, or the other way about.
    """
    require_command(checked.recipe, command)
    section = checked.recipe.relabel
    if section is None or command is None:
        return None
    relabeller = Relabeller(section, tuple(command), checked.label_names)
    reader = CaseReader(checked.label_names, keep=1)

    def relabel(sample: Sample, host: CaseEntry) -> npt.NDArray[np.uint16]:
        if section.input == "slice":
            return relabeller.labels_of(sample.volume("image"), sample.sample_id)
        scan = reader.read(host).scan()
        shown = shown_of(sample, host).slices
        painted = Volume(scan.array.copy(), scan.affine)
        painted.array[shown] = sample.image
        return relabeller.labels_of(painted, sample.sample_id)[shown]

    return relabel


def _unlimited(checked: Checked, references: References) -> Iterator[str]:
    """Limits of the recipe that a label cannot break, since nothing is known of its tissue."""
    own = checked.recipe.own_limits
    limits = own.limits if own else {}
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
