"""The plan of a dataset's samples, made from the recipe and the index of its sources alone.

The plan fixes the host, split, mask section, donors, id and shard of each sample, so that any
number of processes can share the work. No voxel is read and no mask drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, groupby

from synthct.errors import RecipeError, SourceError, counted
from synthct.masks import MaskKind
from synthct.masks.base import SeveralSlices
from synthct.recipe.donors import DonorChooser, OwnCase, can_lend, donor_volume_ml, no_match_message
from synthct.recipe.recipe import Recipe, donor_source
from synthct.recipe.shares import SPLITS, Split
from synthct.recipe.splits import share_out, split_patients
from synthct.recipe.volumes import SHARD_VOXELS, expected_voxels
from synthct.recipe.yaml_errors import nearest
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry, Index
from synthct.volume.views import VIEW_AXIS, Plane


@dataclass(frozen=True, eq=False)
class SampleSpec:
    """One planned sample.

    Attributes:
        split: The split of the host's patient, and so of the donor's.
        host: The case that is painted into.
        section: The recipe's section of ``masks`` that draws the mask.
        draw: Number of the mask among those of this host and section, from 0.
        slice_ordinal: Number of the slice among those of this mask, from 0; always 0 in the plan.
        variant: Number of the painting of this mask, from 0; None for the host's unpainted slice
            of a section with ``pair``.
        donors: Cases that lend the shape: the first, or the next if it cannot be placed; empty for
            kinds without a donor.
        slices: Estimated number of slices, each a sample; exact only when the mask is drawn.
        voxels: Estimated voxels of a volume; 0 for slices.
    """

    split: Split
    host: CaseEntry
    section: MaskKind
    draw: int
    slice_ordinal: int
    variant: int | None
    donors: tuple[CaseEntry, ...] = ()
    slices: int = 1
    voxels: float = 0.0

    @property
    def lesion_id(self) -> str:
        """``<host>.<section>.d<draw>``: the 3D mask, which its slices and variants share."""
        return f"{self.host.case_id}.{self.section.name}.d{self.draw:03d}"

    @property
    def mask_id(self) -> str:
        """``<lesion_id>.s<slice>``: the mask on a slice, which its variants share."""
        return f"{self.lesion_id}.s{self.slice_ordinal}"

    @property
    def sample_id(self) -> str:
        """``<mask_id>.v<variant>``, or ``<mask_id>.real`` for the host's own slice."""
        return f"{self.mask_id}.{f'v{self.variant}' if self.is_painted else 'real'}"

    @property
    def is_painted(self) -> bool:
        """Whether the sample is painted; if not, it is the host's own slice."""
        return self.variant is not None

    def on_slice(self, ordinal: int) -> SampleSpec:
        """The sample of the same draw and variant on another slice."""
        return replace(self, slice_ordinal=ordinal, slices=1)

    @property
    def donor(self) -> CaseEntry | None:
        """The case that lends the shape; None for kinds without a donor."""
        return self.donors[0] if self.donors else None


