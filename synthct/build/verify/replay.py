"""Levels 2 and 3 of ``verify``: samples made again from the sources, and compared.

What was decided before painting (masks, slices, label maps, provenance) must come out the same to
the last bit anywhere; what a model paints, within one numerics class.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthct.build.check import Checked
from synthct.build.context import BuildContext
from synthct.build.draw import CaseReader, masks_of
from synthct.build.measure import measure
from synthct.build.painter import paint_samples
from synthct.build.prepare import Draft, prepare
from synthct.build.provenance import provenance
from synthct.build.sample import MEASURED_GRAIN
from synthct.build.verify.locked import lock_of
from synthct.build.workers import prepared_shards
from synthct.dataset.added import added_since
from synthct.dataset.digest import canonical_json
from synthct.dataset.finding import Finding
from synthct.dataset.lockfile import LOCK, Lock
from synthct.dataset.manifest import Manifest
from synthct.dataset.patch_rows import complete
from synthct.dataset.records import REJECTED, read_rejected
from synthct.dataset.rows import Columns, decode, parsed, stored_rows
from synthct.dataset.sample import Sample
from synthct.dataset.writer import Rejection
from synthct.errors import VerifyError, counted
from synthct.recipe.plan import SampleSpec

#: Keys of a lock that decide the plan.
_INPUTS = ("plan.id", "labels.", "sources.", "checkpoint.id", "checkpoint.files.")

#: In another numerics class the paint may differ by so many HU, in all but so few of its voxels.
_CLOSE_HU, _FAR_SHARE = 2, 0.001

#: Measures are floats, whose last bits may differ between builds of numpy.
_CLOSE_MEASURE = 1e-6

#: Keys of a provenance that level 1 compares with lock and manifest.
_OF_THE_RUN = {"numerics", "review", "versions"}

#: The planned samples of some masks.
Groups = Sequence[tuple[SampleSpec, ...]]


def _stored_sample(columns: Columns, draft: Draft) -> Sample:
    """The sample of a row; of a patch-only release, completed with the host's own slice."""
    if "patch_digest" not in columns:
        return decode(columns)
    real = draft.sample
    assert real.host_labels is not None, "a draft knows its host's label map"
    return complete(columns, real.volume("original"), real.host_labels)


def check_inputs(checked: Checked, lock: Lock) -> Iterator[Finding]:
    """That sources and checkpoint are those of the lock, and come to its plan."""
    for difference in lock.differences(lock_of(checked, lock.numerics, lock.limits)):
        if difference.startswith(_INPUTS):
            yield Finding(LOCK, difference)


def check_plan(
    folder: Path, manifest: Manifest, context: BuildContext, workers: int
) -> Iterator[Finding]:
    """Draw every mask and measure every sample again, and compare all but the paint itself.

    Args:
        folder: The dataset's folder.
        manifest: Its manifest.
        context: Its recipe with the sources, the lock's numerics class, and real tissue to measure
            against; no model.
        workers: Processes that draw masks; 0 draws them in this one.
    """
    checked = context.checked
    rejected = {one.sample_id: one for one in read_rejected(folder)}
    shards = [masks_of(shard.specs) for shard in checked.plan.shards]
    paths = [shard.path for shard in manifest.shards]
    if len(paths) != len(shards):
        yield Finding(LOCK, f"the plan comes to {counted(len(shards), 'shard')}, not {len(paths)}")
        return
    for number, masks in prepared_shards(checked, shards, iter(range(len(shards))), workers):
        path, stored = paths[number], enumerate(stored_rows(folder / paths[number]))
        place, replay = next(stored, None), _Replay(context)
        for one in (one for outcome in masks for one in outcome):
            sample_id = one.spec.sample_id if isinstance(one, Draft) else one.sample_id
            if place is None or place[1]["sample_id"] != sample_id:
                yield from _absent(path, one, sample_id, rejected.pop(sample_id, None))
                continue
            for problem in replay.differences(place[1], one):
                yield Finding(path, problem, (place[0],))
            place = next(stored, None)
        if place is not None:
            what = f"sample '{place[1]['sample_id']}' is none of the plan's, or out of order"
            yield Finding(path, what, (place[0],))
    for sample_id in rejected:
        yield Finding(REJECTED, f"sample '{sample_id}' is none of the plan's")


