"""Checkpoints on the Hub: published with their cards, read back by revision, and not trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from hub.faults import Fault
from hub.loopback import TOKEN
from hub.server import HubServer
from hub.store import Entry, Repo
from published import QUICK
from tiny_recipe import tiny_recipe, write_data
from typer.testing import CliRunner, Result

import synthct
from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.lockfile import read_lock
from synthct.dataset.records import front_matter
from synthct.errors import CheckpointError, HubError, PolicyError, RecipeError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import SUMS, write_sums
from synthct.models.networks.palette import Palette
from synthct.models.palette import PaletteInpaintPipeline
from synthct.publish.hub.gate import pack
from synthct.recipe.recipe import load_recipe

REPO = "jane/painter"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
Run = Callable[..., Result]


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A copy of the tiny checkpoint, to be changed."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "tiny")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("synthct.publish.hub.repo.RetryPolicy", lambda: QUICK)

    def run(path: Path | str, *words: str) -> Result:
        return CliRunner().invoke(app, ["publish", str(path), "--repo", REPO, *words])

    return run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a client that has never asked this Hub keeps what it gets."""
    folder = tmp_path / "client" / "hub"
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(huggingface_hub.constants, name, str(folder))
    return folder


def there(hub: HubServer) -> Repo:
    return hub.store.repos["model", REPO]


def test_a_checkpoint_is_published_and_read_back_by_its_tag(
    hub: HubServer, checkpoint: Path, run: Run, cache: Path
) -> None:
    result = run(checkpoint, "--tag", "1.0.0")
    assert result.exit_code == 0, result.output
    assert f"published: {hub.url}/{REPO}/tree/1.0.0" in result.output
    files = find_checkpoint(REPO, revision="1.0.0")
    assert files.revision == there(hub).tags["1.0.0"]
    assert cache in files.folder.parents
    assert files.checkpoint_id == find_checkpoint(str(checkpoint)).checkpoint_id
    ours = load_checkpoint(str(checkpoint))["unet"].state_dict()
    theirs = load_checkpoint(REPO, revision="1.0.0")["unet"].state_dict()
    pipeline = PaletteInpaintPipeline.from_pretrained(REPO, revision="1.0.0")
    straight = pipeline.unet.state_dict()
    assert ours.keys() == theirs.keys() == straight.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(ours[name], straight[name].float()) for name in ours)
    assert "is already published" in run(checkpoint, "--tag", "1.0.0").output


@pytest.mark.long
def test_a_build_paints_with_a_checkpoint_from_the_hub(
    hub: HubServer, checkpoint: Path, run: Run, cache: Path, tmp_path: Path
) -> None:
    run(checkpoint, "--tag", "1.0.0")
    recipe: dict[str, Any] = tiny_recipe(write_data(tmp_path / "data"), checkpoint, variants=1)
    recipe["inpaint"] |= {"checkpoint": REPO, "revision": "1.0.0"}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    folder = build(load_recipe(path), tmp_path / "out", cache_dir=tmp_path / "cache", workers=0)
    locked = read_lock(folder).checkpoint
    assert locked is not None
    assert (locked.name, locked.revision) == (REPO, there(hub).tags["1.0.0"])
    assert locked.id == find_checkpoint(str(checkpoint)).checkpoint_id


def test_a_later_checkpoint_goes_over_the_former_and_both_are_read(
    hub: HubServer, checkpoint: Path, run: Run, cache: Path, tmp_path: Path
) -> None:
    from conftest import write_tiny_checkpoint

    later = write_tiny_checkpoint(tmp_path / "later" / "tiny", seed=1)
    for folder, tag in ((checkpoint, "1.0.0"), (later, "1.1.0")):
        assert run(folder, "--tag", tag).exit_code == 0
    found = {tag: find_checkpoint(REPO, revision=tag) for tag in ("1.0.0", "1.1.0", "main")}
    assert found["1.0.0"].checkpoint_id == find_checkpoint(str(checkpoint)).checkpoint_id
    assert found["1.1.0"].checkpoint_id == found["main"].checkpoint_id
    assert found["1.1.0"].checkpoint_id == find_checkpoint(str(later)).checkpoint_id
    result = run(later, "--tag", "1.0.0")
    assert result.exit_code == 6
    for tag in ("1.0.0", "1.1.0"):
        assert found[tag].checkpoint_id[:12] in result.output
    del there(hub).tags["1.1.0"]  # as if its publisher had been killed just before
    assert run(checkpoint, "--tag", "1.1.0").exit_code == 6
    assert run(later, "--tag", "1.1.0").exit_code == 0
    assert "main stays at the later version" in run(checkpoint, "--tag", "1.0.1").output
    assert found["main"].revision == there(hub).branches["main"] == there(hub).tags["1.1.0"]


