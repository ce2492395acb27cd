"""One scan painted without a recipe, slice by slice or in 3D: what ``synthct inpaint`` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from synthct.errors import CheckpointError, ConflictError, MaskError, RecipeError, SourceError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.grain import with_grain
from synthct.models.methods import Diffusion
from synthct.models.patch import Patch, PatchRules
from synthct.models.region import cut, paste
from synthct.recipe.checkpoint_settings import setting_problems
from synthct.recipe.yaml_errors import describe_errors, path_text
from synthct.seeds import derive_seed, generator
from synthct.sources.folder import check_orientation
from synthct.storage.files import atomic_write, make_folder
from synthct.volume import (
    HU_MAX,
    HU_MIN,
    Box,
    CtReading,
    LabelReading,
    Volume,
    read_ct,
    read_ct_counting,
    read_labels,
)
from synthct.volume.grid import start_within
from synthct.volume.intensity import window_for
from synthct.volume.rewrite import changed_file, require_storable
from synthct.volume.views import VIEW_AXIS, Plane

logger = logging.getLogger(__name__)

Ct = str | Path | Volume | tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


def paint_scan(
    scan: Volume,
    region: Volume,
    settings: Diffusion,
    *,
    label: str | None = None,
    view: Plane = "axial",
    seed: int = 0,
    device: Callable[[], str] = lambda: "cpu",
    progress: bool = False,
) -> Volume:
    """Paint the masked voxels of a scan: slice by slice, each independently, or whole in 3D.

    Args:
        scan: int16 HU in canonical orientation.
        region: Boolean, on the same grid: where to paint.
        settings: Checkpoint, scheduler, steps and so on.
        label: What to paint; None for whatever fits.
        view: The plane of the slices; a network in 3D goes by the scan's own.
        seed: Random seed.
        device: Says where the model runs; asked when everything else is known to be right.
        progress: Show a progress bar.

    Raises:
        SourceError: If the grids differ.
        MaskError: If the mask is empty or too large for the checkpoint.
        CheckpointError: If the checkpoint is damaged, or cannot paint the label or by the settings.
    """
    require_same_grid(scan, region)
    if not region.array.any():
        raise MaskError("the mask is empty; mark the voxels to paint with 1")
    files = find_checkpoint(settings.checkpoint, revision=settings.revision)
    for problem in setting_problems(files, settings, (label,)):
        raise CheckpointError(f"{path_text(problem.location)}: {problem.message}")
    rules = files.network.rules(files, settings, (label,))
    stated = settings.levels.get(label or "")
    level = None if stated is None else float(generator(seed, "inpaint-level").uniform(*stated))
    pieces = list(_pieces(scan, region, label, rules, view, level))
    all_patches = [patch for one in pieces for patch in one.patches]
    seeds = [
        derive_seed(seed, "inpaint", one.name, str(n))
        for one in pieces
        for n in range(len(one.patches))
    ]
    from tqdm import tqdm

    from synthct.models.painting import Inpainter

    inpainter = Inpainter(load_checkpoint(files, device=device()), settings, rules.labels)
    with tqdm(total=len(seeds), unit="patch", disable=not progress) as bar:
        painted = iter(inpainter.paint(all_patches, seeds, bar.update))
    out = Volume(scan.array.copy(), scan.affine)
    for one in pieces:
        pasted = paste(one.ct, one.region, one.patches, [next(painted) for _ in one.patches])
        if settings.grain == "surroundings":
            under_hu = float(one.ct.array[one.region.array].mean())
            window = window_for(label, under_hu, one.patches[0].codec)
            rng = generator(seed, "inpaint-grain", one.name)
            pasted, _ = with_grain(one.ct, pasted, one.region, window.range_hu, rng, level)
        out.array[one.place] = pasted.array
    return out


@dataclass(frozen=True, eq=False)
class _Piece:
    """What of a scan is painted at once: a slice, or all of it by a network in 3D.

    Attributes:
        name: Of its random streams.
        place: Its index in the scan.
        ct: HU.
        region: Boolean, on the same grid: where to paint.
        patches: What the network gets.
    """

    name: str
    place: tuple[slice, slice, slice]
    ct: Volume
    region: Volume
    patches: Sequence[Patch]


def _pieces(
    scan: Volume, region: Volume, label: str | None, rules: PatchRules, view: Plane,
    level_hu: float | None,
) -> Iterator[_Piece]:  # fmt: skip
    """A scan as a network takes it.

    Raises:
        MaskError: If the mask is too large for the checkpoint.
    """

    def patches(ct: Volume, where: Volume) -> list[Patch]:
        return [replace(patch, level_hu=level_hu) for patch in cut(ct, where, label, rules)]

    whole = Box.whole(scan.shape)
    if rules.depth > 1:
        yield _Piece("volume", whole.slices, scan, region, patches(scan, region))
        return
    axis = VIEW_AXIS[view]
    across = tuple(n for n in range(3) if n != axis)
    for index in np.flatnonzero(region.array.any(axis=across)).tolist():
        plane, part = scan.slab(axis, index), region.slab(axis, index)
        try:
            own = patches(plane, part)
        except MaskError as err:
            raise MaskError(f"{view} slice {index}: {err}") from err
        yield _Piece(str(index), whole.slab(axis, index).slices, plane, part, own)


def paint_file(
    ct: Path,
    mask: Path,
    output: Path,
    settings: Diffusion,
    *,
    label: str | None = None,
    mask_value: int | None = None,
    view: Plane = "axial",
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
        scan, where, settings, label=label, view=view, seed=seed, device=device, progress=progress
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


def require_same_grid(scan: Volume, region: Volume) -> None:
    """See that a mask lies on the grid of its scan.

    Raises:
        SourceError: If not.
    """
    if not region.has_grid_of(scan):
        raise SourceError(
            f"the mask is on another grid than the scan ({region.grid_difference(scan)}); "
            "resample it first. If only its affine is wrong and its voxels are those of the scan, "
            "say so with --label-grid image (label_grid)"
        )


def _padded(scan: Volume, region: Volume, remarks: list[str]) -> Volume:
    """A mask that covers a part of its scan's grid with nothing around it; others as they are."""
    start = start_within(region, scan)
    if start is None or region.shape == scan.shape:
        return region
    remarks.append("the mask covers a part of the scan's grid")
    whole = np.zeros(scan.shape, bool)
    whole[Box.whole(region.shape).shift(start).slices] = region.array
    return Volume(whole, scan.affine)


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
