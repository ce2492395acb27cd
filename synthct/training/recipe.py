"""TrainingRecipe: the YAML of one checkpoint, validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from synthct.errors import RecipeError
from synthct.licence import Origin, licence_of
from synthct.masks import MaskKind
from synthct.models.checkpoint import find_checkpoint
from synthct.models.methods import Adapt
from synthct.models.palette_config import PaletteSection
from synthct.models.patch import PatchRules
from synthct.recipe.kinds import is_training_recipe
from synthct.recipe.recipe import donor_source
from synthct.recipe.roots import replace_roots
from synthct.recipe.yaml_errors import Problem, did_you_mean
from synthct.recipe.yaml_model import expand_variables, fail_at, read_yaml, validate
from synthct.sources import Source
from synthct.training.overlay import BY_LABEL, apply_checkpoint, apply_preset
from synthct.training.sections import (
    Count,
    DataSection,
    ModelSection,
    NoiseSection,
    OptimSection,
    Section,
    ValidationSection,
    kind,
)

#: Locations of the values in which environment variables are expanded.
PATH_KEYS = ("sources.*.root", "from_checkpoint")


class TrainingRecipe(Section):
    """One checkpoint: sources, masks, network, noise, optimisation, validation.

    Attributes:
        seed: Of weights, masks and noise.
        licence: SPDX id of the checkpoint's licence; by default derived from the sources and from
            the checkpoint that training starts from.
        from_checkpoint: Fine-tune this checkpoint: ``package:NAME``, a folder, or a Hub id. Network
            and noise schedule are taken from it; labels and codecs can be added.
        revision: Commit or tag of a Hub repository.
        sources: Scans to train on; a transplant takes shapes from the one it names as ``donors``.
        noise: The noise schedule, for networks that paint in steps.
        validation: What is held out; None trains on everything.
        adapt: Set by ``synthct adapt``: the section of the dataset's recipe that this follows.
        sample_every: Steps between columns of the sample strip.
        save_every: Steps between states that a rerun resumes from.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    description: str = ""
    licence: str | None = None
    from_checkpoint: Annotated[str, Field(min_length=1)] | None = None
    revision: str | None = None
    sources: Annotated[Mapping[str, Source], Field(min_length=1)]
    masks: Annotated[tuple[MaskKind, ...], Field(min_length=1)]
    model: ModelSection = PaletteSection()
    data: DataSection = DataSection()
    noise: NoiseSection = NoiseSection()
    optim: OptimSection = OptimSection()
    validation: ValidationSection | None = ValidationSection()
    adapt: Adapt | None = None
    sample_every: Count = 1000
    save_every: Count = 500

    @model_validator(mode="after")
    def _check(self) -> TrainingRecipe:
        problems = [*_name_problems(self), *_mask_problems(self), *_section_problems(self)]
        if problems:
            raise fail_at(problems)
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the checkpoint paints: those of ``model``, then those of the masks."""
        of_masks = (label for m in self.masks for label in m.painted_labels())
        return tuple(dict.fromkeys([*self.model.labels, *of_masks]))

    @property
    def rules(self) -> PatchRules:
        """The patches that its network takes."""
        return PatchRules.from_config(self.model.model_dump() | {"labels": self.labels})

    def all_labels(self) -> tuple[str, ...]:
        """Every label that some section requires or can use, in hosts or donors, in order."""
        return tuple(dict.fromkeys(label for one in self.masks for label in one.all_labels()))

    @property
    def donors(self) -> frozenset[str]:
        """The sources that shapes are taken from."""
        return frozenset(name for m in self.masks if (name := donor_source(m)) is not None)

    @property
    def remakes(self) -> bool:
        """Whether patches are cut from remade slices or with their neighbours."""
        data = self.data
        return data.grain is not None or data.zoom != (1.0, 1.0) or self.rules.neighbours > 0

    @property
    def painting_steps(self) -> int:
        """Denoising steps of validation and samples."""
        steps = self.validation.num_inference_steps if self.validation else 20
        return self.noise.few_steps or steps

    def may_stop_after(self, step: int) -> bool:
        """Whether early stopping may end the training after a step."""
        rule = self.validation
        return rule is not None and rule.early_stopping is not None and step % rule.every == 0

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Arithmetic of the network when it paints."""
        return "bfloat16" if self.optim.mixed_precision == "bf16" else "float32"

    def resolved_licence(self, *, base: str | None = None) -> str | None:
        """The checkpoint's licence; None if it is neither stated nor known of every source.

        Args:
            base: Licence of the checkpoint that training starts from, if any.

        Raises:
            PolicyError: If the recipe states a looser one than its sources allow.
        """
        origins = [Origin(f"source '{name}'", s.licence) for name, s in self.sources.items()]
        if self.from_checkpoint is not None:
            origins.append(Origin(f"checkpoint '{self.from_checkpoint}'", base))
        return licence_of(origins, stated=self.licence)


