"""The results of a privacy check and the schema of ``privacy.json``; undefined numbers are null."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from synthct.errors import VerifyError
from synthct.storage.files import atomic_write, make_folder

#: Version of the layout of ``privacy.json``.
RESULTS_VERSION = "1.0.0"
RESULTS, TABLES, MEMBERSHIP = "privacy.json", "privacy.md", "membership.json"

#: The field of the files that holds the sha256 of all others.
_DIGEST = "sha256"

#: How painted regions were compared with those of the training.
How = Literal["correlation", "key", "not assessed"]
Flag = Literal["training_ncc", "training_z", "training_key", "block_copy", "host_ncc"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Results = TypeVar("Results", bound=_Model)


class Share(_Model):
    """A number of cases out of some, with the 95 % Clopper-Pearson interval of the share."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.count / self.of if self.of else None


class Threshold(_Model):
    """A value above which a region is flagged.

    Attributes:
        measure: What is compared with it.
        value: The threshold.
        is_fitted: Whether it was fitted to held-out patients of this dataset; else it is the one
            that was measured on real CT in development.
        regions: Real regions of held-out patients that it was fitted to.
        patients: Their number.
        largest: The largest value among these regions; null if there are none.
        reason: Why it is this one.
    """

    measure: str
    value: float
    is_fitted: bool
    regions: int
    patients: int
    largest: float | None
    reason: str


class Power(_Model):
    """Which planted copies the check found, at rising strength of one change.

    Attributes:
        change: ``noise``, ``blur``, ``deformation`` or ``blend``.
        unit: Of the strengths.
        strengths: From hardly changed on.
        recall: Share of the planted copies that were flagged, by strength.
        planted: Copies at each strength.
        lost_at: The first strength with a recall below 50 %; null if there is none.
    """

    change: str
    unit: str
    strengths: tuple[float, ...]
    recall: tuple[float, ...]
    planted: int
    lost_at: float | None


class RegionResult(_Model):
    """One painted region.

    Attributes:
        sample_id: The sample.
        patient_id: The host's patient.
        host_in_training: Whether the checkpoint was trained on the host.
        real_voxel_fraction: Share of what it shows that is the host's own voxels.
        recognisable: Whether a head or face is in the field: true, false, or null if neither label
            names nor the view tell.
        assessed: By correlation with training scans, by keys only, or not.
        self_recon_ncc: High-passed correlation with the tissue that was there before.
        donor_shape_dice: Largest Dice of the mask with a slice of the donor's lesion, moved and
            flipped; null without a donor whose label map is at hand.
        train_key: Similarity of the key to that of the nearest training region, at most 1.
        train_nn_ncc: High-passed correlation with the nearest training region.
        train_nn_z: The largest correlation in standard deviations of that of other places with so
            large a region of such texture.
        train_nn_ncc_3d: The same as ``train_nn_ncc`` over all slices of a volume.
        nearest_patient: The patient of that region.
        nearest_case: The case of that region.
        block_copy: Share of 8 x 8 blocks that are in it voxel for voxel.
        flags: Which limits it breaks.
    """

    sample_id: str
    patient_id: str
    host_in_training: bool | None
    real_voxel_fraction: float
    recognisable: bool | None
    assessed: How
    self_recon_ncc: float | None = None
    donor_shape_dice: float | None = None
    train_key: float | None = None
    train_nn_ncc: float | None = None
    train_nn_z: float | None = None
    train_nn_ncc_3d: float | None = None
    nearest_patient: str | None = None
    nearest_case: str | None = None
    block_copy: float | None = None
    flags: tuple[Flag, ...] = ()


class Reuse(_Model):
    """How painted regions are spread over the hosts' patients.

    Attributes:
        patients: Their number.
        most: Most regions of one patient.
        gini: 0 if all patients have as many, near 1 if one has them all.
    """

    patients: int
    most: int
    gini: float


class Interval(_Model):
    """A number with its 95 % bootstrap interval over patients, or over patches of few patients."""

    value: float
    low: float
    high: float


class Side(_Model):
    """The patches on one side of a membership test, and of how many patients they are."""

    patches: int
    patients: int


