"""How a dataset is read: the section of its card with code and columns."""

from __future__ import annotations

import re

from synthct.dataset.manifest import Release
from synthct.dataset.markdown import table

_PREVIEW = ["`preview`", "8-bit, windowed, the mask outlined: for eyes, not for computing"]

_WHOLE = (
    ["`image`", "16-bit; HU + 1024"],
    ["`mask`", "8-bit; 255 where painted, else 0"],
    ["`label_map`", "label values after painting"],
)

_ORIGINAL = ["`original`", "16-bit; HU + 1024 of the host before painting"]

_GENERATED = (
    ["`paint`", "16-bit; HU + 1024 of the box around the mask, 0 where nothing was painted"],
    ["`mask`", "8-bit; 255 where painted, else 0; the same box"],
    ["`label_change`", "new label value + 1 where it changed, else 0; the same box"],
    ["`corner`", "row and column of the box's first pixel in the whole picture"],
    ["`size`", "rows and columns of the whole picture"],
    ["`patch_digest`", "hash of all this; `sample_digest` is that of the whole sample"],
)

#: Descriptions of the same columns where samples are volumes.
_OF_VOLUMES = {
    "`preview`": "8-bit: three planes, windowed, the mask outlined; for eyes, not for computing",
    "`image`": "NIfTI, int16; HU",
    "`mask`": "NIfTI, uint8; 1 where painted, else 0",
    "`label_map`": "NIfTI; label values after painting",
    "`original`": "NIfTI, int16; HU of the host before painting",
    "`paint`": "NIfTI, int16; HU of the box around the mask, -1024 where nothing was painted",
    "`label_change`": "NIfTI; new label value + 1 where it changed, else 0; the same box",
    "`corner`": "i, j, k of the box's first voxel in the whole volume",
    "`size`": "voxels of the whole volume along i, j, k",
    "`affine`": "4 x 4 by rows; voxel index (i, j, k, 1) to RAS+ millimetres",
    "`spacing_mm`": "size of a voxel along i, j, k",
    "`slice_index`": "of the first axial slice in the host's scan in closest-canonical orientation",
    "`lesion_id`": "the 3D mask that is painted",
    "`pair_id`": "shared by a host's own volume and its paintings, where both are there",
    "`is_painted`": "false for a host's own volume, which has no measures of paint",
}

_COMMON = (
    ["`affine`", "4 x 4 by rows; picture index (row, column, 0, 1) to RAS+ millimetres"],
    ["`spacing_mm`", "size of a pixel along the row index and along the column index"],
    ["`slice_index`", "of the host's scan in closest-canonical (RAS+) orientation, from 0"],
    ["`lesion_id`", "the 3D mask that a sample shows a slice of; `mask_id` is that slice's"],
    ["`pair_id`", "shared by a host's own slice and its paintings, where both are there"],
    ["`is_painted`", "false for a host's own slice, which has no measures of paint"],
    ["`has_lesion`", "whether the lesion that is painted or removed is there; others may be"],
    ["`provenance`", "host, donor, mask, seeds, checkpoint and settings of the sample"],
)


def usage(release: Release, *, keep_original: bool, volume: bool = False) -> str:
    """The section of the card that says how the dataset is read and checked.

    Args:
        release: What the version is; of a patch-only one it says how to complete it.
        keep_original: Whether there is a column ``original``.
        volume: Whether samples are volumes.
    """
    name = re.sub(r"[^\w./-]", "_", release.name)
    first, pictures = (
        _reading(name, release.version, _VOXELS if volume else _PIXELS),
        [*_WHOLE, *([_ORIGINAL] if keep_original else [])],
    )
    if release.patch_id is not None:
        first, pictures = _composing(release, name), [*_GENERATED]
    rows = [_PREVIEW, *pictures, *_COMMON]
    if volume:
        rows = [[name, _OF_VOLUMES.get(name, what)] for name, what in rows]
    columns = table(["column", "what it holds"], rows)
    return f"""## How to use it

{first}

{columns}

{_VOLUMES if volume else _SLICES}

Parquet readers do not check for damage unless asked to:

```python
import pyarrow.dataset
from datasets import load_dataset

options = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
dataset = load_dataset("<folder or user>/{name}", fragment_scan_options=options)

files = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=options)
table = pyarrow.dataset.dataset("<folder or user>/{name}/data", format=files).to_table()
```

`synthct verify <folder>` checks every file against `manifest.json`, which has their sizes and
SHA-256, and every row against its digest. Measures are columns, so `load_dataset` can read a part
only: `load_dataset(..., filters=[("seam_ratio", "<", 1.15)])`."""


_SLICES = """\
Pictures are shown as radiologists do: anterior (axial) or superior (coronal, sagittal) is up, the
patient's right (axial, coronal) or front (sagittal) is on the left. `hu[:, :, None]` with `affine`
is a correct NIfTI volume as it is; the host's canonical voxels are `hu.T[::-1, ::-1]`."""

_VOLUMES = """\
Voxels are those of the host in closest-canonical (RAS+) orientation: i runs to the patient's right,
j to anterior, k to superior. With `with_format("torch")`, `datasets` cannot read NIfTI columns;
take the arrays as above."""

_PIXELS = """hu = np.asarray(sample["image"]).astype(np.int16) - 1024
painted = np.asarray(sample["mask"]) > 0
labels = np.asarray(sample["label_map"])"""

_VOXELS = """hu = np.asanyarray(sample["image"].dataobj)
painted = np.asanyarray(sample["mask"].dataobj) > 0
labels = np.asanyarray(sample["label_map"].dataobj)"""


_TORCH = """\
With torch, where synthct is installed:

```python
from datasets import load_dataset  # 4.7 or newer: before, there is no column type Json (or List)
from synthct.torch import Tensors
from torch.utils.data import DataLoader

dataset = load_dataset("<folder or user>/NAME").with_transform(Tensors(size=256))
for batch in DataLoader(next(iter(dataset.values())), batch_size=8):
    hu, labels = batch["image"], batch["label_map"]  # (8, 1, 256, 256): float32 HU; int64
```

Without it:

"""


def _reading(name: str, version: str, arrays: str) -> str:
    torch = _TORCH.replace("NAME", name) if arrays is _PIXELS else ""
    return f"""{torch}```python
import numpy as np
from datasets import load_dataset  # 4.7 or newer

dataset = load_dataset("<folder or user>/{name}")
sample = next(iter(dataset.values()))[0]
{arrays}
affine = np.array(sample["affine"]).reshape(4, 4)
```

pyarrow and pandas read the parquet files too, with pictures as PNG.

From the Hub, `revision="{version}"` gives this version, whatever comes later."""


def _composing(release: Release, name: str) -> str:
    return f"""This is a patch-only release: it holds what was painted, nothing of the scans. With
your own copy of the scans (see below where they come from) whole slices are put together by

```bash
synthct compose <folder of {name}> --source hosts=<folder of the scans> --output out
```

which proves by hash that each scan is the one that was painted, and that the samples are those of
content `{release.content_id[:12]}`: the same as if the whole dataset had been built."""
