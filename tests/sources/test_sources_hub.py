"""Sources from the Hub: the real client against the Hub on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub.faults import Fault
from hub.loopback import TOKEN
from hub.server import HubServer
from published import send
from tiny_recipe import tiny_recipe, write_data, write_recipe
from training_recipes import tiny_fields
from typer.testing import CliRunner

from synthct.build.check import check
from synthct.build.compose import compose
from synthct.build.run import build
from synthct.build.verify.run import Originals, verify
from synthct.cli import app
from synthct.dataset.lockfile import read_lock
from synthct.dataset.manifest import read_manifest
from synthct.errors import ConflictError, HubError, RecipeError, ResourceError, SourceError
from synthct.evaluate.stream import Dataset, HostScans
from synthct.publish.export.run import export
from synthct.publish.hub.gate import pack
from synthct.recipe.recipe import Recipe, load_recipe
from synthct.sources import Index, Kits, Nifti, Source, TotalSegmentator, download, index_sources

REPO, TAG = "jane/scans", "1.0.0"

Upload = Callable[..., str]


@pytest.fixture
def upload(hub: HubServer) -> Upload:
    """Puts a folder into a dataset repository by the real client; gives the commit."""
    api = huggingface_hub.HfApi(token=TOKEN)

    def upload(folder: Path, repo: str = REPO, tag: str | None = TAG) -> str:
        if ("dataset", repo) not in hub.store.repos:
            api.create_repo(repo, repo_type="dataset")
        done = api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)
        if tag is not None:
            api.create_tag(repo, tag=tag, repo_type="dataset")
        hub.faults.arm()
        return str(done.oid)

    return upload


def index_of(source: Source, cache: Path) -> Index:
    return index_sources(download({"hosts": source}, cache), ("kidney",), cache_dir=cache)


def known(index: Index) -> list[tuple[str | None, ...]]:
    """What the content of a dataset follows from."""
    return [(e.case_id, e.voxel_sha256, e.label_sha256, e.split) for e in index.entries("hosts")]


def files_of(root: Path) -> dict[Path, bytes]:
    """Every file that is not hidden."""
    found = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name.parts[0][0] != "."}


def nifti(root: Path) -> dict[str, Any]:
    """A nnU-Net folder with a case whose name means something to patterns."""
    for case in ("case_00000", "case_00001"):
        name = case.replace("case_", "[a]_")
        for kind, folder in (("imaging", "imagesTr"), ("segmentation", "labelsTr")):
            (root / folder).mkdir(exist_ok=True, parents=True)
            shutil.copy(root.parent / f"dataset/{case}/{kind}.nii.gz", root / folder / name)
            (root / folder / name).rename(root / folder / f"{name}[x].nii.gz")
    patterns = {"image": "imagesTr/{case}[x].nii.gz", "labels": "labelsTr/{case}[x].nii.gz"}
    return {**patterns, "label_names": {"kidney": 1, "tumor": 2}}


@pytest.mark.parametrize("layout", ["kits", "totalsegmentator", "nifti"])
def test_a_repository_is_the_same_source_as_its_folder(
    layout: str, kits_root: Path, organs_root: Path, tmp_path: Path, upload: Upload
) -> None:
    kinds = {"kits": (Kits, kits_root), "totalsegmentator": (TotalSegmentator, organs_root)}
    make, root = kinds.get(layout, (Nifti, tmp_path / "nnunet"))
    fields = nifti(root) if layout == "nifti" else {}
    if layout == "totalsegmentator":
        (root / "meta.csv").write_text("image_id;split\ns0001;test\n")
    wanted = files_of(root)
    (root / "paper.pdf").write_bytes(b"of no use here")
    commit = upload(root)

    source = make(repo=REPO, revision=TAG, **fields).download(tmp_path / "cache")
    assert source.revision == commit
    assert not any(path.is_symlink() for path in source.root.rglob("*"))
    assert files_of(source.root) == wanted
    away = known(index_of(make(repo=REPO, revision=TAG, **fields), tmp_path / "cache"))
    assert away == known(index_of(make(root=root, **fields), tmp_path / "cache"))


def test_the_hub_is_asked_once_for_files_and_not_at_all_for_a_known_commit(
    hub: HubServer, kits_root: Path, tmp_path: Path, upload: Upload
) -> None:
    commit = upload(kits_root)
    first = Kits(repo=REPO, revision=TAG).download(tmp_path)
    hub.faults.arm()
    again = Kits(repo=REPO, revision=TAG).download(tmp_path)
    assert again == first
    assert [request.split("?")[0] for request in hub.faults.seen] == [
        f"GET /api/datasets/{REPO}/revision/{TAG}"
    ]
    hub.faults.arm(Fault(1, "403", lasting=True))
    assert Kits(repo=REPO, revision=commit).download(tmp_path) == first
    assert hub.faults.seen == []


def test_a_download_that_broke_off_is_gone_on_with(
    hub: HubServer, kits_root: Path, tmp_path: Path, upload: Upload
) -> None:
    commit = upload(kits_root)
    source = Kits(repo=REPO, revision=TAG)
    for asked in range(1, 5):  # the commit, the listing, and the first files
        hub.faults.arm(Fault(asked, "403", lasting=True))
        with pytest.raises(HubError, match=f"dataset repository '{REPO}' at revision") as told:
            source.download(tmp_path)
        assert TOKEN not in str(told.value)
        assert len(hub.faults.seen) >= asked
    hub.faults.arm()
    assert source.download(tmp_path).revision == commit
    local = known(index_of(Kits(root=kits_root), tmp_path))
    assert known(index_of(source, tmp_path)) == local


def test_what_the_client_settles_for_is_not_taken_for_all(
    kits_root: Path, tmp_path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(kits_root)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: "as far as it came")
    for _ in range(2):
        with pytest.raises(HubError, match=r"case_00000/imaging.nii.gz did not come; run"):
            Kits(repo=REPO, revision=TAG).download(tmp_path)


@pytest.mark.parametrize("name", ["case_00000/imaging.nii.gz", ".complete"])
def test_what_was_damaged_since_is_told_and_fetched_again(
    hub: HubServer,
    kits_root: Path,
    tmp_path: Path,
    upload: Upload,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    commit = upload(kits_root)
    source = Kits(repo=REPO, revision=commit)
    root = source.download(tmp_path).root
    assert root is not None
    good = files_of(root)
    victim = root / name
    content = victim.read_bytes()
    victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    hub.faults.arm(Fault(1, "403", lasting=True))
    with pytest.raises(HubError, match="did not deliver it"):  # never used as it is
        source.download(tmp_path)
    assert f"{victim} is damaged" in caplog.text
    hub.faults.arm()
    assert source.download(tmp_path).root == root
    assert files_of(root) == good
    assert source.download(tmp_path).root == root
    assert caplog.text.count("is damaged") == 1


def test_other_bytes_than_the_hub_lists_are_refused(
    kits_root: Path, tmp_path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(kits_root)
    fetch = huggingface_hub.snapshot_download

    def flipping(*args: Any, local_dir: Path, **kwargs: Any) -> str:
        fetch(*args, local_dir=local_dir, **kwargs)
        (local_dir / "case_00001/segmentation.nii.gz").write_bytes(b"something else")
        return str(local_dir)

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "snapshot_download", flipping)
        with pytest.raises(HubError, match=r"case_00001/segmentation.nii.gz came with other bytes"):
            Kits(repo=REPO, revision=TAG).download(tmp_path)
    root = Kits(repo=REPO, revision=TAG).download(tmp_path).root
    assert root is not None
    assert files_of(root) == files_of(kits_root)


def test_what_is_not_there_is_told(
    hub: HubServer, kits_root: Path, organs_root: Path, tmp_path: Path, upload: Upload
) -> None:
    upload(kits_root)
    with pytest.raises(HubError, match=r"'jane/scan' at revision '1.0.0': .* check both names"):
        Kits(repo="jane/scan", revision=TAG).download(tmp_path)
    with pytest.raises(HubError, match=r"'jane/scans' at revision '2.0.0'"):
        Kits(repo=REPO, revision="2.0.0").download(tmp_path)
    with pytest.raises(SourceError, match=r"It holds what jane/scans has for this layout"):
        index_of(TotalSegmentator(repo=REPO, revision=TAG), tmp_path)
    hub.store.users = {}  # the Hub repeats an unknown token
    hub.store.repos["dataset", REPO].private = True
    with pytest.raises(HubError) as told:
        Kits(repo=REPO, revision=TAG).download(tmp_path)
    assert TOKEN not in str(told.value)
    (tmp_path / "file").touch()
    hub.store.users[TOKEN] = ("jane", "write")
    with pytest.raises(ResourceError, match=r"file/hub/.*cannot be written"):
        Kits(repo=REPO, revision=TAG).download(tmp_path / "file")


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ({"root": "x", "repo": REPO, "revision": TAG}, "not both"),
        ({}, "neither is there"),
        ({"repo": REPO}, "repo needs a revision"),
        ({"root": "x", "revision": TAG}, "revision belongs to repo"),
        ({"repo": "scans", "revision": TAG}, "write it as owner/name"),
        ({"repo": "https://hub/jane/scans", "revision": TAG}, "write it as owner/name"),
        ({"repo": REPO, "revision": 1.0}, "text"),
        ({"repos": REPO, "revision": TAG}, "did you mean 'repo'"),
    ],
)
def test_a_mistake_is_told_at_its_line(hosts: dict[str, Any], told: str, tmp_path: Path) -> None:
    sources = {"hosts": {"layout": "kits23", **hosts}}
    path = write_recipe(tmp_path / "x.yaml", tmp_path, tmp_path, sources=sources)
    with pytest.raises(RecipeError, match=rf"x\.yaml:\d+:\d+: sources\.hosts.*{told}"):
        load_recipe(path)


def test_a_phantom_comes_from_no_hub(tmp_path: Path) -> None:
    sources = {"hosts": {"layout": "phantom", "repo": REPO, "revision": TAG}}
    path = write_recipe(tmp_path / "x.yaml", tmp_path, tmp_path, sources=sources)
    with pytest.raises(RecipeError, match=r"x\.yaml:\d+:\d+: sources\.hosts\.repo: "):
        load_recipe(path)


# --- whole stages ---

BLOB = [{"name": "blob", "kind": "blob", "radius_mm": [3, 6]}]
TUMORS = [{"name": "t", "kind": "transplant", "label": "tumor", "into": "kidney",
           "accept": {"inside_fraction": 0.5}}]  # fmt: skip
SMALL = {"masks": [*BLOB, *TUMORS], "masks_per_case": 2, "variants": 1, "splits": {"train": 1.0}}


def of_hub(**revisions: str) -> dict[str, Any]:
    """``hosts`` and ``donors`` in repositories of these names."""
    return {
        name: {"layout": "kits23", "repo": f"jane/{name}", "revision": revision}
        for name, revision in revisions.items()
    }


def content_id(folder: Path) -> str:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest.release.content_id


@pytest.mark.long
def test_a_published_dataset_is_built_again_from_what_it_says_of_itself(
    hub: HubServer, upload: Upload, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data, cache = write_data(tmp_path / "data"), tmp_path / "cache"
    local = Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, **SMALL))
    mine = build(local, tmp_path / "local", cache_dir=cache, workers=0)
    commits = {name: upload(data / name, f"jane/{name}") for name in ("hosts", "donors")}
    fields = tiny_recipe(data, tiny_checkpoint, **SMALL, sources=of_hub(hosts=TAG, donors=TAG))
    recipe = Recipe.model_validate(fields)
    built = build(recipe, tmp_path / "hub", cache_dir=cache, workers=0)

    # the same scans, wherever they come from
    assert content_id(built) == content_id(mine)
    assert recipe.recipe_id == local.recipe_id
    lock = read_lock(built)
    assert lock.recipe_id == read_lock(mine).recipe_id
    assert not lock.differences(read_lock(mine))
    assert {n: (s.repo, s.revision) for n, s in lock.sources.items()} == {
        name: (f"jane/{name}", commit) for name, commit in commits.items()
    }
    for document in ("README.md", "attribution.md"):
        text = (built / document).read_text()
        assert all(f"jane/{name}@{commit}" in text for name, commit in commits.items())
    assert str(tmp_path) not in (built / "recipe.yaml").read_text()

    # published, and the tags of its sources moved on
    send(pack(str(built)))
    for name in commits:
        del hub.store.repos["dataset", f"jane/{name}"].tags[TAG]
    shown = huggingface_hub.snapshot_download(
        "jane/tiny", repo_type="dataset", revision="1.0.0", local_dir=tmp_path / "shown"
    )
    stored = load_recipe(Path(shown) / "recipe.yaml", checkpoint=tiny_checkpoint)
    again = build(
        stored, tmp_path / "again", cache_dir=tmp_path / "new", lock=Path(shown), workers=0
    )
    assert content_id(again) == content_id(built)
    assert (again / "recipe.yaml").read_bytes() == (built / "recipe.yaml").read_bytes()

    # made again from the sources by verify; a local copy will do as well
    for level, sources in ((3, {}), (2, {name: data / name for name in commits})):
        given = Originals(sources, tiny_checkpoint, cache_dir=cache, workers=0, samples=1)
        report = verify(Path(shown), level=level, originals=given)
        assert report.findings == ()
        assert len(report.levels) == level + 1


def test_a_branch_that_moved_is_refused_by_a_locked_build(
    upload: Upload, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data, cache = write_data(tmp_path / "data"), tmp_path / "cache"
    upload(data / "hosts", "jane/hosts", tag=None)
    small = {**SMALL, "masks": BLOB, "sources": of_hub(hosts="main")}
    recipe = Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, **small))
    built = build(recipe, tmp_path / "out", cache_dir=cache, workers=0)
    (data / "hosts/case_00000/segmentation.nii.gz").unlink()
    shutil.copy(
        data / "hosts/case_00001/segmentation.nii.gz",
        data / "hosts/case_00000/segmentation.nii.gz",
    )
    upload(data / "donors", "jane/hosts", tag=None)
    with pytest.raises(ConflictError, match=r"does not hold here"):
        build(recipe, tmp_path / "other", cache_dir=cache, lock=built, workers=0)


def test_hosts_from_the_hub_compose_and_give_neighbours(
    upload: Upload, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data, cache = write_data(tmp_path / "data"), tmp_path / "cache"
    upload(data / "hosts", "jane/hosts")
    small = {**SMALL, "masks": BLOB, "sources": of_hub(hosts=TAG), "keep_original": False}
    made = {
        release: build(
            Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, **small, release=release)),
            tmp_path / release,
            cache_dir=cache,
            workers=0,
        )
        for release in ("full", "patch")
    }
    for given in ({}, {"hosts": data / "hosts"}):
        out = compose(
            made["patch"], tmp_path / f"whole{len(given)}", sources=given, cache_dir=cache
        )
        for path in made["full"].iterdir():
            if path.is_file():
                assert path.read_bytes() == (out / path.name).read_bytes(), path.name
    folder = made["full"]
    dataset = Dataset(folder)
    assert HostScans(dataset, {}, cache).picture(next(dataset.samples()), 0) is not None


def test_an_export_on_the_hub_is_a_source(
    upload: Upload, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    data, cache = write_data(tmp_path / "data"), tmp_path / "cache"
    small = {**SMALL, "masks": BLOB}
    recipe = Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, **small))
    built = build(recipe, tmp_path / "out", cache_dir=cache, workers=0)
    exported = export(built, "nifti", tmp_path / "plain")
    upload(exported)
    patterns = {"image": "*/{case}_image.nii.gz", "labels": "*/{case}_label_map.nii.gz"}
    source = Nifti(repo=REPO, revision=TAG, label_names={"kidney": 1, "tumor": 2}, **patterns)
    away = known(index_of(source, cache))
    assert len(away) == 4
    assert away == known(index_of(source.in_folder(exported), cache))
    assert_patients_of_an_export(source.in_folder(exported), exported, data, cache)


def assert_patients_of_an_export(source: Nifti, exported: Path, data: Path, cache: Path) -> None:
    """Whose scans were painted is in the export's tables, not in the names of its files."""
    people = {entry.patient_id for entry in index_of(source, cache).entries("hosts")}
    assert people <= {path.name for path in (data / "hosts").iterdir()}
    assert source.download(cache).licence == "CC-BY-NC-SA-4.0"
    (exported / "samples.csv").rename(exported / "samples.txt")
    again = {entry.patient_id for entry in index_of(source, cache).entries("hosts")}
    assert again == people, "the tables beside the files say the same"
    for table in exported.glob("*/metadata.parquet"):
        table.unlink()
    with pytest.raises(SourceError, match="say who the patients are"):
        index_of(source, cache)