def _absent(
    path: str, one: Draft | Rejection, sample_id: str, rejected: Rejection | None
) -> Iterator[Finding]:
    """What is wrong with a planned sample that is no row, as it stands among the rejected."""
    if rejected is None:
        yield Finding(path, f"sample '{sample_id}' of the plan is missing")
    elif isinstance(one, Draft):
        facts = asdict(one.sample.facts)
        if rejected.columns and facts != {name: rejected.columns[name] for name in facts}:
            yield Finding(REJECTED, f"sample '{sample_id}' is not the one of the plan")
    elif rejected.reason != one.reason:
        what = f"sample '{sample_id}' was rejected for '{rejected.reason}', not for '{one.reason}'"
        yield Finding(REJECTED, what)


class _Replay:
    """The stored samples of a shard, in order, against what sources and recipe come to."""

    def __init__(self, context: BuildContext) -> None:
        self.context = context
        self._variants: dict[str, list[npt.NDArray[np.int16]]] = {}

    def differences(self, columns: Columns, one: Draft | Rejection) -> Iterator[str]:
        """What of a row is not what the sources and the recipe come to."""
        if isinstance(one, Rejection):
            yield f"its mask cannot be drawn: {one.detail}"
            return
        draft, is_painted = one.sample, one.spec.is_painted
        try:
            stored = _stored_sample(columns, one)
        except VerifyError as err:
            yield str(err)
            return
        host, after = draft.volume("original").array, draft.labels
        if is_painted and one.section.label_policy() == "relabel":  # only the user's program knows
            after = np.where(draft.mask, stored.labels, draft.volume("host_labels").array)
        if stored.shape != draft.shape:
            shown, right = (one.pictures["mask"].shape for one in (stored, draft))
            yield f"is a picture of {shown}, the host's slice is {right}"
            return
        if not np.array_equal(stored.mask, draft.mask):
            yield "the mask is not the one that the recipe draws"
        outside = ~draft.mask if is_painted else np.ones_like(draft.mask)
        if not np.array_equal(stored.image[outside], host[outside]):
            yield "voxels outside of the mask are not the source's"
        if not np.array_equal(stored.labels, after):
            yield "the label map is not the one that the recipe comes to"
        if not np.array_equal(parsed(columns)[1], draft.picture_affine):
            yield "the affine is not the source's"
        # What was measured of the paint before its grain was made is not known without painting.
        generation = stored.provenance.get("generation") or {}
        kept = {key: generation[key] for key in (MEASURED_GRAIN,) if key in generation}
        one = replace(one, paint_facts={**one.paint_facts, **kept})
        image = np.where(draft.mask, stored.image, host)
        anew = replace(one, sample=replace(draft, image=image, labels=after))
        yield from self._wrong_measures(stored, anew)
        described = replace(anew.sample, metrics=stored.metrics)
        expected = {
            **asdict(draft.facts),
            **provenance(replace(one, sample=described), self.context),
            "preview": draft.window.model_dump(),
        }
        for key in sorted((expected.keys() | stored.provenance.keys()) - _OF_THE_RUN):
            ours, theirs = expected.get(key), stored.provenance.get(key)
            if key not in stored.provenance or canonical_json(ours) != canonical_json(theirs):
                yield f"the provenance's '{key}' is not what the recipe comes to"

    def _wrong_measures(self, stored: Sample, draft: Draft) -> Iterator[str]:
        """Measures that are not those of the stored picture; notes it for its later variants."""
        spec, sample = draft.spec, draft.sample
        earlier = self._variants.setdefault(spec.mask_id, [])
        reference = self.context.references.of(sample.facts.label, spec.host.patient_id)
        lacking = added_since(stored.provenance["versions"]["format"])
        for name, value in measure(draft, reference, earlier).items():
            if name in lacking:
                continue
            ours = value if value is not None and math.isfinite(value) else None
            theirs = (stored.metrics or {}).get(name)
            if not _is_close(ours, theirs):
                yield f"column '{name}' is {theirs}, measured again it is {ours}"
        if spec.is_painted:
            earlier.append(stored.image[stored.mask])


