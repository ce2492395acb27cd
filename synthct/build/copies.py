"""Keeps paintings out of a dataset that are too like what their checkpoint was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from synthct.dataset.sample import Sample
from synthct.dataset.stack import widest_slice
from synthct.metrics.region_key import Keys, region_hash, search_keys
from synthct.models.network import CheckpointFiles
from synthct.models.training_index import keys_of, read_index
from synthct.recipe.recipe import Recipe
from synthct.volume.views import VIEW_AXIS

#: Decimals of a similarity in ``rejected.parquet``.
_DECIMALS = 4


@dataclass(frozen=True, eq=False)
class TrainingCopies:
    """The regions that a checkpoint was trained on, by key.

    Attributes:
        keys: (N, bytes).
        hashes: Of their voxels.
        patients: Of each of them.
        most: Largest similarity that a painting may have.
    """

    keys: Keys
    hashes: frozenset[bytes]
    patients: tuple[str, ...]
    most: float

    def reason(self, sample: Sample) -> tuple[str, float] | None:
        """Why a painted sample is too like a training region, and its similarity; None if not.

        Of a volume, the slice with most of the mask is compared.
        """
        widest = widest_slice(sample)
        axis = VIEW_AXIS[widest.plane]
        region = widest.image.squeeze(axis), widest.mask.squeeze(axis)
        rows, likeness = search_keys([region], self.keys, best=1)
        similarity = round(float(likeness[0, 0]), _DECIMALS)
        if similarity <= self.most and region_hash(*region) not in self.hashes:
            return None
        return f"privacy: like a training region of {self.patients[rows[0, 0]]}", similarity


def training_copies(recipe: Recipe, files: CheckpointFiles | None) -> TrainingCopies | None:
    """What paintings are compared with; None if the recipe does not ask for it.

    Raises:
        RecipeError: If nothing is known of what the checkpoint was trained on.
    """
    section = recipe.privacy
    if section is None:
        return None
    index = read_index(files) if files is not None else None
    if index is None:
        what = f"checkpoint '{files.name}' has" if files is not None else "a control has"
        message = f"{what} no privacy index, so nothing can be compared with it; remove it"
        raise recipe.error(("privacy",), message, at_key=True)
    hashes, patients = index["sha256"].to_pylist(), index["patient_id"].to_pylist()
    return TrainingCopies(
        keys_of(index), frozenset(hashes), tuple(patients), section.max_training_key
    )
