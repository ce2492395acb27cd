"""What a sample says of how it came about: enough to make it again, and to prove what it is.

Names no user, machine, path or time. All of it counts for the sample's digest but the keys
``dataset.digest.NOT_CONTENT``: what judges the result, or would change with the software or with
the other samples of a dataset.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from synthct.build.check import Checked
from synthct.build.context import BuildContext
from synthct.build.draw import mask_stream, shown_of
from synthct.build.prepare import Draft
from synthct.dataset.digest import SAMPLE_SCHEME, array_digest, canonical_json
from synthct.dataset.sample import Sample
from synthct.dataset.schema import FORMAT_VERSION
from synthct.masks import MaskKind
from synthct.models.patch import Patch
from synthct.recipe.plan import SampleSpec
from synthct.recipe.recipe import Recipe
from synthct.recipe.volumes import volume_settings
from synthct.sources import CaseEntry
from synthct.sources.stored import dicom_reference
from synthct.version import __version__
from synthct.volume import Box
from synthct.volume.views import IGNORE, VIEW_AXIS

#: Raised when the same recipe, sources and checkpoint come to other samples than before.
ALGORITHM = 1


def provenance(draft: Draft, context: BuildContext) -> dict[str, Any]:
    """The provenance of a sample, as JSON; of its measures, only what proves it untouched.

    Args:
        draft: The sample, painted, labelled and measured, with what a build knows of it.
        context: What all samples of the build share.
    """
    sample, spec, section, donor = draft.sample, draft.spec, draft.section, draft.donor
    recipe = context.checked.recipe
    is_painted = spec.is_painted
    voxels, size = int(np.count_nonzero(sample.mask)), sample.mask.size
    synthetic = voxels if is_painted else 0
    shown = sample.pictures
    assert sample.metrics is not None, "a sample is measured before it is described"
    return {
        "sample_key": sample_key(spec, context.checked),
        "split": spec.split,
        "group": spec.host.patient_id,
        "host": {
            **_case_facts(spec.host),
            **_reference(sample, spec.host),
            "orientation": "RAS",
            **_place(sample, spec.host),
            "slice_sha256": array_digest(shown["original"]),
            "slice_labels_sha256": array_digest(shown["host_labels"].astype(np.uint16)),
        },
        "donor": {**_case_facts(donor), "attempt": _attempt(spec, donor)} if donor else None,
        "mask": {
            "name": section.name,
            "kind": section.kind,
            "params": draft.params,
            "facts": draft.mask_facts,
            "label_map": section.label_policy() if is_painted else "keep",
            "relabelled_by": _relabelled_by(recipe, section) if is_painted else None,
            "label_value": _label_value(section, sample) if is_painted else None,
            "voxels": voxels,
            "volume_mm3": voxels * sample.volume("mask").voxel_volume_ml * 1000,
            "box": _box(sample, spec.host),
            "sha256": array_digest(shown["mask"].astype(np.uint8)),
        },
        "generation": _generation(draft, context) if is_painted else None,
        "synthetic_data": "YES" if is_painted else "NO",
        "synthetic_voxel_fraction": synthetic / size,
        "real_voxel_fraction": (size - synthetic) / size,
        "outside_max_abs_diff": sample.metrics["outside_max_abs_diff"],
        "dataset": {
            "licence": context.checked.licence,
            "attribution": sorted({spec.host.source, *([donor.source] if donor else [])}),
            "variants": recipe.variants,
        },
        "numerics": dict(context.numerics),
        "versions": {
            "synthct": __version__,
            "format": FORMAT_VERSION,
            "scheme": SAMPLE_SCHEME,
        },
    }


def _generation(draft: Draft, context: BuildContext) -> dict[str, Any]:
    """How a painted sample was painted, seeds and patches included."""
    spec, patches = draft.spec, draft.patches
    return {
        **context.generation,
        **draft.paint_facts,
        "seeds": {
            "recipe": context.checked.recipe.seed,
            "mask": mask_stream(spec),
            "noise": draft.noise_streams,
        },
        "codec": draft.codec.model_dump() if draft.codec else None,
        "patches": [_patch_facts(patch) for patch in patches],
    }


def _patch_facts(patch: Patch) -> dict[str, Any]:
    """How a patch was painted; what was not asked for is left out."""
    facts = {
        "size": patch.size if patch.mask.ndim == 2 else list(patch.mask.shape),
        "origin": list(patch.origin),
        "resampled": patch.is_resampled,
        "spacing_mm": list(patch.spacing_mm),
        "strength": patch.strength,
    }
    if patch.guidance_scale != 1:
        facts["guidance_scale"] = patch.guidance_scale
    if patch.level_hu is not None:
        facts["level_hu"] = patch.level_hu
    return facts


def sample_key(spec: SampleSpec, checked: Checked) -> str:
    """SHA-256 in hex of all that decides a sample, known before it is made.

    Free of rank, order, path and time: equal keys mean equal samples in one numerics class.
    """
    recipe, section, files = checked.recipe, spec.section, checked.checkpoint
    decided = {
        "algorithm": ALGORITHM,
        "seed": recipe.seed,
        "view": recipe.view,
        **(volume_settings(recipe) if recipe.view == "volume" else {}),
        "section": section.model_dump(mode="json", exclude={"weight"}),
        "relabel": _relabelled_by(recipe, section),
        "inpaint": recipe.inpaint.model_dump(mode="json", exclude={"checkpoint", "revision"}),
        "checkpoint": files.checkpoint_id if files else None,
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


def _label_value(section: MaskKind, sample: Sample) -> int | None:
    """The one value that the label map got under the mask; None if there is no such value."""
    if section.values_by_voxel:
        return None
    match section.label_policy():
        case "paint":
            return int(sample.labels[sample.mask].max())
        case "ignore":
            return IGNORE
    return None


def _place(sample: Sample, host: CaseEntry) -> dict[str, Any]:
    """What of its host a sample shows: the slice, or the box of a volume."""
    if sample.view != "volume":
        return {"slice_index": sample.facts.slice_index}
    shown = shown_of(sample, host)
    return {"box": [list(shown.start_ijk), list(shown.stop_ijk)]}


def _box(sample: Sample, host: CaseEntry) -> list[list[int]]:
    """First voxel of the mask's box in the host's canonical grid, and the first beyond it."""
    box = Box.around(sample.mask)
    assert box is not None, "a mask has voxels"
    box = box.shift(shown_of(sample, host).start_ijk)
    return [list(box.start_ijk), list(box.stop_ijk)]


def _reference(sample: Sample, host: CaseEntry) -> dict[str, Any]:
    """What the slice is in DICOM, if its source tells."""
    if sample.view == "volume":  # which is of many
        return {}
    axis, index = VIEW_AXIS[sample.view], sample.facts.slice_index
    reference = dicom_reference(host.image, axis, index)
    return {} if reference is None else {"dicom": reference}


def _case_facts(entry: CaseEntry) -> dict[str, Any]:
    """What is stored of a host or donor: identity, hashes and geometry; never a path."""
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
