"""Bad checkpoints: none loads, none runs a line of its own, each is told by what is wrong."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from synthct.cli import app
from synthct.errors import CheckpointError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import SUMS, write_sums
from synthct.models.networks.palette import Palette
from synthct.models.palette import PaletteUNet
from synthct.models.palette_config import PaletteConfig

FILES = Palette.layout.files_in(Path())
(WEIGHTS,) = Palette.layout.weights
CONFIG, INDEX, SCHEDULE = "unet/config.json", "model_index.json", "scheduler/scheduler_config.json"
TENSOR = "unet.mid_block.attentions.0.to_q.weight"


class Canary:
    """Unpickling one leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def set_json(file: str, **changes: Any) -> Callable[[Path], None]:
    """Set (or, with ``...``, drop) fields of a JSON file."""

    def spoil(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        for key, new in changes.items():
            if new is ...:
                del value[key]
            else:
                value[key] = new
        (folder / file).write_text(json.dumps(value))

    return spoil


def set_text(file: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return spoil


def set_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return spoil


def pickle_only(suffix: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = (folder / WEIGHTS).with_suffix(suffix)
        torch.save(Canary(folder.parent / "it ran"), path)
        (folder / WEIGHTS).unlink()

    return spoil


def pickle_named_safetensors(folder: Path) -> None:
    torch.save(Canary(folder.parent / "it ran"), folder / WEIGHTS)


def add_code(file: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        touch = f"from pathlib import Path\nPath({str(folder.parent / 'it ran')!r}).touch()\n"
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(touch)

    return spoil


def link(file: str, target: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        outside = folder.parent / Path(file).name
        shutil.copy(folder / file, outside)
        (folder / file).unlink()
        (folder / file).symlink_to(outside if target == "outside" else target)

    return spoil


def pipe(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def huge_header(folder: Path) -> None:
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 40) + raw[8:])


def sparse_weights(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(1 << 40)


def huge_json(folder: Path) -> None:
    (folder / CONFIG).write_text('{"a": "' + "x" * (5 << 20) + '"}')


def deep_json(folder: Path) -> None:
    (folder / CONFIG).write_text("[" * 500_000)


def several_files(folder: Path) -> None:
    path = folder / WEIGHTS
    path.rename(path.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    (folder / f"{WEIGHTS}.index.json").write_text(
        json.dumps({"weight_map": {TENSOR: "../../../etc/passwd"}})
    )


def overlapping_tensors(folder: Path) -> None:
    """Two tensors that claim the same bytes."""
    raw = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    same = [n for n in header if n != "__metadata__" and header[n]["shape"] == [16]]
    header[same[0]]["data_offsets"] = header[same[1]]["data_offsets"]
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def flip(folder: Path) -> None:
    """One bit of one weight: still a finite number, and of the right shape."""
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1001] ^= 4
    (folder / WEIGHTS).write_bytes(raw)


def cut(folder: Path) -> None:
    raw = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(raw[: len(raw) // 2])


#: What is done to a checkpoint, and what its error must say. The sums are written anew unless
#: they are what finds the damage.
BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    # pickles and code
    "pickle .bin": (pickle_only(".bin"), r"holds pickles .*never opened; convert"),
    "pickle .pt": (pickle_only(".pt"), "holds pickles"),
    "pickle .ckpt": (pickle_only(".ckpt"), "holds pickles"),
    "pickle .pkl": (pickle_only(".pkl"), "holds pickles"),
    "pickle under a false name": (pickle_named_safetensors, "is damaged"),
    "pipeline.py": (add_code("pipeline.py"), r"Python code \(pipeline.py\), which synthct never"),
    "unet/modeling.py": (add_code("unet/modeling.py"), "Python code"),
    "__init__.py": (add_code("synthct/__init__.py"), "Python code"),
    "custom pipeline": (
        set_json(INDEX, _class_name=["pipeline", "PaletteInpaintPipeline"]),
        "asks for the pipeline",
    ),
    "other pipeline": (set_json(INDEX, _class_name="StableDiffusionPipeline"), "the pipeline Sta"),
    "other network": (set_json(INDEX, unet=["diffusers", "UNet2DModel"]), "asks for the network"),
    "network of a module": (set_json(INDEX, unet=["os", "system"]), r"network \['os', 'system'\]"),
    "config of another class": (set_json(CONFIG, _class_name="UNet2DModel"), "network UNet2D"),
    "scheduler of a module": (
        set_json(INDEX, scheduler=["os", "system"]),
        "asks for the scheduler",
    ),
    "one more component": (
        set_json(INDEX, safety_checker=["transformers", "CLIPModel"]),
        "asks for 'safety_checker', which synthct never loads",
    ),
    "auto_map": (
        set_json(CONFIG, auto_map={"AutoModel": "modeling.Evil"}),
        r"config is wrong \(unet/config.json: auto_map",
    ),
    # files
    "several files of weights": (several_files, "its weights are in several files; save them in"),
    "linked weights": (link(WEIGHTS, "outside"), "leads out of its folder"),
    "linked config": (link(CONFIG, "outside"), "leads out of its folder"),
    "device": (link(CONFIG, "/dev/zero"), "not a regular file"),
    "pipe": (pipe, "not a regular file"),
    "loop of links": (link(CONFIG, "config.json"), "lacks unet/config.json"),
    "huge config": (huge_json, "more than the 4194304 allowed"),
    "deep config": (deep_json, "config.json is not JSON"),
    "key twice": (set_text(CONFIG, "{", '{"fold": 1,'), "a key is there twice"),
    "-Infinity in a list of the config": (
        set_text(CONFIG, '"fold": 2', '"fold": [[-Infinity]]'),
        "-Infinity is no number",
    ),
    "NaN in the config": (set_text(CONFIG, '"fold": 2', '"fold": NaN'), "NaN is no number"),
    # weights
    "header of a terabyte": (huge_header, "its header claims 1099511627776 of"),
    "a terabyte of weights": (sparse_weights, "more than the 8589934592 allowed"),
    "weights cut": (cut, "is damaged"),
    "tensors that overlap": (overlapping_tensors, "is damaged"),
    "tensor missing": (
        set_tensors(lambda t: t.pop(TENSOR)),
        rf"{TENSOR} is None, the config expects \(16, 16\)",
    ),
    "tensor too many": (
        set_tensors(lambda t: t.update(extra=torch.zeros(3))),
        r"extra is \(3,\), the config expects None",
    ),
    "tensor of another shape": (
        set_tensors(lambda t: t.update({TENSOR: torch.zeros(16, 8)})),
        rf"{TENSOR} is \(16, 8\)",
    ),
    "NaN": (set_tensors(lambda t: t[TENSOR].view(-1)[7].fill_(float("nan"))), "is not finite"),
    "infinity": (set_tensors(lambda t: t[TENSOR].view(-1)[7].fill_(float("inf"))), "is not finite"),
    "whole numbers": (set_tensors(lambda t: t.update({TENSOR: t[TENSOR].short()})), "not a float"),
    # what it says of itself
    "wrong channels": (set_json(CONFIG, block_out_channels=[16, 16]), r"the config expects \("),
    "wrong fold": (set_json(CONFIG, fold=1), r"the config expects \("),
    "wrong number of labels": (
        set_json(CONFIG, labels=["kidney", "tumor", "lung", "liver"]),
        "label_embedding.weight is",
    ),
    "label twice": (set_json(CONFIG, labels=["kidney", "kidney", "lung"]), "is there twice"),
    "a million layers": (set_json(CONFIG, layers_per_block=1_000_000), "layers_per_block"),
    "no spacing": (set_json(CONFIG, spacing_range_mm=...), "spacing_range_mm: Field required"),
    "spacing 0": (set_json(CONFIG, spacing_range_mm=[0, 3]), "spacing_range_mm.0"),
    "spacing falls": (
        set_json(CONFIG, spacing_range_mm=[3, 0.5]),
        "spacing_range_mm: .* must rise",
    ),
    "spacing of metres": (set_json(CONFIG, spacing_range_mm=[500, 3000]), "spacing_range_mm.0"),
    "no codecs": (set_json(CONFIG, codecs=...), "codecs: Field required"),
    "no default codec": (
        set_json(CONFIG, codecs={"lung": "lung"}),
        "needs a codec named 'default'",
    ),
    "unknown codec": (set_json(CONFIG, codecs={"default": "mri"}), "codec 'mri' is unknown"),
    "window of nothing": (
        set_json(CONFIG, codecs={"default": {"kind": "window", "level_hu": 0, "width_hu": 1e-9}}),
        "spans",
    ),
    "window beyond CT": (
        set_json(CONFIG, codecs={"default": {"kind": "window", "level_hu": 9e4, "width_hu": 9}}),
        "'default' spans",
    ),
    "codec of a label it lacks": (
        set_json(CONFIG, codecs={"default": "lung", "spleen": "lung"}),
        "'spleen' is not one of its labels",
    ),
    "odd patch size": (set_json(CONFIG, patch_sizes=[32, 62]), "not multiples of 4"),
    "patch of a kilometre": (set_json(CONFIG, patch_sizes=[1 << 20]), "patch_sizes.0"),
    "strength 2": (set_json(CONFIG, strengths={"default": 2.0}), "strengths.default"),
    "no steps": (set_json(SCHEDULE, num_train_timesteps=0), "num_train_timesteps"),
    "a billion steps": (set_json(SCHEDULE, num_train_timesteps=10**9), "num_train_timesteps"),
    "beta of 7": (set_json(SCHEDULE, beta_end=7.0), "beta_end"),
    "too few betas": (set_json(SCHEDULE, trained_betas=[0.1]), "trained_betas: 1 of 1000"),
    "predicts fish": (set_json(SCHEDULE, prediction_type="fish"), "prediction_type"),
    "cases of another type": (set_json("training.json", cases=["a"]), "cases.0"),
    "licence of another type": (set_json("training.json", licence=7), "licence"),
}

#: Damage that leaves a checkpoint in which everything is possible: only the sums tell.
TOLD_BY_SUMS: dict[str, Callable[[Path], None]] = {
    "one bit of one weight": flip,
    "another schedule": set_json(SCHEDULE, beta_schedule="linear"),
    "another spacing": set_json(CONFIG, spacing_range_mm=[0.6, 3.1]),
    "another licence": set_json("training.json", licence="CC0-1.0"),
    "weights swapped": set_tensors(lambda t: t.update({TENSOR: t[TENSOR].flip(0).contiguous()})),
}


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def test_the_table_is_long_enough() -> None:
    assert len(BAD) + len(TOLD_BY_SUMS) >= 36


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD.keys())
def test_no_bad_checkpoint_loads_or_runs(
    copy: Path, spoil: Callable[[Path], None], message: str
) -> None:
    (copy / SUMS).unlink()
    spoil(copy)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(str(copy))
    assert str(copy.parent) not in str(caught.value)
    assert not (copy.parent / "it ran").exists()


@pytest.mark.parametrize("spoil", TOLD_BY_SUMS.values(), ids=TOLD_BY_SUMS.keys())
def test_damage_that_leaves_everything_possible_is_told_by_the_sums(
    copy: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(copy)
    with pytest.raises(CheckpointError, match="is not what SHA256SUMS says; fetch it again"):
        find_checkpoint(str(copy))
    write_sums(copy)
    load_checkpoint(str(copy))


@pytest.mark.parametrize("text", ["", "rubbish\n", "0" * 64 + "  model_index.json\n"])
def test_sums_that_lack_a_file_or_are_damaged_are_refused(copy: Path, text: str) -> None:
    (copy / SUMS).write_text(text)
    with pytest.raises(CheckpointError, match=SUMS):
        find_checkpoint(str(copy))


def test_no_flipped_bit_of_a_checkpoint_with_sums_is_loaded(copy: Path) -> None:
    rng = np.random.default_rng(0)
    for name in FILES:
        path = copy / name
        good = path.read_bytes()
        for bit in rng.choice(8 * len(good), 40, replace=False):
            raw = bytearray(good)
            raw[bit // 8] ^= 1 << bit % 8
            path.write_bytes(raw)
            with pytest.raises(CheckpointError):
                find_checkpoint(str(copy))
        path.write_bytes(good)
    find_checkpoint(str(copy))


def test_the_config_has_the_arguments_of_the_network() -> None:
    arguments = set(inspect.signature(PaletteUNet.__init__).parameters) - {"self"}
    assert set(PaletteConfig.model_fields) == arguments


@pytest.mark.parametrize("bad", ["pickle .bin", "pipeline.py", "tensor missing", "spacing 0"])
def test_a_bad_checkpoint_ends_a_command_with_its_code(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    (copy / SUMS).unlink()
    BAD[bad][0](copy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHCT_CACHE", str(tmp_path / "cache"))
    recipe = {
        "name": "x",
        "version": "1.0.0",
        "sources": {"hosts": {"layout": "phantom", "patients": 3, "shape": [48, 48, 12]}},
        "masks": [{"name": "boxes", "kind": "blob", "radius_mm": [5, 9]}],
        "inpaint": {"checkpoint": "copy", "num_inference_steps": 2},
        "splits": {"train": 1.0},
    }
    Path("x.yaml").write_text(json.dumps(recipe))
    result = CliRunner().invoke(app, ["check", "x.yaml", "--no-sheet"])
    assert result.exit_code == 4, result.output
    assert "CheckpointError: checkpoint 'copy'" in result.stderr
    assert "Traceback" not in result.output
    assert not (copy.parent / "it ran").exists()
