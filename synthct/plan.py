"""The plan: which samples a recipe comes to, from the index alone.

Every sample gets its host, split, mask section, donors and id here, and its place in a shard, so
that any number of processes can share the work. No voxel is read and no mask drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import nsmallest
from itertools import pairwise

from synthct.errors import RecipeError, SourceError
from synthct.masks import MaskKind
from synthct.recipe import SPLITS, Recipe, Split, donor_source
from synthct.seeds import derive_seed
from synthct.sources import CaseEntry, Index
from synthct.splits import split_patients
from synthct.yaml_errors import nearest

#: Donors named for a mask: the one to take, and what to fall back on if it cannot be placed.
DONORS_PER_MASK = 4


@dataclass(frozen=True, eq=False)
class SampleSpec:
    """One sample to be made.

    Attributes:
        sample_id: ``<host>.<section>.d<draw>.s<slice>.v<variant>``.
        mask_id: The same without the variant: samples that share it share their mask.
        split: The split of the host's patient, and so of the donor's.
        host: The case that is painted into.
        section: Name of the recipe's section of ``masks``.
        draw: Number of the mask among those of this host and section, from 0.
        slice_ordinal: Number of the slice among those of this mask, from 0.
        variant: Number of the painting of this mask, from 0.
        donors: Cases to take the shape from, the first unless it cannot be placed; empty for
            kinds without a donor.
    """

    sample_id: str
    mask_id: str
    split: Split
    host: CaseEntry
    section: str
    draw: int
    slice_ordinal: int
    variant: int
    donors: tuple[CaseEntry, ...] = ()

    @property
    def donor(self) -> CaseEntry | None:
        """The case to take the shape from; None for kinds without a donor."""
        return self.donors[0] if self.donors else None


@dataclass(frozen=True, eq=False)
class Shard:
    """The samples of one file, the unit of work; they are of one split.

    Attributes:
        split: Their split.
        index: Number of the shard within its split, from 0.
        specs: The samples in order.
    """

    split: Split
    index: int
    specs: tuple[SampleSpec, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """All samples of a recipe, in the order of the dataset.

    Attributes:
        specs: The samples: by split, host, section, draw, slice and variant.
        shards: The same samples in files.
        notes: What the user should know, such as hosts without a label.
        splits: Patient to split, of hosts and donors.
    """

    specs: tuple[SampleSpec, ...]
    shards: tuple[Shard, ...]
    notes: tuple[str, ...]
    splits: Mapping[str, Split]

    @property
    def plan_id(self) -> str:
        """sha256 of the samples with their cases, donors and shards; free of paths."""
        rows = [
            [shard.split, shard.index, spec.sample_id]
            + [[case.source, case.case_id, case.patient_id] for case in (spec.host, *spec.donors)]
            for shard in self.shards
            for spec in shard.specs
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def count(self, field: str) -> dict[str, int]:
        """Samples by ``split``, ``section``, ``host`` or ``donor``, in the order of the plan."""
        found = (getattr(spec, field) for spec in self.specs)
        names = (name.case_id if isinstance(name, CaseEntry) else name for name in found)
        return dict(Counter(str(name) for name in names if name is not None))

    def limit(self, samples: int) -> Plan:
        """The plan cut to its first ``samples``; what remains keeps its ids and seeds."""
        shards, left = [], samples
        for shard in self.shards:
            if left > 0:
                shards.append(replace(shard, specs=shard.specs[:left]))
            left -= len(shard.specs)
        return replace(self, specs=self.specs[: max(0, samples)], shards=tuple(shards))


def plan_samples(recipe: Recipe, index: Index) -> Plan:
    """The samples that ``recipe`` comes to with the cases of ``index``.

    Raises:
        SourceError: If no host has an image.
        RecipeError: If a section of ``masks`` can be drawn in no host, or has no donor.
    """
    scans = tuple(entry for entry in index.entries("hosts") if entry.image is not None)
    if not scans:
        raise SourceError("source 'hosts': no case has an image to paint into; add scans")
    able = {s.name: _able_hosts(recipe, n, scans) for n, s in enumerate(recipe.masks)}
    pools = {s.name: _donor_pool(recipe, n, index) for n, s in enumerate(recipe.masks)}
    hosts = tuple(scan for scan in scans if any(scan.case_id in ids for ids in able.values()))
    notes = [*_unknown_notes(recipe, scans)]
    for name, ids in able.items():
        if lacking := [scan.case_id for scan in scans if scan.case_id not in ids]:
            count = f"{len(lacking)} of {len(scans)} hosts lack its labels and are skipped"
            notes.append(f"masks '{name}': {count}: {_some(lacking)}")

    donors = [donor for pool in pools.values() for donor in pool]
    splits, split_notes = split_patients(recipe, hosts, donors)
    notes += split_notes
    used: Counter[str] = Counter()
    choosers: dict[str, _DonorChooser] = {}
    for number, section in enumerate(recipe.masks):
        if not section.needs_donor:
            continue
        chooser = _DonorChooser(recipe.seed, section.name, pools[section.name], splits, used)
        choosers[section.name], ids = chooser, able[section.name]
        bereft = [h.case_id for h in hosts if h.case_id in ids and not chooser.has_donor_for(h)]
        ids.difference_update(bereft)
        if not ids:
            message = "no host has a donor of another patient in its own split"
            hint = "add donors, or share the patients out to fewer splits"
            raise recipe.error(("masks", number, "donors"), f"{message}; {hint}")
        if bereft:
            count = f"{len(bereft)} hosts have no donor of another patient in their split"
            notes.append(f"masks '{section.name}': {count} and are skipped: {_some(bereft)}")

    specs = tuple(
        spec
        for split in SPLITS
        for host in hosts
        if splits[host.patient_id] == split
        for spec in _specs_of_host(recipe, host, split, able, choosers)
    )
    return Plan(specs, tuple(_shards(specs, recipe.samples_per_shard)), tuple(notes), splits)


def share_out(weights: Sequence[float], total: int, offset: Fraction) -> list[int]:
    """Whole counts that add up to ``total`` and are as their ``weights`` ask.

    Each count is its exact share, rounded down or up; systematic sampling with ``offset`` decides
    which, so that over many hosts even a small weight gets its share.

    Args:
        weights: Positive, of any sum.
        total: What the counts add up to.
        offset: 0 <= offset < 1; where the rounding falls.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    whole = sum(exact)
    marks = [math.floor(sum(exact[:n]) * total / whole + offset) for n in range(len(exact) + 1)]
    return [after - before for before, after in pairwise(marks)]


