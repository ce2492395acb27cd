"""Datasets on the Hub: published through the command line, read back by the real clients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub.faults import Fault
from hub.loopback import TOKEN
from hub.server import HubServer
from hub.store import Entry, Repo
from published import QUICK, REPO, python, rewritten, send
from typer.testing import CliRunner, Result

from synthct.cli import app
from synthct.dataset.manifest import MANIFEST, read_manifest
from synthct.errors import ConflictError, PolicyError
from synthct.publish.hub.gate import pack

Run = Callable[..., Result]

READ = """
import sys, json
from datasets import load_dataset
from huggingface_hub import snapshot_download

repo, *revisions = sys.argv[1:]
found = {}
for revision in revisions:
    whole = load_dataset(repo, revision=revision, split="train")
    stream = load_dataset(repo, revision=revision, split="train", streaming=True)
    ids = [row["sample_id"] for row in stream]
    assert ids == list(whole["sample_id"])
    first = next(iter(stream))
    assert first["image"].size == whole[0]["image"].size
    assert list(first["image"].getdata()) == list(whole[0]["image"].getdata())
    snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=revision)
    found[revision] = {"rows": len(ids), "digests": list(whole["sample_digest"])}
print(json.dumps(found))
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``synthct publish`` with the retry_policy of a test."""
    monkeypatch.setattr("synthct.publish.hub.repo.RetryPolicy", lambda: QUICK)

    def run(path: Path | str, *words: str, repo: str = REPO) -> Result:
        return CliRunner().invoke(app, ["publish", str(path), "--repo", repo, *words])

    return run


def there(hub: HubServer) -> Repo:
    return hub.store.repos["dataset", REPO]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def shown(repo: Repo, revision: str) -> dict[str, bytes]:
    """Every file of a revision but the one that the Hub itself has put there."""
    tree = repo.at(revision).tree
    return {path: entry.data for path, entry in tree.items() if path != ".gitattributes"}


@pytest.mark.long
def test_two_versions_are_published_and_both_read_back_by_tag(
    hub: HubServer,
    versions: dict[str, Path],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in ("1.0.0", "1.1.0"):
        result = run(versions[version])
        assert result.exit_code == 0, result.output
        assert f"published: {hub.url}/datasets/{REPO}/tree/{version}" in result.output
    repo = there(hub)
    assert shown(repo, "main") == shown(repo, "1.1.0") == files_of(versions["1.1.0"])
    assert shown(repo, "1.0.0") == files_of(versions["1.0.0"])
    assert list(repo.branches) == ["main"]
    # main saw three trees: the empty one and the two versions
    assert [one.title for one in repo.history("main")] == [
        "Publish tiny 1.1.0",
        "Publish tiny 1.0.0",
        "initial commit",
    ]
    monkeypatch.chdir(tmp_path)
    found = json.loads(python(READ, tmp_path / "home", REPO, "1.0.0", "1.1.0"))
    assert found["1.0.0"]["rows"] == 8
    assert found["1.1.0"]["rows"] == 12
    assert set(found["1.0.0"]["digests"]) < set(found["1.1.0"]["digests"])
    checked = CliRunner().invoke(app, ["verify", "1.1.0"])
    assert checked.exit_code == 0, checked.output


def test_publishing_again_says_so_and_changes_nothing(
    hub: HubServer, versions: dict[str, Path], run: Run
) -> None:
    run(versions["1.0.0"])
    before = dict(there(hub).commits), dict(there(hub).branches), list(hub.store.received)
    result = run(versions["1.0.0"])
    assert result.exit_code == 0
    assert "is already published" in result.output
    assert (dict(there(hub).commits), dict(there(hub).branches), hub.store.received) == before


def test_a_version_with_other_content_is_refused_and_both_ids_named(
    hub: HubServer, versions: dict[str, Path], run: Run
) -> None:
    run(versions["1.0.0"])
    before = shown(there(hub), "1.0.0"), dict(there(hub).tags), dict(there(hub).branches)
    result = run(versions["other"])
    assert result.exit_code == 6
    for called in ("1.0.0", "other"):
        manifest = read_manifest(versions[called])
        assert manifest is not None
        assert manifest.release.content_id[:12] in result.output
    repo = there(hub)
    assert (shown(repo, "1.0.0"), dict(repo.tags), dict(repo.branches)) == before


@pytest.mark.long
def test_the_same_holds_before_the_tag_is_there(
    hub: HubServer, versions: dict[str, Path], run: Run
) -> None:
    run(versions["1.0.0"])
    del there(hub).tags["1.0.0"]
    assert run(versions["other"]).exit_code == 6
    assert run(versions["1.0.0"]).exit_code == 0
    assert there(hub).tags["1.0.0"] == there(hub).branches["main"]


@pytest.mark.long
def test_the_same_samples_in_other_files_are_the_same_version(
    hub: HubServer, versions: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    run(versions["1.0.0"])
    again = rewritten(versions["1.0.0"], tmp_path / "again", "README.md", b"\nAn afterthought.\n")
    result = run(again)
    assert result.exit_code == 0, result.output
    assert "is already published" in result.output
    assert shown(there(hub), "main") == files_of(versions["1.0.0"])


@pytest.mark.long
def test_an_older_version_goes_beside_the_later_one(
    hub: HubServer, versions: dict[str, Path], run: Run
) -> None:
    run(versions["1.1.0"])
    result = run(versions["1.0.0"])
    assert result.exit_code == 0
    assert "main stays at the later version" in result.output
    repo = there(hub)
    assert shown(repo, "main") == files_of(versions["1.1.0"])
    assert shown(repo, "1.0.0") == files_of(versions["1.0.0"])
    assert list(repo.branches) == ["main"]
    assert "is already published" in run(versions["1.0.0"]).output


def test_large_files_go_up_in_parts(hub: HubServer, versions: dict[str, Path], run: Run) -> None:
    hub.part_size, hub.page_size = 10_000, 3
    assert run(versions["1.0.0"]).exit_code == 0
    assert shown(there(hub), "1.0.0") == files_of(versions["1.0.0"])


def test_a_dry_run_lists_what_would_go_up_and_asks_nobody(
    hub: HubServer, versions: dict[str, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    result = run(versions["1.0.0"], "--dry-run")
    assert result.exit_code == 0
    for name, data in files_of(versions["1.0.0"]).items():
        assert re.search(rf"{len(data):,}  {re.escape(name)}\n", result.output)
    assert "CC-BY-NC-SA-4.0" in result.output
    assert "tag 1.0.0" in result.output
    assert "nothing was uploaded" in result.output
    assert hub.faults.seen == []


def test_without_a_token_nothing_is_asked(
    hub: HubServer, versions: dict[str, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    result = run(versions["1.0.0"])
    assert result.exit_code == 7
    assert "hf auth login" in result.output
    assert hub.faults.seen == []


@pytest.mark.parametrize("role", [None, "read"])
def test_a_token_that_is_unknown_or_may_only_read_is_refused_at_once(
    hub: HubServer, versions: dict[str, Path], run: Run, role: str | None
) -> None:
    hub.store.users = {} if role is None else {TOKEN: ("jane", role)}
    result = run(versions["1.0.0"])
    assert result.exit_code == 7
    assert "hf auth login" in result.output
    assert TOKEN not in result.output, "the Hub has put it into its answer"
    assert hub.store.repos == {}
    assert len(hub.faults.seen) <= 2


def test_a_repository_of_somebody_else_is_refused(
    hub: HubServer, versions: dict[str, Path], run: Run
) -> None:
    result = run(versions["1.0.0"], repo="joe/tiny")
    assert result.exit_code == 7
    assert "403" in result.output
    assert hub.store.repos == {}


@pytest.mark.long
def test_real_scans_are_gated_before_they_are_shown(
    hub: HubServer, versions: dict[str, Path]
) -> None:
    bundle = pack(str(versions["1.0.0"]))
    send(bundle)
    assert there(hub).gated == "auto"
    there(hub).gated = False  # its owner's to say from here on
    send(pack(str(versions["1.1.0"])))
    assert there(hub).gated is False


def test_private_stays_private(hub: HubServer, versions: dict[str, Path], run: Run) -> None:
    assert run(versions["1.0.0"], "--private").exit_code == 0
    assert there(hub).private
    there(hub).private = False
    result = run(versions["1.1.0"], "--private")
    assert result.exit_code == 9
    assert "public" in result.output
    assert list(there(hub).tags) == ["1.0.0"]


@pytest.mark.long
def test_what_others_have_put_there_stays_unless_it_would_be_read_as_samples(
    hub: HubServer, versions: dict[str, Path]
) -> None:
    repo = hub.store.create("dataset", REPO)
    own = {"LICENSE": Entry(b"mine"), "README.md": Entry(b"# soon\n")}
    repo.add("main", {**repo.at("main").tree, **own}, "by hand")
    send(pack(str(versions["1.0.0"])))
    assert shown(repo, "main") == {**files_of(versions["1.0.0"]), "LICENSE": b"mine"}
    stray = Entry(b"PAR1", "0" * 64)
    repo.add("main", {**repo.at("main").tree, "data/train-9.parquet": stray}, "by hand")
    with pytest.raises(ConflictError, match=r"data/train-9\.parquet"):
        send(pack(str(versions["1.1.0"])))


def test_a_repository_of_another_dataset_is_refused(
    hub: HubServer, versions: dict[str, Path], tmp_path: Path
) -> None:
    repo = hub.store.create("dataset", REPO)
    manifest = read_manifest(versions["1.0.0"])
    assert manifest is not None
    release = manifest.release.model_copy(update={"name": "liver"})
    text = type(manifest).of(release, manifest.files).text()
    repo.add("main", {MANIFEST: Entry(text.encode())}, "by hand")
    with pytest.raises(ConflictError, match="holds liver, not tiny"):
        send(pack(str(versions["1.0.0"])))


def test_files_that_the_repository_ignores_are_missed_before_main_changes(
    hub: HubServer, versions: dict[str, Path], run: Run
) -> None:
    repo = hub.store.create("dataset", REPO)
    ignoring = {".gitignore": Entry(b"synthct.lock\n")}
    before = repo.add("main", {**repo.at("main").tree, **ignoring}, "by hand")
    result = run(versions["1.0.0"])
    assert result.exit_code == 7
    assert "synthct.lock" in result.output
    assert ".gitignore" in result.output
    assert repo.branches["main"] == before.oid
    assert repo.tags == {}


@pytest.mark.parametrize("fault", [None, Fault(20, "403", lasting=True)])
def test_the_token_is_in_nothing_that_is_kept_or_said(
    hub: HubServer, versions: dict[str, Path], tmp_path: Path, fault: Fault | None
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text(TOKEN)  # as 'hf auth login' leaves it
    env = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"}
    hub.faults.arm(fault)
    words = ["publish", str(versions["1.0.0"]), "--repo", REPO, "--debug"]
    done = subprocess.run(
        [sys.executable, "-m", "synthct", *words],
        cwd=tmp_path,
        env={**env, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ("published" in done.stdout) == (done.returncode == 0) == (fault is None), done.stderr
    assert ("403 as ordered; you are Bearer <token>" in done.stderr) == (fault is not None)
    assert TOKEN not in done.stdout + done.stderr
    for name, data in files_of(tmp_path).items():
        assert TOKEN.encode() not in data or name == "home/token"
    for commit in there(hub).commits.values():
        assert not any(TOKEN.encode() in entry.data for entry in commit.tree.values())
    assert not any(TOKEN in request for request in hub.faults.seen)


def test_a_card_that_the_hub_refuses_stops_before_anything_goes_up(
    hub: HubServer, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = pack(str(versions["1.0.0"]))
    monkeypatch.setattr(type(bundle), "page", "---\nname: x\n---\n")
    with pytest.raises(PolicyError, match='"license" is required'):
        send(bundle)
    assert hub.store.repos == {}