def test_the_starter_is_published_with_its_page_and_pictures(
    hub: HubServer, run: Run, cache: Path
) -> None:
    cards = Path(synthct.__file__).resolve().parents[1] / "model_cards"
    result = run("package:starter-2d", "--card", str(cards / "starter-2d.md"), "--tag", "1.0.0")
    assert result.exit_code == 0, result.output
    tree = there(hub).at("1.0.0").tree
    page = tree["README.md"].data.decode()
    own, _, privacy = page.partition("\n## Privacy\n")
    assert own.endswith((cards / "starter-2d.md").read_text())
    assert "not assessed" in privacy
    assert front_matter(page)["license"] == "cc-by-4.0"
    assert tree["starter-2d.png"].data == (cards / "starter-2d.png").read_bytes()
    found = find_checkpoint(REPO, revision="1.0.0")
    assert found.checkpoint_id == find_checkpoint("package:starter-2d").checkpoint_id
    assert there(hub).gated is False, "free to all"


def test_without_a_tag_only_main_moves(hub: HubServer, checkpoint: Path, run: Run) -> None:
    result = run(checkpoint)
    assert result.exit_code == 0
    assert there(hub).tags == {}
    assert f"revision {there(hub).branches['main']}" in result.output
    assert "is already published" in run(checkpoint).output


def test_what_lies_beside_a_checkpoint_stays_at_home(
    hub: HubServer, checkpoint: Path, run: Run
) -> None:
    (checkpoint / "optimizer.pt").write_bytes(b"\x80\x04K\x01.")
    (checkpoint / "notes.txt").write_text("mine")
    assert run(checkpoint).exit_code == 0
    names = {*Palette.layout.files_in(Path()), "training.json", SUMS, "README.md", ".gitattributes"}
    assert set(there(hub).at("main").tree) == names


def set_training(folder: Path, **changes: Any) -> None:
    path = folder / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_sums(folder)


@pytest.mark.parametrize("licence", [None, "ask-me", "CC-BY-NC-ND-4.0"])
def test_a_checkpoint_of_scans_that_may_not_be_passed_on_is_refused(
    checkpoint: Path, licence: str | None
) -> None:
    set_training(checkpoint, cases=[{"licence": licence}])
    with pytest.raises(PolicyError, match="training data of checkpoint 'tiny'"):
        pack(str(checkpoint))


def test_a_checkpoint_of_scans_under_stricter_terms_than_it_says_is_refused(
    checkpoint: Path,
) -> None:
    set_training(checkpoint, cases=[{"licence": "CC-BY-NC-SA-4.0"}])
    with pytest.raises(PolicyError, match=r"CC-BY-NC-SA-4\.0"):
        pack(str(checkpoint))


def test_a_card_that_states_another_licence_is_refused(checkpoint: Path) -> None:
    card = checkpoint / "README.md"
    card.write_text(card.read_text().replace("license: cc0-1.0", "license: mit"))
    with pytest.raises(PolicyError, match="says license: mit"):
        pack(str(checkpoint))


@pytest.mark.parametrize("name", [SUMS, "training.json", "README.md"])
def test_a_checkpoint_that_says_too_little_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    if name == "training.json":
        write_sums(checkpoint)
    with pytest.raises(CheckpointError, match=name):
        pack(str(checkpoint))


def test_a_damaged_checkpoint_is_refused(checkpoint: Path) -> None:
    path = checkpoint / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="SHA256SUMS"):
        pack(str(checkpoint))


