"""The results of a privacy check in words: a sentence for cards, tables for eyes."""

from __future__ import annotations

from collections.abc import Sequence

from synthct.dataset.markdown import bullets, code, figure, inert, table
from synthct.dataset.privacy.results import How, Membership, Power, PrivacyCheck, Share
from synthct.errors import counted

#: What each flag says.
FLAGS = {
    "training_ncc": "correlates with a training region",
    "training_z": "correlates with a training region more than by chance",
    "training_key": "has the key of a training region",
    "block_copy": "holds voxels of a training region",
    "host_ncc": "correlates with what was there before",
}

#: A mask that is more like its donor's lesion shows that patient's shape.
SHAPE_DISCLOSED = 0.95

#: Most flagged regions in the tables; all are in the JSON.
_LISTED = 20

_HOW = {
    "correlation": "by correlation with the training scans",
    "key": "by key only, without the training scans",
    "not assessed": "not assessed",
}


def sentence(how: How, copies: Share | None, power: Sequence[Power], real_share: float) -> str:
    """The result in a sentence that fits on a card; it never says that a dataset is safe."""
    real = f"{real_share:.0%} of the voxels shown are those of real patients"
    if copies is None or how == "not assessed":
        return f"Copies of training patients: not assessed; {real}."
    found = (
        f"Copies of training patients: {copies.count:,} of {copies.of:,} painted regions "
        f"(at most {copies.high:.2%} with 95 % confidence), {_HOW[how]}"
    )
    lost = [f"{one.change} {one.lost_at:g} {one.unit}" for one in power if one.lost_at is not None]
    if not power:
        seen = "what it could have seen was not measured"
    elif lost:
        seen = f"less than half of copies would be seen from {', '.join(lost)} on"
    else:
        seen = "more than half of copies would be seen at every change that was tried"
    return f"{found}; {seen}; {real}."


def membership_sentence(result: Membership) -> str:
    """The result of a membership test in a sentence that fits on a card."""
    auc, found = result.auc, result.true_positives
    sides = (
        f"{one.patches} patches of {counted(one.patients, 'patient')}"
        for one in (result.members, result.others)
    )
    return (
        f"Membership test by loss: AUC {auc.value:.2f} ({auc.low:.2f} to {auc.high:.2f}; 0.5 tells "
        f"nothing), {found.value:.0%} ({found.low:.0%} to {found.high:.0%}) of members found where "
        f"1 % of others are taken for members; {' trained on against '.join(sides)} not trained on."
    )


def tables_markdown(check: PrivacyCheck) -> str:
    """The tables of a check as one markdown page."""
    parts = [f"# Privacy of {code(check.dataset)} {code(check.version)}", inert(check.sentence)]
    parts.append(f"## Dataset\n\n{_dataset(check)}")
    if check.thresholds:
        parts.append(f"## Thresholds\n\n{_thresholds(check)}")
    if check.power:
        parts.append(f"## What the check could have seen\n\n{_power(check)}")
    flagged = [one for one in check.regions if one.flags]
    if flagged:
        parts.append(f"## Flagged regions\n\n{_flagged(check)}")
    if check.notes:
        parts.append(bullets(inert(note) for note in check.notes))
    return "\n\n".join(parts) + "\n"


def _dataset(check: PrivacyCheck) -> str:
    rows: list[tuple[str, str]] = [("painted regions", f"{len(check.regions):,}")]
    if check.training_regions is None:
        rows.append(("training regions", "no privacy index: not assessed"))
    else:
        rows.append((
            "training regions",
            f"{check.training_regions:,} of {counted(check.training_patients or 0, 'patient')}; "
            f"{check.scans_at_hand} of {counted(check.training_scans or 0, 'scan')} at hand",
        ))  # fmt: skip
    rows.append(("flagged", _share(check.copies)))
    rows.append(("nearer to training than to held-out regions", _share(check.nearer_to_training)))
    diversity = check.variant_diversity
    rows.append((
        "variant diversity (1 - median correlation)",
        "no variants" if diversity is None else figure(diversity),
    ))  # fmt: skip
    rows.append((
        "regions of one patient, most",
        f"{check.reuse.most:,} ({counted(check.reuse.patients, 'patient')}, Gini "
        f"{check.reuse.gini:.2f})",
    ))  # fmt: skip
    shapes = [one.donor_shape_dice for one in check.regions if one.donor_shape_dice is not None]
    disclosed = sum(one > SHAPE_DISCLOSED for one in shapes)
    rows.append((
        f"donor's shape disclosed (Dice above {SHAPE_DISCLOSED})",
        f"{disclosed:,} of {len(shapes):,}, the highest {max(shapes):.2f}"
        if shapes
        else "no donor at hand",
    ))  # fmt: skip
    faces = [one.recognisable for one in check.regions]
    rows.append((
        "head or face in the field",
        f"{faces.count(True):,} yes, {faces.count(False):,} no, {faces.count(None):,} unknown",
    ))  # fmt: skip
    return table(("what", "value"), rows)


def _thresholds(check: PrivacyCheck) -> str:
    rows = [
        (
            code(one.measure), f"{one.value:.3f}",
            "" if one.largest is None else f"{one.largest:.3f}", inert(one.reason),
        )
        for one in check.thresholds
    ]  # fmt: skip
    return table(("measure", "flagged above", "largest held out", "why this one"), rows)


def _power(check: PrivacyCheck) -> str:
    rows = []
    for one in check.power:
        seen = ", ".join(f"{s:g}: {r:.0%}" for s, r in zip(one.strengths, one.recall, strict=True))
        lost = "none tried" if one.lost_at is None else f"{one.lost_at:g}"
        rows.append((one.change, one.unit, seen, lost))
    head = ("change", "unit", "recall by strength", "below 50 % from")
    times = counted(check.power[0].planted, "time")
    planted = f"Real tissue planted among the training regions, {times} each"
    return f"{planted}.\n\n{table(head, rows)}"


def _flagged(check: PrivacyCheck) -> str:
    flagged = [one for one in check.regions if one.flags]
    rows = [
        (
            code(one.sample_id), inert(one.nearest_patient or ""), _number(one.train_nn_ncc),
            _number(one.train_nn_z), _number(one.train_key), _number(one.self_recon_ncc),
            "; ".join(FLAGS[flag] for flag in one.flags),
        )
        for one in flagged[:_LISTED]
    ]  # fmt: skip
    more = f"\n\n... and {len(flagged) - _LISTED:,} more" if len(flagged) > _LISTED else ""
    head = (
        "sample", "nearest patient", "train_nn_ncc", "train_nn_z", "train_key", "self_recon_ncc",
        "why",
    )  # fmt: skip
    return table(head, rows) + more


def _share(one: Share | None) -> str:
    if one is None or one.value is None:
        return "not assessed"
    return f"{one.count:,} of {one.of:,} ({one.low:.1%} to {one.high:.1%})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