def choose(checked: Checked, samples: int, seed: int) -> list[tuple[SampleSpec, ...]]:
    """Random masks with at least so many painted samples in all, or every mask.

    Args:
        checked: The recipe.
        samples: How many painted samples are wanted.
        seed: Decides which masks are chosen.
    """
    groups = masks_of(checked.plan.specs)
    random.Random(seed).shuffle(groups)
    chosen, painted = [], 0
    for group in groups:
        if painted >= samples:
            break
        chosen.append(group)
        painted += sum(spec.is_painted for spec in group)
    return chosen


def check_paint(
    folder: Path, manifest: Manifest, lock: Lock, context: BuildContext, groups: Groups
) -> Iterator[Finding | str]:
    """Paint some masks again and compare every voxel.

    Args:
        folder: The dataset's folder.
        manifest: Its manifest.
        lock: Its lock.
        context: From ``load_context``.
        groups: The planned samples of some masks.

    Yields:
        The id of each sample that came out the same, a finding for each that did not.
    """
    from tqdm import tqdm

    checked, reader = context.checked, CaseReader(context.checked.label_names)
    outcomes = [prepare(group, checked, reader) for group in groups]
    drafts = {
        one.spec.sample_id: one
        for outcome in outcomes
        for one in outcome
        if isinstance(one, Draft) and one.spec.is_painted
    }
    stored = {
        row["sample_id"]: (shard.path, number, row)
        for shard in manifest.shards
        for number, row in enumerate(stored_rows(folder / shard.path))
        if row["sample_id"] in drafts
    }
    rejected = {one.sample_id: one for one in read_rejected(folder)}
    is_same_class = dict(context.numerics) == lock.numerics
    for group, outcome in zip(groups, outcomes, strict=True):
        with tqdm(total=0, disable=True) as bar:
            rows, rejections = paint_samples(group, iter([outcome]), context, bar)
        painted = {row["sample_id"]: row for row in rows}
        for again in rejections if is_same_class else ():
            if again.measure and not _is_same(again, rejected.get(again.sample_id)):
                yield Finding(REJECTED, f"sample '{again.sample_id}' is rejected otherwise")
        for one in outcome:
            if not isinstance(one, Draft) or one.spec.sample_id not in stored:
                continue
            path, number, old = stored[one.spec.sample_id]
            new = painted.get(one.spec.sample_id)
            problem = _unlike(old, new, one, exactly=is_same_class)
            yield Finding(path, problem, (number,)) if problem else one.spec.sample_id


def _is_same(one: Rejection, other: Rejection | None) -> bool:
    """Whether a sample was rejected for the same limit, with the same value."""
    if other is None or (one.reason, one.measure) != (other.reason, other.measure):
        return False
    return _is_close(one.value, other.value)


def _is_close(one: float | None, other: float | None) -> bool:
    """Whether two measures are the same but for their last bits."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_CLOSE_MEASURE, abs_tol=_CLOSE_MEASURE)


def _unlike(old: Columns, new: Columns | None, draft: Draft, *, exactly: bool) -> str | None:
    """How two paintings of a sample differ; None if they do not, or by rounding only."""
    if new is None:
        return "painted again, it is rejected"
    one, other = _stored_sample(old, draft), _stored_sample(new, draft)
    apart = np.abs(one.image.astype(np.int32) - other.image)
    if not apart.any():
        return None
    if exactly:
        differ = counted(int(np.count_nonzero(apart)), "voxel differs", "voxels differ")
        return f"painted again, {differ}, by up to {apart.max()} HU"
    share = float((apart[one.mask] > _CLOSE_HU).mean())
    if share > _FAR_SHARE or apart[~one.mask].any():
        return f"painted again, {share:.1%} of its voxels differ by more than {_CLOSE_HU} HU"
    return None
