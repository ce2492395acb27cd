"""Checkpoints: what is loaded is exactly what was written, or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from conftest import pipeline_of, write_tiny_checkpoint
from huggingface_hub.errors import (
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionResolutionError,
)
from safetensors.torch import load_file, save_file

import synthct
from synthct.errors import CheckpointError, HubError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import SUMS, write_sums
from synthct.models.methods import Diffusion
from synthct.models.networks.palette import Palette
from synthct.models.painting import Inpainter
from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet

FILES = Palette.layout.files_in(Path())
(WEIGHTS,) = Palette.layout.weights
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def copied(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may change: without the sums that would tell."""
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    (copy / SUMS).unlink()
    return copy


def edit(path: Path, **changes: Any) -> None:
    """Set (or, with ``...``, drop) fields of a JSON file."""
    value = json.loads(path.read_text())
    for key, new in changes.items():
        if new is ...:
            del value[key]
        else:
            value[key] = new
    path.write_text(json.dumps(value))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


# Loading


def test_checkpoint_comes_back_as_it_was_written(tiny_checkpoint: Path) -> None:
    loaded = load_checkpoint(str(tiny_checkpoint))
    assert list(loaded["unet"].config["labels"]) == ["kidney", "tumor", "lung"]
    assert loaded.files.name == "tiny"
    assert loaded.files.training["name"] == "tiny"
    stored = load_file(tiny_checkpoint / WEIGHTS)
    weights = loaded["unet"].state_dict()
    assert {t.dtype for t in stored.values()} == {torch.float16}
    assert weights.keys() == stored.keys()
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())
    assert not loaded["unet"].training
    assert not any(p.requires_grad for p in loaded["unet"].parameters())


def test_loading_draws_no_random_numbers(tiny_checkpoint: Path) -> None:
    before = torch.random.get_rng_state()
    load_checkpoint(str(tiny_checkpoint))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tiny_checkpoint_is_the_same_every_time(tiny_checkpoint: Path, tmp_path: Path) -> None:
    again = find_checkpoint(str(write_tiny_checkpoint(tmp_path / "again")))
    other = find_checkpoint(str(write_tiny_checkpoint(tmp_path / "other", seed=1)))
    assert again.checkpoint_id == find_checkpoint(str(tiny_checkpoint)).checkpoint_id
    assert other.checkpoint_id != again.checkpoint_id


def test_plain_diffusers_loads_the_checkpoint_and_paints_the_same(tiny_checkpoint: Path) -> None:
    ours = pipeline_of(
        Inpainter(load_checkpoint(str(tiny_checkpoint)), Diffusion(scheduler="ddim"))
    )
    theirs = synthct.PaletteInpaintPipeline.from_pretrained(tiny_checkpoint)
    assert isinstance(theirs, PaletteInpaintPipeline)
    assert theirs.unet.dtype == torch.float32
    assert isinstance(theirs.unet, synthct.PaletteUNet)
    theirs.unet.to(memory_format=torch.channels_last)
    theirs.scheduler = ours.scheduler
    image = torch.rand((2, 1, 32, 32), generator=torch.Generator().manual_seed(3)) * 2 - 1
    mask = torch.zeros_like(image)
    mask[:, :, 8:20, 8:20] = 1
    painted = [
        pipeline(
            image=image,
            mask_image=mask,
            label=torch.tensor([0, 1]),
            spacing_mm=torch.full((2, 2), 0.8),
            generator=[torch.Generator().manual_seed(n) for n in range(2)],
            num_inference_steps=3,
        )
        for pipeline in (ours, theirs)
    ]
    assert torch.equal(*painted)


@pytest.mark.parametrize("scheduler", ["ddpm", "dpmsolver++", "unipc", "euler"])
def test_saved_by_diffusers_is_loaded_by_synthct(
    tiny_checkpoint: Path, tmp_path: Path, scheduler: str
) -> None:
    """Also with the -Infinity that diffusers writes for what some schedulers do not clip."""
    loaded = load_checkpoint(str(tiny_checkpoint))
    pipeline = pipeline_of(Inpainter(loaded, Diffusion(scheduler=scheduler)))
    pipeline.save_pretrained(tmp_path / "saved")
    again = load_checkpoint(str(tmp_path / "saved"))
    for name, tensor in again["unet"].state_dict().items():
        assert torch.equal(tensor, loaded["unet"].state_dict()[name])


def test_public_names_stay_what_they_are_after_imports() -> None:
    import synthct.build.run
    import synthct.models.painting

    for name in ("build", "inpaint"):
        assert type(getattr(synthct, name)).__name__ == "function"
    assert synthct.PaletteUNet is PaletteUNet
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        _ = synthct.paint


# Identity


def test_checkpoint_id_changes_with_every_file_and_with_nothing_else(copied: Path) -> None:
    first = find_checkpoint(str(copied)).checkpoint_id
    assert len(first) == 64
    (copied / "README.md").write_text("another card")
    moved = copied.rename(copied.with_name("moved"))
    assert find_checkpoint(str(moved)).checkpoint_id == first
    seen = {first}
    for name in FILES:
        path = moved / name
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        seen.add(find_checkpoint(str(moved)).checkpoint_id)
        path.write_bytes(before)
    assert len(seen) == 1 + len(FILES)
    assert find_checkpoint(str(moved)).checkpoint_id == first


