"""Mask adherence by the user's own segmenter, run once over all painted slices.

The command comes from the command line, never from a dataset or recipe.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from synthct.dataset.sample import Sample
from synthct.errors import RecipeError, ResourceError
from synthct.evaluate.stream import Dataset
from synthct.metrics.adherence import near
from synthct.volume import Volume, read_labels, restore_orientation, write_volume

#: Time limit of the command in seconds.
_TIME_LIMIT = 24 * 3600


def user_adherence(
    dataset: Dataset,
    command: str,
    values: Mapping[str, frozenset[int]],
    *,
    advance: Callable[[], object],
) -> list[tuple[str, float]]:
    """Dice of the user's segmentation and the painted mask, near each mask.

    Slices are written as nnU-Net names them: ``{images}/000000_0000.nii.gz``, and label maps are
    expected as ``{labels}/000000.nii.gz``.

    Args:
        dataset: The dataset.
        command: With ``{images}`` and ``{labels}`` for the two folders.
        values: Label to its values in the label maps; by default all but 0.
        advance: Called once per row.

    Returns:
        The label and the Dice of each sample.

    Raises:
        RecipeError: If the command does not name both folders.
        ResourceError: If the command fails, or a label map is missing.
        SourceError: If a label map is damaged.
    """
    if "{images}" not in command or "{labels}" not in command:
        raise RecipeError(f"--segmenter '{command}': write {{images}} and {{labels}} in it")
    with tempfile.TemporaryDirectory(prefix="synthct-") as folder:
        images, labels = Path(folder, "images"), Path(folder, "labels")
        images.mkdir()
        labels.mkdir()
        for number, sample in enumerate(dataset.slices()):
            slice_volume = Volume(sample.pictures["image"][:, :, None], sample.picture_affine)
            write_volume(slice_volume, images / f"{number:06d}_0000.nii.gz")
        _run(command, images, labels)
        dice = []
        for number, sample in enumerate(dataset.slices()):
            label = sample.facts.label or "whatever fits"
            dice.append((label, _dice(sample, labels / f"{number:06d}.nii.gz", values.get(label))))
            advance()
    return dice


def _run(command: str, images: Path, labels: Path) -> None:
    words = [w.format(images=images, labels=labels) for w in shlex.split(command)]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command, run without a shell
            words, capture_output=True, text=True, timeout=_TIME_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ResourceError(f"--segmenter: {words[0]} cannot be run ({err})") from err
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ResourceError(f"--segmenter: {words[0]} ended with {done.returncode}: {last}")


def _dice(sample: Sample, path: Path, values: frozenset[int] | None) -> float:
    if not path.is_file():
        raise ResourceError(f"--segmenter: it wrote no {path.name} for {sample.sample_id}")
    mask = sample.pictures["mask"]
    given = restore_orientation(read_labels(path), sample.picture_affine).array
    if given.shape != (*mask.shape, 1):
        raise ResourceError(
            f"--segmenter: {path.name} is {given.shape}, the slice {(*mask.shape, 1)}"
        )
    looks = given[:, :, 0] > 0 if values is None else np.isin(given[:, :, 0], list(values))
    looks &= near(mask, sample.pixel_mm)
    total = np.count_nonzero(looks) + np.count_nonzero(mask)
    return float(2 * np.count_nonzero(looks & mask) / total)
