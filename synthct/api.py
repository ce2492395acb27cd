"""``synthct.inpaint``: paint one scan from Python, without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from synthct.errors import CheckpointError, MaskError, RecipeError, SourceError
from synthct.models.methods import Diffusion
from synthct.recipe.yaml_errors import path_text
from synthct.seeds import derive_seed
from synthct.volume import (
    HU_MAX,
    HU_MIN,
    Box,
    Volume,
    canonical,
    read_ct,
    read_labels,
    restore_orientation,
)

Ct = str | Path | Volume | tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


def inpaint(
    ct: Ct,
    mask: Ct,
    *,
    label: str | None = None,
    checkpoint: str = "package:starter-2d",
    revision: str | None = None,
    scheduler: str = "dpmsolver++",
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    **settings: Any,
) -> Volume:
    """Paint the masked voxels of a scan, axial slice by axial slice.

    Slices are painted one by one by a 2D checkpoint, so a mask over many slices is not coherent
    from slice to slice.

    Args:
        ct: A NIfTI file, a ``Volume``, or an array (I, J, K) in HU with its affine (4, 4) to
            RAS+ mm.
        mask: The same for the mask, on the same grid; non-zero where to paint.
        label: What to paint, such as ``kidney``; None for whatever fits.
        checkpoint: ``package:NAME``, a folder, or a Hub id.
        revision: Commit, tag or branch on the Hub.
        scheduler: As in a recipe.
        num_inference_steps: Number of denoising steps.
        guidance_scale: As in a recipe.
        seed: Another seed, another painting.
        device: Where the model runs.
        **settings: What else a recipe's ``inpaint`` may say, for checkpoints that do not say it
            themselves: ``prompt``, ``codecs``, ``labels``, ``jump_length``, ...

    Returns:
        The painted scan, int16 HU, in the orientation of ``ct``; for a file, in canonical
        (closest to RAS+) orientation. Outside the mask it equals the scan clipped to -1024..3071.

    Raises:
        SourceError: If a file is damaged, a value or an affine is not finite, or the grids differ.
        MaskError: If the mask is empty or too large for the checkpoint.
        CheckpointError: If the checkpoint is damaged, cannot paint the label, or does not go with
            the scheduler, the number of steps, the guidance or the settings.
        RecipeError: If one of these cannot be for any checkpoint.
    """
    from synthct.models.checkpoint import find_checkpoint, load_checkpoint
    from synthct.models.painting import Inpainter
    from synthct.models.patch import cut_patches, paste_patches
    from synthct.recipe.declared import unfit

    how = _settings(
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        **settings,
    )
    given = _scan(ct)
    scan = canonical(given)
    where = canonical(_region(mask))
    if not where.has_grid_of(scan):
        raise SourceError(
            f"the mask is on another grid than the scan ({where.grid_difference(scan)}); "
            "resample it first"
        )
    slices = [int(k) for k in np.flatnonzero(where.array.any(axis=(0, 1)))]
    if not slices:
        raise MaskError("the mask is empty: no voxel is to be painted")
    files = find_checkpoint(checkpoint, revision=revision)
    for problem in unfit(files, how, (label,)):
        raise CheckpointError(f"{path_text(problem.location)}: {problem.message}")
    rules = files.rules(how, (label,))
    inpainter = Inpainter(load_checkpoint(files, device=device), how, rules.labels)

    planes, patches = [], []
    for k in slices:
        box = Box((0, 0, k), (scan.shape[0], scan.shape[1], k + 1))
        plane, region = scan.crop(box), where.crop(box)
        try:
            cut = cut_patches(plane, region, label, rules)
        except MaskError as err:
            raise MaskError(f"axial slice {k}: {err}") from err
        planes.append((k, plane, region, cut))
        patches += [(k, n, patch) for n, patch in enumerate(cut)]
    seeds = [derive_seed(seed, "inpaint", str(k), str(n)) for k, n, _ in patches]
    painted = iter(inpainter.paint([patch for *_, patch in patches], seeds))
    out = scan.array.copy()
    for k, plane, region, cut in planes:
        done = paste_patches(plane, region, cut, [next(painted) for _ in cut])
        out[:, :, k : k + 1] = done.array
    return Volume(restore_orientation(Volume(out, scan.affine), given.affine).array, given.affine)


def _settings(**fields: Any) -> Diffusion:
    """The arguments as a recipe's section ``inpaint``.

    Raises:
        RecipeError: With the first field that cannot be.
    """
    try:
        return Diffusion(**fields)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"inpaint: {name}: {first['msg']}, not {first['input']}") from err


def _scan(ct: Ct) -> Volume:
    if isinstance(ct, str | Path):
        return read_ct(Path(ct))
    volume = _checked(ct, "scan")
    hu = np.clip(np.rint(volume.array), HU_MIN, HU_MAX).astype(np.int16)
    return Volume(hu, volume.affine)


def _region(mask: Ct) -> Volume:
    found = read_labels(Path(mask)) if isinstance(mask, str | Path) else _checked(mask, "mask")
    return Volume(found.array != 0, found.affine)


def _checked(given: Volume | tuple[npt.NDArray[Any], npt.NDArray[np.float64]], name: str) -> Volume:
    volume = given if isinstance(given, Volume) else Volume(*map(np.asarray, given))
    if not np.isfinite(volume.array).all():
        raise SourceError(f"the {name} holds values that are not finite numbers; repair it")
    if not np.isfinite(volume.affine).all() or abs(np.linalg.det(volume.affine[:3, :3])) < 1e-9:
        raise SourceError(f"the {name}'s affine has no inverse:\n{volume.affine}")
    return volume
