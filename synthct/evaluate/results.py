"""The results of an evaluation and the schema of ``evaluation.json``.

Reports and cards are made from this file alone. ``Evaluation.model_json_schema()`` is its JSON
Schema; undefined numbers are null.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synthct.errors import VerifyError
from synthct.storage.files import atomic_write, make_folder

#: Version of the layout of ``evaluation.json``.
RESULTS_VERSION = "1.0.0"
RESULTS, TABLES = "evaluation.json", "tables.md"

Scope = Literal["mask", "crop", "slice"]
ArmKind = Literal["painted", "control", "neighbour", "floor"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(_Model):
    """A number with its 95 % interval; both ends are null without an interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Arm(_Model):
    """One of the sets of pictures that are compared with real scans.

    Attributes:
        name: Name in the tables; the first is the dataset itself, named ``painted``.
        kind: The dataset itself, a control dataset, real neighbouring slices, or the halves of
            the real set against each other (``floor``).
        content_id: Content id of a dataset; null for real scans.
        samples: Number of samples.
    """

    name: str
    kind: ArmKind
    content_id: str | None
    samples: int


class Features(_Model):
    """A feature extractor.

    Attributes:
        name: ``radiomics``, ``efficientnet-lite0`` or ``inception-v3``.
        key: Name, weights and version; equal keys mean comparable numbers.
        dim: Number of features.
    """

    name: str
    key: str
    dim: int


class Group(_Model):
    """The samples that are compared together: all, or those of one label.

    Attributes:
        name: ``all``, a label, or ``whatever fits``.
        masks: Number of different masks with a real counterpart.
        patients: Number of patients in the real set.
        halves: How the real set was halved for the floor: by patient, or, with fewer than five
            patients, by mask, without an interval and with too low a floor.
    """

    name: str
    masks: int
    patients: int
    halves: Literal["patients", "masks"]


class Numbers(_Model):
    """Distances between two sets of pictures, and scores of the first alone.

    Attributes:
        samples: Number of pictures. With fewer pictures than features, a FID is biased upward.
        real_samples: Number of pictures of the real set.
        fid: Fréchet distance between the whole arm and the whole real set, in the same places.
        fid_halves: Fréchet distance between the arm in one half of the patients and the real set
            in the other, one painting per mask; comparable with the floor, which is the distance
            between real halves.
        kid: Kernel distance over pairs of different patients (of different masks with fewer than
            five patients); unbiased, so it may be negative.
        inception_score: Of the arm; in the floor's row of the real set.
        inception_score_std: Its standard deviation over ten parts; null with fewer than 100
            pictures.
        precision: Share of the arm that looks real, over the same halves as ``fid_halves``.
        recall: Share of the real set that the arm covers, over the same halves.
    """

    samples: int
    real_samples: int
    fid: float | None = None
    fid_halves: Interval | None = None
    kid: Interval | None = None
    inception_score: float | None = None
    inception_score_std: float | None = None
    precision: float | None = None
    recall: float | None = None


class Score(Numbers):
    """The numbers of one arm, in one group, by one extractor.

    Attributes:
        group: Name of the group.
        arm: Name of the arm.
        extractor: Name of the extractor.
        scope: ``mask`` (radiomics, inside it only), ``crop`` around it, or whole ``slice``,
            most of which is real.
        dim: Number of features.
    """

    group: str
    arm: str
    extractor: str
    scope: Scope
    dim: int


class Spread(_Model):
    """The distribution of a measure per sample, in one arm and group.

    Attributes:
        group: Name of the group.
        arm: Name of the arm.
        measure: A column of the dataset, ``z_jump_ratio`` (one value per pair of neighbouring
            slices) or ``user_adherence`` (by the user's own segmenter).
        count: Number of samples for which it is defined.
        undefined: Number of samples for which it is not.
        quantiles: At 5, 25, 50, 75 and 95 %.
    """

    group: str
    arm: str
    measure: str
    count: int
    undefined: int
    quantiles: Annotated[tuple[float, ...], Field(min_length=5, max_length=5)]


class Evaluation(_Model):
    """All results of an evaluation.

    Attributes:
        format_version: Layout of this file.
        package_version: Version of synthct.
        dataset: Name of the dataset.
        version: Its version.
        content_id: Content id of the dataset.
        real: Content id of the dataset whose originals are the real set; equal to ``content_id``
            for the dataset's own hosts.
        rows: Number of samples in the dataset.
        rejected: Number of rejected samples by reason.
        in_training: Number of samples whose host the checkpoint was trained on.
        arms: In the order of the tables.
        extractors: In the order of the tables.
        groups: In the order of the tables.
        scores: By group, extractor, scope and arm.
        measures: By group, arm and measure.
        notes: Remarks for the reader, such as a missing arm.
    """

    format_version: str = RESULTS_VERSION
    package_version: str
    dataset: str
    version: str
    content_id: str
    real: str
    rows: int
    rejected: dict[str, int]
    in_training: int
    arms: tuple[Arm, ...]
    extractors: tuple[Features, ...]
    groups: tuple[Group, ...]
    scores: tuple[Score, ...]
    measures: tuple[Spread, ...]
    notes: tuple[str, ...]

    def score(self, group: str, arm: str, extractor: str, scope: Scope) -> Score | None:
        """The score of an arm in a group; None if there is none."""
        key = group, arm, extractor, scope
        return next((s for s in self.scores if (s.group, s.arm, s.extractor, s.scope) == key), None)


def write_results(folder: Path, evaluation: Evaluation, tables: str) -> None:
    """Write ``evaluation.json`` and ``tables.md``.

    Raises:
        ResourceError: If the folder cannot be written.
    """
    make_folder(folder)
    atomic_write(folder / TABLES, tables.encode())
    atomic_write(folder / RESULTS, f"{evaluation.model_dump_json(indent=1)}\n".encode())


def read_results(folder: Path) -> Evaluation:
    """Read ``evaluation.json``.

    Raises:
        VerifyError: If it is missing or damaged.
    """
    path = folder / RESULTS
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as err:
        raise VerifyError(f"{path} cannot be read ({err}); run 'synthct evaluate' again") from err
