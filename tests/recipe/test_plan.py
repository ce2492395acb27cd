from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from planned import TUMOR, cases, entry, plan, recipe

from synthct.errors import PolicyError, RecipeError, SourceError
from synthct.recipe.plan import Plan, plan_samples
from synthct.recipe.recipe import load_recipe
from synthct.recipe.shares import Split
from synthct.recipe.splits import assign_splits, share_out, split_patients
from synthct.sources import CaseEntry, Index, index_sources
from synthct.volume.anatomy import LesionFacts, Seat

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
KIDNEY: dict[str, Any] = {"name": "kidneys", "kind": "organ", "label": "kidney"}
ORGANS: dict[str, Any] = {"name": "organs", "kind": "organ", "organs": ["kidney", "liver"]}


def assert_safe(made: Plan) -> None:
    """No patient on both sides of a split, as host or donor, and no host its own donor."""
    seen: dict[str, str] = {}
    for spec in made.specs:
        for case in (spec.host, *spec.donors):
            assert seen.setdefault(case.patient_id, spec.split) == spec.split
        assert spec.host.patient_id not in [donor.patient_id for donor in spec.donors]
    for shard in made.shards:
        assert {spec.split for spec in shard.specs} == {shard.split}


PEOPLE = [f"p{n}" for n in range(12)]


def entries_of(source: str) -> SearchStrategy[list[CaseEntry]]:
    """Cases of a source: whose they are, what is in them, and whether they have an image."""
    one = st.tuples(
        st.sampled_from(PEOPLE),
        st.sets(st.sampled_from(["kidney", "tumor", "liver"])),
        st.just(True) if source == "donors" else st.booleans(),
    )
    return st.lists(one, min_size=1, max_size=15).map(
        lambda drawn: [
            entry(f"{source}{n}", sorted(labels), patient=patient, source=source, image=image)
            for n, (patient, labels, image) in enumerate(drawn)
        ]
    )


@given(
    hosts=entries_of("hosts"),
    donors=entries_of("donors"),
    splits=st.sampled_from([{"train": 1}, {"train": 0.8, "test": 0.2}, {"train": 0.34,
        "validation": 0.33, "test": 0.33}]),
    seed=st.integers(0, 2**31),
    masks_per_case=st.integers(1, 8),
    samples_per_shard=st.integers(1, 20),
)  # fmt: skip
def test_no_patient_leaks_between_splits(
    hosts: list[CaseEntry], donors: list[CaseEntry], **fields: Any
) -> None:
    try:
        made = plan([TUMOR, KIDNEY, ORGANS], hosts, donors, **fields)
    except (RecipeError, SourceError):  # nothing to paint, or nobody lends a tumour
        reject()
    assert_safe(made)
    assert [s for shard in made.shards for s in shard.specs] == list(made.specs)


@given(
    hosts=st.sets(st.sampled_from(PEOPLE), min_size=4),
    donors=st.sets(st.sampled_from(PEOPLE)),
    seed=st.integers(0, 2**31),
)
def test_a_hosts_split_does_not_depend_on_who_lends(
    hosts: set[str], donors: set[str], seed: int
) -> None:
    """Whoever is a host and a donor stays in the split that the fractions gave the host."""
    fractions: dict[Split, float] = {"train": 0.5, "validation": 0.25, "test": 0.25}
    made = recipe([KIDNEY], splits=fractions, seed=seed)
    lending = [entry(f"d-{patient}", patient=patient, source="donors") for patient in donors]
    splits, notes = split_patients(made, [entry(patient) for patient in hosts], lending)
    alone = assign_splits(hosts, fractions, seed)
    assert notes == []
    assert splits.keys() == hosts | donors
    assert {patient: splits[patient] for patient in hosts} == alone
    assert len(set(alone.values())) == 3


def test_splits_are_as_large_as_the_fractions_ask() -> None:
    splits = assign_splits([f"p{n}" for n in range(100)], {"train": 0.8, "test": 0.2}, 0)
    assert Counter(splits.values()) == {"train": 80, "test": 20}
    other = assign_splits([f"p{n}" for n in reversed(range(100))], {"train": 0.8, "test": 0.2}, 0)
    assert other == splits
    assert assign_splits(splits, {"train": 0.8, "test": 0.2}, 1) != splits


@pytest.mark.parametrize("count", [5, 6, 7, 12])
def test_no_split_is_empty_that_is_due_half_a_patient(count: int) -> None:
    made = plan(
        [TUMOR], cases(count), cases(count, "donor", labels=["kidney", "tumor"]), masks_per_case=2
    )
    assert {spec.split for spec in made.specs} == {"train", "validation", "test"}
    assert not made.notes


