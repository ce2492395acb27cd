"""A recipe before it is built: its plan as text, and some of its masks as a contact sheet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synthct.build.check import Checked
from synthct.build.context import THREADS
from synthct.build.draw import CaseReader, DrawnMask, draw, masks_of
from synthct.build.plan_sheet import TILES, plan_sheet
from synthct.build.prepare import Draft, prepare, prepare_slices
from synthct.build.run import counted_samples, expected_bytes
from synthct.errors import MaskError, counted
from synthct.models.region import parts_of
from synthct.recipe.plan import SampleSpec
from synthct.storage.files import atomic_write
from synthct.volume.grid import spacing_of
from synthct.volume.views import VIEW_AXIS, plane_of

#: About how long pasting, measuring and encoding take for each slice of a sample.
REST_SECONDS = 0.15

#: So many masks of a recipe are drawn to see how much of a volume is painted.
_COUNTED_MASKS = 4


def facts_of(checked: Checked) -> dict[str, Any]:
    """What a recipe comes to, as JSON: samples by split, mask and case, size and time.

    Numbers of samples are estimates where ``is_exact`` is false, as are bytes and seconds always.
    """
    plan, recipe = checked.plan, checked.recipe
    painted: Counter[str] = Counter()
    for spec in plan.specs:
        label = " or ".join(spec.section.painted_labels()) or spec.section.unnamed_paint
        painted[label] += spec.slices if spec.is_painted else 0
    donors = {s.donor.case_id for s in plan.specs if s.donor and not s.section.donor_is_host}
    return {
        "name": recipe.name,
        "version": recipe.version,
        "samples": plan.num_samples,
        "is_exact": plan.is_exact,
        "files": len(plan.shards),
        "splits": plan.count("split"),
        "masks": plan.count("section"),
        "hosts": plan.count("host"),
        "painted": dict(painted),
        "pairs": plan.num_samples - plan.num_painted,
        "donors": len(donors),
        "licence": checked.licence,
        "bytes": int(expected_bytes(checked, plan.specs)),
        "seconds": round(plan.num_painted * seconds_per_sample(checked), 1),
        "notes": [*plan.notes, *checked.index.notes, *_review_notes(checked)],
        "left_out": [
            {"source": s.source, "case": s.case_id, "reason": s.reason}
            for s in checked.index.skipped
        ],
    }


def _review_notes(checked: Checked) -> list[str]:
    """How much a table of verdicts decides."""
    if (review := checked.recipe.review) is None:
        return []
    decided = Counter(verdict.decision for verdict in checked.verdicts.values())
    return [
        f"review: {Path(review.table).name} accepts {counted(decided['accept'], 'sample')} and "
        f"rejects {decided['reject']}, which counts where the same is painted again"
    ]


def describe(checked: Checked, facts: Mapping[str, Any] | None = None) -> str:
    """The facts of a recipe as text; they take a while, so a caller may have them already."""
    facts = facts_of(checked) if facts is None else facts
    lines = [
        f"{facts['name']} {facts['version']}: {counted_samples(checked)} in "
        f"{counted(facts['files'], 'file')}"
    ]
    for field, title in (("splits", "split"), ("masks", "mask"), ("hosts", "host")):
        counts = facts[field]
        shown = [f"{name} {count}" for name, count in list(counts.items())[:12]]
        more = f", and {len(counts) - 12} more" if len(counts) > 12 else ""
        lines.append(f"  {title:<8}{', '.join(shown)}{more}")
    painted = ", ".join(f"{name} {count}" for name, count in facts["painted"].items())
    lines.append(f"  {'painted':<8}{painted}")
    if facts["pairs"]:
        lines.append(
            f"  {'pairs':<8}{counted(facts['pairs'], 'slice')} as it is, beside its paintings"
        )
    if facts["donors"]:
        lines.append(f"  {'donors':<8}{counted(facts['donors'], 'case')}")
    lines += _foreign_lines(checked)
    lines.append(f"  {'licence':<8}{facts['licence'] or 'unknown: not to be published'}")
    lines.append(f"  {'size':<8}about {as_size(facts['bytes'])}")
    lines.append(f"  {'time':<8}about {as_duration(facts['seconds'])}")
    lines += [f"  note: {note}" for note in facts["notes"]]
    lines += [f"  left out: {s.source} {s.case_id}: {s.reason}" for s in checked.index.skipped]
    return "\n".join(lines)


def _foreign_lines(checked: Checked) -> Iterator[str]:
    """What the recipe states for a checkpoint that does not declare it."""
    inpaint, files, rules = checked.recipe.inpaint.network, checked.checkpoint, checked.rules
    if inpaint is None or files is None or rules is None or files.network.section is not None:
        return
    what = files.network.layout.what
    yield f"  {'model':<8}{what}, in patches of {rules.patch_sizes[0]} pixels"
    for label in (None, *rules.labels):
        if (prompt := inpaint.prompt_for(label)) is not None:
            yield f"  {'prompt':<8}{label or 'whatever fits'}: {prompt}"


def masks_preview(checked: Checked, path: Path) -> tuple[int, list[str]]:
    """Draw some of the planned masks on the scans and write them as a contact sheet.

    Args:
        checked: The recipe.
        path: The PNG to write.

    Returns:
        Number of masks on the sheet, and for each mask that was refused, why.
    """
    reader = CaseReader(checked.label_names)
    shown: list[DrawnMask] = []
    refused: list[str] = []
    for group in _some_of_each_section(masks_of(checked.plan.specs), TILES):
        try:
            drawn = draw(group, checked.recipe, reader)
        except MaskError as err:
            refused.append(str(err))
            continue
        outcome = prepare_slices(drawn, checked)
        refused += dict.fromkeys(one.detail for one in outcome if not isinstance(one, Draft))
        if any(isinstance(one, Draft) for one in outcome):
            shown.append(drawn)
    sheet = plan_sheet(shown, checked.recipe.view)
    if sheet is not None:
        atomic_write(path, sheet)
    return len(shown), refused


def _some_of_each_section(
    groups: Sequence[tuple[SampleSpec, ...]], most: int
) -> list[tuple[SampleSpec, ...]]:
    """At most so many masks: the same number of each section, evenly over the hosts."""
    places: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        places.setdefault(group[0].section.name, []).append(number)
    share = max(1, most // len(places))
    chosen = []
    for mine in places.values():
        count = min(share, len(mine))
        chosen += [mine[n * len(mine) // count] for n in range(count)]
    return [groups[number] for number in sorted(chosen[:most])]


def seconds_per_sample(checked: Checked) -> float:
    """Expected time of one sample here: timed passes of the network, times their number.

    Raises:
        CheckpointError: If scheduler, steps or guidance do not go with the checkpoint.
    """
    inputs, slices = inputs_per_sample(checked)
    rest = slices * REST_SECONDS
    inpaint, files, rules = checked.recipe.inpaint.network, checked.checkpoint, checked.rules
    if inpaint is None or files is None or rules is None:
        return rest
    import torch

    from synthct.models.checkpoint import load_checkpoint
    from synthct.models.painting import Inpainter

    torch.set_num_threads(THREADS)
    inpainter = Inpainter(load_checkpoint(files), inpaint, rules.labels)
    seconds = 0.0
    for size, count in inputs.items():
        inpainter.probe(size)  # the first pass also warms up
        started = time.perf_counter()
        inpainter.probe(size)
        seconds += count * (time.perf_counter() - started)
    return seconds * inpainter.network.passes + rest


def inputs_per_sample(checked: Checked) -> tuple[dict[int, float], float]:
    """What a network is given for a sample: patches or boxes by size, in so many slices.

    A slice has one patch, of the second size that the checkpoint takes. How many a volume has is
    the mean over some of the planned masks, drawn as the build draws them.
    """
    recipe, rules = checked.recipe, checked.rules
    sizes = rules.patch_sizes if rules is not None else ()
    usual = dict.fromkeys(sizes[:2][-1:], 1.0)
    if recipe.view != "volume":
        return usual, 1.0
    reader, found, slices, samples = CaseReader(checked.label_names), Counter[int](), 0, 0
    for group in _some_of_each_section(masks_of(checked.plan.specs), _COUNTED_MASKS):
        for draft in prepare(group, checked, reader):
            if isinstance(draft, Draft) and draft.spec.is_painted:
                samples += 1
                mask, spacing_mm = draft.sample.mask, spacing_of(draft.sample.affine)
                across = VIEW_AXIS[plane_of(recipe.view, spacing_mm)]
                in_plane = tuple(axis for axis in range(3) if axis != across)
                slices += int(mask.any(axis=in_plane).sum())
                if rules is not None:
                    shown = draft.patches
                    if rules.depth > 1:
                        shown = tuple(part for one in shown for part in parts_of(one, rules))
                    found.update(patch.size for patch in shown)
    if not samples:
        return usual, 1.0
    return {size: count / samples for size, count in found.items()}, slices / samples


def as_size(num_bytes: float) -> str:
    """Bytes as text: ``1.2 GB``, ``0.4 MB``."""
    if num_bytes > 0.95e9:
        return f"{num_bytes / 1e9:.1f} GB"
    return f"{max(num_bytes / 1e6, 0.1):.1f} MB"


def as_duration(seconds: float) -> str:
    """Seconds as text: ``80 s``, ``12 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
