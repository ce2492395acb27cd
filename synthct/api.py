"""The Python API of ``synthct``: the commands of the command line, and ``inpaint``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from synthct.errors import CheckpointError, MaskError, RecipeError, SourceError
from synthct.models.methods import Diffusion
from synthct.recipe.recipe import Recipe, load_recipe
from synthct.recipe.yaml_errors import path_text
from synthct.seeds import derive_seed, generator
from synthct.storage.defaults import default_cache_dir
from synthct.storage.files import beside
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
from synthct.volume.intensity import window_for

if TYPE_CHECKING:
    from datasets import DatasetDict

    from synthct.build.check import Checked
    from synthct.build.verify.run import Report
    from synthct.evaluate.results import Evaluation

Ct = str | Path | Volume | tuple[npt.NDArray[Any], npt.NDArray[np.float64]]


def check(
    recipe: Recipe | str | Path, *, limit: int | None = None, cache_dir: Path | None = None
) -> Checked:
    """Check a recipe against its sources and its checkpoint; nothing is painted.

    Args:
        recipe: The recipe, or its YAML file.
        limit: Plan only the first ``limit`` samples.
        cache_dir: Folder of cached indexes and phantoms; by default the user's cache folder.

    Returns:
        The plan of the samples, the index of the sources, and the licence that follows.

    Raises:
        SynthCTError: If the recipe, its sources, masks, checkpoint or licence have a problem.

    Example:
        >>> checked = synthct.check("examples/phantoms.yaml")
        >>> checked.plan.num_samples, checked.licence
        (8, 'CC0-1.0')
    """
    from synthct.build.check import check

    return check(_recipe(recipe), cache_dir=cache_dir or default_cache_dir(), limit=limit)


def build(recipe: Recipe | str | Path, output: str | Path = "out", **options: Any) -> Path:
    """Build the dataset of a recipe; run again to continue where an earlier run stopped.

    Args:
        recipe: The recipe, or its YAML file.
        output: The dataset is written to ``output/<name>/<version>``.
        **options: ``limit``, ``device``, ``workers``, ``lock``, ``relabel``, ``cache_dir`` and
            ``progress``, as in ``synthct.build.run.build``.

    Returns:
        The folder of the version.

    Raises:
        SynthCTError: If the build fails; earlier versions stay unchanged.

    Example:
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> folder.as_posix()
        'out/phantoms/1.0.0'
    """
    from synthct.build.run import build

    return build(_recipe(recipe), Path(output), **options)


def load(dataset: str | Path) -> DatasetDict:
    """Open a finished dataset; its parquet pages are checked for damage as they are read.

    Pictures are 16-bit; HU are ``numpy.asarray(sample["image"]).astype("int16") - 1024``. The
    dataset's README.md explains all columns. A dataset on the Hub is opened by
    ``datasets.load_dataset`` directly.

    Returns:
        Its splits, as ``datasets.load_dataset`` gives them.

    Raises:
        VerifyError: If the folder holds no finished dataset, or one of a later format.

    Example:
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> dataset = synthct.load(folder)
        >>> sample = dataset["train"][0]
        >>> hu = np.asarray(sample["image"]).astype(np.int16) - 1024
        >>> hu.shape, sample["label"]
        ((64, 64), 'kidney')
    """
    import datasets
    from pyarrow.dataset import ParquetFragmentScanOptions

    from synthct.dataset.manifest import read_manifest
    from synthct.errors import VerifyError

    if read_manifest(Path(dataset)) is None:
        raise VerifyError(f"{dataset} is not a finished dataset; give the folder of a version")
    options = ParquetFragmentScanOptions(page_checksum_verification=True)
    return datasets.load_dataset(str(dataset), fragment_scan_options=options)


def verify(dataset: str | Path, *, level: int = 1, **options: Any) -> Report:
    """Check a dataset against its manifest and recipe.

    Args:
        dataset: The folder of a version.
        level: 0 compares bytes; 1 also rows, digests, splits and licence; 2 also masks and
            unpainted voxels with the sources; 3 also paints some samples again.
        **options: ``sources`` (roots by name, for levels 2 and 3), ``checkpoint``, ``device``,
            ``samples``, ``seed``, ``workers``, ``relabel``, ``cache_dir`` and ``progress``, as in
            ``synthct.build.verify.run.Originals``.

    Returns:
        The checked levels, and ``findings``: what is wrong, empty for a good dataset.

    Raises:
        SynthCTError: If the folder, sources or checkpoint are missing or cannot be read.

    Example:
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> report = synthct.verify(folder, level=2)
        >>> report.findings
        ()
    """
    from synthct.build.verify.run import Originals, verify

    return verify(Path(dataset), level=level, originals=Originals(**options))


def export(dataset: str | Path, kind: str, output: str | Path | None = None) -> Path:
    """Write a finished dataset as a folder of plain files.

    Args:
        dataset: The folder of a version.
        kind: ``nifti``: volumes that open over the host's scan; ``dicom``: these as CT series and
            SEG; ``png``: pictures of each sample.
        output: The new folder; by default the version with the kind, such as ``1.0.0.nifti``.

    Returns:
        The new folder.

    Raises:
        RecipeError: If there is no such kind.
        VerifyError: If the dataset is unfinished, damaged or a patch-only release.
        ConflictError: If the new folder exists and is not empty.

    Example:
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> plain = synthct.export(folder, "nifti")
        >>> (plain / "samples.csv").is_file()
        True
    """
    from synthct.publish.export.run import export

    version = Path(dataset)
    return export(version, kind, Path(output or beside(version, kind)))


def evaluate(
    dataset: str | Path,
    *,
    arms: Mapping[str, Path] | None = None,
    extractors: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    **options: Any,
) -> Evaluation:
    """Compare painted with real tissue.

    Results are written to ``1.0.0.evaluation`` beside the version, where ``report`` reads them.

    Args:
        dataset: The folder of a version.
        arms: Control datasets by name: the same recipe, painted by another method.
        extractors: Feature extractors; by default all that are installed.
        cache_dir: Folder of cached features; by default the user's cache folder.
        **options: ``real``, ``roots``, ``scopes``, ``segmenter``, ``segmenter_values`` and
            ``progress``, as in ``synthct.evaluate.run.Options``.

    Raises:
        SynthCTError: If a dataset is damaged, or there is nothing real to compare with.

    Example:
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> evaluation = synthct.evaluate(folder, extractors=["radiomics"])
        >>> evaluation.rows, evaluation.arms[0].name
        (8, 'painted')
    """
    from synthct.evaluate.extractors import load_extractors
    from synthct.evaluate.results import write_results
    from synthct.evaluate.run import Options, evaluate
    from synthct.evaluate.tables import results_markdown

    results = evaluate(
        Path(dataset),
        load_extractors(extractors),
        Options(arms=arms or {}, **options),
        cache_dir=cache_dir or default_cache_dir(),
    )
    write_results(beside(Path(dataset), "evaluation"), results, results_markdown(results))
    return results


def report(dataset: str | Path, output: str | Path | None = None, **options: Any) -> Path:
    """Write one HTML page of a finished dataset: samples, measures, evaluation, provenance.

    Args:
        dataset: The folder of a version.
        output: The new folder; by default ``1.0.0.report`` beside the version.
        **options: ``evaluation``, ``masks`` and ``progress``, as in
            ``synthct.publish.report.run.write_report``.

    Returns:
        The page.

    Raises:
        VerifyError: If the dataset or its evaluation is damaged.

    Example:
        >>> folder = synthct.build("examples/phantoms.yaml", "out")
        >>> synthct.report(folder).as_posix()
        'out/phantoms/1.0.0.report/report.html'
    """
    from synthct.publish.report.run import write_report

    version = Path(dataset)
    return write_report(version, Path(output or beside(version, "report")), **options)


def _recipe(recipe: Recipe | str | Path) -> Recipe:
    return recipe if isinstance(recipe, Recipe) else load_recipe(recipe)


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

    A 2D checkpoint paints each slice independently, so neighbouring slices may not match.

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
        seed: Random seed.
        device: Device of the model.
        **settings: Further settings of a recipe's ``inpaint``, for checkpoints that do not declare
            them: ``prompt``, ``codecs``, ``labels``, ``jump_length``; and ``grain``.

    Returns:
        The painted scan, int16 HU, in the orientation of ``ct``; for a file, in canonical
        (closest to RAS+) orientation. Outside the mask it equals the scan clipped to -1024..3071.

    Raises:
        SourceError: If a file is damaged, a value or an affine is not finite, or the grids differ.
        MaskError: If the mask is empty or too large for the checkpoint.
        CheckpointError: If the checkpoint is damaged, cannot paint the label, or does not support
            the scheduler, the number of steps, the guidance or the settings.
        RecipeError: If a setting is invalid for any checkpoint.

    Example:
        >>> ct = synthct.Volume(np.full((96, 96, 1), 40, np.int16), np.diag([1.5, 1.5, 3, 1]))
        >>> mask = np.zeros(ct.shape, bool)
        >>> mask[30:60, 30:60] = True
        >>> painted = synthct.inpaint(ct, (mask, ct.affine), label="kidney", num_inference_steps=4)
        >>> bool((painted.array[~mask] == 40).all()), bool((painted.array[mask] != 40).any())
        (True, True)
    """
    from synthct.models.checkpoint import find_checkpoint, load_checkpoint
    from synthct.models.grain import with_grain
    from synthct.models.painting import Inpainter
    from synthct.models.patch import cut_patches, paste_patches
    from synthct.recipe.checkpoint_settings import setting_problems

    inpaint = _settings(
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        **settings,
    )
    given = _scan(ct)
    scan = canonical(given)
    region = canonical(_region(mask))
    if not region.has_grid_of(scan):
        raise SourceError(
            f"the mask is on another grid than the scan ({region.grid_difference(scan)}); "
            "resample it first"
        )
    slices = [int(k) for k in np.flatnonzero(region.array.any(axis=(0, 1)))]
    if not slices:
        raise MaskError("the mask is empty; mark the voxels to paint with 1")
    files = find_checkpoint(checkpoint, revision=revision)
    for problem in setting_problems(files, inpaint, (label,)):
        raise CheckpointError(f"{path_text(problem.location)}: {problem.message}")
    rules = files.network.rules(files, inpaint, (label,))
    inpainter = Inpainter(load_checkpoint(files, device=device), inpaint, rules.labels)

    planes, patches = [], []
    for k in slices:
        box = Box((0, 0, k), (scan.shape[0], scan.shape[1], k + 1))
        plane, plane_region = scan.crop(box), region.crop(box)
        try:
            of_slice = cut_patches(plane, plane_region, label, rules)
        except MaskError as err:
            raise MaskError(f"axial slice {k}: {err}") from err
        planes.append((k, plane, plane_region, of_slice))
        patches += [(k, n, patch) for n, patch in enumerate(of_slice)]
    seeds = [derive_seed(seed, "inpaint", str(k), str(n)) for k, n, _ in patches]
    painted = iter(inpainter.paint([patch for *_, patch in patches], seeds))
    out = scan.array.copy()
    for k, plane, plane_region, of_slice in planes:
        pasted = paste_patches(plane, plane_region, of_slice, [next(painted) for _ in of_slice])
        if inpaint.grain == "surroundings":
            under_hu = float(plane.array[plane_region.array].mean())
            window = window_for(label, under_hu, of_slice[0].codec)
            rng = generator(seed, "inpaint-grain", str(k))
            pasted, _ = with_grain(plane, pasted, plane_region, window.range_hu, rng)
        out[:, :, k : k + 1] = pasted.array
    return Volume(restore_orientation(Volume(out, scan.affine), given.affine).array, given.affine)


def _settings(**fields: Any) -> Diffusion:
    """The arguments as a recipe's section ``inpaint``; a `RecipeError` if one is invalid."""
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
