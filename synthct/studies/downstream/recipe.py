"""The recipe of a study: which segmenters are trained on what, and judged on which real scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from synthct.errors import RecipeError
from synthct.models.methods import Listed
from synthct.recipe.recipe import Recipe, load_recipe
from synthct.recipe.roots import replace_roots
from synthct.recipe.yaml_model import Document, expand_variables, read_yaml, validate
from synthct.sources import Source

#: What a segmenter is trained on.
Arm = Literal["real", "painted", "pairs", "copy_paste", "noise_fill", "painted_only"]
ARMS: tuple[Arm, ...] = ("real", "painted", "copy_paste", "noise_fill", "painted_only")

#: The source of the real test scans, by the name that ``--source`` gives it.
TEST = "test"

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Amount = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trainer(_Section):
    """How the segmenters are trained, all of them alike.

    Attributes:
        steps: Optimiser steps of each segmenter.
        batch_size: Patches in a step.
        patch_px: Edge of a patch, in pixels.
        patch_slices: Slices of a patch. With one the network is 2D, with more it is 3D.
        spacing_mm: In-plane pixel size that slices are resampled to.
        slice_mm: Distance of the slices that a 3D network sees; scans are resampled to it.
        channels: Channels of the U-Net by level.
        window_hu: HU that become -1 and 1; what lies beyond is clipped.
        learning_rate: Of AdamW; it falls to 0 along a cosine.
        lesion_share: Share of the patches that are centred on a lesion, if any scan has one.
    """

    steps: Count = 800
    batch_size: Annotated[int, Field(ge=1, le=256)] = 8
    patch_px: Annotated[int, Field(ge=16, le=512, multiple_of=32)] = 96
    patch_slices: Annotated[int, Field(ge=1, le=256)] = 1
    spacing_mm: Annotated[float, Field(ge=0.3, le=10)] = 1.5
    slice_mm: Annotated[float | None, Field(ge=0.3, le=20)] = None
    channels: Annotated[Listed[tuple[Count, ...]], Field(min_length=2, max_length=6)] = (
        12, 24, 48, 96,
    )  # fmt: skip
    window_hu: Listed[tuple[float, float]] = (-160.0, 240.0)
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    lesion_share: Annotated[float, Field(ge=0, le=1)] = 0.33

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.patch_slices > 1 and self.slice_mm is None:
            raise ValueError(
                f"patch_slices {self.patch_slices} makes the network 3D, which needs slice_mm, "
                "the distance of the slices; write it"
            )
        if self.patch_slices == 1 and self.slice_mm is not None:
            raise ValueError(
                "slice_mm is for a 3D network; write patch_slices (16, say) as well, or remove it"
            )
        return self


class Classification(_Section):
    """Classifiers of crops beside the segmenters: is there a lesion?

    Attributes:
        crop_mm: Edge of a crop.
        crop_px: The same in pixels.
        places_per_scan: Crops of each real scan without a lesion, in the organ.
        steps: Optimiser steps of each classifier.
    """

    crop_mm: Annotated[float, Field(ge=10, le=400)] = 64.0
    crop_px: Annotated[int, Field(ge=16, le=256)] = 40
    places_per_scan: Annotated[int, Field(ge=1, le=1000)] = 8
    steps: Count = 300


class Study(_Section):
    """One study.

    Attributes:
        name: Name of the study, lower case with dashes.
        seed: Of all that is drawn but the training: shares of the patients, and resamples.
        dataset: The recipe of the painted dataset, relative to this file. Its hosts are the real
            training scans. Masks need donors with images, for the arm that pastes.
        test: The source of the real test scans.
        lesion: The label that is found or missed.
        labels: Other labels that are segmented beside it.
        arms: What segmenters are trained on: ``real`` scans; these and as many ``painted`` ones
            as ``amounts`` says, or ``copy_paste``, or ``noise_fill``; ``painted_only``; and
            ``pairs``: ``painted``, and the same places painted as the organ.
        amounts: Painted scans for each real one.
        shares: Shares of the real patients that are known, as hosts and donors too.
        seeds: Of training: one segmenter each.
        lesions_per_scan: Most painted lesions in one scan.
        leave_one_out: For few patients: the test scans are among the hosts, and each of their
            patients is judged by segmenters that know all others. Nothing of a patient who is left
            out is host or donor then.
        unknown_training: ``allow`` a checkpoint that does not say what it was trained on.
        trainer: The small U-Net, 2D or 3D.
        classification: Also train classifiers; their other settings are those of ``trainer``.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    dataset: Annotated[str, Field(min_length=1)]
    test: Source
    lesion: Name
    labels: tuple[Name, ...] = ()
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = ARMS
    amounts: Annotated[tuple[Amount, ...], Field(min_length=1)] = (2.0,)
    shares: Annotated[tuple[Share, ...], Field(min_length=1)] = (1.0,)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1)
    lesions_per_scan: Annotated[int, Field(ge=1, le=20)] = 2
    leave_one_out: bool = False
    unknown_training: Literal["refuse", "allow"] = "refuse"
    trainer: Trainer = Trainer()
    classification: Classification | None = None

    _document: Document | None = PrivateAttr(default=None)
    _recipe: Recipe | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("arms", "amounts", "shares", "seeds", "labels"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise ValueError(f"{field} has a value twice; remove one")
        if self.lesion in self.labels:
            raise ValueError(f"labels has the lesion '{self.lesion}', which is segmented anyway")
        if self.leave_one_out and self.classification is not None:
            raise ValueError("leave_one_out is for segmenters; remove classification")
        return self

    @property
    def recipe(self) -> Recipe:
        """The recipe of the painted dataset."""
        assert self._recipe is not None, "a study is made by load_study"
        return self._recipe

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels that are segmented, from value 1; the lesion last."""
        return (*self.labels, self.lesion)

    @property
    def methods(self) -> tuple[str, ...]:
        """The ways of painting that the arms need, from ``painted``, controls."""
        needed = {"painted_only": "painted", "pairs": "painted", "real": None}
        named = (needed.get(arm, arm) for arm in self.arms)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def error(self, location: tuple[str | int, ...], message: str) -> RecipeError:
        """An error at a field, with file and line."""
        assert self._document is not None, "a study is made by load_study"
        return self._document.error(location, message)

    @classmethod
    def of(cls, document: Document, recipe: Recipe) -> Study:
        """The study of a file."""
        study = validate(document, cls)
        study._document, study._recipe = document, recipe
        return study


def load_study(path: Path, *, sources: Mapping[str, Path] | None = None) -> Study:
    """Read and check the recipe of a study, and that of its dataset.

    Args:
        path: The YAML file.
        sources: Source name to a root that replaces the recipe's (``--source``); ``test`` for the
            test scans.

    Raises:
        RecipeError: With ``file:line:column`` and what to do.
    """
    document = read_yaml(path)
    roots = dict(sources or {})
    if TEST in roots:
        tested = Document(document.file, {"sources": {TEST: document.value.get("test")}})
        replace_roots(tested, {TEST: roots.pop(TEST)})
    expand_variables(document, ("test.root",))
    validate(document, Study)  # before another file is read
    place = path.parent / document.value["dataset"]
    study = Study.of(document, _checked(document, load_recipe(place, sources=roots)))
    needs = "classification" if study.classification else "arms"
    if study.classification is not None or "pairs" in study.arms:
        for section in study.recipe.masks:
            if section.kind != "transplant":
                message = f"masks '{section.name}' of {study.dataset} are no transplants, so they "
                raise study.error((needs,), f"{message}have no counterparts without a lesion")
    return study


def _checked(document: Document, recipe: Recipe) -> Recipe:
    """The recipe of the dataset, if whole scans can be made of it.

    Raises:
        RecipeError: If not.
    """

    def refuse(message: str) -> RecipeError:
        return document.error(("dataset",), f"{document.value['dataset']}: {message}")

    if recipe.view != "volume":
        for section in recipe.masks:
            if section.slices != "all":
                raise refuse(
                    f"masks '{section.name}' paint some slices of a lesion, and segmenters are "
                    "trained on whole ones; write 'slices: all' or 'view: volume'"
                )
    if recipe.series is not None or recipe.masks_per_sample is not None:
        raise refuse("series and masks_per_sample are not for studies; remove them")
    if recipe.release == "patch" or recipe.inpaint.network is None:
        raise refuse("a study paints with a network, and keeps whole samples")
    if recipe.inpaint.network.adapt is not None:
        raise refuse(
            "a study does not adapt checkpoints; run 'synthct adapt' and name what it makes as "
            "inpaint.checkpoint"
        )
    return recipe
