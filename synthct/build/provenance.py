"""What a sample says of how it came about: enough to make it again, and to prove what it is.

Names no user, machine, path or time. All of it counts for the sample's digest but the keys
``dataset.digest.NOT_CONTENT``: what judges the result, or would change with the software or with
the other samples of a dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from synthct.dataset.digest import SAMPLE_SCHEME, array_digest, canonical_json
from synthct.dataset.schema import FORMAT_VERSION
from synthct.masks import MaskKind
from synthct.models.patch import Patch
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.sources import CaseEntry
from synthct.version import __version__
from synthct.volume import Array, Box, Volume
from synthct.volume.views import IGNORE, VIEW_AXIS, to_picture

#: Raised when the same recipe, sources and checkpoint come to other samples than before.
ALGORITHM = 1


def generation_facts(recipe: Recipe, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """How all samples of a recipe are painted.

    Args:
        recipe: The recipe.
        checkpoint: Name, id, revision and files of the checkpoint; empty where a control paints.
    """
    settings = recipe.inpaint.model_dump(mode="json", exclude={"checkpoint", "revision"})
    return {**checkpoint, **settings, "blend": "paste"}


def provenance(
    spec: SampleSpec,
    recipe: Recipe,
    *,
    plane: Volume,
    region: npt.NDArray[np.bool_],
    labels: tuple[Array, Array],
    donor: CaseEntry | None,
    params: Mapping[str, Any],
    facts: Mapping[str, Any],
    patches: Sequence[Patch],
    generation: Mapping[str, Any],
    numerics: Mapping[str, Any],
    licence: str | None,
) -> dict[str, Any]:
    """The provenance of a sample, as JSON.

    Args:
        spec: The sample.
        recipe: The recipe.
        plane: The host's slice, int16 HU, one voxel thick.
        region: Boolean, on the grid of ``plane``: where was painted.
        labels: The slice's label map before and after painting.
        donor: The case that lent its shape, if any.
        params: Every random decision of the mask.
        facts: Numbers of the mask.
        patches: What the model got; none where a control painted.
        generation: From ``generation_facts``.
        numerics: The numerics class.
        licence: SPDX id of the dataset; None if unknown.
    """
    section = next(m for m in recipe.masks if m.name == spec.section)
    view, index = recipe.view, int(params["slice_index"])
    voxels = int(np.count_nonzero(region))
    synthetic = voxels if spec.is_painted else 0
    return {
        "sample_key": sample_key(spec, recipe, section, generation.get("checkpoint_id")),
        "split": spec.split,
        "group": spec.host.patient_id,
        "host": {
            **_case_facts(spec.host),
            "orientation": "RAS",
            "slice_index": index,
            "slice_sha256": array_digest(to_picture(plane.array, view)),
            "slice_labels_sha256": array_digest(to_picture(labels[0], view).astype(np.uint16)),
        },
        "donor": {**_case_facts(donor), "attempt": _attempt(spec, donor)} if donor else None,
        "mask": {
            "name": spec.section,
            "kind": section.kind,
            "params": params,
            "facts": facts,
            "label_map": section.label_policy() if spec.is_painted else "keep",
            "relabelled_by": _relabelled_by(recipe, section) if spec.is_painted else None,
            "label_value": _label_value(section, region, labels[1]) if spec.is_painted else None,
            "voxels": voxels,
            "volume_mm3": voxels * plane.voxel_volume_ml * 1000,
            "box": _box(region, VIEW_AXIS[view], index),
            "sha256": array_digest(to_picture(region, view).astype(np.uint8)),
        },
        "generation": _generation(spec, recipe, patches, generation) if spec.is_painted else None,
        "synthetic_data": "YES" if spec.is_painted else "NO",
        "synthetic_voxel_fraction": synthetic / region.size,
        "real_voxel_fraction": (region.size - synthetic) / region.size,
        "outside_max_abs_diff": 0,
        "dataset": {
            "licence": licence,
            "attribution": sorted({spec.host.source, *([donor.source] if donor else [])}),
            "variants": recipe.variants,
        },
        "numerics": dict(numerics),
        "versions": {
            "synthct": __version__,
            "format": FORMAT_VERSION,
            "scheme": SAMPLE_SCHEME,
        },
    }


def _generation(
    spec: SampleSpec, recipe: Recipe, patches: Sequence[Patch], common: Mapping[str, Any]
) -> dict[str, Any]:
    """How a painted sample was painted, seeds and patches included."""
    return {
        **common,
        "seeds": {
            "recipe": recipe.seed,
            "mask": ["mask", spec.host.source, spec.host.case_id, spec.section, str(spec.draw)],
            "noise": [["noise", spec.sample_id, str(n)] for n in range(len(patches) or 1)],
        },
        "codec": patches[0].codec.model_dump() if patches else None,
        "patches": [
            {
                "size": patch.size,
                "origin": list(patch.origin),
                "resampled": patch.is_resampled,
                "spacing_mm": list(patch.spacing_mm),
                "strength": patch.strength,
            }
            for patch in patches
        ],
    }


def sample_key(
    spec: SampleSpec, recipe: Recipe, section: MaskKind, checkpoint_id: str | None
) -> str:
    """SHA-256 in hex of all that decides a sample, known before it is made.

    Free of rank, order, path and time: equal keys mean equal samples in one numerics class.
    """
    decided = {
        "algorithm": ALGORITHM,
        "seed": recipe.seed,
        "view": recipe.view,
        "section": section.model_dump(mode="json", exclude={"weight"}),
        "relabel": _relabelled_by(recipe, section),
        "inpaint": recipe.inpaint.model_dump(mode="json", exclude={"checkpoint", "revision"}),
        "checkpoint": checkpoint_id,
        "host": [spec.host.source, spec.host.case_id, *_hashes(spec.host)],
        "donors": [[donor.case_id, *_hashes(donor)] for donor in spec.donors],
        "draw": spec.draw,
        "slice": spec.slice_ordinal,
        "variant": spec.variant,
    }
    return hashlib.sha256(b"synthct/key/v1\0" + canonical_json(decided).encode()).hexdigest()


def _relabelled_by(recipe: Recipe, section: MaskKind) -> dict[str, Any] | None:
    """The program that gives the label map under the mask, as the recipe calls it."""
    if section.label_policy() != "relabel" or recipe.relabel is None:
        return None
    return recipe.relabel.model_dump(mode="json", exclude={"timeout_s"})


def _hashes(entry: CaseEntry) -> tuple[str | None, str]:
    return entry.voxel_sha256, entry.label_sha256


def _attempt(spec: SampleSpec, donor: CaseEntry) -> int:
    """Which of the donors that the plan named it is, from 0: those before could not be placed."""
    named = [(entry.source, entry.case_id) for entry in spec.donors]
    return named.index((donor.source, donor.case_id))


def _label_value(section: MaskKind, region: npt.NDArray[np.bool_], labels: Array) -> int | None:
    """The one value that the label map got under the mask; None if there is no such value."""
    if section.values_by_voxel:
        return None
    match section.label_policy():
        case "paint":
            return int(labels[region].max())
        case "ignore":
            return IGNORE
    return None


def _box(region: npt.NDArray[np.bool_], axis: int, index: int) -> list[list[int]]:
    """First voxel of the mask's box in the host's canonical grid, and the first beyond it."""
    box = Box.around(region)
    assert box is not None, "a mask has voxels"
    start, stop = list(box.start_ijk), list(box.stop_ijk)
    start[axis], stop[axis] = index, index + 1
    return [start, stop]


def _case_facts(entry: CaseEntry) -> dict[str, Any]:
    """What is said of a host or donor: identity, hashes and geometry; never a path."""
    return {
        "source": entry.source,
        "layout": entry.layout,
        "case": entry.case_id,
        "patient": entry.patient_id,
        "licence": entry.licence,
        "image_sha256": entry.image_sha256,
        "voxel_sha256": entry.voxel_sha256,
        "label_sha256": entry.label_sha256,
        "shape": list(entry.shape),
        "spacing_mm": [float(s) for s in entry.spacing_mm],
        "affine": [float(x) for x in entry.affine.ravel()],
    }
