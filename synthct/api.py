"""The Python API of ``synthct``: the commands of the command line, and ``inpaint``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synthct.recipe.recipe import Recipe, load_recipe
from synthct.storage.defaults import default_cache_dir
from synthct.storage.files import beside
from synthct.volume import Volume, canonical, restore_orientation
from synthct.volume.views import Plane

if TYPE_CHECKING:
    from datasets import DatasetDict

    from synthct.build.check import Checked
    from synthct.build.inpaint import Ct
    from synthct.build.verify.run import Report
    from synthct.evaluate.results import Evaluation


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
        **options: ``limit``, ``device``, ``workers``, ``lock``, ``relabel``, ``checkpoint``,
            ``strict``, ``cache_dir`` and ``progress``, as in ``synthct.build.run.build``.

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


def export(dataset: str | Path, kind: str, output: str | Path | None = None, **whole: Any) -> Path:
    """Write a finished dataset as a folder of plain files.

    Args:
        dataset: The folder of a version.
        kind: ``nifti``: volumes that open over the host's scan; ``dicom``: these as CT series and
            SEG; ``png``: pictures of each sample; ``nnunet``: whole scans for nnU-Net.
        output: The new folder; by default the version with the kind, such as ``1.0.0.nifti``.
        **whole: With ``nnunet``: ``sources`` (roots by name), ``cache_dir`` and ``real`` (also the
            hosts as they are), as in ``synthct.publish.export.run.Whole``.

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
    from synthct.publish.export.run import NNUNET, Whole, default_output, export

    version = Path(dataset)
    folder = Path(output or default_output(version, kind))
    given: dict[str, Any] = {"sources": {}, "cache_dir": default_cache_dir()} | whole
    scans = Whole(**given) if whole or kind == NNUNET else None
    return export(version, kind, folder, whole=scans)


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
    view: Plane = "axial",
    checkpoint: str = "package:starter-2d",
    revision: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    together: bool = False,
    seed: int = 0,
    device: str = "cpu",
    **settings: Any,
) -> Volume:
    """Paint the masked voxels of a scan, slice by slice.

    Args:
        ct: A NIfTI file, a ``Volume``, or an array (I, J, K) in HU with its affine (4, 4) to
            RAS+ mm.
        mask: The same for the mask, on the same grid; non-zero where to paint.
        label: What to paint, such as ``kidney``; None for whatever fits.
        view: The plane of the slices: ``axial``, ``coronal`` or ``sagittal``.
        checkpoint: ``package:NAME``, a folder, or a Hub id.
        revision: Commit, tag or branch on the Hub.
        scheduler: As in a recipe, and so is its default.
        num_inference_steps: Number of denoising steps; by default as in a recipe.
        guidance_scale: As in a recipe.
        together: Tell a 2D checkpoint that takes neighbouring slices, as the starter does, those
            already painted. By default each is painted as if alone, so they may not match.
        seed: Random seed.
        device: Device of the model.
        **settings: Further settings of a recipe's ``inpaint``, such as ``level_hu``.

    Returns:
        The painted scan, int16 HU, in the orientation of ``ct``; for a file, in canonical
        (closest to RAS+) orientation. Outside the mask it is identical to the scan clipped to
        -1024..3071. To get a file back in its own orientation, type and values: ``inpaint_file``.

    Raises:
        SourceError: If a file is damaged, a value or an affine is not finite, or the grids differ.
        MaskError: If the mask is empty or too large for the checkpoint.
        CheckpointError: If the checkpoint is damaged, or cannot paint the label or by the settings.
        RecipeError: If a setting is invalid for any checkpoint.

    Example:
        >>> ct = synthct.Volume(np.full((96, 96, 1), 40, np.int16), np.diag([1.5, 1.5, 3, 1]))
        >>> mask = np.zeros(ct.shape, bool)
        >>> mask[30:60, 30:60] = True
        >>> painted = synthct.inpaint(ct, (mask, ct.affine), label="kidney", num_inference_steps=4)
        >>> bool((painted.array[~mask] == 40).all()), bool((painted.array[mask] != 40).any())
        (True, True)
    """
    from synthct.build.inpaint import region_of, scan_of, settings_of
    from synthct.build.one_scan import paint_scan

    inpaint = settings_of(
        checkpoint=checkpoint,
        revision=revision,
        scheduler=scheduler,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        **settings,
    )
    given = scan_of(ct)
    out = paint_scan(
        canonical(given),
        canonical(region_of(mask)),
        inpaint,
        label=label,
        view=view,
        together=together,
        seed=seed,
        device=lambda: device,
    )
    return Volume(restore_orientation(out, given.affine).array, given.affine)


def inpaint_file(
    ct: str | Path,
    mask: str | Path,
    output: str | Path,
    *,
    label: str | None = None,
    mask_value: int | None = None,
    view: Plane = "axial",
    together: bool = True,
    seed: int = 0,
    orientation: str | None = None,
    label_grid: Literal["image"] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    progress: bool = False,
    **settings: Any,
) -> Path:
    """Paint into a NIfTI file and write it as it was but for the painted voxels.

    Header, orientation, type of voxels and the values outside of the mask are those of the file,
    also padding below -1024 HU; ``inpaint`` gives a ``Volume`` instead.

    Args:
        ct: The scan, .nii or .nii.gz.
        mask: The mask, on the same grid or a part of it.
        output: The new file, .nii or .nii.gz.
        label: What to paint, such as ``kidney``; None for whatever fits.
        mask_value: Paint where the mask has this value; None for all but 0.
        view: The plane of the slices: ``axial``, ``coronal`` or ``sagittal``.
        together: As of ``inpaint``, but the default here.
        seed: Random seed.
        orientation: Patient directions of the axes, such as ``LAS``, of files that say none.
        label_grid: ``image`` for a mask that has lost its affine: its voxels are the scan's.
        device: Device of the model.
        overwrite: Whether the output may be there already.
        progress: Show a progress bar.
        **settings: Settings of a recipe's ``inpaint``, such as ``checkpoint``.

    Returns:
        The new file.

    Raises:
        SynthCTError: As ``inpaint``; also if the output is there, or the file's type of voxels
            cannot hold HU.

    Example:
        >>> import nibabel
        >>> hu, affine = np.full((96, 96, 1), 40.5, np.float32), np.diag([-1.5, -1.5, 3, 1])
        >>> hu[0] = -3024
        >>> nibabel.Nifti1Image(hu, affine).to_filename("ct.nii.gz")
        >>> mask = np.zeros(hu.shape, np.uint8)
        >>> mask[30:60, 30:60] = 1
        >>> nibabel.Nifti1Image(mask, affine).to_filename("mask.nii.gz")
        >>> out = synthct.inpaint_file(
        ...     "ct.nii.gz", "mask.nii.gz", "out.nii.gz", label="kidney", num_inference_steps=4
        ... )
        >>> painted = nibabel.load(out)
        >>> painted.get_data_dtype().name, bool((painted.dataobj[0] == -3024).all())
        ('float32', True)
    """
    from synthct.build.inpaint import paint_file, settings_of

    return paint_file(
        Path(ct),
        Path(mask),
        Path(output),
        settings_of(**settings),
        label=label,
        mask_value=mask_value,
        view=view,
        together=together,
        seed=seed,
        orientation=orientation,
        label_grid=label_grid,
        device=lambda: device,
        overwrite=overwrite,
        progress=progress,
    )
