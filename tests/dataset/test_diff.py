"""What differs between two versions, and how far apart their numbers must be."""

from __future__ import annotations

from pathlib import Path

import dataset_rows
import pytest
from dataset_rows import LOCK, complete, stage
from typer.testing import CliRunner

from synthct.cli import app
from synthct.dataset.diff import compare
from synthct.dataset.lockfile import write_lock
from synthct.dataset.version import commit
from synthct.errors import ConflictError, VerifyError


def version(
    root: Path, number: str, samples: list[int], *, seed: str = "", licence: str | None = None
) -> Path:
    """A version with these samples; of another ``seed`` the card is another."""
    staging, records = stage(root / number, samples)
    if seed:
        (staging.tree / "README.md").write_text(seed)
    manifest = complete(staging, records, version=number)
    if licence is not None:
        from synthct.dataset.manifest import write_manifest

        write_lock(staging.tree, LOCK.model_copy(update={"licence": licence}))
        manifest = write_manifest(staging.tree, manifest.release, records)
    return commit(staging, manifest)


def sample(number: int) -> str:
    return f"host.boxes.d{number:03d}.s0.v0"


SIX = list(range(6))


def test_a_version_is_no_step_from_itself(tmp_path: Path) -> None:
    one = version(tmp_path / "a", "1.0.0", SIX)
    found = compare(one, version(tmp_path / "b", "1.0.0", SIX))
    assert (found.added, found.gone, found.changed, found.step) == ((), (), (), "none")
    found.require_step()


@pytest.mark.parametrize(
    ("samples", "added", "gone", "step", "least"),
    [
        (SIX, [], [], "patch", "1.4.8"),
        ([*SIX, 6, 7], [6, 7], [], "minor", "1.5.0"),
        (SIX[:5], [], [5], "major", "2.0.0"),
        ([*SIX[:5], 9], [9], [5], "major", "2.0.0"),
        (SIX[::-1], [], [], "patch", "1.4.8"),
    ],
)
def test_the_least_step_follows_from_the_samples(
    tmp_path: Path, samples: list[int], added: list[int], gone: list[int], step: str, least: str
) -> None:
    old = version(tmp_path / "a", "1.4.7", SIX)
    found = compare(old, version(tmp_path / "b", "9.0.0", samples, seed="another card"))
    assert found.added == tuple(map(sample, added))
    assert found.gone == tuple(map(sample, gone))
    assert (found.changed, found.step, found.least) == ((), step, least)
    assert found.is_reordered == (samples == SIX[::-1])
    found.require_step()


def test_samples_of_other_content_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = version(tmp_path / "a", "1.0.0", SIX)
    monkeypatch.setitem(dataset_rows.PROVENANCE, "noise_seed", 1)
    found = compare(old, version(tmp_path / "b", "2.0.0", [*SIX, 6]))
    assert found.changed == tuple(map(sample, SIX))
    assert (found.added, found.step) == ((sample(6),), "major")


def test_a_smaller_step_is_refused_and_a_greater_one_is_not(tmp_path: Path) -> None:
    old = version(tmp_path / "a", "1.4.7", SIX)
    for number in ("1.4.6", "1.4.8", "0.9.9"):
        found = compare(old, version(tmp_path / number, number, [*SIX, 6]))
        with pytest.raises(ConflictError, match=f"{number} is too small a step from 1.4.7.*1.5.0"):
            found.require_step()
    for number in ("1.5.0", "1.7.2", "2.0.0"):
        compare(old, version(tmp_path / number, number, [*SIX, 6])).require_step()


def test_one_version_with_two_contents_is_refused_with_both_ids(tmp_path: Path) -> None:
    one = version(tmp_path / "a", "1.0.0", SIX)
    found = compare(one, version(tmp_path / "b", "1.0.0", SIX[:4]))
    ids = f"{found.old.content_id[:12]} in one and {found.new.content_id[:12]} in the other"
    with pytest.raises(ConflictError, match=f"version 1.0.0 is content {ids}") as err:
        found.require_step()
    assert err.value.exit_code == 6


def test_another_licence_is_a_major_step(tmp_path: Path) -> None:
    old = version(tmp_path / "a", "1.0.0", SIX)
    found = compare(old, version(tmp_path / "b", "1.1.0", SIX, licence="CC-BY-NC-4.0"))
    assert (found.step, found.licences) == ("major", ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"))
    with pytest.raises(ConflictError, match=r"2\.0\.0 at least"):
        found.require_step()


def test_the_command_lists_samples_and_refuses(tmp_path: Path) -> None:
    old = version(tmp_path / "a", "1.0.0", SIX)
    new = version(tmp_path / "b", "1.0.1", [*SIX[1:], *range(10, 30)])
    done = CliRunner().invoke(app, ["diff", str(old), str(new)])
    assert done.exit_code == 6
    assert f"  gone    1\n    {sample(0)}\n" in done.output
    assert "  new     20\n" in done.output
    assert "and 8 more" in done.output
    assert "step    major: 2.0.0 at least" in done.output
    assert "too small a step" in done.output
    assert CliRunner().invoke(app, ["diff", str(old), str(old)]).exit_code == 0


def test_what_is_no_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="no finished dataset"):
        compare(tmp_path, tmp_path)