def _able_hosts(recipe: Recipe, number: int, hosts: Sequence[CaseEntry]) -> set[str]:
    """The hosts that have the labels of a section.

    Raises:
        RecipeError: If none has.
    """
    section = recipe.masks[number]
    able = {host.case_id for host in hosts if _suits(host, section)}
    if not able:
        labels = section.wanted_labels() or section.useful_labels()
        raise _nobody_has(recipe, number, "host", labels, hosts)
    return able


def _suits(host: CaseEntry, section: MaskKind) -> bool:
    """Whether a host has every wanted label or, where none in particular is wanted, any useful."""
    wanted, useful = section.wanted_labels(), section.useful_labels()
    if wanted or not useful:
        return all(label in host.labels for label in wanted)
    return any(label in host.labels for label in useful)


def _donor_pool(recipe: Recipe, number: int, index: Index) -> tuple[CaseEntry, ...]:
    """The cases that can lend a shape to a section.

    Raises:
        RecipeError: If there is none.
    """
    section = recipe.masks[number]
    source = donor_source(section)
    if source is None:
        return ()
    entries = index.entries(source)
    wanted = section.donor_labels()
    pool = tuple(e for e in entries if all(label in e.labels for label in wanted))
    if not pool:
        raise _nobody_has(recipe, number, f"case of '{source}'", wanted, entries)
    return pool


def _nobody_has(
    recipe: Recipe, number: int, who: str, labels: Sequence[str], entries: Sequence[CaseEntry]
) -> RecipeError:
    """That no case has the labels of a section, what there is, and what was probably meant."""
    known = sorted({name for entry in entries for name in entry.available})
    present = sorted({name for entry in entries for name in entry.labels})
    lacking = [label for label in labels if label not in present] or list(labels)
    unknown = [label for label in lacking if label not in known]
    if unknown:
        near = nearest(unknown[0], known)
        hint = f"; did you mean '{near}'?" if near else ""
        message = f"no {who} knows '{unknown[0]}'{hint} (known: {_some(known)})"
        return recipe.error_at_label(number, unknown[0], message)
    names = ", ".join(f"'{label}'" for label in labels)
    what = names if len(labels) == 1 else f"all of {names}"
    message = f"no {who} has {what} (there is: {_some(present)}); choose another label or source"
    return recipe.error_at_label(number, lacking[0], message)