@pytest.mark.parametrize(
    ("picture", "said"), [("../me.png", "not beside the card"), ("gone.png", "does not exist")]
)
def test_pictures_of_a_card_lie_beside_it(
    checkpoint: Path, tmp_path: Path, picture: str, said: str
) -> None:
    card = tmp_path / "cards" / "tiny.md"
    card.parent.mkdir()
    (tmp_path / "me.png").write_bytes(b"private")
    card.write_text(f"# tiny\n\n![a picture]({picture})\n")
    with pytest.raises(RecipeError, match=said):
        pack(str(checkpoint), card=card)


# Reading from a Hub that is not what it seems


@pytest.fixture
def published(hub: HubServer, checkpoint: Path, run: Run, cache: Path) -> Repo:
    assert run(checkpoint, "--tag", "1.0.0").exit_code == 0
    return there(hub)


def swap(repo: Repo, path: str, entry: Entry | None, name: str | None = None) -> None:
    """Let a commit hold other files than those that were committed."""
    oid = repo.tags["1.0.0"]
    tree = dict(repo.commits[oid].tree)
    old = tree.pop(path)
    tree[name or path] = entry or old
    commit = repo.commits[oid]
    repo.commits[oid] = type(commit)(oid, tree, commit.parent, commit.title, commit.number)


def outside(cache: Path) -> list[Path]:
    """What was written beside the client's cache."""
    return [path for path in cache.parent.rglob("*") if cache not in (path, *path.parents)]


@pytest.mark.parametrize("path", [WEIGHTS, "unet/config.json", "training.json"])
def test_other_bytes_of_the_same_size_are_found(published: Repo, cache: Path, path: str) -> None:
    data = bytearray(published.at("1.0.0").tree[path].data)
    data[-2] ^= 1
    swap(published, path, Entry(bytes(data), published.at("1.0.0").tree[path].sha256))
    with pytest.raises(CheckpointError):
        find_checkpoint(REPO, revision="1.0.0")


@pytest.mark.parametrize("name", ["../../evil.json", "/tmp/evil.json", "unet/../../../evil.json"])
def test_names_that_lead_out_are_not_followed(published: Repo, cache: Path, name: str) -> None:
    swap(published, "unet/config.json", None, name)
    with pytest.raises((CheckpointError, HubError)):
        find_checkpoint(REPO, revision="1.0.0")
    assert outside(cache) == []
    assert not Path("/tmp/evil.json").exists()


def test_hashes_that_lead_out_are_not_followed(
    published: Repo, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entry, "oid", property(lambda _: "../../../../evil"))
    with pytest.raises((CheckpointError, HubError)):
        find_checkpoint(REPO, revision="1.0.0")
    assert outside(cache) == []


def test_a_commit_that_is_none_is_refused(
    published: Repo, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oid, bad = published.tags["1.0.0"], "../../../../evil"
    commit = published.commits[oid]
    published.commits[bad] = type(commit)(bad, commit.tree, None, commit.title, 1)
    published.tags["1.0.0"] = bad
    with pytest.raises((CheckpointError, HubError)):
        find_checkpoint(REPO, revision="1.0.0")
    assert outside(cache) == []


@pytest.mark.parametrize(
    "kind", ["garbage", *(pytest.param(k, marks=pytest.mark.long) for k in ("cut", "401", "403"))]
)
def test_a_hub_that_answers_something_else_gives_nothing_or_the_checkpoint(
    hub: HubServer, published: Repo, cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    wanted = find_checkpoint(REPO, revision="1.0.0").checkpoint_id
    hub.faults.arm()
    shutil.rmtree(cache)
    find_checkpoint(REPO, revision="1.0.0")
    for at in range(1, len(hub.faults.seen) + 1):
        shutil.rmtree(cache, ignore_errors=True)
        hub.faults.arm(Fault(at, kind))
        with suppress(CheckpointError, HubError):
            assert find_checkpoint(REPO, revision="1.0.0").checkpoint_id == wanted
    assert outside(cache) == []


def test_a_token_that_the_hub_repeats_is_not_shown(
    hub: HubServer, published: Repo, cache: Path
) -> None:
    published.private, hub.store.users = True, {}
    with pytest.raises(HubError, match="<token>") as caught:
        find_checkpoint(REPO, revision="1.0.0")
    assert TOKEN not in str(caught.value)
