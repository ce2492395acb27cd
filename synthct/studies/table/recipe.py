"""The YAML of a table: methods to compare, and rows of masks that each of them paints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synthct.errors import RecipeError
from synthct.evaluate.run import FLOOR, NEIGHBOUR, PAINTED
from synthct.masks import MaskKind
from synthct.models.methods import Diffusion, Inpaint, NoiseFill
from synthct.recipe.recipe import Recipe
from synthct.recipe.roots import replace_roots
from synthct.recipe.yaml_errors import Problem, did_you_mean
from synthct.recipe.yaml_model import expand_variables, fail_at, read_yaml, validate
from synthct.sources import Source
from synthct.training.overlay import apply_preset
from synthct.training.recipe import TrainingRecipe, load_training_recipe
from synthct.volume.views import View

PATH_KEYS = (
    "sources.*.root",
    "training.sources.*.root",
    "methods.*.inpaint.checkpoint",
    "methods.*.train.recipe",
)

#: A name in the tables; in folders it is written in lower case with dashes.
Title = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+-]*$", max_length=40)]
Masks = Annotated[tuple[MaskKind, ...], Field(min_length=1, max_length=100)]


class Section(BaseModel):
    """A section of the recipe of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Training(Section):
    """A checkpoint that is trained for the table.

    Attributes:
        recipe: A training recipe; a relative path starts at the folder of the table's recipe.
        preset: One of its presets.
        minutes: How long it is trained; its own ``max_steps`` may end it earlier.
    """

    recipe: Annotated[str, Field(min_length=1)]
    preset: str | None = None
    minutes: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]


class AddedScans(Section):
    """Scans that all trained methods learn from, beside those of their own recipes.

    Attributes:
        sources: As in a training recipe.
        source_weights: Sampling weight of one of them; 1 for the others.
    """

    sources: Annotated[Mapping[str, Source], Field(min_length=1)]
    source_weights: Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.source_weights.keys() - self.sources.keys():
            message = f"there is no source '{name}'{did_you_mean(name, list(self.sources))}"
            raise fail_at([Problem(("source_weights", name), message, at_key=True)])
        return self

    def added_to(self, training: TrainingRecipe) -> TrainingRecipe:
        """A training recipe with these sources too; its licence follows from all of them."""
        weights = {**training.data.source_weights, **self.source_weights}
        return training.model_copy(
            update={
                "licence": None,
                "sources": {**training.sources, **self.sources},
                "data": training.data.model_copy(update={"source_weights": weights}),
            }
        )


class TableMethod(Section):
    """A column: a checkpoint, one that is trained first, or a control.

    Attributes:
        train: How its checkpoint is made; None for one that ``inpaint`` names, and for controls.
        inpaint: As in the recipe of a dataset.
    """

    train: Training | None = None
    inpaint: Inpaint = Diffusion()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.train is None:
            return self
        if self.inpaint.network is None:
            raise ValueError(f"train: {self.inpaint.method} has no checkpoint; remove train")
        if "checkpoint" in self.inpaint.model_fields_set:
            raise ValueError("train and inpaint.checkpoint exclude each other; remove one")
        return self


class Row(Section):
    """A row: masks of one organ or of several.

    Attributes:
        masks: As in the recipe of a dataset.
        real: Masks whose original tissue is the real set, where ``masks`` paint over other tissue,
            such as transplanted tumours; None for the tissue that they replace.
    """

    masks: Masks
    real: Masks | None = None