def test_weights_that_change_after_they_were_hashed_are_refused(copied: Path) -> None:
    files = find_checkpoint(str(copied))
    edit_tensors(copied, lambda t: t.update({"unet.conv_out.bias": t["unet.conv_out.bias"] + 1}))
    with pytest.raises(CheckpointError, match="changed after it was checked"):
        load_checkpoint(files)


def test_training_scans_are_known_by_their_voxels(copied: Path) -> None:
    assert find_checkpoint(str(copied)).trained_on == frozenset()
    edit(copied / "training.json", cases=[{"voxel_sha256": "ab"}, {"voxel_sha256": None}])
    assert find_checkpoint(str(copied)).trained_on == {"ab"}
    (copied / "training.json").unlink()
    assert find_checkpoint(str(copied)).trained_on == frozenset()


# Refusals: each names what is wrong and what to do


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=f"'copy' lacks {name}; name the folder"):
        find_checkpoint(str(copied))


class Canary:
    """Unpickling one leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_pickles_are_never_opened(copied: Path, tmp_path: Path, suffix: str) -> None:
    canary = tmp_path / "it ran"
    torch.save(Canary(canary), (copied / WEIGHTS).with_suffix(suffix))
    load_checkpoint(str(copied))  # beside the safetensors it is not looked at
    (copied / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"holds pickles \(diffusion.*never opened; convert"):
        load_checkpoint(str(copied))
    assert not canary.exists()


@pytest.mark.parametrize("name", ["pipeline.py", "unet/modeling_unet.py"])
def test_code_beside_the_weights_is_refused(copied: Path, name: str) -> None:
    (copied / name).write_text("raise SystemExit('it ran')\n")
    with pytest.raises(CheckpointError, match=rf"Python code \({name}\), which synthct never runs"):
        load_checkpoint(str(copied))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": ["diffusers", "UNet2DModel"]}, "network .*UNet2DModel.*runs PaletteUNet only"),
        ({"unet": ["evil.module", "PaletteUNet"]}, "network .*evil.module"),
        ({"unet": ["PaletteUNet"]}, "network"),
        ({"unet": []}, "network"),
        ({"unet": None}, "network"),
        ({"unet": ...}, "network"),
        ({"unet": [None, {"a": 1}]}, "network"),
        ({"_class_name": "StableDiffusionPipeline"}, "pipeline StableDiffusionPipeline"),
        ({"_class_name": ["pipeline", "PaletteInpaintPipeline"]}, "pipeline"),
        ({"_class_name": ...}, "pipeline None"),
    ],
    ids=str,
)
def test_other_classes_are_refused(copied: Path, changes: dict[str, Any], message: str) -> None:
    edit(copied / "model_index.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(copied))


def test_config_of_another_class_is_refused(copied: Path) -> None:
    edit(copied / "unet/config.json", _class_name="UNet2DModel")
    with pytest.raises(CheckpointError, match="asks for the network UNet2DModel"):
        load_checkpoint(str(copied))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codecs": ...}, "config .*codecs"),
        ({"labels": ...}, "config .*labels"),
        ({"codecs": {"default": "unheard"}}, "config .*unheard"),
        ({"patch_sizes": [32, 62]}, r"patch_sizes \[62\] are not multiples of 4"),
        ({"block_out_channels": [8, 17]}, "config is wrong"),
        ({"block_out_channels": [-8, 16]}, "config is wrong"),
        ({"block_out_channels": []}, "config is wrong"),
        ({"norm_num_groups": 0}, "config is wrong"),
        ({"layers_per_block": "two"}, "config is wrong"),
        ({"block_out_channels": [800, 1600]}, "tensor .* the config expects"),
        ({"block_out_channels": [80_000, 160_000]}, "config is wrong"),
    ],
    ids=str,
)
def test_config_that_does_not_fit_is_refused(
    copied: Path, changes: dict[str, Any], message: str
) -> None:
    edit(copied / "unet/config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(copied))


@pytest.mark.parametrize("name", [n for n in FILES if n != WEIGHTS])
@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"], ids=["cut", "list", "bytes"])
def test_json_that_is_damaged_is_named(copied: Path, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"'copy': {Path(name).name} is not"):
        load_checkpoint(str(copied))


NAME = "unet.mid_block.attentions.0.to_q.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), f"{NAME} is None, the config expects \\(16, 16\\)"),
        (lambda t: t.update(extra=torch.zeros(3)), r"extra is \(3,\), the config expects None"),
        (lambda t: t.update({NAME: torch.zeros(16, 8)}), rf"{NAME} is \(16, 8\), the config"),
        (lambda t: t[NAME].view(-1)[7].fill_(float("nan")), f"{NAME} is not finite"),
        (lambda t: t[NAME].view(-1)[7].fill_(float("-inf")), f"{NAME} is not finite"),
        (lambda t: t.update({NAME: t[NAME].short()}), f"{NAME} is torch.int16, not a float"),
    ],
    ids=["missing", "extra", "shape", "nan", "inf", "integers"],
)
def test_wrong_tensor_is_named(
    copied: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    edit_tensors(copied, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(copied))


@pytest.mark.parametrize("share", [0.0, 0.00005, 0.05, 0.5, 0.99999])
def test_weights_cut_short_are_refused(copied: Path, share: float) -> None:
    path = copied / WEIGHTS
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(CheckpointError, match=r"safetensors is damaged \("):
        load_checkpoint(str(copied))


@pytest.mark.long
def test_no_flipped_bit_in_the_header_changes_a_weight(copied: Path) -> None:
    """A flip is an error, or (in the free text of the header) changes the id but no weight."""
    path = copied / WEIGHTS
    raw = path.read_bytes()
    first = find_checkpoint(str(copied)).checkpoint_id
    expected = load_checkpoint(str(copied))["unet"].state_dict()
    end = 8 + int.from_bytes(raw[:8], "little")
    refused = 0
    places = [*range(0, 64, 5), *range(64, 8 * end, 8 * end // 60)]
    for bit in places:
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert find_checkpoint(str(copied)).checkpoint_id != first
            weights = load_checkpoint(str(copied))["unet"].state_dict()
        except CheckpointError:
            refused += 1
            continue
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert refused > 0.9 * len(places)


# Names


def test_unknown_packaged_checkpoint_lists_what_ships() -> None:
    for name in ("package:unknown", "package:../checkpoints", "package:"):
        with pytest.raises(CheckpointError, match=r"does not ship with synthct \(there is: "):
            find_checkpoint(name)


def test_hub_id_without_a_revision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(CheckpointError, match=r"'owner/name': no such folder; .* needs a revision"):
        find_checkpoint("owner/name")


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "./no/folder", "a/b/c", "~/x"])
def test_name_that_is_nothing_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor 'package:NAME' nor a Hub id"):
        find_checkpoint(name)


@pytest.mark.parametrize("name", ["package:starter-2d", "no-owner", "a/b/c"])
def test_revision_of_what_is_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="is no Hub id 'owner/name', but a revision is given"):
        find_checkpoint(name, revision="v1")


def test_hub_checkpoint_is_pinned_to_its_commit(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = copied.rename(copied.with_name(COMMIT))
    asked: dict[str, Any] = {}

    def download(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    files = find_checkpoint("owner/name", revision="v1")
    assert (files.name, files.revision) == ("owner/name", COMMIT)
    assert (asked["repo"], asked["revision"]) == ("owner/name", "v1")
    assert not any("*" in p or p.endswith((".py", ".bin")) for p in asked["patterns"])
    loaded = load_checkpoint("owner/name", revision="v1")
    assert loaded.files.checkpoint_id == files.checkpoint_id


def test_files_in_the_hubs_cache_are_compared_with_its_digests(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever publishes no sums is not worse off for it."""
    snapshot = copied.rename(copied.with_name(COMMIT))
    blobs = {}
    (copied.parent / "blobs").mkdir()
    for path in sorted(path for path in snapshot.rglob("*") if path.is_file()):
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        large = path.suffix == ".safetensors"
        blob = copied.parent / "blobs" / (hashlib.sha256(content).hexdigest() if large else git)
        path.replace(blob)
        path.symlink_to(blob)
        blobs[path.relative_to(snapshot).as_posix()] = blob
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    find_checkpoint("owner/name", revision="v1")
    for name in ("unet/diffusion_pytorch_model.safetensors", "unet/config.json", "training.json"):
        good = blobs[name].read_bytes()
        blobs[name].write_bytes(good.replace(b"0", b"1", 1))
        with pytest.raises(CheckpointError, match=rf"{name} is damaged in the Hub's cache; delete"):
            find_checkpoint("owner/name", revision="v1")
        blobs[name].write_bytes(good)


def test_a_checkpoint_lacks_no_file_of_its_sums(copied: Path) -> None:
    write_sums(copied)
    (copied / "training.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks training.json; fetch it again"):
        find_checkpoint(str(copied))


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no connection"),
        OfflineModeIsEnabled("offline"),
        ConnectionResetError("reset"),
        TimeoutError("too slow"),
        HFValidationError("bad name"),
        RevisionResolutionError("no such revision"),
        HTTPError("broken stream"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_hub_that_does_not_deliver_is_a_hub_error(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(HubError, match=r"'owner/name' at revision 'v1': the Hub did not deliver"):
        find_checkpoint("owner/name", revision="v1")


def test_every_packaged_checkpoint_loads() -> None:
    root = Path(synthct.__file__).parent / "models" / "checkpoints"
    for folder in root.iterdir():
        loaded = load_checkpoint(f"package:{folder.name}")
        assert loaded.files.name == f"package:{folder.name}"
        assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 12e6
