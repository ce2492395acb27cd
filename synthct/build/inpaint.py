"""What ``synthct inpaint`` reads and writes: files of one scan and a mask, and settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from synthct.build.one_scan import paint_scan
from synthct.errors import ConflictError, MaskError, RecipeError, SourceError
from synthct.models.methods import Diffusion
from synthct.recipe.yaml_errors import describe_errors, path_text
from synthct.sources.folder import check_orientation
from synthct.storage.files import atomic_write, make_folder
from synthct.volume import (
    HU_MAX,
    HU_MIN,
    CtReading,
    LabelReading,
    Volume,
    read_ct,
    read_ct_counting,
    read_labels,
)
from synthct.volume.grid import padded, start_within
from synthct.volume.rewrite import changed_file, require_storable
from synthct.volume.views import Plane

logger = logging.getLogger(__name__)

Ct = str | Path | Volume | tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


def paint_file(
    ct: Path,
    mask: Path,
    output: Path,
    settings: Diffusion,
    *,
    label: str | None = None,
    mask_value: int | None = None,
    view: Plane = "axial",
    together: bool = True,
    seed: int = 0,
    orientation: str | None = None,
    label_grid: Literal["image"] | None = None,
    device: Callable[[], str] = lambda: "cpu",
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Paint into a NIfTI file; all that is not painted is written as it was, byte for byte.

    Header, axes, type of voxels and the values outside of the mask stay those of the file, also
    below -1024 and above 3071 HU; the model sees them clipped to that range.

    Args:
        ct: The scan, .nii or .nii.gz.
        mask: The same for the mask, on the grid of the scan, or a part of it, in any orientation.
        output: The new file, .nii or .nii.gz.
        settings: As for ``paint_scan``, and so the rest.
        label: What to paint; None for whatever fits.
        mask_value: Paint where the mask has this value; None for all but 0.
        view: The plane of the slices; a network in 3D goes by the scan's own.
        together: As of ``paint_scan``.
        seed: Random seed.
        orientation: Patient directions of the axes, such as ``LAS``, of files that say none.
        label_grid: ``image`` for a mask that has lost its affine: its voxels are the scan's.
        device: Says where the model runs.
        overwrite: Whether the output may be there already.
        progress: Show a progress bar.

    Raises:
        RecipeError: If the output's name says no format, or is that of an input.
        ConflictError: If the output is there.
        SynthCTError: As from ``paint_scan``, and if a file is damaged.
    """
    if not output.name.endswith((".nii", ".nii.gz")):
        raise RecipeError(f"{output}: the output's name must end with .nii or .nii.gz")
    if output.exists():
        if any(output.samefile(one) for one in (ct, mask) if one.exists()):
            raise RecipeError(f"{output} is an input too; write the painted scan to another file")
        if not overwrite:
            raise ConflictError(f"{output} exists; choose another name, or allow overwriting")
    try:
        orientation = orientation and check_orientation(orientation)
    except ValueError as err:
        raise RecipeError(f"orientation: {err}") from err
    require_storable(ct, orientation=orientation)
    of_scan, remarks = list[str](), list[str]()
    scan, _ = read_ct_counting(ct, reading=CtReading(orientation=orientation), remarks=of_scan)
    grid = ct if label_grid == "image" else None
    labels = read_labels(mask, reading=LabelReading(orientation, grid), remarks=remarks)
    region = labels.array != 0 if mask_value is None else labels.array == mask_value
    if mask_value is not None and not region.any():
        there = ", ".join(str(n) for n in np.unique(labels.array)[:20])
        raise MaskError(f"{mask}: no voxel has the value {mask_value}; there is: {there}")
    where = _padded(scan, Volume(region, labels.affine), remarks)
    for remark in of_scan:
        logger.warning("%s, as the model sees it: %s", ct, remark)
    for remark in remarks:
        logger.warning("%s: %s", mask, remark)
    painted = paint_scan(
        scan,
        where,
        settings,
        label=label,
        view=view,
        together=together,
        seed=seed,
        device=device,
        progress=progress,
    )
    make_folder(output.parent)
    is_zipped = output.name.endswith(".gz")
    atomic_write(
        output, changed_file(ct, painted, where.array, compress=is_zipped, orientation=orientation)
    )
    return output


def settings_of(**fields: Any) -> Diffusion:
    """Arguments as a recipe's section ``inpaint``; None for what is not stated.

    Raises:
        RecipeError: If one is invalid.
    """
    stated = {name: value for name, value in fields.items() if value is not None}
    try:
        return Diffusion.model_validate(stated, strict=True)
    except ValidationError as err:
        problems = describe_errors(err, stated, Diffusion)
        lines = (path_text(("inpaint", *one.location)) + f": {one.message}" for one in problems)
        raise RecipeError("\n".join(lines)) from err


def _padded(scan: Volume, region: Volume, remarks: list[str]) -> Volume:
    """A mask that covers a part of its scan's grid with nothing around it; others as they are."""
    start = start_within(region, scan)
    if start is None or region.shape == scan.shape:
        return region
    remarks.append("the mask covers a part of the scan's grid")
    return Volume(padded(region.array, start, scan.shape), scan.affine)


def scan_of(ct: Ct) -> Volume:
    """A scan in HU, clipped to -1024..3071; a file in canonical orientation."""
    if isinstance(ct, str | Path):
        return read_ct(Path(ct))
    volume = _checked(ct, "scan")
    hu = np.clip(np.rint(volume.array), HU_MIN, HU_MAX).astype(np.int16)
    return Volume(hu, volume.affine)


def region_of(mask: Ct) -> Volume:
    """Boolean: where a mask is not 0."""
    volume = read_labels(Path(mask)) if isinstance(mask, str | Path) else _checked(mask, "mask")
    return Volume(volume.array != 0, volume.affine)


def _checked(given: Volume | tuple[npt.NDArray[Any], npt.NDArray[np.float64]], name: str) -> Volume:
    if isinstance(given, np.ndarray):
        raise SourceError(f"the {name} is an array without an affine; give (array, affine)")
    volume = given if isinstance(given, Volume) else Volume(*map(np.asarray, given))
    if not np.isfinite(volume.array).all():
        raise SourceError(f"the {name} holds values that are not finite numbers; repair it")
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
        raise SourceError(f"the {name}'s affine has no inverse; correct it:\n{volume.affine}")
    return volume
