"""Several masks of one section in one scan: drawn one by one, each beside the ones before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from synthct import seeds
from synthct.errors import MaskError
from synthct.masks import MaskKind
from synthct.masks.base import Mask, Params
from synthct.masks.slicing import paint_labels
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.volume import Array, Volume, shifted
from synthct.volume.case import Case

#: How often a lesion is drawn anew that lies on an earlier one.
_TRIES = 10


def with_more(
    first: tuple[Mask, Params], spec: SampleSpec, recipe: Recipe, host: Case, donor: Case | None
) -> tuple[Mask, Params]:
    """A drawn mask and as many further ones as the recipe's ``masks_per_sample`` comes to.

    Each is drawn in the host as it is after the ones before: with their labels, so that limits on
    clearance and on shares of the organ count them. None overlaps another, but they may touch.

    Args:
        first: The first mask and its parameters.
        spec: The planned sample.
        recipe: With ``masks_per_sample``.
        host: The case that is painted into.
        donor: The case that the shapes come from, if any.

    Returns:
        The mask of all together, and the parameters of the first with those of the others.

    Raises:
        MaskError: If fewer can be drawn than the recipe asks for at least.
    """
    assert recipe.masks_per_sample is not None
    least, most = recipe.masks_per_sample
    section, names = spec.section, ["mask", spec.host.source, spec.host.case_id]
    names += [spec.section.name, str(spec.draw)]
    count = int(seeds.generator(recipe.seed, *names, "count").integers(least, most + 1))
    mask, params = first
    more: list[Params] = []
    facts: list[Mapping[str, Any]] = []
    for number in range(1, count):
        rng = seeds.generator(recipe.seed, *names, str(number))
        try:
            known = _with_labels(host, mask, section)
            other, own = _next(known, donor, section, mask, rng)
        except MaskError:
            if number < least:
                raise
            break
        more.append(own)
        facts.append(other.facts)
        mask = _together(mask, other)
    return replace(mask, facts={**_facts(mask), "more": facts}), {**params, "more": more}


def _next(
    host: Case, donor: Case | None, section: MaskKind, before: Mask, rng: np.random.Generator
) -> tuple[Mask, Params]:
    """The next mask, which overlaps none of those before.

    Raises:
        MaskError: If none was found.
    """
    taken = before.in_host(host.labels.shape)
    for _ in range(_TRIES):
        mask, params = section.drawn(host, donor, rng)
        if not (taken[mask.box.slices] & mask.region.array).any():
            return mask, params
    raise MaskError(
        f"case {host.case_id}: no place for another mask '{section.name}' beside the earlier ones "
        f"after {_TRIES} tries; lower masks_per_sample, or draw smaller masks"
    )


def _with_labels(host: Case, mask: Mask, section: MaskKind) -> Case:
    """The host with the labels that it has after a mask is painted, for the eyes of the next."""
    policy = section.label_policy()
    value = _value(host, mask, section) if policy == "paint" else None
    if policy == "paint" and value is None and mask.values is None:
        policy = "ignore"
    if policy in ("keep", "relabel"):
        return host
    labels = paint_labels(host.labels, mask, policy, value)
    return replace(host, labels=Volume(labels, host.labels.affine))


def _value(host: Case, mask: Mask, section: MaskKind) -> int | None:
    """The value by which the host knows what was painted; None if it knows no such structure."""
    if section.values_by_voxel or mask.label is None:
        return None
    try:
        return host.values_of(mask.label)[0]
    except MaskError:
        return None


def _together(one: Mask, other: Mask) -> Mask:
    """Two masks as one."""
    box = one.box.join(other.box)
    moved = [b - a for a, b in zip(one.box.start_ijk, box.start_ijk, strict=True)]
    affine = shifted(one.region.affine, moved)

    def joined(of: str) -> Array | None:
        arrays = [_array(mask, of) for mask in (one, other)]
        if all(array is None for array in arrays):
            return None
        out = np.zeros(box.shape, dtype=next(a.dtype for a in arrays if a is not None))
        for mask, array in zip((one, other), arrays, strict=True):
            whole = mask.region.array if array is None else array
            part = out[mask.box.shift([-n for n in box.start_ijk]).slices]
            part[mask.region.array] = whole[mask.region.array]
        return out

    region = joined("region")
    assert region is not None
    return Mask(Volume(region, affine), box, one.label, one.facts, joined("values"), joined("core"))


def _array(mask: Mask, of: str) -> Array | None:
    return mask.region.array if of == "region" else getattr(mask, of)


def _facts(mask: Mask) -> dict[str, Any]:
    """The facts of the first mask, with the size of all together."""
    extent = [n * s for n, s in zip(mask.box.shape, mask.region.spacing_mm, strict=True)]
    return {
        **mask.facts,
        "voxels": int(np.count_nonzero(mask.region.array)),
        "volume_ml": round(mask.volume_ml, 4),
        "extent_mm": [round(e, 2) for e in extent],
    }