def _unknown_notes(recipe: Recipe, hosts: Sequence[CaseEntry]) -> Iterator[str]:
    """Of masks of several organs: those that no host knows, which may be a slip of the pen."""
    known = sorted({name for host in hosts for name in host.available})
    for section in recipe.masks:
        optional = () if section.wanted_labels() else section.useful_labels()
        for label in optional:
            if label not in known:
                near = nearest(label, known)
                hint = f"; did you mean '{near}'?" if near else ""
                yield f"masks '{section.name}': no host knows '{label}'{hint}"


def _some(names: Sequence[str]) -> str:
    """The first names and how many there are more."""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more if names else "none"


class _DonorChooser:
    """Deals donors out evenly over their patients, within a split, never the host's own."""

    def __init__(
        self,
        seed: int,
        section: str,
        pool: Sequence[CaseEntry],
        splits: Mapping[str, Split],
        used: Counter[str],
    ) -> None:
        self._seed, self._section, self._splits = seed, section, splits
        self._used: Counter[str] = Counter()
        self._used_by_all = used
        self._patients: dict[Split, dict[str, list[CaseEntry]]] = defaultdict(dict)
        for donor in pool:
            cases = self._patients[splits[donor.patient_id]]
            cases.setdefault(donor.patient_id, []).append(donor)
        patients = {donor.patient_id for donor in pool}
        self._order = {name: derive_seed(seed, "donor", section, name) for name in patients}

    def has_donor_for(self, host: CaseEntry) -> bool:
        """Whether another patient of the host's split can lend a shape."""
        return bool(self._others(host))

    def choose(self, host: CaseEntry, draw: int) -> tuple[CaseEntry, ...]:
        """A donor from the patient used least so far, then those to fall back on."""
        others = self._others(host)
        chosen = nsmallest(DONORS_PER_MASK, others, key=self._claim)
        self._used[chosen[0]] += 1
        self._used_by_all[chosen[0]] += 1
        return tuple(self._case_of(others[patient], host, draw) for patient in chosen)

    def _claim(self, patient: str) -> tuple[int, int, int]:
        """Least first: used by this section, used by any, and a fixed random order."""
        return self._used[patient], self._used_by_all[patient], self._order[patient]

    def _case_of(self, cases: Sequence[CaseEntry], host: CaseEntry, draw: int) -> CaseEntry:
        """One of a patient's cases, at random."""
        names = ("donor", self._section, host.case_id, str(draw))
        return min(cases, key=lambda case: derive_seed(self._seed, *names, case.case_id))

    def _others(self, host: CaseEntry) -> dict[str, list[CaseEntry]]:
        patients = self._patients[self._splits[host.patient_id]]
        return {name: cases for name, cases in patients.items() if name != host.patient_id}


def _specs_of_host(
    recipe: Recipe,
    host: CaseEntry,
    split: Split,
    able: Mapping[str, set[str]],
    choosers: Mapping[str, _DonorChooser],
) -> Iterator[SampleSpec]:
    """The samples of one host, by section, draw and variant."""
    sections = [section for section in recipe.masks if host.case_id in able[section.name]]
    if not sections:
        return
    offset = Fraction(derive_seed(recipe.seed, "share", host.case_id), 2**63)
    shares = share_out([section.weight for section in sections], recipe.masks_per_case, offset)
    for section, draws in zip(sections, shares, strict=True):
        for draw in range(draws):
            chooser = choosers.get(section.name)
            donors = chooser.choose(host, draw) if chooser else ()
            mask_id = f"{host.case_id}.{section.name}.d{draw:03d}.s0"
            for variant in range(recipe.variants):
                yield SampleSpec(
                    sample_id=f"{mask_id}.v{variant}",
                    mask_id=mask_id,
                    split=split,
                    host=host,
                    section=section.name,
                    draw=draw,
                    slice_ordinal=0,
                    variant=variant,
                    donors=donors,
                )


def _shards(specs: Sequence[SampleSpec], size: int) -> Iterator[Shard]:
    """Runs of at most ``size`` samples of one split."""
    for split in SPLITS:
        mine = [spec for spec in specs if spec.split == split]
        for index, start in enumerate(range(0, len(mine), size)):
            yield Shard(split, index, tuple(mine[start : start + size]))
