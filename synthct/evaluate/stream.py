"""A finished dataset read row by row, and the slices of the scans that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.first_format import ADDED, with_added_columns
from synthct.dataset.manifest import read_manifest
from synthct.dataset.png import decode_hu, decode_mask
from synthct.dataset.records import RECIPE, REJECTED
from synthct.dataset.schema import arrow_schema, flat_columns
from synthct.dataset.writer import read_shard
from synthct.errors import SourceError, VerifyError
from synthct.evaluate.pictures import Crop, Hu
from synthct.recipe.recipe import load_recipe
from synthct.recipe.yaml_model import read_yaml
from synthct.sources import CaseEntry, at_hand, index_sources, read_case
from synthct.volume import Affine, Volume
from synthct.volume.views import VIEW_AXIS, View, to_picture

#: Rows that are in memory at once.
_ROWS = 16

_NEEDED = ("image", "mask", "spacing_mm", "affine")


@dataclass(frozen=True, eq=False)
class Sample:
    """One row of a dataset.

    Attributes:
        row: Its flat columns.
        painted: The whole slice.
        original: HU of the slice before painting; None where the dataset does not keep it.
        affine: (4, 4), from (row, column, 0, 1) to RAS+ mm.
    """

    row: Mapping[str, Any]
    painted: Crop
    original: Hu | None
    affine: Affine

    @property
    def mask_id(self) -> str:
        """Equal for the variants of one mask on one slice."""
        return str(self.row["mask_id"])


class Dataset:
    """A finished dataset on disk.

    Args:
        folder: The folder of a version.

    Raises:
        VerifyError: If it is no finished dataset, or one without pictures.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise VerifyError(f"{folder} is no finished dataset; give the folder of a version")
        self.folder, self.manifest = folder, manifest
        self._columns = set(pq.read_schema(self.shards[0]).names) | ADDED.keys()
        if lacking := [name for name in _NEEDED if name not in self._columns]:
            raise VerifyError(
                f"{folder} has no column '{lacking[0]}'; only datasets with whole slices can be "
                "evaluated or shown; of a patch-only release 'synthct compose' makes one"
            )

    @property
    def shards(self) -> list[Path]:
        """The parquet files, in the order of the manifest."""
        return [self.folder / f.path for f in self.manifest.files if f.rows is not None]

    @property
    def content_id(self) -> str:
        """What names its content."""
        return self.manifest.release.content_id

    @property
    def keeps_original(self) -> bool:
        """Whether rows hold the slice before painting."""
        return "original" in self._columns

    def rows(self) -> list[dict[str, Any]]:
        """The flat columns of all rows."""
        names = [n for n in flat_columns(arrow_schema(keep_original=False)) if n in self._columns]
        return [row for path in self.shards for row in read_shard(path, names).to_pylist()]

    def rejected(self) -> dict[str, int]:
        """Rejected samples by reason."""
        path = self.folder / REJECTED
        reasons = read_shard(path, ["reason"])["reason"].to_pylist() if path.is_file() else []
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def samples(self) -> Iterator[Sample]:
        """The rows with their pictures, a few of them in memory at a time.

        Raises:
            VerifyError: If a shard or a picture is damaged.
        """
        flat = [n for n in flat_columns(arrow_schema(keep_original=False)) if n in self._columns]
        pictures = [*_NEEDED, *(["original"] if self.keeps_original else [])]
        for path in self.shards:
            try:
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(_ROWS, columns=[*flat, *pictures]):
                        table = with_added_columns(pa.Table.from_batches([batch]), flat)
                        yield from map(self._sample, table.to_pylist())
            except (pa.ArrowException, OSError) as err:
                raise VerifyError(f"{path}: damaged ({err}); build it again") from err

    def _sample(self, row: dict[str, Any]) -> Sample:
        spacing = tuple(row.pop("spacing_mm"))
        image, mask = row.pop("image")["bytes"], row.pop("mask")["bytes"]
        kept = row.pop("original", None)
        painted = Crop(decode_hu(image), decode_mask(mask), spacing, row["label"])
        affine = np.array(row.pop("affine"), dtype=np.float64).reshape(4, 4)
        return Sample(row, painted, decode_hu(kept["bytes"]) if kept else None, affine)


class Scans:
    """The hosts that a dataset was painted into.

    Args:
        dataset: The dataset; its recipe says how the hosts lie.
        roots: Where its sources are, by name; phantoms need none.
        cache_dir: Where indexes and phantoms are kept.

    Raises:
        SynthCTError: If the hosts cannot be found or read.
    """

    def __init__(self, dataset: Dataset, roots: Mapping[str, Path], cache_dir: Path) -> None:
        path = dataset.folder / RECIPE
        others = _rooted_sources(path) - roots.keys() - {"hosts"}  # not read here
        recipe = load_recipe(path, sources={**dict.fromkeys(others, Path()), **roots})
        hosts = at_hand({"hosts": recipe.sources["hosts"]}, cache_dir)
        index = index_sources(hosts, (), cache_dir=cache_dir)
        self._entries = {entry.case_id: entry for entry in index.entries("hosts")}
        self._kept: tuple[CaseEntry, Volume] | None = None

    def picture(self, row: Mapping[str, Any], offset: int) -> Hu | None:
        """The slice of a row's host, or one beside it; None beyond the scan.

        Raises:
            SourceError: If the host is not there, or has other voxels than then.
        """
        entry = self._entries.get(row["case_id"])
        if entry is None:
            raise SourceError(f"case {row['case_id']} is not among the hosts; correct --source")
        if self._kept is None or self._kept[0] is not entry:
            self._kept = entry, read_case(entry, {}).scan()
        view: View = row["view"]
        axis, index = VIEW_AXIS[view], row["slice_index"] + offset
        scan = self._kept[1].array
        if not 0 <= index < scan.shape[axis]:
            return None
        picture: Hu = to_picture(scan.take([index], axis=axis), view)
        return picture

    def original(self, sample: Sample) -> Hu:
        """The slice of a sample before painting, which must be that of the dataset.

        Raises:
            SourceError: If the scan is another one.
        """
        found = self.picture(sample.row, 0)
        painted, outside = sample.painted.hu, ~sample.painted.mask
        if (
            found is None
            or found.shape != painted.shape
            or bool((found[outside] != painted[outside]).any())
        ):
            raise SourceError(
                f"case {sample.row['case_id']} is not the scan that {sample.row['sample_id']} was "
                "painted into; correct --source"
            )
        return found

    def neighbour(self, sample: Sample) -> Hu | None:
        """The real slice beside a sample's, above if there is one."""
        above = self.picture(sample.row, 1)
        return above if above is not None else self.picture(sample.row, -1)


def _rooted_sources(recipe: Path) -> set[str]:
    """The sources of a resolved recipe that lie in a folder of the user's."""
    sections = read_yaml(recipe).value.get("sources")
    written = sections.items() if isinstance(sections, dict) else ()
    return {str(name) for name, section in written if "root" in section}
