"""``synthct export``: a finished dataset as a plain folder, written completely or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from tqdm import tqdm

from synthct.build.documents import ATTRIBUTION, CARD, SHEET
from synthct.dataset.integrity import check_bytes
from synthct.dataset.lockfile import LOCK, read_lock
from synthct.dataset.manifest import Manifest, require_manifest
from synthct.dataset.records import RECIPE, front_matter
from synthct.dataset.schema import flat_schema, is_of_volumes
from synthct.errors import ConflictError, RecipeError, VerifyError
from synthct.publish.export.dicom import DicomSeries
from synthct.publish.export.export_format import Columns, ExportFormat
from synthct.publish.export.nnunet import NnUnet, default_name, require_name
from synthct.publish.export.page import page
from synthct.publish.export.pictures import Pictures
from synthct.publish.export.samples import samples_table
from synthct.publish.export.scans import PaintedScans, rows_of_split
from synthct.publish.export.volumes import Volumes
from synthct.publish.export.whole import WholeScans
from synthct.storage.files import beside, make_folder, require_space, resource_error, sync_folder
from synthct.storage.lock import version_lock

METADATA, SAMPLES = "metadata.parquet", "samples.csv"

#: Each export format by its name.
FORMATS: dict[str, ExportFormat] = {
    "dicom": DicomSeries(),
    "nifti": Volumes(),
    "png": Pictures(),
}

#: Writes whole scans only, in folders of its own arrangement.
NNUNET = "nnunet"

#: Files that are copied from the version: new name, old name, description.
_COPIED = (
    ("dataset_card.md", CARD, "the card of the dataset that this was exported from"),
    (SHEET, SHEET, "samples at a glance"),
    (ATTRIBUTION, ATTRIBUTION, "sources, licences and attributions"),
    (RECIPE, RECIPE, "the recipe that the dataset was built from"),
    (LOCK, LOCK, "every input of the dataset by hash"),
)

#: Number of items whose records are written at once.
_ITEMS = 64


@dataclass(frozen=True)
class Whole:
    """That whole scans are to be written, and where the hosts are.

    Attributes:
        sources: Source name to folder; phantoms need none.
        cache_dir: Folder of cached indexes and phantoms.
        real: With ``nnunet``: also the hosts as they are.
    """

    sources: Mapping[str, Path]
    cache_dir: Path
    real: bool = False


def export(
    folder: Path, kind: str, output: Path, *, whole: Whole | None = None, progress: bool = False
) -> Path:
    """Write a finished dataset as a plain folder.

    Args:
        folder: The folder of a version.
        kind: ``png``: the pictures of each sample; ``nifti``: volumes of neighbouring slices;
            ``dicom``: these as CT series and SEG files; ``nnunet``: whole scans for nnU-Net.
        output: The new folder.
        whole: With ``nifti``: whole scans with all of their lesions; ``nnunet`` needs it.
        progress: Show a progress bar.

    Returns:
        The new folder.

    Raises:
        RecipeError: If there is no such format, or a package that it needs is missing.
        VerifyError: If the dataset is unfinished, damaged, or a patch-only release.
        ConflictError: If the new folder is not empty, or lies in the dataset.
        ResourceError: If it cannot be written.
    """
    if kind not in (*FORMATS, NNUNET):
        known = ", ".join([*FORMATS, NNUNET])
        raise RecipeError(f"there is no export format '{kind}'; choose one of {known}")
    manifest = require_manifest(folder)
    folder, output = folder.resolve(), output.resolve()
    if manifest.release.patch_id is not None:
        raise VerifyError(
            f"{folder} is a patch-only release, which holds no whole slices; run 'synthct compose' "
            "on it with your copy of the scans, and export what that makes"
        )
    if whole is not None and kind not in ("nifti", NNUNET):
        raise RecipeError(f"whole scans are NIfTI files; write --to nifti --whole, not {kind}")
    if kind == NNUNET:
        require_name(output)
    _require_free(output, folder)
    if kind not in ("nifti", NNUNET) and any(
        is_of_volumes(pq.read_schema(folder / shard.path)) for shard in manifest.shards
    ):
        raise RecipeError(f"{folder} holds volumes, which {kind} cannot hold; use --to nifti")
    if findings := check_bytes(folder, manifest):
        listed = "\n".join(f"  {finding}" for finding in findings)
        raise VerifyError(f"{folder} is damaged; download or build it again\n{listed}")
    if kind in FORMATS:
        FORMATS[kind].require()
    make_folder(output.parent)
    require_space(output.parent, sum(shard.bytes for shard in manifest.shards))
    staging = output.with_name(f".{output.name}.exporting")
    with version_lock(output):
        shutil.rmtree(staging, ignore_errors=True)  # of an export that was killed
        try:
            if whole is None:
                _write(folder, manifest, FORMATS[kind], staging, progress)
            else:
                scans = PaintedScans(folder, whole.sources, whole.cache_dir)
                if whole.real and not scans.hosts:
                    raise RecipeError(
                        "--real writes the hosts as they are; say where they are with "
                        "--source hosts=PATH"
                    )
                if kind == NNUNET:
                    staging.mkdir()
                    NnUnet(scans, real=whole.real).write(folder, manifest, staging, progress)
                    _copy_documents(folder, staging)
                else:
                    _write(folder, manifest, WholeScans(scans), staging, progress)
            _put_in_place(staging, output)
        except OSError as err:
            # Of a copy, the second is the one that is written.
            raise resource_error(Path(err.filename2 or err.filename or output), err) from err
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return output


def default_output(folder: Path, kind: str) -> Path:
    """The default folder of an export: beside the version.

    Args:
        folder: The folder of a version.
        kind: As in ``export``, or ``whole``.
    """
    place = beside(folder, kind)
    return place / default_name(folder.resolve().parent.name) if kind == NNUNET else place


def _require_free(output: Path, folder: Path) -> None:
    if output.is_relative_to(folder):
        raise ConflictError(
            f"{output} lies inside of the dataset, which never changes; choose another --output"
        )
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConflictError(f"{output} exists and is not empty; choose another --output")


def _write(folder: Path, manifest: Manifest, fmt: ExportFormat, tree: Path, progress: bool) -> None:
    """Write all files of an export."""
    tree.mkdir()
    keep_original = "original" in fmt.files
    schemas = [pq.read_schema(folder / shard.path) for shard in manifest.shards]
    keep_original &= all("original" in schema.names for schema in schemas)
    flat = flat_schema(volume=any(map(is_of_volumes, schemas)))
    records, samples = (of(keep_original, flat) for of in (fmt.record_schema, fmt.sample_schema))
    samples = samples.insert(0, pa.field("split", pa.string()))
    labels = read_lock(folder).labels
    hidden = None if progress else True
    with (
        tqdm(total=manifest.release.rows, unit="sample", disable=hidden) as bar,
        pa_csv.CSVWriter(tree / SAMPLES, samples) as listed,
    ):
        start = 0
        for split in (split.name for split in manifest.release.splits if split.rows):
            place = tree / split
            place.mkdir()
            items = fmt.write(rows_of_split(folder, manifest, split), place, start, labels)
            with pq.ParquetWriter(place / METADATA, records, compression="zstd") as metadata:
                while batch := list(islice(items, _ITEMS)):
                    start += len(batch)
                    rows = [{**row, "split": split} for item in batch for row in item.samples]
                    metadata.write_table(_table([item.record for item in batch], records))
                    listed.write_table(samples_table(rows, samples))
                    bar.update(len(rows))
    _write_documents(folder, manifest, fmt, tree, labels, keep_original)


def _write_documents(
    folder: Path,
    manifest: Manifest,
    fmt: ExportFormat,
    tree: Path,
    labels: Mapping[str, int],
    keep_original: bool,
) -> None:
    """Write the page, and copy documents of the dataset."""
    beside = {
        f"*/{METADATA}": "the columns of the dataset, with provenance, for `load_dataset`",
        SAMPLES: "the samples with their files and measures, as text",
    }
    beside |= _copy_documents(folder, tree)
    for name, (text, what) in fmt.label_files(labels).items():
        (tree / name).write_text(text, encoding="utf-8")
        beside[name] = what
    card = folder / CARD
    text = page(
        manifest.release,
        fmt,
        labels,
        front_matter(card.read_text(encoding="utf-8")) if card.is_file() else {},
        beside,
        keep_original=keep_original,
    )
    (tree / CARD).write_text(text, encoding="utf-8")


def _copy_documents(folder: Path, tree: Path) -> dict[str, str]:
    """Copy documents of the version; their descriptions by name."""
    copied = {}
    for name, source, what in _COPIED:
        if (folder / source).is_file():
            shutil.copyfile(folder / source, tree / name)
            copied[name] = what
    return copied


def _table(rows: Sequence[Columns], schema: pa.Schema) -> pa.Table:
    return pa.table({name: [row[name] for row in rows] for name in schema.names}, schema)


def _put_in_place(staging: Path, output: Path) -> None:
    """Flush all files to disk, and rename the folder in one step."""
    for path in (*staging.rglob("*"), staging):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    try:
        staging.rename(output)  # onto a folder that is not empty this fails
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise ConflictError(f"{output} was created meanwhile; choose another --output") from err
    sync_folder(output.parent)
