"""A build with everything real but the paint: locks, shards, journal, documents, commit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from synthct.build.assemble import Order, Painted, ShardFile, assemble, find_finished
from synthct.build.progress import Progress
from synthct.dataset.manifest import Release
from synthct.dataset.partial import Made
from synthct.dataset.records import write_recipe, write_rejected
from synthct.dataset.rows import encode
from synthct.dataset.sample import Sample
from synthct.dataset.schema import Facts, arrow_schema
from synthct.dataset.summary import rejections
from synthct.dataset.version import Staging
from synthct.dataset.writer import Rejection, ShardRecord, shard_name
from synthct.metrics.table import MEASURES
from synthct.processes.group import Group
from synthct.storage.files import atomic_write, make_folder
from synthct.storage.lock import version_lock

#: Splits of the shards; a few are as good as many, since each is written the same way.
_SPLITS = ("train", "train", "validation")
_PLAN_ID = "stand-in"


def shard_path(number: int) -> str:
    """The file of a shard, relative to the version's folder."""
    split = _SPLITS[number]
    return shard_name(split, _SPLITS[:number].count(split), _SPLITS.count(split))


class ShuffledGroup(Group):
    """One process that takes the shards in an order of its own.

    Args:
        seed: Another seed, another order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)

    def take(self, numbers: Sequence[int]) -> Iterator[int]:
        """As if others had taken what comes in between."""
        yield from (int(number) for number in self._rng.permutation(numbers))


class StandIn:
    """Builds one small version again and again; the samples are made once."""

    def __init__(self) -> None:
        self._rows = [_row(number) for number in range(len(_SPLITS))]

    def build(
        self, final: Path, seed: int, painted: list[int], *, samples: int | None = None
    ) -> None:
        """Build the version or go on with it, as ``synthct build`` does.

        Args:
            final: Where it will stand.
            seed: Of the order of the shards.
            painted: Gets the numbers of the shards that had to be painted.
            samples: Interrupt the build after so many samples, two of which make a shard.

        Raises:
            KeyboardInterrupt: If it is interrupted.
            SynthCTError: As in a build.
        """
        left = itertools.count() if samples is None else iter(range(samples))

        def paint(numbers: Iterator[int], progress: Progress) -> Iterator[Painted]:
            for number in numbers:
                painted.append(number)
                partial = Staging(final).partial(shard_path(number))
                made = [
                    Made(f"sample-{number}", self._rows[number]),
                    Made(reject := f"rejected-{number}", rejection=Rejection(reject, "seam")),
                ]
                for one in made:
                    if one.sample_id not in partial.made:
                        if next(left, None) is None:
                            raise KeyboardInterrupt
                        partial.add(one)
                row, rejection = (partial.made.get(one.sample_id, one) for one in made)
                assert row.row is not None
                assert rejection.rejection is not None
                yield number, [row.row], [rejection.rejection]
                partial.remove()
                progress.update()

        def document(tree: Path, release: Release, shards: Sequence[ShardRecord]) -> None:
            write_recipe(tree, {"name": release.name, "version": release.version})
            write_rejected(tree, rejections(shards))
            atomic_write(tree / "README.md", f"# {release.label}\n".encode())

        group = ShuffledGroup(seed)
        make_folder(final.parent)
        with version_lock(final):
            if find_finished(final, _PLAN_ID, group) is None:
                assemble(_order(final), group, paint, document)


def _order(final: Path) -> Order:
    return Order(
        final=final,
        name="stand-in",
        plan_id=_PLAN_ID,
        key=_PLAN_ID,
        shards=tuple(
            ShardFile(shard_path(number), split, samples=2, bytes=1000)
            for number, split in enumerate(_SPLITS)
        ),
        schema=arrow_schema(keep_original=False),
    )


def _row(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    original = rng.integers(-1024, 3072, (16, 12, 1), dtype=np.int16)
    mask = np.zeros(original.shape, dtype=bool)
    mask[4:9, 3:8] = True
    return encode(
        Sample(
            facts=stand_in_facts(f"sample-{number}"),
            affine=np.eye(4),
            original=original,
            image=np.where(mask, np.int16(number), original),
            mask=mask,
            labels=mask.astype(np.uint8),
            metrics=dict.fromkeys(MEASURES) | {"outside_max_abs_diff": 0},
            provenance={"number": number},
        )
    )


def stand_in_facts(sample_id: str) -> Facts:
    """The facts of a sample that no recipe has planned: some value of the right type for each."""
    values = {"str": "stand-in", "View": "axial", "int": 0, "bool": False}
    filled: dict[str, Any] = {field.name: values.get(str(field.type)) for field in fields(Facts)}
    return Facts(**filled | {"sample_id": sample_id})