@pytest.mark.long
def test_training_takes_its_scans_from_the_hub(
    upload: Upload, kits_root: Path, tmp_path: Path
) -> None:
    commit = upload(kits_root)
    scans = {"layout": "kits23", "repo": REPO, "revision": TAG}
    fields = tiny_fields(kits_root, sources={"scans": scans})
    fields |= {"optim": {**fields["optim"], "max_steps": 1}}
    (tmp_path / "train.yaml").write_text(json.dumps(fields))
    done = CliRunner().invoke(
        app,
        ["train", str(tmp_path / "train.yaml"), "--output", str(tmp_path / "run"),
         "--cache-dir", str(tmp_path / "cache"), "--device", "cpu", "--workers", "0"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "run/checkpoint/training.json").read_text())
    assert told["repositories"] == {"scans": f"{REPO}@{commit}"}
    assert f"`scans` is `{REPO}@{commit}`" in (tmp_path / "run/checkpoint/README.md").read_text()


def test_a_folder_of_the_command_line_wins(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """No Hub answers here."""
    data = write_data(tmp_path / "data")
    sources = of_hub(hosts=TAG)
    path = write_recipe(
        tmp_path / "x.yaml", data, tiny_checkpoint, **{**SMALL, "masks": BLOB, "sources": sources}
    )
    recipe = load_recipe(path, sources={"hosts": data / "hosts"})
    checked = check(recipe, cache_dir=tmp_path / "cache")
    assert checked.locked_sources()["hosts"].repo is None
    assert recipe.resolved()["sources"]["hosts"]["root"] == "${HOSTS_ROOT}"