def test_too_few_hosts_for_the_splits_are_all_train_and_the_plan_says_so() -> None:
    made = plan([KIDNEY], cases(3))
    assert {spec.split for spec in made.specs} == {"train"}
    assert made.notes == (
        "3 host patients are too few for train 0.8, validation 0.1, test 0.1; everything is train",
    )


def test_splits_can_come_from_the_sources_own_table() -> None:
    hosts = [entry("s1", split="train"), entry("s2", split="test"), entry("s3", split="train")]
    made = plan([KIDNEY], hosts, splits={"from_source": True})
    assert {spec.host.case_id: spec.split for spec in made.specs} == {
        "s1": "train",
        "s2": "test",
        "s3": "train",
    }


def test_a_case_without_a_split_in_its_table_is_an_error() -> None:
    with pytest.raises(RecipeError, match="does not say in which split case 's2' is"):
        plan([KIDNEY], [entry("s1", split="train"), entry("s2")], splits={"from_source": True})


def test_a_patient_in_two_splits_of_a_table_is_refused() -> None:
    hosts = [entry("s1", patient="p", split="train"), entry("s2", patient="p", split="test")]
    with pytest.raises(PolicyError, match="in two splits: case 's1' is train"):
        plan([KIDNEY], hosts, splits={"from_source": True})


def test_two_scans_of_one_person_share_a_split() -> None:
    hosts = [entry(f"c{n}", patient=f"p{n // 2}") for n in range(20)]
    made = plan([KIDNEY], hosts)
    assert_safe(made)
    assert len(made.count("split")) == 3


def test_donors_are_balanced_over_patients() -> None:
    donors = cases(7, "donor", labels=["kidney", "tumor"])
    donors += [entry(f"more_{n}", ["kidney", "tumor"], patient="donor_000") for n in range(20)]
    made = plan([TUMOR], cases(5), donors, masks_per_case=7, splits={"train": 1})
    used = Counter(spec.donor.patient_id for spec in made.specs if spec.donor)
    assert set(used.values()) == {5}
    assert len(used) == 7


def lender(case_id: str, *volumes_ml: float, **fields: Any) -> CaseEntry:
    seat = Seat("left", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.5, 10.0)
    lesions = [
        LesionFacts(number, ml, 20.0, False, seat) for number, ml in enumerate(volumes_ml, start=1)
    ]
    donor = entry(case_id, ["kidney", "tumor"], **fields)
    return replace(donor, lesions={("tumor", "kidney"): tuple(lesions)})


def test_a_query_chooses_the_donors_and_stays_within_their_splits() -> None:
    donors = [lender(f"d{n:02d}", float(n + 1), 0.05) for n in range(20)]
    small = {**TUMOR, "query": {"volume_ml": [1, 8]}}
    made = plan([small], cases(10), donors, masks_per_case=6)
    assert_safe(made)
    used = {donor.case_id for spec in made.specs for donor in spec.donors}
    assert used == {f"d{n:02d}" for n in range(8)}
    # Only of one split: hosts of the others are left out, and the plan says so.
    tests = {**TUMOR, "query": {"split": ["test"]}}
    made = plan([tests, KIDNEY], cases(10), donors, masks_per_case=4)
    assert {spec.split for spec in made.specs if spec.section.name == "tumors"} == {"test"}
    assert any("hosts skipped, without a donor of another patient" in note for note in made.notes)


def test_a_query_that_takes_no_lesion_names_what_there_is() -> None:
    donors = [lender("d0", 3.0), lender("d1", 12.0, 4.0)]
    huge = {**TUMOR, "query": {"volume_ml": [50, 90]}}
    message = r"masks\[0\].query: matches none of the 3 lesions of 'donors': 3..12 ml; widen it"
    with pytest.raises(RecipeError, match=message):
        plan([huge], cases(3), donors)


def test_several_slices_are_counted_by_the_lesion_that_is_lent() -> None:
    donors = [lender(f"d{n}", 4.18879) for n in range(3)]  # a ball of 20 mm
    made = plan([{**TUMOR, "slices": "all"}], cases(3), donors, splits={"train": 1})
    assert {spec.slices for spec in made.specs} == {20}


def test_fallback_donors_are_other_patients_each() -> None:
    donors = cases(9, "donor", labels=["kidney", "tumor"])
    made = plan([TUMOR], cases(5), donors, masks_per_case=3, splits={"train": 1})
    assert all(len({d.patient_id for d in spec.donors}) == 4 for spec in made.specs)


def test_variants_share_their_mask_and_donor() -> None:
    made = plan(
        [TUMOR], cases(5), cases(5, "d", labels=["kidney", "tumor"]), variants=3, masks_per_case=2
    )
    for mask_id in {spec.mask_id for spec in made.specs}:
        group = [spec for spec in made.specs if spec.mask_id == mask_id]
        assert [spec.variant for spec in group] == [0, 1, 2]
        assert [spec.sample_id for spec in group] == [f"{mask_id}.v{n}" for n in range(3)]
        assert len({spec.donor.case_id for spec in group if spec.donor}) == 1