def load_training_recipe(
    path: Path,
    *,
    preset: str | None = None,
    sources: Mapping[str, Path] | None = None,
    from_checkpoint: str | None = None,
) -> TrainingRecipe:
    """Read and validate a training recipe.

    Args:
        path: The YAML file.
        sources: Source name to a root that replaces the recipe's (``--source``).
        preset: Name of one of its ``presets``, whose fields then replace the recipe's.
        from_checkpoint: A checkpoint that replaces the recipe's.

    Raises:
        RecipeError: With ``file:line:column`` and what to do.
        CheckpointError, HubError: If the checkpoint that training starts from is not available.
    """
    document = read_yaml(path)
    if is_training_recipe(document) is False:
        raise RecipeError(f"{path} is the recipe of a dataset; run: synthct build {path}")
    apply_preset(document, preset)
    replace_roots(document, sources or {})
    expand_variables(document, PATH_KEYS)
    if from_checkpoint is not None:
        document.value["from_checkpoint"] = from_checkpoint
        document.value.pop("revision", None)
    base, revision = (document.value.get(name) for name in ("from_checkpoint", "revision"))
    if isinstance(base, str) and base and isinstance(revision, str | None):
        apply_checkpoint(document, find_checkpoint(base, revision=revision))
    return validate(document, TrainingRecipe)


def _name_problems(recipe: TrainingRecipe) -> Iterator[Problem]:
    """Unknown sources in ``source_weights`` and unknown labels in ``model``."""
    for name in recipe.data.source_weights:
        if name not in recipe.sources:
            message = f"there is no source '{name}'{did_you_mean(name, list(recipe.sources))}"
            yield Problem(("data", "source_weights", name), message, at_key=True)
    for field in BY_LABEL:
        for label in getattr(recipe.model, field, None) or ():
            if label not in ("default", *recipe.labels):
                message = f"no mask paints '{label}'{did_you_mean(label, list(recipe.labels))}"
                yield Problem(("model", field, label), message, at_key=True)


def _mask_problems(recipe: TrainingRecipe) -> Iterator[Problem]:
    """Duplicate names, unknown sources of donors, and kinds of masks that cannot be trained on."""
    names = [section.name for section in recipe.masks]
    for number, section in enumerate(recipe.masks):
        if section.name in names[:number]:
            message = f"'{section.name}' is already the name of another section; names must differ"
            yield Problem(("masks", number, "name"), message)
        donors = donor_source(section)
        if donors is not None and donors not in recipe.sources:
            near = did_you_mean(donors, list(recipe.sources))
            message = f"'sources' has no '{donors}' to take shapes from{near}"
            yield Problem(("masks", number, section.donor_key), message)
        if section.changes_lesion == "removed":
            message = "under a removal the scan shows the lesion, not the tissue to be learned"
            yield Problem(("masks", number, "kind"), f"{message}; use organ, blob or box")
        if section.donor_is_host:
            message = "training sees scans on other grids than a mask of their own"
            yield Problem(("masks", number, "kind"), f"{message}; use the structure as an organ")


def _section_problems(recipe: TrainingRecipe) -> Iterator[Problem]:
    """Combinations of fields that are not possible."""
    if not recipe.model.takes_steps:
        what = f"a network of kind {kind(recipe.model)} paints in one pass, without"
        if "noise" in recipe.model_fields_set:
            yield Problem(("noise",), f"{what} a noise schedule; remove it", at_key=True)
        stated = recipe.validation.model_fields_set if recipe.validation else set()
        for name in sorted({"scheduler", "num_inference_steps"} & stated):
            yield Problem(("validation", name), f"{what} {name}; remove it", at_key=True)
        if recipe.data.label_dropout:
            message = f"{what} guidance, which label_dropout is for; remove it"
            yield Problem(("data", "label_dropout"), message, at_key=True)
    always_labelled = all(section.painted_labels() for section in recipe.masks)
    is_guided = bool(getattr(recipe.model, "guidance", None))
    if is_guided and always_labelled and not recipe.data.label_dropout:
        message = (
            "there is nothing to be guided away from: no mask is without a label; add one, or "
            "set label_dropout to 0.1"
        )
        yield Problem(("model", "guidance"), message, at_key=True)
    if len(recipe.labels) < recipe.model.takes_labels_from:
        what = (
            f"a network of kind {kind(recipe.model)} is told what to paint from "
            f"{recipe.model.takes_labels_from} labels on"
        )
        painted = {label for m in recipe.masks for label in (m.painted_labels() or (None,))}
        if len(painted) > 1:
            yield Problem(("masks",), f"{what}; give all masks the same label or none")
        if recipe.data.label_dropout:
            yield Problem(("data", "label_dropout"), f"{what}; remove it", at_key=True)
    if recipe.noise.adversarial is not None and kind(recipe.model) != "palette":
        message = f"a network of kind {kind(recipe.model)} is not judged; remove it"
        yield Problem(("noise", "adversarial"), message, at_key=True)
    takes_level = getattr(recipe.model, "noise_embedding", "timestep") == "level"
    if recipe.noise.painting is not None and not takes_level:
        message = (
            "only a network that is given the noise level can paint with another schedule; "
            "set model.noise_embedding to level"
        )
        yield Problem(("noise", "painting"), message, at_key=True)
    if recipe.revision is not None and recipe.from_checkpoint is None:
        message = "belongs to a Hub repository in from_checkpoint, which is missing"
        yield Problem(("revision",), message, at_key=True)