class Membership(_Model):
    """The results of a membership test of a checkpoint.

    Attributes:
        format_version: Layout of this file.
        package_version: Version of synthct.
        checkpoint: Its name.
        checkpoint_id: Hash over its files.
        members: Patches of patients whom it was trained on.
        others: Patches of other patients.
        auc: Chance that a member has a lower loss than another; 0.5 tells nothing.
        true_positives: Share of members found where 1 % of others are taken for members.
    """

    format_version: str = RESULTS_VERSION
    package_version: str
    checkpoint: str
    checkpoint_id: str
    members: Side
    others: Side
    auc: Interval
    true_positives: Interval


class PrivacyCheck(_Model):
    """All results of a privacy check.

    Attributes:
        format_version: Layout of this file.
        package_version: Version of synthct.
        content_id: Content id of the dataset.
        checkpoint: Name of the checkpoint; null if nothing was painted by one.
        checkpoint_id: Hash over its files.
        training_regions: Regions in the checkpoint's privacy index; null without an index.
        training_patients: Patients in it.
        training_scans: Scans in it, and how many of them were compared with.
        scans_at_hand: See ``training_scans``.
        assessed: The weakest way in which a region was assessed.
        copies: Flagged regions; null where nothing was assessed.
        nearer_to_training: Regions nearer to training regions than to as many held-out ones; about
            half is expected. A warning light only; null without held-out patients.
        variant_diversity: 1 - median correlation of variants of one mask; null without variants.
        reuse: How often the same patients are hosts.
        thresholds: By measure.
        power: What the check could have seen; empty where no real tissue was at hand.
        regions: In the order of the dataset.
        notes: Remarks for the reader.
        sentence: The result in one sentence, for a card.
    """

    format_version: str = RESULTS_VERSION
    package_version: str
    dataset: str
    version: str
    content_id: str
    checkpoint: str | None
    checkpoint_id: str | None
    training_regions: int | None
    training_patients: int | None
    training_scans: int | None
    scans_at_hand: int
    assessed: How
    copies: Share | None
    nearer_to_training: Share | None
    variant_diversity: float | None
    reuse: Reuse
    thresholds: tuple[Threshold, ...]
    power: tuple[Power, ...]
    regions: tuple[RegionResult, ...]
    notes: tuple[str, ...]
    sentence: str


def write_results(folder: Path, check: PrivacyCheck, tables: str) -> None:
    """Write ``privacy.json`` and ``privacy.md``.

    Raises:
        ResourceError: If the folder cannot be written.
    """
    make_folder(folder)
    atomic_write(folder / TABLES, tables.encode())
    atomic_write(folder / RESULTS, _sealed(check))


def write_membership(folder: Path, result: Membership) -> None:
    """Write ``membership.json``.

    Raises:
        ResourceError: If the folder cannot be written.
    """
    make_folder(folder)
    atomic_write(folder / MEMBERSHIP, _sealed(result))


def read_results(folder: Path) -> PrivacyCheck:
    """Read ``privacy.json``.

    Raises:
        VerifyError: If it is missing or damaged.
    """
    return _read(folder / RESULTS, PrivacyCheck)


def read_membership(folder: Path) -> Membership:
    """Read ``membership.json``.

    Raises:
        VerifyError: If it is missing or damaged.
    """
    return _read(folder / MEMBERSHIP, Membership)


def _sealed(results: _Model) -> bytes:
    """The file of some results: JSON with the sha256 of the rest as its first field."""
    fields = results.model_dump(mode="json")
    return (json.dumps({_DIGEST: _digest(fields), **fields}, indent=1) + "\n").encode()


def _digest(fields: Mapping[str, object]) -> str:
    """SHA-256 of the fields as JSON without white space, in the order of their names."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, model: type[Results]) -> Results:
    try:
        fields = json.loads(path.read_bytes())
        if not isinstance(fields, dict) or fields.pop(_DIGEST, None) != _digest(fields):
            raise VerifyError(
                f"{path} is not what its {_DIGEST} says, so it was changed or cut; run 'synthct "
                "privacy' again"
            )
        return model.model_validate_json(json.dumps(fields))
    except (OSError, ValueError) as err:
        raise VerifyError(
            f"{path} is missing or damaged ({err}); run 'synthct privacy' again"
        ) from err