def test_samples_are_ordered_by_split_host_section_draw_and_variant() -> None:
    made = plan([KIDNEY, ORGANS], cases(9), masks_per_case=4, variants=2)
    order = ["train", "validation", "test"], ["kidneys", "organs"]
    keys = [
        (order[0].index(s.split), s.host.case_id, order[1].index(s.section.name), s.draw, s.variant)
        for s in made.specs
    ]
    assert keys == sorted(keys)
    assert len({spec.sample_id for spec in made.specs}) == 9 * 4 * 2
    assert made.specs[0].sample_id.endswith(".kidneys.d000.s0.v0")


def test_several_slices_are_counted_by_the_size_of_what_lends_its_shape() -> None:
    """A ball of 0.1 ml is 5.8 mm wide; slices of these cases are 1 mm apart."""
    for slices, count in (("largest", 1), ("all", 6), ({"every_mm": 3}, 2), ({"every_mm": 99}, 1)):
        donors = cases(5, "d", labels=["kidney", "tumor"])
        made = plan([{**TUMOR, "slices": slices}], cases(5), donors, variants=2, masks_per_case=3)
        assert made.num_samples == 5 * 3 * 2 * count
        assert made.is_exact == (count == 1)
        assert made.count("section") == {"tumors": made.num_samples}
        assert len(made.specs) == 5 * 3 * 2
        few = made.limit(4)
        assert few.num_samples - 4 in range(count)
        assert [s for shard in few.shards for s in shard.specs] == list(few.specs)


def test_shards_hold_so_many_samples_however_many_slices_a_mask_has() -> None:
    section = {**KIDNEY, "slices": "all"}  # six slices
    made = plan([section], cases(5), masks_per_case=5, samples_per_shard=13, splits={"train": 1})
    sizes = [sum(spec.slices for spec in shard.specs) for shard in made.shards]
    assert sizes == [12] * 12 + [6]
    small = plan([section], cases(2), samples_per_shard=2, splits={"train": 1})
    assert [len(shard.specs) for shard in small.shards] == [1, 1]


def test_a_spec_on_another_slice_keeps_its_lesion() -> None:
    spec = plan([KIDNEY], cases(1), variants=2, splits={"train": 1}).specs[1]
    other = spec.on_slice(3)
    assert other.sample_id == f"{spec.lesion_id}.s3.v1"
    assert other.lesion_id == spec.lesion_id == "case_000.kidneys.d000"


def test_masks_are_shared_out_by_weight() -> None:
    made = plan([{**KIDNEY, "weight": 3}, ORGANS], cases(5), masks_per_case=8)
    per_host = Counter((spec.host.case_id, spec.section.name) for spec in made.specs)
    assert set(per_host.values()) == {6, 2}
    assert made.count("section") == {"kidneys": 30, "organs": 10}


@pytest.mark.parametrize("seed", range(20))
def test_shares_add_up_and_are_never_off_by_one_or_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [float(w) for w in rng.uniform(0.01, 5, rng.integers(1, 9)).round(2)]
    total = int(rng.integers(0, 50))
    counts = share_out(weights, total, Fraction(int(rng.integers(1000)), 1000))
    assert sum(counts) == total
    exact = [weight * total / sum(weights) for weight in weights]
    assert all(abs(n - e) < 1 + 1e-9 for n, e in zip(counts, exact, strict=True))


def test_a_small_weight_gets_its_share_over_many_hosts() -> None:
    made = plan([{**KIDNEY, "weight": 3}, ORGANS], cases(400), masks_per_case=1)
    assert 70 <= made.count("section")["organs"] <= 130


def test_hosts_without_the_label_are_skipped_and_counted() -> None:
    hosts = [*cases(3), entry("bare", []), entry("liver", ["liver"])]
    made = plan([KIDNEY, ORGANS], hosts, masks_per_case=4, splits={"train": 1})
    assert made.count("host") == {"case_000": 4, "case_001": 4, "case_002": 4, "liver": 4}
    assert {spec.section.name for spec in made.specs if spec.host.case_id == "liver"} == {"organs"}
    assert made.notes == (
        "masks 'kidneys': 2 of 5 hosts skipped, without its labels: bare, liver",
        "masks 'organs': 1 of 5 hosts skipped, without its labels: bare",
    )


def test_a_host_for_no_mask_takes_no_place_in_a_split() -> None:
    made = plan([KIDNEY], [*cases(5), *cases(30, "bare", labels=[])])
    assert made.count("split") == {"train": 3, "validation": 1, "test": 1}


