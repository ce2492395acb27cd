"""Levels 2 and 3 of ``verify``: samples made again from the sources, and compared.

What was decided before painting (masks, slices, label maps, provenance) must come out the same to
the last bit anywhere; what a model paints, within one numerics class.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.build.check import Checked
from synthct.build.draw import CaseReader, Refused, masks_of
from synthct.build.painter import Painter, generation_of, paint_samples, trained_on
from synthct.build.prepare import Outcome, Prepared, prepare
from synthct.build.sample import describe
from synthct.build.verify.locked import lock_of
from synthct.build.workers import prepared_shards, telling_of_killed_workers
from synthct.dataset.digest import canonical_json, content_of
from synthct.dataset.finding import Finding
from synthct.dataset.lockfile import LOCK, Lock
from synthct.dataset.manifest import Manifest
from synthct.dataset.patch_rows import decode_generated
from synthct.dataset.records import REJECTED, read_rejected
from synthct.dataset.rows import decode, stored_rows
from synthct.errors import VerifyError
from synthct.recipe.plan import SampleSpec
from synthct.volume.views import picture_affine, to_picture

#: What in a lock must be the same here for the plan to be the same.
_INPUTS = ("plan.id", "labels.", "sources.", "checkpoint.id", "checkpoint.files.")

#: In another numerics class the paint may differ by so many HU, in all but so few of its voxels.
_CLOSE_HU, _FAR_SHARE = 2, 0.001

Stored = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a stored row shows, as whole pictures, whichever release it is of.

    Attributes:
        image: int16 HU (rows, columns).
        mask: Boolean (rows, columns).
        labels: Label values (rows, columns).
        affine: (4, 4).
        told: The provenance.
    """

    image: npt.NDArray[np.int16]
    mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    told: Mapping[str, Any]

    @classmethod
    def of(cls, stored: Stored, prepared: Prepared) -> Pictures:
        """Those of a row; one of a patch-only release is completed with the host's own slice."""
        if "patch_digest" not in stored:
            row = decode(stored)
            return cls(row.image, row.mask, row.labels, row.affine, row.provenance)
        generated, told = decode_generated(stored)
        view = stored["view"]
        if generated.size != to_picture(prepared.plane.array, view).shape:
            raise VerifyError("the whole picture has another size than the host's slice")
        whole = generated.into(
            prepared.plane, prepared.host_labels, view, is_painted=stored["is_painted"]
        )
        return cls(
            image=to_picture(whole.painted.array, view),
            mask=to_picture(whole.mask, view),
            labels=to_picture(whole.labels, view),
            affine=generated.affine,
            told=told,
        )


def check_inputs(checked: Checked, lock: Lock) -> Iterator[Finding]:
    """That sources and checkpoint are those of the lock, and come to its plan."""
    for difference in lock.differences(lock_of(checked, lock.numerics)):
        if difference.startswith(_INPUTS):
            yield Finding(LOCK, difference)


def check_plan(
    folder: Path, manifest: Manifest, lock: Lock, checked: Checked, workers: int
) -> Iterator[Finding]:
    """Draw every mask again, and compare all that does not depend on the model.

    Args:
        folder: The dataset's folder.
        manifest: Its manifest.
        lock: Its lock.
        checked: Its recipe, with the sources.
        workers: Processes that draw masks; 0 draws them in this one.
    """
    rejected = {one.sample_id: one.reason for one in read_rejected(folder)}
    shards = [masks_of(shard.specs) for shard in checked.plan.shards]
    paths = [shard.path for shard in manifest.shards]
    if len(paths) != len(shards):
        yield Finding(LOCK, f"the plan comes to {len(shards)} shards, there are {len(paths)}")
        return
    with telling_of_killed_workers():
        for number, masks in prepared_shards(checked, shards, iter(range(len(shards))), workers):
            path, stored = paths[number], enumerate(stored_rows(folder / paths[number]))
            place = next(stored, None)
            for mask in (mask for outcome in masks for mask in outcome):
                for spec in mask.specs:
                    if place is None or place[1]["sample_id"] != spec.sample_id:
                        yield from _absent(path, mask, spec, rejected)
                        continue
                    for problem in _differences(place[1], mask, spec, checked, lock):
                        yield Finding(path, problem, (place[0],))
                    place = next(stored, None)
            if place is not None:
                what = f"sample '{place[1]['sample_id']}' is none of the plan's, or out of order"
                yield Finding(path, what, (place[0],))


def _absent(
    path: str, mask: Prepared | Refused, spec: SampleSpec, rejected: Mapping[str, str]
) -> Iterator[Finding]:
    """What is to be said of a planned sample that is no row."""
    reason = rejected.get(spec.sample_id)
    if reason is None:
        yield Finding(path, f"sample '{spec.sample_id}' of the plan is missing")
    elif isinstance(mask, Refused) and reason != mask.reason:
        what = f"sample '{spec.sample_id}' was rejected for '{reason}', not for '{mask.reason}'"
        yield Finding(REJECTED, what)


