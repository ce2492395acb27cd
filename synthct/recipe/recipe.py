"""The recipe of a dataset: one YAML file, checked before any scan is read.

Checks the fields and their combinations; whether the scans have the labels is checked in ``plan``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from synthct.errors import RecipeError
from synthct.masks import MaskKind
from synthct.masks.base import Rising
from synthct.models.methods import Diffusion, Inpaint, Listed
from synthct.recipe.kinds import is_training_recipe
from synthct.recipe.privacy import Privacy
from synthct.recipe.quality import Quality, Standard
from synthct.recipe.relabel import Relabel
from synthct.recipe.review import Review
from synthct.recipe.roots import replace_roots, root_variable
from synthct.recipe.shares import Splits
from synthct.recipe.volumes import OF_VOLUMES, Count, Series, volume_problems
from synthct.recipe.yaml_errors import Problem, did_you_mean, nearest, path_text
from synthct.recipe.yaml_model import (
    Document,
    expand_variables,
    fail_at,
    read_yaml,
    validate,
)
from synthct.sources import Source
from synthct.volume.views import IGNORE, Plane, View

#: Keys whose values may contain environment variables.
PATH_KEYS = ("sources.*.root", "inpaint.checkpoint", "review.table")

_IF_STATED = (*OF_VOLUMES, "label_values", "privacy", "review")
LabelValue = Annotated[int, Field(ge=1, lt=IGNORE)]


def _check_version(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", value):
        return value
    raise ValueError(f"{value} is not a version; write three numbers such as 1.0.0")


class Recipe(BaseModel):
    """All settings of a dataset.

    Attributes:
        name: Name of the dataset, lower case with dashes.
        version: Semantic version of the data; to be raised when anything below changes.
        description: A sentence or two for the dataset card.
        licence: SPDX id of the dataset's licence; by default the one that follows from the sources.
        seed: Seed of all random decisions.
        sources: Where scans come from; those of ``hosts`` are painted into.
        label_values: Values of structures in the label maps, so that several datasets agree;
            structures that are not named get the lowest values that are left. One that is painted
            and that no source has, such as a tumour in scans of healthy people, needs a value here.
        on_bad_case: At a case with damaged or inconsistent files, ``stop`` the run or ``skip`` the
            case; plan, card and lock list skipped cases.
        view: The plane of the slices; ``volume`` paints each mask whole, as one sample in 3D.
        extent: What a volume shows: a box around the mask (``crop``, the default) or the host's
            whole ``scan``.
        margin_mm: Of the box, around the mask; 20 by default.
        masks_per_sample: Least and greatest number of masks of a section that are drawn for one
            volume, each beside the ones before.
        series: The same lesion in several sizes, each a volume of its own.
        masks_per_case: Number of masks in each host, divided among ``masks`` by weight.
        masks: The sections of masks, each of one kind.
        inpaint: How masks are painted.
        variants: Number of different paintings of each mask.
        relabel: Labels from the user's program (``--relabel``), for masks with
            ``label_map: relabel``.
        quality: Limits on the measures of a sample; samples that break one are rejected. By
            default those that real tissue of the hosts keeps; ``none`` for no limits.
        privacy: How like the checkpoint's training regions a painting may be.
        review: Decisions on these samples in an earlier version (``synthct review``).
        splits: Share of the patients in each split; host and donor of a sample are in the same.
        keep_original: Whether rows also hold the original slice.
        release: ``full`` writes whole slices; ``patch`` only generated voxels and nothing of the
            scans: ``synthct compose`` restores whole slices for those who have the scans.
        samples_per_shard: Number of samples in a file, the unit of work and of resuming.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)]
    version: Annotated[str, BeforeValidator(_check_version)]
    description: str | None = None
    licence: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$")], Source]
    label_values: dict[str, LabelValue] | None = None
    on_bad_case: Literal["stop", "skip"] = "stop"
    view: View = "axial"
    extent: Literal["crop", "scan"] | None = None
    margin_mm: Annotated[float, Field(ge=0, le=500, allow_inf_nan=False)] | None = None
    masks_per_sample: Annotated[Listed[tuple[Count, Count]], Rising] | None = None
    series: Series | None = None
    masks_per_case: Annotated[int, Field(ge=1, le=100_000)] = 1
    masks: Annotated[tuple[MaskKind, ...], Field(min_length=1, max_length=100)]
    inpaint: Inpaint = Diffusion()
    variants: Annotated[int, Field(ge=1, le=10_000)] = 1
    relabel: Relabel | None = None
    quality: Quality | Literal["none"] = Quality()
    privacy: Privacy | None = None
    review: Review | None = None
    splits: Splits = Splits(train=0.8, validation=0.1, test=0.1)
    keep_original: bool = False
    release: Literal["full", "patch"] = "full"
    samples_per_shard: Annotated[int, Field(ge=1, le=100_000)] = 256

    _document: Document | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            *_source_problems(self),
            *_name_problems(self),
            *_value_problems(self),
            *_method_problems(self),
            *_relabel_problems(self),
            *_release_problems(self),
            *volume_problems(self),
        ]
        if problems:
            raise fail_at(problems)
        return self

    @model_serializer(mode="wrap")
    def _dump(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What most recipes do without counts for a dataset's identity only where it is stated.
        fields: dict[str, Any] = dump(self)
        return {k: v for k, v in fields.items() if not (k in _IF_STATED and v is None)}

    def __eq__(self, other: object) -> bool:
        # Recipes are equal if their fields are, wherever these are written.
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

    def error(
        self, location: tuple[str | int, ...], message: str, *, at_key: bool = False
    ) -> RecipeError:
        """An error at a field, with file and line if the recipe was read from a file."""
        if self._document is None:
            return RecipeError(f"{path_text(location)}: {message}")
        return self._document.error(location, message, at_key=at_key)

    def error_at_label(self, section: int, label: str, message: str) -> RecipeError:
        """An error at the field of ``masks[section]`` that names ``label``."""
        return self.error(("masks", section, *_key_of(self.masks[section], label)), message)

    def all_labels(self) -> tuple[str, ...]:
        """Every label that some section requires or can use, in hosts or donors, in order."""
        labels = [label for section in self.masks for label in section.all_labels()]
        return tuple(dict.fromkeys([*labels, *(self.relabel.labels if self.relabel else ())]))

    @property
    def plane(self) -> Plane:
        """The plane in which real tissue is looked at; for volumes the axial one."""
        return "axial" if self.view == "volume" else self.view

    @property
    def own_limits(self) -> Quality | None:
        """The limits that the recipe sets; None if it leaves them to the default ones."""
        if self.quality == "none":
            return Quality()
        return self.quality if self.quality.limits else None

    def standards(self, learned: Mapping[str, Mapping[str, Any]]) -> dict[str, Standard]:
        """What samples are judged by, by the name of their section of masks.

        Default limits reject only what a network painted, and no pairs: arms that are compared
        keep equal masks.

        Args:
            learned: Default limits by section and measure, as in the lock; may be empty.
        """
        own = self.own_limits
        if own is not None:
            return {section.name: Standard(own) for section in self.masks}
        return {
            section.name: Standard(
                Quality.model_validate(learned.get(section.name, {})),
                is_default=True,
                rejects=self.inpaint.network is not None and not section.pair,
            )
            for section in self.masks
        }

    def donor_lesions(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """For each donor source, the (lesion label, organ) pairs that masks take from it."""
        pairs: dict[str, dict[tuple[str, str], None]] = {}
        for section in self.masks:
            source, lesions = donor_source(section), section.donor_lesions()
            if source is not None and lesions is not None:
                pairs.setdefault(source, {})[lesions] = None
        return {source: tuple(of_source) for source, of_source in pairs.items()}

    def resolved(self) -> dict[str, Any]:
        """The recipe as JSON, with all defaults and without paths of this machine.

        Roots become variables such as ``${HOSTS_ROOT}``, so that the result is a recipe again;
        Hub repositories stay. Of a checkpoint's path the folder's name is kept (the lock
        identifies its files by hash), of a review's table its name and hash.
        """
        data: dict[str, Any] = self.model_dump(mode="json")
        for name, section in data["sources"].items():
            if section.get("repo") is not None:
                del section["root"]
            elif "root" in section:
                section.update(root=root_variable(name))
                del section["repo"], section["revision"]
        if (network := self.inpaint.network) is not None and network.is_folder:
            data["inpaint"]["checkpoint"] = f"./{PurePath(network.checkpoint).name}"
        if self.review is not None:
            data["review"] = self.review.resolved()
        return data

    @property
    def recipe_id(self) -> str:
        """sha256 of the resolved recipe as canonical JSON.

        It does not depend on the machine or on where the scans are; the lock identifies these by
        hash.
        """
        data = self.resolved()
        for name, section in data["sources"].items():
            if section.pop("repo", None) is not None:
                del section["revision"]
                section["root"] = root_variable(name)
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_recipe(
    path: str | Path,
    *,
    sources: Mapping[str, Path] | None = None,
    checkpoint: Path | None = None,
) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file. Relative roots in it are relative to the working directory.
        sources: Source name to a root that replaces the recipe's (``--source``).
        checkpoint: A folder that replaces the recipe's checkpoint.

    Raises:
        RecipeError: With one line ``file:line:column: key: what is wrong`` for each fault.

    Example:
        >>> recipe = synthct.load_recipe("examples/phantoms.yaml")
        >>> recipe.name, [section.kind for section in recipe.masks]
        ('phantoms', ['organ'])
    """
    document = read_yaml(Path(path))
    if is_training_recipe(document):
        raise RecipeError(f"{path} is a training recipe; run: synthct train {path}")
    replace_roots(document, sources or {})
    if checkpoint is not None and isinstance(document.value.get("inpaint"), dict):
        document.value["inpaint"]["checkpoint"] = str(checkpoint)
    expand_variables(document, PATH_KEYS)
    recipe = validate(document, Recipe)
    recipe._document = document
    return recipe


def stored_recipe(path: Path) -> Recipe:
    """Read the resolved recipe of a dataset, without expanding the variables of its roots.

    Raises:
        RecipeError: If it is damaged.
    """
    return validate(read_yaml(path), Recipe)


def recipe_json_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _source_problems(recipe: Recipe) -> Iterator[Problem]:
    """Missing hosts, and donor sources that are not defined."""
    names = list(recipe.sources)
    if "hosts" not in names:
        near = nearest("hosts", names)
        if near is not None:
            yield Problem(("sources", near), "unknown name for the scans; did you mean 'hosts'?")
        else:
            yield Problem(("sources",), "the source 'hosts' is missing: the scans to paint into")
    for index, section in enumerate(recipe.masks):
        donors = donor_source(section)
        if donors is None or donors in names:
            continue
        others = [name for name in names if name != "hosts"] or names
        yield Problem(
            ("masks", index, section.donor_key),
            f"kind '{section.kind}' takes shapes from the source '{donors}', which 'sources' does "
            f"not have{did_you_mean(donors, others)}",
        )


def _name_problems(recipe: Recipe) -> Iterator[Problem]:
    """Sections with the same name."""
    first: dict[str, int] = {}
    for index, section in enumerate(recipe.masks):
        if section.name in first:
            message = f"'{section.name}' is already the name of masks[{first[section.name]}]"
            yield Problem(("masks", index, "name"), f"{message}; names must differ")
        first.setdefault(section.name, index)


def _value_problems(recipe: Recipe) -> Iterator[Problem]:
    """Two structures of one value."""
    first: dict[int, str] = {}
    for name, value in (recipe.label_values or {}).items():
        if value in first:
            message = f"{value} is already the value of {first[value]}; values must differ"
            yield Problem(("label_values", name), message)
        first.setdefault(value, name)


def _method_problems(recipe: Recipe) -> Iterator[Problem]:
    """Masks and variants that the painting method cannot handle."""
    name = recipe.inpaint.method
    for index, section in enumerate(recipe.masks if recipe.inpaint.needs_donor else ()):
        if not section.needs_donor or section.donor_is_host:
            message = f"{name} pastes a donor's voxels, and kind '{section.kind}' has no donor"
            yield Problem(("masks", index, "kind"), f"{message}; use noise_fill")
    network = recipe.inpaint.network
    levels = network.levels if network else {}
    for index, section in enumerate(recipe.masks):
        label = next((name for name in section.painted_labels() if name in levels), None)
        if label is not None and section.reaches_beyond():
            message = f"level_hu is the median of a whole mask, and it holds more than {label}"
            yield Problem(("masks", index), f"{message}; use another kind, or remove level_hu")
    if recipe.variants > 1 and not recipe.inpaint.varies:
        message = f"{name} gives the same picture {recipe.variants} times; set variants to 1"
        yield Problem(("variants",), message)


def _relabel_problems(recipe: Recipe) -> Iterator[Problem]:
    """Masks with ``label_map: relabel`` without a section ``relabel``, and the reverse."""
    numbers = [n for n, section in enumerate(recipe.masks) if section.label_policy() == "relabel"]
    if numbers and recipe.relabel is None:
        message = "'relabel' needs a section relabel (name, labels) beside masks"
        yield Problem(("masks", numbers[0], "label_map"), message)
    if recipe.relabel is not None and not numbers:
        yield Problem(("relabel",), "no mask says label_map: relabel; remove this section")


def _release_problems(recipe: Recipe) -> Iterator[Problem]:
    """Settings that would put real tissue into a patch-only release."""
    if recipe.release != "patch":
        return
    if recipe.keep_original:
        message = "a patch-only release holds nothing of the scans; set keep_original to false"
        yield Problem(("keep_original",), message)
    if recipe.inpaint.mixes_real_tissue:
        message = f"{recipe.inpaint.method} mixes real tissue into its paint"
        yield Problem(("inpaint", "method"), f"{message}, which release 'patch' may not hold")


def donor_source(section: MaskKind) -> str | None:
    """Name of the source of a section's donors; None for kinds without donors."""
    return str(getattr(section, section.donor_key)) if section.needs_donor else None


def _key_of(section: MaskKind, label: str) -> tuple[str | int, ...]:
    """Location within a section of the field that names a label; empty if it is a default."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if name not in {"name", "kind", section.donor_key} and value == label:
            return (name,)
        if isinstance(value, tuple) and label in value:
            return (name, value.index(label))
    return ()