def test_a_label_that_no_host_knows_is_an_error_with_a_suggestion() -> None:
    masks = [KIDNEY, {"name": "x", "kind": "box", "around": "livr", "margin_mm": [1, 2]}]
    with pytest.raises(RecipeError, match=r"masks\[1\].around: no host knows 'livr'; did you mean"):
        plan(masks, cases(3))


def test_a_label_that_no_host_has_names_what_there_is() -> None:
    with pytest.raises(RecipeError, match=r"no host has 'liver' \(there is: cyst, kidney\)"):
        plan([{**KIDNEY, "label": "liver"}], [entry("a"), entry("b", ["cyst"])])
    with pytest.raises(
        RecipeError, match=r"masks\[0\].label: no case of 'donors' has all of 'tumor'"
    ):
        plan([TUMOR], cases(3), cases(2))


def test_an_unknown_organ_among_several_is_noted() -> None:
    made = plan([{**ORGANS, "organs": ["kidny", "liver", "kidney"]}], cases(5))
    assert made.notes == ("masks 'organs': no host knows 'kidny'; did you mean 'kidney'?",)


def test_a_file_and_line_go_with_the_errors_of_a_loaded_recipe(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: a\nversion: 1.0.0\nsources: {hosts: {layout: phantom}}\nmasks:\n"
        "  - {name: a, kind: organ, organs: [kidny]}\n"
    )
    with pytest.raises(RecipeError, match=r"x.yaml:5:37: masks\[0\].organs\[0\]: no host knows"):
        plan_samples(load_recipe(path), Index({"hosts": tuple(cases(3))}))


def test_cases_without_an_image_are_no_hosts() -> None:
    made = plan([KIDNEY], [*cases(3), *cases(5, "blind", image=False)])
    assert len(made.specs) == 3
    with pytest.raises(SourceError, match=r"no case has an image .*alone: .*names of cases agree"):
        plan([KIDNEY], cases(3, image=False))


def test_hosts_whose_split_has_no_donor_are_skipped_and_counted() -> None:
    made = plan(
        [TUMOR, KIDNEY], cases(10), cases(1, "d", labels=["kidney", "tumor"]), masks_per_case=2
    )
    assert_safe(made)
    (note,) = made.notes
    assert note.startswith("masks 'tumors': 2 hosts skipped, without a donor of another patient")
    with pytest.raises(RecipeError, match=r"masks\[0\].donors: no host has a donor of another"):
        plan([TUMOR], cases(1), [entry("case_000", ["kidney", "tumor"])], splits={"train": 1})


def test_shards_are_fixed_and_cover_the_plan() -> None:
    made = plan([KIDNEY], cases(10), masks_per_case=3, samples_per_shard=7)
    sizes = [(shard.split, shard.index, len(shard.specs)) for shard in made.shards]
    assert sizes[:4] == [("train", 0, 7), ("train", 1, 7), ("train", 2, 7), ("train", 3, 3)]
    assert sizes[4:] == [("validation", 0, 3), ("test", 0, 3)]


def test_a_limited_plan_is_the_beginning_of_the_whole() -> None:
    whole = plan([KIDNEY], cases(10), masks_per_case=3, samples_per_shard=7)
    part = whole.limit(10)
    assert part.specs == whole.specs[:10]
    assert [len(shard.specs) for shard in part.shards] == [7, 3]


def test_a_plan_depends_on_neither_order_nor_path() -> None:
    donors = cases(9, "d", labels=["kidney", "tumor"])
    first = plan([TUMOR], cases(5), donors, masks_per_case=3)
    again = plan([TUMOR], cases(5), donors[::-1], masks_per_case=3)
    assert first.plan_id == again.plan_id
    assert plan([TUMOR], cases(5), donors, masks_per_case=3, seed=1).plan_id != first.plan_id


def test_adding_a_host_leaves_the_masks_of_the_others() -> None:
    sections = [{**KIDNEY, "weight": 2}, ORGANS]
    few = {spec.sample_id for spec in plan(sections, cases(6), masks_per_case=4).specs}
    more = {spec.sample_id for spec in plan(sections, cases(7), masks_per_case=4).specs}
    assert few < more


@pytest.mark.long
@pytest.mark.realdata
def test_kits_tumors_plans_at_least_64_samples_with_the_three_real_hosts(
    shared_data: Path, tmp_path: Path
) -> None:
    root = shared_data / "kits23" / "dataset"
    kits = load_recipe(RECIPES / "kits_tumors.yaml", sources={"hosts": root, "donors": root})
    index = index_sources(kits.sources, kits.all_labels(), cache_dir=tmp_path)
    made = plan_samples(kits, index)
    assert len(made.specs) >= 64
    assert len(made.count("host")) == 3
    assert_safe(made)
    used = Counter(spec.donor.patient_id for spec in made.specs if spec.donor)
    assert len(used) == 40
    assert max(used.values()) <= 4
    assert made.notes[0].startswith("3 host patients are too few for train 0.8, validation 0.1")
