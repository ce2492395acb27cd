"""What a segmentation of one test scan is worth: overlap, surfaces, lesions found, false alarms.

A lesion is a connected part of the true label of 0.1 ml and more. At a threshold of the predicted
probability it is found if at least a tenth of it is predicted; a connected part of the prediction
as large as that which touches nothing of the true label is a false positive. Dice and Jaccard: Taha
and Hanbury, BMC Medical Imaging 2015; surface Dice: Nikolov et al., arXiv:1809.04430, here with
voxels of the border for the surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import pdist

from synthct.volume import Affine, Box
from synthct.volume.anatomy import exophytic_share, hull_mm
from synthct.volume.distance import distances_mm
from synthct.volume.grid import spacing_of
from synthct.volume.views import IGNORE

Mask = npt.NDArray[np.bool_]

#: Probabilities at which lesions are looked for.
THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
#: The one at which a segmenter says what it has found.
USUAL = 0.5

#: Share of a lesion that must be predicted for it to be found.
_HIT = 0.1
#: Smaller parts of the truth are no lesions, smaller ones of a prediction no false positives.
LEAST_ML = 0.1
#: Two surfaces agree where they are as close as this.
TOLERANCE_MM = 2.0

_CONNECTED = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Lesion:
    """A true lesion of a test scan.

    Attributes:
        volume_ml: Of its voxels.
        diameter_mm: Greatest distance of two points of its surface.
        place: Where its centre lies in the scan, as shares of its extent from right to left, from
            posterior to anterior and from inferior to superior.
        score: Highest of ``THRESHOLDS`` at which it is found; 0 if at none.
        organ: Of the other labels the one that it borders on most; None if on none.
        exophytic_share: Share of its surface that does not border on that organ.
    """

    volume_ml: float
    diameter_mm: float
    place: tuple[float, float, float]
    score: float
    organ: str | None = None
    exophytic_share: float = 1.0


@dataclass(frozen=True)
class Judged:
    """A segmenter on one test scan; labels that it does not have have no overlap.

    Attributes:
        case_id: The scan.
        patient_id: The person.
        dice: By label.
        jaccard: By label.
        surface_dice: By label; share of the two surfaces within ``TOLERANCE_MM`` of the other.
        lesions: The true lesions.
        false_positives: Number at each of ``THRESHOLDS``.
    """

    case_id: str
    patient_id: str
    dice: Mapping[str, float | None]
    jaccard: Mapping[str, float | None]
    surface_dice: Mapping[str, float | None]
    lesions: tuple[Lesion, ...]
    false_positives: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Judged:
        """The inverse of ``as_json``."""
        lesions = tuple(
            Lesion(**{**one, "place": tuple(one["place"])}) for one in stored["lesions"]
        )
        counts = tuple(stored["false_positives"])
        return cls(**{**stored, "lesions": lesions, "false_positives": counts})


def judge(
    who: tuple[str, str],
    truth: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.float32],
    affine: Affine,
    names: tuple[str, ...],
) -> Judged:
    """Compare a prediction with the truth.

    Args:
        who: Case and patient.
        truth: Classes (I, J, K), 255 where nobody knows.
        probability: Of each class (C, I, J, K).
        affine: (4, 4) of the grid.
        names: The labels of the classes from 1; the last one is the lesion.
    """
    known = truth != IGNORE
    predicted = np.where(known, probability.argmax(0), 0)
    overlaps = [_overlap(truth == n, predicted == n, affine) for n in range(1, len(names) + 1)]
    dice, jaccard, surface = (
        dict(zip(names, column, strict=True)) for column in zip(*overlaps, strict=True)
    )
    lesions, alarms = _lesions(truth, probability[-1] * known, affine, names)
    return Judged(*who, dice, jaccard, surface, lesions, alarms)


def _overlap(
    truth: Mask, predicted: Mask, affine: Affine
) -> tuple[float | None, float | None, float | None]:
    """Dice, Jaccard and surface Dice; None for a label that is not there."""
    either = Box.around(truth | predicted)
    if either is None or not truth.any():
        return None, None, None
    truth, predicted = (np.pad(one[either.slices], 1) for one in (truth, predicted))
    both, sums = int((truth & predicted).sum()), int(truth.sum() + predicted.sum())
    return 2 * both / sums, both / (sums - both), _surface_dice(truth, predicted, affine)


def _surface_dice(truth: Mask, predicted: Mask, affine: Affine) -> float:
    borders = [one & ~ndimage.binary_erosion(one) for one in (truth, predicted)]
    if not borders[1].any():
        return 0.0
    close = total = 0
    for border, other in (borders, borders[::-1]):
        away = distances_mm(~other, affine)
        close += int((away[border] <= TOLERANCE_MM).sum())
        total += int(border.sum())
    return close / total


def _lesions(
    truth: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.float32],
    affine: Affine,
    names: tuple[str, ...],
) -> tuple[tuple[Lesion, ...], tuple[int, ...]]:
    """The true lesions with the threshold that finds them, and false positives by threshold."""
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    numbered, count = ndimage.label(truth == len(names), _CONNECTED)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    scores, alarms = np.zeros(count + 1), []
    for threshold in THRESHOLDS:
        parts, found = ndimage.label(probability >= threshold, _CONNECTED)
        counts = np.bincount(parts.ravel(), minlength=found + 1)
        large = counts * voxel_ml >= LEAST_ML
        large[0] = False
        touching = np.unique(parts[numbered > 0])
        true = np.zeros(found + 1, bool)
        true[touching] = True
        alarms.append(int((large & ~true).sum()))
        hit = np.bincount(numbered[parts > 0], minlength=count + 1)
        scores[hit >= np.maximum(1, _HIT * sizes)] = threshold
    lesions = []
    for number, place in enumerate(ndimage.find_objects(numbered), 1):
        if sizes[number] * voxel_ml < LEAST_ML:
            continue
        own = numbered[place] == number
        centre = [s.start + c for s, c in zip(place, ndimage.center_of_mass(own), strict=True)]
        i, j, k = (round(float(c) / n, 3) for c, n in zip(centre, truth.shape, strict=True))
        lesions.append(
            Lesion(
                round(float(sizes[number]) * voxel_ml, 4),
                round(float(pdist(hull_mm(own, affine)).max()), 1),
                (i, j, k),
                float(scores[number]),
                *_organ_of(truth, numbered == number, names, affine),
            )
        )
    return tuple(lesions), tuple(alarms)


def _organ_of(
    truth: npt.NDArray[np.uint8], lesion: Mask, names: tuple[str, ...], affine: Affine
) -> tuple[str | None, float]:
    """The label that a lesion borders on most, and the share of its surface that does not."""
    tight = Box.around(lesion)
    assert tight is not None, "a lesion has voxels"
    box = tight.grow((1, 1, 1)).clip(truth.shape)
    lesion, truth = lesion[box.slices], truth[box.slices]
    around = truth[ndimage.binary_dilation(lesion) & ~lesion]
    counts = np.bincount(around, minlength=len(names) + 1)[1 : len(names)]
    if not counts.any():
        return None, 1.0
    organ = int(counts.argmax()) + 1
    share = exophytic_share(lesion, truth == organ, spacing_of(affine))
    return names[organ - 1], round(share, 3)