class TableRecipe(Section):
    """All settings of a table.

    Attributes:
        name: Name of the table, lower case with dashes.
        description: For the page.
        seed: Of masks and noise; masks are the same for all methods.
        sources: As in the recipe of a dataset; no method may be trained on the hosts' patients.
        view: The plane of the slices; with ``volume`` masks are painted in 3D, and all slices that
            show some of them are compared, so networks in 2D and 3D paint equal masks.
        training: Scans that all methods with ``train`` learn from as well.
        masks_per_case: Masks of a row in each host.
        methods: The columns, by title.
        rows: By title.
        pictures: Masks of each row that the page shows.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    sources: Mapping[str, Source]
    training: AddedScans | None = None
    view: View = "axial"
    masks_per_case: Annotated[int, Field(ge=1, le=10_000)]
    methods: Annotated[Mapping[Title, TableMethod], Field(min_length=1, max_length=30)]
    rows: Annotated[Mapping[Title, Row], Field(min_length=1, max_length=100)]
    pictures: Annotated[int, Field(ge=0, le=100)] = 3

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        for key, titles in (("methods", self.methods), ("rows", self.rows)):
            slugs = [slug(title) for title in titles]
            for number, title in enumerate(titles):
                if slugs[number] in slugs[:number]:
                    message = "names another folder only by case or signs; choose another title"
                    problems.append(Problem((key, title), message, at_key=True))
        for title in self.methods:
            if title in (NEIGHBOUR, FLOOR, PAINTED):
                message = "is the title of a column that every table has; choose another"
                problems.append(Problem(("methods", title), message, at_key=True))
        for title in self.rows:
            if not list(self.columns(title)):
                message = "no method can paint this row: its masks have no donors"
                problems.append(Problem(("rows", title), message, at_key=True))
        if problems:
            raise fail_at(problems)
        return self

    def columns(self, row: str) -> Iterator[str]:
        """The methods that can paint a row: copy-paste needs donors."""
        has_donors = all(m.needs_donor and not m.donor_is_host for m in self.rows[row].masks)
        for title, method in self.methods.items():
            if has_donors or not method.inpaint.needs_donor:
                yield title

    def painted_labels(self, row: str) -> tuple[str, ...]:
        """The labels that a checkpoint must know for a row."""
        labels = (label for mask in self.rows[row].masks for label in mask.painted_labels())
        return tuple(dict.fromkeys(labels))


class Table:
    """A table's recipe with the trainings that it names, and the datasets that it comes to.

    Args:
        recipe: The recipe.
        trainings: The training recipe of each method that is trained.
        file: Its file, for messages.
    """

    def __init__(
        self, recipe: TableRecipe, trainings: Mapping[str, TrainingRecipe], file: str
    ) -> None:
        self.recipe, self.trainings, self.file = recipe, trainings, file

    def error(self, place: str, message: str) -> RecipeError:
        """An error at a method or a row."""
        return RecipeError(f"{self.file}: {place}: {message}")

    def dataset(self, row: str, method: str, checkpoint: Path | None = None) -> Recipe:
        """The recipe of a row's dataset.

        Args:
            row: Title of the row.
            method: Title of the method.
            checkpoint: The checkpoint that was trained for it.

        Raises:
            RecipeError: If its sections make no dataset.
        """
        inpaint = self.recipe.methods[method].inpaint
        if checkpoint is not None and inpaint.network is not None:
            names = inpaint.model_fields_set - {"checkpoint"}
            stated = {name: getattr(inpaint, name) for name in names}
            inpaint = Diffusion(**stated, checkpoint=str(checkpoint))
        return self._dataset(row, self.recipe.rows[row].masks, inpaint, f"methods.{method}")

    def masks_only(self, row: str) -> Recipe:
        """The same masks, filled by a control that needs neither a checkpoint nor a donor."""
        return self._dataset(row, self.recipe.rows[row].masks, NoiseFill(), f"rows.{row}")

    def real(self, row: str) -> Recipe | None:
        """The recipe of a dataset whose originals are a row's real set; None for its own."""
        masks = self.recipe.rows[row].real
        return None if masks is None else self._dataset(row, masks, NoiseFill(), f"rows.{row}.real")

    def _dataset(self, row: str, masks: Masks, inpaint: Any, place: str) -> Recipe:
        recipe = self.recipe
        fields = {
            "name": f"{recipe.name}-{slug(row)}",
            "version": "1.0.0",
            "seed": recipe.seed,
            "sources": dict(recipe.sources),
            "view": recipe.view,
            "masks_per_case": recipe.masks_per_case,
            "masks": masks,
            "inpaint": inpaint,
            "quality": "none",  # no method may lose a mask that another one keeps
            "keep_original": True,
            "splits": {"train": 1.0},
        }
        try:
            return Recipe.model_validate(fields)
        except ValidationError as err:
            first = err.errors(include_url=False)[0]
            raise self.error(place, f"{first['msg']}") from err


def load_table(
    path: Path, *, preset: str | None = None, sources: Mapping[str, Path] | None = None
) -> Table:
    """Read and validate the recipe of a table and the training recipes that it names.

    Args:
        path: The YAML file.
        preset: Name of one of its ``presets``, whose fields then replace the recipe's.
        sources: Source name to a root that replaces the recipe's (``--source``).

    Raises:
        RecipeError: With ``file:line:column`` and what to do.
    """
    document = read_yaml(path)
    apply_preset(document, preset)
    replace_roots(document, sources or {})
    expand_variables(document, PATH_KEYS)
    recipe = validate(document, TableRecipe)
    trainings = {}
    for title, method in recipe.methods.items():
        if method.train is None:
            continue
        file = path.parent / method.train.recipe
        if not file.is_file():
            place = ("methods", title, "train", "recipe")
            raise document.error(place, f"there is no training recipe {file}")
        own = load_training_recipe(file, preset=method.train.preset)
        if recipe.training is None:
            trainings[title] = own
            continue
        for name in recipe.training.sources.keys() & own.sources.keys():
            message = f"{file} has a source '{name}' too; choose another name"
            raise document.error(("training", "sources", name), message, at_key=True)
        trainings[title] = recipe.training.added_to(own)
    return Table(recipe, trainings, str(path))


def slug(title: str) -> str:
    """A title as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
