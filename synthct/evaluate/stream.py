"""Reads a finished dataset row by row, and the slices of its host scans."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthct.dataset.added import OPTIONAL, with_added_columns
from synthct.dataset.manifest import require_manifest, require_todays_recipe
from synthct.dataset.records import RECIPE, REJECTED
from synthct.dataset.rows import decode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import flat_schema, is_of_volumes
from synthct.dataset.stack import unstack
from synthct.dataset.writer import read_shard
from synthct.errors import SourceError, VerifyError
from synthct.evaluate.pictures import Crop, Hu
from synthct.recipe.recipe import Recipe, load_recipe
from synthct.recipe.yaml_model import read_yaml
from synthct.sources import CaseEntry, download, index_sources, read_case
from synthct.volume import Box, Volume
from synthct.volume.intensity import window_for
from synthct.volume.views import VIEW_AXIS, to_picture

#: Rows in memory at once.
_ROWS = 16

_NEEDED = ("image", "mask", "label_map", "spacing_mm", "affine")


class Dataset:
    """A finished dataset on disk.

    Raises:
        VerifyError: If it is not a finished dataset, or a patch-only release.
    """

    def __init__(self, folder: Path) -> None:
        manifest = require_manifest(folder)
        self.folder, self.manifest = folder, manifest
        schema = pq.read_schema(self.shards[0])
        self.of_volumes = is_of_volumes(schema)
        self._columns = set(schema.names) | OPTIONAL.keys()
        if lacking := [name for name in _NEEDED if name not in self._columns]:
            raise VerifyError(
                f"{folder} has no column '{lacking[0]}'; only datasets with whole slices can be "
                "evaluated or shown; run 'synthct compose' on a patch-only release first"
            )

    @property
    def shards(self) -> list[Path]:
        """The parquet files, in the order of the manifest."""
        return [self.folder / f.path for f in self.manifest.files if f.rows is not None]

    @property
    def content_id(self) -> str:
        """Hash that identifies its content."""
        return self.manifest.release.content_id

    @property
    def keeps_original(self) -> bool:
        """Whether rows hold the slice before painting."""
        return "original" in self._columns

    def rows(self) -> list[dict[str, Any]]:
        """The flat columns of all rows."""
        names = [n for n in flat_schema(volume=self.of_volumes).names if n in self._columns]
        return [row for path in self.shards for row in read_shard(path, names).to_pylist()]

    def rejected(self) -> dict[str, int]:
        """Number of rejected samples by reason."""
        path = self.folder / REJECTED
        reasons = read_shard(path, ["reason"])["reason"].to_pylist() if path.is_file() else []
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}

    def slices(self) -> Iterator[Sample]:
        """The rows as ``samples`` has them, of volumes every slice that shows some of the mask."""
        for sample in self.samples():
            yield from unstack(sample)

    def samples(self) -> Iterator[Sample]:
        """The rows with their pictures, read a few at a time; volumes, which are large, one by one.

        Raises:
            VerifyError: If a shard or a picture is damaged.
        """
        names = [name for name in self._columns if name != "preview"]
        most = 1 if self.of_volumes else _ROWS
        for path in self.shards:
            try:
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(most, columns=names):
                        table = with_added_columns(pa.Table.from_batches([batch]), None)
                        for row in table.to_pylist():
                            yield decode(row)
            except (pa.ArrowException, OSError) as err:
                raise VerifyError(f"{path}: damaged ({err}); build it again") from err


def painted_slice(sample: Sample) -> Crop:
    """The painted slice of a sample, or the volume, for extractors."""
    pictures = sample.pictures
    under_hu = sample.metrics["replaced_mean_hu"]
    if under_hu is None:  # the host's unpainted slice
        under_hu = float(sample.image[sample.mask].mean())
    window = window_for(sample.facts.label, under_hu)
    return Crop(pictures["image"], pictures["mask"], sample.pixel_mm, window)


class HostScans:
    """The hosts that a dataset was painted into.

    Args:
        dataset: The dataset, whose recipe has the layout of the hosts.
        roots: Source name to folder; phantoms need none.
        cache_dir: Folder of cached indexes and phantoms.

    Raises:
        SynthCTError: If the hosts are missing or damaged.
    """

    def __init__(self, dataset: Dataset, roots: Mapping[str, Path], cache_dir: Path) -> None:
        recipe = recipe_of(dataset.folder, roots, read={"hosts"})
        hosts = download({"hosts": recipe.sources["hosts"]}, cache_dir)
        index = index_sources(hosts, (), cache_dir=cache_dir)
        self._entries = {entry.case_id: entry for entry in index.entries("hosts")}
        self._kept: tuple[CaseEntry, Volume] | None = None

    def picture(self, sample: Sample, offset: int) -> Hu | None:
        """The slice of a sample's host, or its volume, ``offset`` slices away.

        None beyond the scan.

        Raises:
            SourceError: If the host is missing.
        """
        facts = sample.facts
        entry = self._entries.get(facts.case_id)
        if entry is None:
            raise SourceError(f"case {facts.case_id} is not among the hosts; correct --source")
        if self._kept is None or self._kept[0] is not entry:
            self._kept = entry, read_case(entry, {}).scan()
        axis, scan = VIEW_AXIS[sample.plane], self._kept[1]
        corner = [0, 0, 0]
        if (box := sample.provenance["host"].get("box")) is not None:  # a volume, or a slice of one
            corner = list(box[0])
        if facts.view != "volume":
            corner[axis] = facts.slice_index
        corner[axis] += offset
        shown = Box((0, 0, 0), sample.shape).shift(corner)
        if shown.clip(scan.shape) != shown:
            return None
        return to_picture(scan.array[shown.slices], facts.view)

    def original(self, sample: Sample) -> Hu:
        """The slice of a sample before painting.

        Raises:
            SourceError: If it differs from the dataset outside of the mask.
        """
        original = self.picture(sample, 0)
        painted, outside = sample.pictures["image"], ~sample.pictures["mask"]
        if (
            original is None
            or original.shape != painted.shape
            or bool((original[outside] != painted[outside]).any())
        ):
            raise SourceError(
                f"case {sample.facts.case_id} is not the scan that {sample.sample_id} was "
                "painted into; correct --source"
            )
        return original

    def neighbour(self, sample: Sample) -> Hu | None:
        """What lies one slice further than a sample or, at the end of the scan, one before."""
        above = self.picture(sample, 1)
        return above if above is not None else self.picture(sample, -1)


def recipe_of(folder: Path, roots: Mapping[str, Path], *, read: Collection[str]) -> Recipe:
    """The recipe of a finished dataset.

    Args:
        folder: The dataset.
        roots: Source name to folder.
        read: Sources that are read; the others need no root.

    Raises:
        RecipeError: If the root of one that is read is missing.
    """
    require_todays_recipe(folder)
    path = folder / RECIPE
    others = rooted_sources(folder) - roots.keys() - set(read)
    return load_recipe(path, sources={**dict.fromkeys(others, Path()), **roots})


def rooted_sources(folder: Path) -> set[str]:
    """Names of the sources of a finished dataset that have a root, as phantoms have not."""
    sections = read_yaml(folder / RECIPE).value.get("sources")
    written = sections.items() if isinstance(sections, dict) else ()
    return {str(name) for name, section in written if "root" in section}
