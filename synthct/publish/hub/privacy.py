"""What a privacy check must not have found in a dataset that is published."""

from __future__ import annotations

from pathlib import Path

from synthct.dataset.manifest import read_manifest
from synthct.dataset.privacy.results import (
    MEMBERSHIP,
    RESULTS,
    PrivacyCheck,
    read_membership,
    read_results,
)
from synthct.dataset.privacy.words import FLAGS, membership_sentence
from synthct.errors import PolicyError, counted
from synthct.models.checkpoint import PACKAGE_PREFIX, find_checkpoint
from synthct.models.layout import INDEX
from synthct.models.network import CheckpointFiles
from synthct.storage.files import beside

#: A checkpoint is refused if the whole interval of its AUC, or of the share of members found at 1 %
#: false positives, is above these.
MOST_AUC, MOST_FOUND = 0.65, 0.05

#: Samples that a message names.
_NAMED = 5


def checked(path: str, *, faces: bool = False) -> str:
    """The sentence of the privacy check of what is to be published; empty if it is neither.

    Args:
        path: A dataset's folder, a checkpoint's, or the ``package:`` name of a checkpoint.
        faces: Whether a dataset may be published though heads or faces are in the field.

    Raises:
        PolicyError: If the check found what is not published.
        VerifyError: If its results are damaged.
    """
    manifest = read_manifest(Path(path))
    if manifest is not None:
        return passed(Path(path), manifest.release.content_id, faces=faces)
    if path.startswith(PACKAGE_PREFIX) or (Path(path) / INDEX).exists():
        files = find_checkpoint(path)
        return passed_test(files, files.folder)
    return ""


def passed(folder: Path, content_id: str, *, faces: bool = False) -> str:
    """The sentence of a dataset's privacy check, or that there is none.

    Args:
        folder: The dataset's folder, with the results of ``synthct privacy`` beside it.
        content_id: Of the dataset.
        faces: Whether it may be published though heads or faces are in the field.

    Raises:
        PolicyError: If a region is flagged, a head or face is in the field, or the results are
            those of other content.
        VerifyError: If the results are damaged.
    """
    results = beside(folder, "privacy")
    if not (results / RESULTS).is_file():
        return f"Copies of training patients: not assessed; run 'synthct privacy {folder}'."
    check = read_results(results)
    if check.content_id != content_id:
        raise PolicyError(
            f"{results} is of content {check.content_id[:12]}, {folder} of {content_id[:12]}; run "
            f"'synthct privacy {folder}' again"
        )
    _refuse_copies(folder, check)
    shown = [one.sample_id for one in check.regions if one.recognisable]
    if shown and not faces:
        raise PolicyError(
            f"{folder}: a head or face is in the field of {counted(len(shown), 'sample')} (such as "
            f"{shown[0]}), so this is not published; deface the scans and build again, or give "
            "--faces if they are defaced or you may show them"
        )
    return check.sentence


def passed_test(files: CheckpointFiles, folder: Path) -> str:
    """The sentence of a checkpoint's membership test, or that there is none.

    Args:
        files: The checkpoint.
        folder: Its folder, with the results of ``synthct privacy`` beside it.

    Raises:
        PolicyError: If members are told apart beyond chance, or the results are those of another
            checkpoint.
        VerifyError: If the results are damaged.
    """
    results = beside(folder, "privacy")
    if not (results / MEMBERSHIP).is_file():
        return "Membership of training patients: not assessed; run 'synthct privacy' on it."
    test = read_membership(results)
    if test.checkpoint_id != files.checkpoint_id:
        raise PolicyError(
            f"{results} is of checkpoint {test.checkpoint_id[:12]}, {folder} is "
            f"{files.checkpoint_id[:12]}; run 'synthct privacy {folder}' again"
        )
    if test.auc.low > MOST_AUC or test.true_positives.low > MOST_FOUND:
        raise PolicyError(
            f"{folder}: its loss tells whom it was trained on, so it is not published (AUC "
            f"{test.auc.low:.2f} to {test.auc.high:.2f}, at most {MOST_AUC}; "
            f"{test.true_positives.low:.0%} to {test.true_positives.high:.0%} of members found, at "
            f"most {MOST_FOUND:.0%}); train on more patients or for fewer steps"
        )
    return membership_sentence(test)


def _refuse_copies(folder: Path, check: PrivacyCheck) -> None:
    flagged = [one for one in check.regions if one.flags]
    if not flagged:
        return
    lines = [
        f"  {one.sample_id} {FLAGS[one.flags[0]]}"
        + (f" (patient {one.nearest_patient})" if one.nearest_patient else "")
        for one in flagged[:_NAMED]
    ]
    raise PolicyError(
        f"{folder}: {counted(len(flagged), 'painting')} may be copies of training patients, so "
        "this is not published; build again without these masks, or with another checkpoint\n"
        + "\n".join(lines)
        + (f"\n  ... and {len(flagged) - _NAMED:,} more" if len(flagged) > _NAMED else "")
    )