@dataclass(frozen=True, eq=False)
class Shard:
    """The samples of one file, all of one split: the unit of work.

    Attributes:
        split: The split.
        index: Number of the shard within its split, from 0.
        specs: The samples in order.
    """

    split: Split
    index: int
    specs: tuple[SampleSpec, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """All samples of a recipe, in the order of the dataset.

    A mask that gives several slices is listed once, with its first slice.

    Attributes:
        specs: The samples: by split, host, section, draw and variant.
        shards: The same samples by file.
        notes: Remarks for the user, such as hosts without a label.
        splits: Patient to split, of hosts and donors.
    """

    specs: tuple[SampleSpec, ...]
    shards: tuple[Shard, ...]
    notes: tuple[str, ...]
    splits: Mapping[str, Split]

    @property
    def plan_id(self) -> str:
        """sha256 of the samples with their cases, donors and shards; does not depend on paths."""
        rows = [
            [shard.split, shard.index, spec.sample_id]
            + [[case.source, case.case_id, case.patient_id] for case in (spec.host, *spec.donors)]
            for shard in self.shards
            for spec in shard.specs
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def num_samples(self) -> int:
        """Number of samples; an estimate unless ``is_exact``."""
        return sum(spec.slices for spec in self.specs)

    @property
    def num_painted(self) -> int:
        """Number of painted samples; the others are the real halves of pairs."""
        return sum(spec.slices for spec in self.specs if spec.is_painted)

    @property
    def is_exact(self) -> bool:
        """Whether each mask gives one slice, so that ``num_samples`` is exact."""
        return all(spec.slices == 1 for spec in self.specs)

    def count(self, field: str) -> dict[str, int]:
        """Samples by ``split``, ``section``, ``host`` or ``donor``, in the order of the plan."""
        counts: Counter[str] = Counter()
        for spec in self.specs:
            value = getattr(spec, field)
            if value is not None:
                name = getattr(value, "case_id", None) or getattr(value, "name", value)
                counts[str(name)] += spec.slices
        return dict(counts)

    def limit(self, samples: int) -> Plan:
        """The first ``samples`` of the plan, with the same ids and seeds.

        Pairs are kept whole, so a few more samples may remain.
        """
        units = list(_units(self.specs))
        before = [0, *accumulate(sum(spec.slices for spec in unit) for unit in units)]
        count = sum(len(u) for u, start in zip(units, before, strict=False) if start < samples)
        shards, left = [], count
        for shard in self.shards:
            if left > 0:
                shards.append(replace(shard, specs=shard.specs[:left]))
            left -= len(shard.specs)
        return replace(self, specs=self.specs[:count], shards=tuple(shards))


def plan_samples(recipe: Recipe, index: Index) -> Plan:
    """Plan the samples of a recipe with the cases of an index.

    Raises:
        SourceError: If no host has an image.
        RecipeError: If a section of ``masks`` has no suitable host or donor.
    """
    scans = tuple(entry for entry in index.entries("hosts") if entry.image is not None)
    if not scans:
        some = _some([entry.case_id for entry in index.entries("hosts")])
        raise SourceError(
            f"source 'hosts': no case has an image to paint into (cases with label maps alone: "
            f"{some}); add scans, or mend the patterns so that the names of cases agree. "
            f"{getattr(recipe.sources['hosts'], 'obtain', '')}".strip()
        )
    eligible = {s.name: _eligible_hosts(recipe, n, scans) for n, s in enumerate(recipe.masks)}
    pools = {s.name: _donor_pool(recipe, n, index) for n, s in enumerate(recipe.masks)}
    hosts = tuple(scan for scan in scans if any(scan.case_id in ids for ids in eligible.values()))
    notes = [*_unknown_notes(recipe, scans)]
    for name, ids in eligible.items():
        if lacking := [scan.case_id for scan in scans if scan.case_id not in ids]:
            count = f"{len(lacking)} of {counted(len(scans), 'host')} skipped, without its labels"
            notes.append(f"masks '{name}': {count}: {_some(lacking)}")

    donors = [e for s in recipe.masks if not s.donor_is_host for e in pools[s.name]]
    splits, split_notes = split_patients(recipe, hosts, donors)
    notes += split_notes
    used: Counter[str] = Counter()
    choosers: dict[str, DonorChooser | OwnCase] = {}
    for number, section in enumerate(recipe.masks):
        if not section.needs_donor:
            continue
        chooser: DonorChooser | OwnCase = OwnCase(pools[section.name])
        if not section.donor_is_host:
            chooser = DonorChooser(recipe.seed, section, pools[section.name], splits, used)
        choosers[section.name], ids = chooser, eligible[section.name]
        lacking = [h.case_id for h in hosts if h.case_id in ids and not chooser.has_donor_for(h)]
        ids.difference_update(lacking)
        if not ids:
            message = f"no host has {chooser.requirement}; {chooser.advice}"
            raise recipe.error(("masks", number, section.donor_key), message)
        if isinstance(chooser, OwnCase):
            notes += [f"masks '{section.name}': {note}" for note in chooser.notes(hosts)]
        if lacking:
            count = f"{counted(len(lacking), 'host')} skipped, without {chooser.requirement}"
            notes.append(f"masks '{section.name}': {count}: {_some(lacking)}")

    specs = tuple(
        spec
        for split in SPLITS
        for host in hosts
        if splits[host.patient_id] == split
        for spec in _specs_of_host(recipe, host, split, eligible, choosers)
    )
    return Plan(specs, tuple(_shards(specs, recipe.samples_per_shard)), tuple(notes), splits)


def _eligible_hosts(recipe: Recipe, number: int, hosts: Sequence[CaseEntry]) -> set[str]:
    """Case ids of the hosts that have the labels of a section.

    Raises:
        RecipeError: If there are none.
    """
    section = recipe.masks[number]
    ids = {host.case_id for host in hosts if has_required_labels(host, section)}
    if not ids:
        labels = section.required_labels() or section.optional_labels()
        raise _missing_labels_error(recipe, number, "host", labels, hosts)
    return ids


def has_required_labels(host: CaseEntry, section: MaskKind) -> bool:
    """Whether a host has all required labels or, if there are none, any optional one."""
    required, optional = section.required_labels(), section.optional_labels()
    if required or not optional:
        return all(label in host.labels for label in required)
    return any(label in host.labels for label in optional)


def _donor_pool(recipe: Recipe, number: int, index: Index) -> tuple[CaseEntry, ...]:
    """The cases that can lend a shape to a section.

    Raises:
        RecipeError: If there are none.
    """
    section = recipe.masks[number]
    source = donor_source(section)
    if source is None:
        return ()
    entries = index.entries(source)
    labels = section.donor_labels()
    pool = tuple(e for e in entries if all(label in e.labels for label in labels))
    if not pool:
        raise _missing_labels_error(recipe, number, f"case of '{source}'", labels, entries)
    lenders = tuple(entry for entry in pool if can_lend(entry, section))
    if not lenders:
        raise recipe.error(("masks", number, "query"), no_match_message(source, pool, section))
    return lenders


def _missing_labels_error(
    recipe: Recipe, number: int, who: str, labels: Sequence[str], entries: Sequence[CaseEntry]
) -> RecipeError:
    """The error that no case has the labels of a section, with those that there are."""
    known = sorted({name for entry in entries for name in entry.available})
    present = sorted({name for entry in entries for name in entry.labels})
    lacking = [label for label in labels if label not in present] or list(labels)
    unknown = [label for label in lacking if label not in known]
    if unknown:
        near = nearest(unknown[0], known)
        hint = f"; did you mean '{near}'?" if near else ""
        message = f"no {who} knows '{unknown[0]}'{hint} (known: {_some(known)})"
        sections = [recipe.sources[name] for name in {entry.source for entry in entries}]
        patterns = [getattr(one, "structures", {}).get(unknown[0]) for one in sections]
        if pattern := next(filter(None, patterns), None):
            message += f"; its pattern {pattern} matches no file"
        return recipe.error_at_label(number, unknown[0], message)
    names = ", ".join(f"'{label}'" for label in labels)
    what = names if len(labels) == 1 else f"all of {names}"
    unnamed = sorted({value for entry in entries for value in entry.unnamed})
    others = f"values without a name: {_some([str(v) for v in unnamed])}" if unnamed else ""
    there = f"there is: {_some(present)}" if present else ""
    labels_present = "; ".join(filter(None, (there, others)))
    labels_present = labels_present or f"all are empty; known: {_some(known)}"
    message = f"no {who} has {what} ({labels_present}); choose another label or source"
    values = {v for entry in entries if (v := entry.label_values.get(lacking[0])) is not None}
    if values:
        looked = f"in no label map of the {who}s is there a voxel of value {min(values)}"
        message = f"no {who} has {what}: {looked} ({labels_present}); correct value or label"
    return recipe.error_at_label(number, lacking[0], message)


def _unknown_notes(recipe: Recipe, hosts: Sequence[CaseEntry]) -> Iterator[str]:
    """Notes on organs of a multi-organ mask that no host knows, which may be misspelt."""
    known = sorted({name for host in hosts for name in host.available})
    for section in recipe.masks:
        optional = () if section.required_labels() else section.optional_labels()
        for label in optional:
            if label not in known:
                near = nearest(label, known)
                hint = f"; did you mean '{near}'?" if near else ""
                yield f"masks '{section.name}': no host knows '{label}'{hint}"


def _some(names: Sequence[str]) -> str:
    """The first twelve names and the number of further ones."""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more if names else "none"


def _specs_of_host(
    recipe: Recipe,
    host: CaseEntry,
    split: Split,
    eligible: Mapping[str, set[str]],
    choosers: Mapping[str, DonorChooser | OwnCase],
) -> Iterator[SampleSpec]:
    """The samples of one host, by section, draw and variant; the real half of a pair is last."""
    sections = [section for section in recipe.masks if host.case_id in eligible[section.name]]
    if not sections:
        return
    offset = Fraction(derive_seed(recipe.seed, "share", host.case_id), 2**63)
    shares = share_out([section.weight for section in sections], recipe.masks_per_case, offset)
    for section, draws in zip(sections, shares, strict=True):
        for draw in range(draws):
            chooser = choosers.get(section.name)
            donors = chooser.choose(host, draw) if chooser else ()
            slices, voxels = 1, 0.0
            if recipe.view == "volume":
                volume_ml = _expected_ml(section, host, donors)
                slices = 1 if recipe.series is None else len(recipe.series.factors)
                voxels = slices * expected_voxels(recipe, section, host, volume_ml)
            else:
                slices = _expected_slices(recipe.view, section, host, donors)
            for variant in (*range(recipe.variants), *((None,) if section.pair else ())):
                yield SampleSpec(split, host, section, draw, 0, variant, donors, slices, voxels)


def _expected_ml(section: MaskKind, host: CaseEntry, donors: Sequence[CaseEntry]) -> float:
    """Volume of the structures that give a mask its shape."""
    if donors:
        return donor_volume_ml(donors[0], section)
    labels = [name for name in section.shape_labels() if name in host.labels]
    return sum(host.labels[name].volume_ml for name in labels)


def _expected_slices(
    view: Plane, section: MaskKind, host: CaseEntry, donors: Sequence[CaseEntry]
) -> int:
    """Estimated number of slices of a mask, from the volume of its shape labels."""
    if section.slices == "random" or section.slices == "largest":
        return 1
    volume_ml = _expected_ml(section, host, donors)
    step_mm = float(host.spacing_mm[VIEW_AXIS[view]])
    if isinstance(section.slices, SeveralSlices) and section.slices.every_mm is not None:
        step_mm = max(step_mm, section.slices.every_mm)
    return max(1, round(section.likely_extent_mm(volume_ml) / step_mm))


def _shards(specs: Sequence[SampleSpec], size: int) -> Iterator[Shard]:
    """Shards of at most ``size`` samples of one split; a larger unit has a shard of its own.

    Volumes count by their voxels too, so that a shard fits into memory.
    """
    for split in SPLITS:
        runs: list[list[SampleSpec]] = []
        room, voxels_left = 0, 0.0
        for unit in _units(spec for spec in specs if spec.split == split):
            samples, voxels = sum(spec.slices for spec in unit), sum(spec.voxels for spec in unit)
            if not runs or samples > room or voxels > voxels_left:
                runs.append([])
                room, voxels_left = size, SHARD_VOXELS
            runs[-1] += unit
            room -= samples
            voxels_left -= voxels
        for index, run in enumerate(runs):
            yield Shard(split, index, tuple(run))


def _units(specs: Iterable[SampleSpec]) -> Iterator[tuple[SampleSpec, ...]]:
    """Samples that must share a shard: a pair with all variants; any other sample alone."""
    for _, group in groupby(specs, key=lambda spec: spec.lesion_id):
        unit = tuple(group)
        if all(spec.is_painted for spec in unit):
            yield from ((spec,) for spec in unit)
        else:
            yield unit
