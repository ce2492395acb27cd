"""What of a recipe lies outside the range in which its checkpoint paints well, or of the memory.

Nothing here is wrong: it is painted, but on a resampled grid, or in a way that the network hardly
saw in training, or not on this machine. Told before any work; ``--strict`` refuses it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator

import numpy as np

from synthct.build.check import Checked
from synthct.errors import CheckpointError
from synthct.masks import MaskKind
from synthct.models.patch import LEAST_CONTEXT_PX
from synthct.models.regrid import scale_into
from synthct.volume.views import VIEW_AXIS, plane_of

#: Least share of the training patches that a view had.
LEAST_VIEW = 0.1

#: Memory that building a volume takes at most, as measured on scans of 512 x 512 x 300 voxels whose
#: originals are kept, with two variants and the host's own in a shard.
BYTES_PER_VOXEL = 42

#: What becomes of hosts whose voxels the checkpoint was not trained on.
_RESAMPLED = "they are painted on a resampled grid, which loses fine texture"

logger = logging.getLogger(__name__)


def tell_outside_range(checked: Checked, *, strict: bool = False) -> None:
    """Warn of what lies outside the checkpoint's range.

    Raises:
        CheckpointError: If something does and ``strict`` is set.
    """
    warnings = list(outside_range(checked))
    if warnings and strict:
        raise CheckpointError(
            f"{'; '.join(warnings)}; change the recipe or the checkpoint, or leave out --strict"
        )
    for warning in warnings:
        logger.warning("warning: %s", warning)


def outside_range(checked: Checked) -> Iterator[str]:
    """What lies outside the memory and the checkpoint's range: pixels, view, size of masks."""
    yield from _memory(checked)
    if checked.rules is None:
        return
    yield from _spacings(checked)
    if checked.rules.depth > 1:
        yield from _slices(checked)
        return
    yield from _view(checked)
    yield from _sizes(checked)


def _memory(checked: Checked) -> Iterator[str]:
    """Volumes that are larger than this machine can hold; silent where it does not tell."""
    if checked.recipe.view != "volume" or not hasattr(os, "sysconf"):
        return
    voxels = max((spec.voxels / spec.slices for spec in checked.plan.specs), default=0.0)
    needed = voxels * BYTES_PER_VOXEL
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        how = (
            "use 'extent: crop'" if checked.recipe.extent == "scan" else "lower margin_mm or masks"
        )
        yield (
            f"volumes of about {voxels / 1e6:,.0f} million voxels take about {needed / 1e9:,.1f} "
            f"GB of memory, this machine has {there / 1e9:,.1f}: expect it to fail; {how}"
        )


def _planes(checked: Checked) -> dict[str, tuple[float, float]]:
    """By host, the size of a pixel in the recipe's view."""
    hosts = {spec.host.case_id: spec.host for spec in checked.plan.specs}
    planes = {}
    for name, host in hosts.items():
        axis = VIEW_AXIS[plane_of(checked.recipe.view, host.spacing_mm)]
        rows, columns = np.delete(host.spacing_mm, axis)
        planes[name] = float(rows), float(columns)
    return planes


def _some_hosts(some: Iterable[str], of: int) -> str:
    first, *others = some
    if not others:
        return f"the host {first} has" if of == 1 else f"1 of {of} hosts, {first}, has"
    return f"{len(others) + 1} of {of} hosts, such as {first}, have"


def _spacings(checked: Checked) -> Iterator[str]:
    assert checked.rules is not None
    planes, stated = _planes(checked), checked.rules.spacing_range_mm
    outside = {name: p for name, p in planes.items() if any(scale_into(s, stated) != 1 for s in p)}
    if outside:
        rows, columns = next(iter(outside.values()))
        yield (
            f"{_some_hosts(outside, len(planes))} {checked.recipe.plane} "
            f"pixels of {rows:.2f} x {columns:.2f} mm, the checkpoint paints {stated[0]:g} "
            f"to {stated[1]:g} mm: {_RESAMPLED}"
        )


def _slices(checked: Checked) -> Iterator[str]:
    """Distances of slices that a network in 3D has not seen."""
    assert checked.rules is not None
    stated = checked.rules.slice_range_mm
    if stated is None:
        return
    hosts = {spec.host.case_id: max(spec.host.spacing_mm) for spec in checked.plan.specs}
    outside = {name: mm for name, mm in hosts.items() if scale_into(mm, stated) != 1}
    if outside:
        apart = next(iter(outside.values()))
        yield (
            f"{_some_hosts(outside, len(hosts))} slices {apart:.2f} mm "
            f"apart, the checkpoint paints {stated[0]:g} to {stated[1]:g} mm: {_RESAMPLED}"
        )


def _view(checked: Checked) -> Iterator[str]:
    """Silent where the checkpoint does not say in which views it was trained."""
    views = checked.checkpoint.training.get("views") if checked.checkpoint else None
    view = checked.recipe.plane
    if isinstance(views, dict) and (share := float(views.get(view, 0.0))) < LEAST_VIEW:
        yield (
            f"view {view}: {share:.0%} of the patches that the checkpoint was trained on were "
            f"{view}, so expect faults there"
        )


def _sizes(checked: Checked) -> Iterator[str]:
    assert checked.rules is not None
    planes = _planes(checked)
    if not planes:
        return
    room_px = checked.rules.patch_sizes[-1] - 2 * LEAST_CONTEXT_PX
    finest = max(min(min(p) for p in planes.values()), checked.rules.spacing_range_mm[0])
    for section in checked.recipe.masks:
        extent_mm = _most_extent_mm(section)
        if extent_mm is not None and extent_mm > room_px * finest:
            yield (
                f"masks '{section.name}' may be {extent_mm:g} mm large, the checkpoint paints "
                f"{room_px * finest:.0f} mm at once at {finest:.2f} mm: larger ones are painted on "
                "a coarser grid, which loses fine texture"
            )


def _most_extent_mm(section: MaskKind) -> float | None:
    """How large the masks of a section may be; None if the section does not say."""
    if (extent := getattr(section, "max_extent_mm", None)) is not None:
        return float(extent)
    radius = getattr(section, "radius_mm", None)
    return None if radius is None else 2 * float(np.max(radius))