def _differences(
    stored: Stored, mask: Prepared | Refused, spec: SampleSpec, checked: Checked, lock: Lock
) -> Iterator[str]:
    """What of a row is not what the sources and the recipe come to."""
    if isinstance(mask, Refused):
        yield f"its mask cannot be drawn: {mask.detail}"
        return
    try:
        row = Pictures.of(stored, mask)
    except VerifyError as err:
        yield str(err)
        return
    recipe, view = checked.recipe, checked.recipe.view
    section = next(m for m in recipe.masks if m.name == spec.section)
    host, region = to_picture(mask.plane.array, view), to_picture(mask.region.array, view)
    before = to_picture(mask.host_labels, view)
    after = to_picture(mask.labels, view) if spec.is_painted else before
    if spec.is_painted and section.label_policy() == "relabel":  # only the user's program knows
        after = np.where(region, row.labels, before)
    if row.image.shape != host.shape:
        yield f"is a picture of {row.image.shape}, the host's slice is {host.shape}"
        return
    if not np.array_equal(row.mask, region):
        yield "the mask is not the one that the recipe draws"
    outside = ~region if spec.is_painted else np.ones_like(region)
    if not np.array_equal(row.image[outside], host[outside]):
        yield "voxels outside of the mask are not the source's"
    if not np.array_equal(row.labels, after):
        yield "the label map is not the one that the recipe comes to"
    if not np.array_equal(row.affine, picture_affine(mask.plane.affine, mask.plane.shape, view)):
        yield "the affine is not the source's"
    facts, told = describe(
        mask,
        spec,
        recipe,
        mask.labels if spec.is_painted else mask.host_labels,
        trained_on=trained_on(checked),
        generation=generation_of(checked),
        numerics=lock.numerics,
        licence=lock.licence,
    )
    expected = content_of({**asdict(facts), **told})
    for key in sorted(expected.keys() | content_of(row.told).keys()):
        ours, theirs = expected.get(key), row.told.get(key)
        if key not in row.told or canonical_json(ours) != canonical_json(theirs):
            yield f"the provenance's '{key}' is not what the recipe comes to"


def choose(checked: Checked, samples: int, seed: int) -> list[tuple[SampleSpec, ...]]:
    """Masks, drawn at random, that come to at least so many painted samples if there are as many.

    Args:
        checked: The recipe.
        samples: How many are wanted.
        seed: Another seed, other masks.
    """
    groups = masks_of(checked.plan.specs)
    random.Random(seed).shuffle(groups)
    chosen, found = [], 0
    for group in groups:
        if found >= samples:
            break
        chosen.append(group)
        found += sum(spec.is_painted for spec in group)
    return chosen


def check_paint(
    folder: Path,
    manifest: Manifest,
    lock: Lock,
    checked: Checked,
    painter: Painter,
    groups: Sequence[tuple[SampleSpec, ...]],
) -> Iterator[Finding | str]:
    """Paint some masks again and compare every voxel.

    Args:
        folder: The dataset's folder.
        manifest: Its manifest.
        lock: Its lock.
        checked: Its recipe, with the sources.
        painter: From ``load_painter``.
        groups: The planned samples of some masks.

    Yields:
        The id of each sample that came out the same, a finding for each that did not.
    """
    from tqdm import tqdm

    reader, outcomes = CaseReader(checked.label_names), {}
    for group in groups:
        outcomes[group[0].mask_id] = prepare(group, checked.recipe, checked.rules, reader)
    wanted = {s.sample_id: m for o in outcomes.values() for m in o for s in m.specs}
    stored = {
        row["sample_id"]: (shard.path, number, row)
        for shard in manifest.shards
        for number, row in enumerate(stored_rows(folder / shard.path))
        if row["sample_id"] in wanted and row["is_painted"]
    }
    is_same_class = dict(painter.numerics) == lock.numerics
    for group in groups:
        outcome: Outcome = outcomes[group[0].mask_id]
        with tqdm(total=0, disable=True) as bar:
            rows, _ = paint_samples(checked, group, iter([outcome]), painter, bar)
        painted = {row.facts.sample_id: row.values() for row in rows}
        for sample_id in (s.sample_id for m in outcome for s in m.specs if s.sample_id in stored):
            path, number, old = stored[sample_id]
            mask = wanted[sample_id]
            assert isinstance(mask, Prepared), "what is stored was not refused"
            problem = _unlike(old, painted.get(sample_id), mask, exactly=is_same_class)
            yield Finding(path, problem, (number,)) if problem else sample_id


def _unlike(old: Stored, new: Stored | None, mask: Prepared, *, exactly: bool) -> str | None:
    """How two paintings of a sample differ; None if they do not, or by rounding only."""
    if new is None:
        return "painted again, it is rejected"
    one, other = Pictures.of(old, mask), Pictures.of(new, mask)
    apart = np.abs(one.image.astype(np.int32) - other.image)
    if not apart.any():
        return None
    if exactly:
        return f"painted again, {np.count_nonzero(apart)} voxels differ, by up to {apart.max()} HU"
    share = float((apart[one.mask] > _CLOSE_HU).mean())
    if share > _FAR_SHARE or apart[~one.mask].any():
        return f"painted again, {share:.1%} of its voxels differ by more than {_CLOSE_HU} HU"
    return None
