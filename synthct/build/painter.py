"""Planned samples painted: prepared masks in, rows and rejections out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from synthct import seeds
from synthct.build.block import Block
from synthct.build.context import BuildContext
from synthct.build.draw import masks_of, slice_noise_stream
from synthct.build.fronts import SliceNoise, Stack, paint_stacks
from synthct.build.prepare import Draft, Outcome
from synthct.build.sample import FloatArray, finish, noise_seed
from synthct.build.series import Step, parts_of
from synthct.dataset.partial import Made, PartialShard
from synthct.dataset.patch_rows import encode_patch
from synthct.dataset.rows import encode
from synthct.dataset.verdicts import (
    NOT_REVIEWED,
    REJECTED_BY_REVIEW,
    verdict_on,
    with_verdict,
)
from synthct.dataset.writer import Rejection, reject
from synthct.recipe.plan import SampleSpec

if TYPE_CHECKING:
    from synthct.models.painting import Job
    from synthct.models.patch import Patch

logger = logging.getLogger(__name__)

_Parts = Sequence[tuple[Draft, Stack, int]]

#: Begins the reason of a sample that was rejected because the model gave no painting.
MODEL_FAULT = "model: "
#: Voxels of the volumes that are painted together.
MOST_VOXELS = 50_000_000
#: Fewer pixels may be of one value by chance.
_LEAST_PAINTED = 16
#: Beyond twice the range -1..1 a network has burst; so has one of whose pixels so many lie at the
#: ends of the range, some at either.
_BURST, _AT_ENDS, _AT_EITHER_END = 2.0, 0.9, 0.05


def paint_samples(
    specs: Sequence[SampleSpec],
    masks: Iterator[Outcome],
    context: BuildContext,
    progress: Any,
    partial: PartialShard | None = None,
) -> tuple[list[Mapping[str, Any]], list[Rejection]]:
    """Paint samples, in batches as the prepared masks come in.

    Args:
        specs: The planned samples, those of one mask together.
        masks: Their masks, in order; no more of them are taken than these samples have.
        context: What all samples of the build share.
        progress: A progress bar, in samples; its total is mended as slices are counted.
        partial: Samples of them that an interrupted run has made, which are not made again; gets
            those that this one makes.

    Returns:
        The rows by column, in the order of ``specs``, slice by slice; and what was rejected,
        likewise.
    """
    results = _Results(context, progress, partial)

    def drafts() -> Iterator[Draft]:
        for planned in masks_of(specs):
            outcome = next(masks)
            progress.total += len(outcome) - sum(spec.slices for spec in planned)
            for one in outcome:
                results.expect(one)
                if isinstance(one, Draft):
                    yield one

    for draft, painted in _painted(drafts(), context, results.is_made):
        results.add(draft, painted)
    return results.rows_and_rejections()


def _painted(
    drafts: Iterator[Draft], context: BuildContext, is_made: Callable[[Draft], bool]
) -> Iterator[tuple[Draft, list[FloatArray]]]:
    """Samples with the model's paint for each of their patches, as batches come out of it.

    Those that are made already only keep their places in the batches, so that all others are in
    the same batches as if nothing had been interrupted.
    """
    if context.inpainter is None:
        yield from ((draft, []) for draft in drafts if not is_made(draft))
        return
    rules = context.checked.rules
    assert rules is not None
    if context.checked.recipe.view == "volume" and rules.depth == 1:
        yield from _painted_volumes((one for one in drafts if not is_made(one)), context)
        return
    from synthct.models.painting import Job

    real: list[Draft] = []
    waiting: dict[str, tuple[Draft, dict[int, FloatArray]]] = {}

    def jobs() -> Iterator[Job[tuple[str, int]]]:
        for draft in drafts:
            is_done = is_made(draft)
            if not draft.spec.is_painted:
                if not is_done:
                    real.append(draft)
                continue
            sample_id = draft.spec.sample_id
            if not is_done:
                waiting[sample_id] = draft, {}
            for n, patch in enumerate(draft.patches):
                seed = noise_seed(context.checked.recipe, draft, n)
                yield Job((sample_id, n), patch, seed, is_done)

    for (sample_id, n), pixels in context.inpainter.stream(jobs()):
        draft, pieces = waiting[sample_id]
        pieces[n] = pixels
        if len(pieces) == len(draft.patches):
            del waiting[sample_id]
            yield draft, [pieces[i] for i in range(len(pieces))]
        while real:
            yield real.pop(), []
    yield from ((draft, []) for draft in real)


def _painted_volumes(
    drafts: Iterator[Draft], context: BuildContext
) -> Iterator[tuple[Draft, list[FloatArray]]]:
    """Volumes likewise, some at a time: what a model paints does not depend on its companions."""
    inpainter, rules, recipe = context.inpainter, context.checked.rules, context.checked.recipe
    assert inpainter is not None
    assert rules is not None
    for some in _groups(drafts, inpainter.batch_size):
        parts = [
            (draft, part, before)
            for draft in some
            if draft.spec.is_painted and draft.stack is not None
            for part, before in _with_offsets(draft.stack)
        ]

        def seed(number: int, patch: int, parts: _Parts = parts) -> int:
            draft, _, before = parts[number]
            return noise_seed(recipe, draft, before + patch)

        def rng(number: int, parts: _Parts = parts) -> np.random.Generator:
            return seeds.generator(recipe.seed, *slice_noise_stream(parts[number][0].spec))

        length_mm, least = context.checked.slice_noise_mm, rules.patch_sizes[-1]
        noise = SliceNoise(length_mm, rng, least) if length_mm else None
        stacks = [part for _, part, _ in parts]
        done = paint_stacks(stacks, rules, inpainter.paint_all, seed, noise)
        for draft in some:
            count = sum(one is draft for one, *_ in parts)
            yield draft, [pixels for _ in range(count) for pixels in next(done)]


def _with_offsets(stack: Stack | Block | Step) -> Iterator[tuple[Stack, int]]:
    """The slices that are painted for a volume, with the number of patches before them."""
    before = 0
    for part in parts_of(stack):
        assert isinstance(part, Stack), "a network in 2D paints slices"
        yield part, before
        before += sum(map(len, part.patches))


def _groups(drafts: Iterator[Draft], most: int) -> Iterator[list[Draft]]:
    """At most so many volumes, that fit into memory together, or one."""
    group: list[Draft] = []
    for draft in drafts:
        voxels = draft.sample.mask.size + sum(one.sample.mask.size for one in group)
        if group and (len(group) == most or voxels > MOST_VOXELS):
            yield group
            group = []
        group.append(draft)
    if group:
        yield group


class _Results:
    """What has become of the samples of a shard so far.

    Args:
        context: What all samples of the build share.
        progress: A progress bar, in samples.
        partial: What an interrupted run has made, if there was one.
    """

    def __init__(
        self, context: BuildContext, progress: Any, partial: PartialShard | None = None
    ) -> None:
        self.context, self.progress, self.partial = context, progress, partial
        self._order: list[str] = []
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._rejected: list[Rejection] = []
        self._variants: dict[str, list[npt.NDArray[np.int16]]] = {}

    def expect(self, one: Draft | Rejection) -> None:
        """Note the place of a sample among the others, and why it is rejected already."""
        if isinstance(one, Draft):
            self._order.append(one.spec.sample_id)
            return
        self._order.append(one.sample_id)
        logger.debug("%s: %s", one.sample_id, one.detail)
        self._reject(one)

    def is_made(self, draft: Draft) -> bool:
        """Whether an interrupted run has made a sample; what became of it is taken over then."""
        made = self.partial.made.pop(draft.spec.sample_id, None) if self.partial else None
        if made is not None:
            self._take(draft.spec, made)
        return made is not None

    def add(self, draft: Draft, painted: Sequence[FloatArray]) -> None:
        """Make the row of a sample; reject it for a faulty painting or a measure out of limits."""
        made = self._made(draft, painted)
        if self.partial is not None:
            self.partial.add(made)
        self._take(draft.spec, made)

    def _made(self, draft: Draft, painted: Sequence[FloatArray]) -> Made:
        spec, recipe = draft.spec, self.context.checked.recipe
        if fault := _fault(draft.patches, painted):
            return Made(spec.sample_id, rejection=Rejection(spec.sample_id, fault))
        earlier = self._variants.get(spec.mask_id, [])  # variants come in their order
        sample = finish(draft, painted, self.context, earlier)
        row = (
            encode_patch(sample)
            if recipe.release == "patch"
            else encode(sample, keep_original=recipe.keep_original)
        )
        if not spec.is_painted:
            return Made(spec.sample_id, row)
        broken = self.context.standards[spec.section.name].first_broken(sample.metrics)
        if broken is not None:
            rejection = reject(row, broken.reason, broken.measure, broken.value)
            return Made(spec.sample_id, rejection=rejection)
        copies = self.context.copies
        if copies is not None and (copied := copies.reason(sample)) is not None:
            why, similarity = copied
            rejection = reject(row, why, "train_key", similarity)
            return Made(spec.sample_id, rejection=rejection)
        if (review := recipe.review) is not None:
            verdict = verdict_on(row, self.context.checked.verdicts)
            if verdict is not None and verdict.decision == "accept":
                row = with_verdict(row, verdict)
            elif verdict is not None or review.unreviewed == "reject":
                reason = REJECTED_BY_REVIEW if verdict else NOT_REVIEWED
                return Made(spec.sample_id, rejection=reject(row, reason))
        return Made(spec.sample_id, row, inside=sample.image[sample.mask])

    def _take(self, spec: SampleSpec, made: Made) -> None:
        if made.rejection is not None:
            self._reject(made.rejection)
            return
        assert made.row is not None, "a sample is a row or a rejection"
        if made.inside is not None:
            self._variants.setdefault(spec.mask_id, []).append(made.inside)
        self._rows[spec.sample_id] = made.row
        self.progress.update()

    def rows_and_rejections(self) -> tuple[list[Mapping[str, Any]], list[Rejection]]:
        """Both in the order of the samples; real slices without any painting are dropped."""
        painted = {row["pair_id"] for row in self._rows.values() if row["is_painted"]}
        rows, rejected = [], list(self._rejected)
        for sample_id in self._order:
            row = self._rows.get(sample_id)
            if row is None:
                continue
            if row["is_painted"] or row["pair_id"] in painted:
                rows.append(row)
            else:
                rejected.append(Rejection(sample_id, "pair: no painting of it was accepted"))
        place = {sample_id: n for n, sample_id in enumerate(self._order)}
        return rows, sorted(rejected, key=lambda one: place[one.sample_id])

    def _reject(self, rejection: Rejection) -> None:
        self._rejected.append(rejection)
        self.progress.update()


def _fault(patches: Sequence[Patch], painted: Sequence[FloatArray]) -> str | None:
    """Why what the model gave is no painting at all; None if it may be one."""
    for patch, pixels in zip(patches, painted, strict=False):
        inside, before = pixels[patch.own], patch.image[patch.own]
        if not np.isfinite(inside).all():
            return f"{MODEL_FAULT}not finite"
        if inside.size >= _LEAST_PAINTED and np.ptp(inside) == 0 and np.ptp(before) > 0:
            return f"{MODEL_FAULT}one value throughout"
        if inside.size >= _LEAST_PAINTED and _is_saturated(inside):
            return f"{MODEL_FAULT}saturated"
    return None


def _is_saturated(pixels: FloatArray) -> bool:
    """Whether most values lie so far out of the model's range that decoding has cut them off."""
    low, high = float((pixels <= -1).mean()), float((pixels >= 1).mean())
    at_ends = low + high >= _AT_ENDS and min(low, high) >= _AT_EITHER_END
    return at_ends or float((np.abs(pixels) > _BURST).mean()) >= 0.5
