"""Checkpoints of other makers: loaded exactly as written, or refused with what is wrong."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from foreign_checkpoints import SIDE, write_text_model, write_unconditional
from safetensors.torch import load_file, save_file

from synthct.errors import CheckpointError
from synthct.models.checkpoint import find_checkpoint, load_checkpoint
from synthct.models.folder import SUMS, write_sums
from synthct.models.methods import Diffusion
from synthct.models.networks import NETWORKS, layouts
from synthct.models.networks.latent import TextGuided
from synthct.models.networks.unconditional import Unconditional
from synthct.models.patch import PatchRules

NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
INDEX, SCHEDULE = "model_index.json", "scheduler/scheduler_config.json"
Spoil = Callable[[Path], Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_unconditional(folder / "ddpm")
    write_text_model(folder / "text")
    return folder


@pytest.fixture
def ddpm(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "ddpm", tmp_path / "ddpm"))


@pytest.fixture
def text(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "text", tmp_path / "text"))


def set_json(file: str, **changes: Any) -> Spoil:
    """Set (or, with ``...``, drop) fields of a JSON file."""

    def spoil(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        value = {k: v for k, v in {**value, **changes}.items() if v is not ...}
        (folder / file).write_text(json.dumps(value))

    return spoil


def set_tensors(component: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = next(folder / component / n for n in NAMES if (folder / component / n).exists())
        tensors = load_file(path)
        new = change(tensors)
        save_file(new if isinstance(new, dict) else tensors, path, {"format": "pt"})

    return spoil


def remove(file: str) -> Spoil:
    return lambda folder: (folder / file).unlink()


def move(old: str, new: str) -> Spoil:
    return lambda folder: (folder / old).rename(folder / new)


def write(file: str, content: str) -> Spoil:
    return lambda folder: (folder / file).write_text(content)


def pickled(file: str) -> Spoil:
    """The weights as a pickle that leaves a file behind when it is opened."""

    def spoil(folder: Path) -> None:
        path = folder / file
        path.unlink()
        torch.save(Canary(folder.parent / "it ran"), path.with_suffix(".bin"))

    return spoil


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


# Loading


def test_an_unconditional_model_comes_back_as_it_was_written(ddpm: Path) -> None:
    loaded = load_checkpoint(str(ddpm))
    assert loaded.files.network is Unconditional
    assert set(loaded.files.hashes) == set(Unconditional.layout.files_in(Path()))
    stored = load_file(ddpm / "unet" / NAMES[0])
    assert all(torch.equal(stored[n], t) for n, t in loaded["unet"].state_dict().items())
    assert not loaded["unet"].training
    assert loaded.files.trained_on == frozenset()


def test_a_text_model_comes_back_as_it_was_written(text: Path) -> None:
    loaded = load_checkpoint(str(text))
    assert loaded.files.network is TextGuided
    assert loaded["vae"] is not None
    assert loaded["text"] is not None
    parts = {"unet": loaded["unet"], "vae": loaded["vae"], "text_encoder": loaded["text"].encoder}
    for name, network in parts.items():
        path = next(text / name / n for n in NAMES if (text / name / n).exists())
        stored = load_file(path)
        found = network.state_dict()
        assert found.keys() == stored.keys()
        assert all(torch.equal(stored[n], t) for n, t in found.items())
        assert not any(p.requires_grad or p.is_meta for p in network.parameters())
        assert not any(b.is_meta for b in network.buffers())


def rules_of(folder: Path, inpaint: Diffusion, labels: tuple[str | None, ...]) -> PatchRules:
    files = find_checkpoint(str(folder))
    return files.network.rules(files, inpaint, labels)


def test_patches_have_the_size_that_the_network_was_trained_on(ddpm: Path, text: Path) -> None:
    asked = Diffusion(codecs={"default": "lung"}, labels=("lung",), spacing_range_mm=(0.5, 2.0))
    rules = rules_of(ddpm, asked, ("liver",))
    assert (rules.patch_sizes, rules.labels) == ((SIDE,), ("lung",))
    assert rules.spacing_range_mm == (0.5, 2.0)
    told = Diffusion(codecs={"default": "lung"}, prompt="{label}")
    rules = rules_of(text, told, ("liver", None))
    assert (rules.patch_sizes, rules.labels) == ((SIDE,), ("liver",))  # 16 latents of 2 pixels
    set_json("unet/config.json", sample_size=[SIDE, SIDE])(ddpm)
    assert rules_of(ddpm, asked, ()).patch_sizes == (SIDE,)


def test_names_of_older_releases_are_read_as_diffusers_reads_them(ddpm: Path, text: Path) -> None:
    """Published autoencoders and DDPMs call the parts of attention otherwise."""
    today = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for folder, component, network in (
        (ddpm, "unet", UNet2DModel),
        (text, "vae", AutoencoderKL),
    ):
        new = load_file(folder / component / NAMES[0])
        for name, old in today.items():
            set_tensors(component, rename(f"attentions.0.{name}.", f"attentions.0.{old}."))(folder)
        assert any(".query." in name for name in load_file(folder / component / NAMES[0]))
        loaded = load_checkpoint(str(folder))
        ours = (loaded["unet"] if component == "unet" else loaded["vae"]).state_dict()  # type: ignore[union-attr]
        theirs = network.from_pretrained(folder / component).state_dict()
        assert all(torch.equal(ours[n], t) and torch.equal(new[n], t) for n, t in theirs.items())


def test_a_text_encoder_of_transformers_4_is_read(text: Path) -> None:
    new = load_file(text / "text_encoder" / NAMES[1])

    def as_before(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        old = {f"text_model.{name}": value for name, value in tensors.items()}
        return {**old, "text_model.embeddings.position_ids": torch.arange(77)[None]}

    first = load_checkpoint(str(text))["text"]
    set_tensors("text_encoder", as_before)(text)
    again = load_checkpoint(str(text))["text"]
    assert first is not None
    assert again is not None
    assert all(torch.equal(new[n], t) for n, t in again.encoder.state_dict().items())
    assert torch.equal(first.encode("a kidney"), again.encode("a kidney"))


def test_both_forms_of_the_tokenizer_read_the_same(text: Path) -> None:
    first = load_checkpoint(str(text))
    assert first["text"] is not None
    first["text"].tokenizer.save_pretrained(text / "tokenizer")
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (text / "tokenizer" / name).unlink(missing_ok=True)
    again = load_checkpoint(str(text))
    assert "tokenizer/tokenizer.json" in again.files.hashes
    assert again["text"] is not None
    assert again["text"].length == first["text"].length == 77
    for said in ("a kidney", "ct slice of a tumor", "liver liver"):
        assert torch.equal(first["text"].encode(said), again["text"].encode(said))


def test_every_file_counts_for_the_id(text: Path) -> None:
    seen = {find_checkpoint(str(text)).checkpoint_id}
    files = TextGuided.layout.files_in(text)
    assert len(files) == 12
    for name in files:
        path = text / name
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        seen.add(find_checkpoint(str(text)).checkpoint_id)
        path.write_bytes(before)
    assert len(seen) == 1 + len(files)


def test_sums_tell_damage(text: Path) -> None:
    write_sums(text)
    assert (text / SUMS).read_text().count("\n") == 12
    find_checkpoint(str(text))
    set_json(SCHEDULE, beta_end=0.013)(text)
    with pytest.raises(CheckpointError, match="is not what SHA256SUMS says"):
        find_checkpoint(str(text))


def test_the_safety_checker_is_neither_needed_nor_fetched(text: Path) -> None:
    assert not (text / "safety_checker").exists()
    asked = {file for layout in layouts() for file in layout.all_files}
    assert set(TextGuided.layout.files_in(text)) < asked
    assert not any(name.endswith((".bin", ".py", ".pkl")) or "safety" in name for name in asked)
    assert all(set(network.layout.files_in(Path())) <= asked for network in NETWORKS)


def test_what_is_fetched_from_the_hub_is_enough(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text / "safety_checker").mkdir()
    (text / "safety_checker/pytorch_model.bin").write_bytes(b"a pickle")
    snapshot = tmp_path / "0123456789abcdef0123456789abcdef01234567"

    def download(repo: str, *, revision: str, allow_patterns: list[str]) -> str:
        assert (repo, revision) == ("owner/name", "v1")
        for name in allow_patterns:
            if (text / name).exists():
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(text / name, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = load_checkpoint("owner/name", revision="v1")
    assert loaded.files.checkpoint_id == find_checkpoint(str(text)).checkpoint_id
    assert not (snapshot / "safety_checker").exists()


# Refusals

UNET, VAE, WORDS = "unet/config.json", "vae/config.json", "text_encoder/config.json"

BAD_DDPM: dict[str, tuple[Spoil, str]] = {
    "no network": (remove(f"unet/{NAMES[0]}"), "lacks unet/diffusion_pytorch_model.safetensors"),
    "pickle": (pickled(f"unet/{NAMES[0]}"), "holds pickles .* never opened; convert it"),
    "variant": (
        move(f"unet/{NAMES[0]}", "unet/diffusion_pytorch_model.fp16.safetensors"),
        r"fp16.safetensors is a variant of it.*rename it to diffusion_pytorch_model.safetensors",
    ),
    "several files": (
        move(f"unet/{NAMES[0]}", f"unet/{NAMES[0]}.index.json"),
        "its weights are in several files; save them in one",
    ),
    "code": (write("unet/net.py", ""), r"comes with Python code \(unet/net.py\)"),
    "another pipeline": (set_json(INDEX, _class_name="DiTPipeline"), "the pipeline DiTPipeline; "),
    "remote class": (set_json(INDEX, unet=["net", "UNet2DModel"]), r"asks for the network \['net'"),
    "another class": (set_json(INDEX, unet=["diffusers", "UNet1DModel"]), "network .*UNet1DModel"),
    "config of another": (set_json(UNET, _class_name="UNet1DModel"), "the network UNet1DModel"),
    "a component more": (set_json(INDEX, vqvae=["diffusers", "VQModel"]), "asks for 'vqvae', whic"),
    "two channels": (set_json(UNET, in_channels=2), "in_channels: Input should be 1 or 3"),
    "learned variance": (set_json(UNET, out_channels=3), "out_channels: 3 of 1 .*variance is not"),
    "no sample size": (set_json(UNET, sample_size=None), "sample_size"),
    "oblong": (set_json(UNET, sample_size=[32, 64]), "synthct paints in squares"),
    "odd size": (set_json(UNET, sample_size=33), "sample_size: 33 is not a multiple of 2"),
    "classes": (set_json(UNET, num_class_embeds=10), "num_class_embeds"),
    "class embedding": (set_json(UNET, class_embed_type="timestep"), "class_embed_type"),
    "unheard field": (set_json(UNET, flux_capacitor=1), "UNet2DModel knows no 'flux_capacitor'"),
    "unheard block": (set_json(UNET, down_block_types=["A", "B"]), "config is wrong"),
    "predicts v": (set_json(SCHEDULE, prediction_type="v_prediction"), "predicts v_prediction; "),
    "wrong width": (set_json(UNET, block_out_channels=[8, 24]), "the config expects"),
    "tensor missing": (set_tensors("unet", lambda t: {k: t[k] for k in list(t)[1:]}), "is None"),
    "tensor more": (set_tensors("unet", lambda t: t | {"x": torch.zeros(1)}), "tensor x is"),
    "nan": (set_tensors("unet", lambda t: t["conv_in.bias"].fill_(torch.nan)), "is not finite"),
    "old and new name": (
        set_tensors("unet", lambda t: t | {
            "mid_block.attentions.0.query.bias": t["mid_block.attentions.0.to_q.bias"].clone()}),
        "to_q.bias is there twice",
    ),
}  # fmt: skip

BAD_TEXT: dict[str, tuple[Spoil, str]] = {
    "no autoencoder": (remove(f"vae/{NAMES[0]}"), "lacks vae/diffusion_pytorch_model.safetensors"),
    "no text encoder": (remove(f"text_encoder/{NAMES[1]}"), "lacks text_encoder/model.safetensors"),
    "no words": (remove("tokenizer/vocab.json"), "lacks tokenizer/vocab.json"),
    "component not named": (set_json(INDEX, vae=...), "asks for the autoencoder None"),
    "pickled text encoder": (pickled(f"text_encoder/{NAMES[1]}"), "holds pickles"),
    "another text encoder": (
        set_json(INDEX, text_encoder=["transformers", "T5EncoderModel"]),
        "asks for the text encoder .*T5EncoderModel.*runs CLIPTextModel only",
    ),
    "text encoder's own class": (
        set_json(WORDS, architectures=["CLIPModel"]), "asks for the text encoder CLIPModel",
    ),
    "image encoder": (
        set_json(INDEX, image_encoder=["transformers", "CLIPVisionModelWithProjection"]),
        "asks for 'image_encoder', which synthct never loads",
    ),
    "not for inpainting": (set_json(UNET, in_channels=4), "in_channels 4, not 9 .*for inpainting"),
    "other latents": (set_json(UNET, out_channels=8), "out_channels 8, not 4"),
    "other text": (set_json(UNET, cross_attention_dim=32), "cross_attention_dim 32, not 16"),
    "more conditions": (set_json(UNET, addition_embed_type="text_time"), "addition_embed_type"),
    "two-channel pixels": (set_json(VAE, in_channels=2), "in_channels: Input should be 1 or 3"),
    "shifted latents": (set_json(VAE, shift_factor=0.1), "shift_factor"),
    "no scale": (set_json(VAE, scaling_factor=0.0), "scaling_factor"),
    "a million layers": (set_json(WORDS, num_hidden_layers=10**6), "num_hidden_layers"),
    "unheard activation": (set_json(WORDS, hidden_act="evil"), "config is wrong"),
    "tensor missing": (set_tensors("vae", lambda t: {k: t[k] for k in list(t)[1:]}), "is None"),
    "nan": (
        set_tensors("text_encoder", lambda t: t["final_layer_norm.bias"].fill_(torch.nan)),
        "final_layer_norm.bias is not finite",
    ),
    "words twice": (write("tokenizer/vocab.json", '{"a": 0, "b": 0}'), "does not number its words"),
    "word beyond": (write("tokenizer/vocab.json", '{"a": 99999}'), "below .* the vocab_size of"),
    "words of text": (write("tokenizer/vocab.json", '{"a": "b"}'), "does not number words"),
    "merges unheard": (write("tokenizer/merges.txt", "#version\nq x\n"), r"merges \['q', 'x'\]"),
    "no such padding": (
        set_json("tokenizer/special_tokens_map.json", pad_token="<none>"),
        "pad_token <none> is not in its vocabulary",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD_DDPM.values(), ids=BAD_DDPM.keys())
def test_no_bad_unconditional_model_loads(ddpm: Path, spoil: Spoil, message: str) -> None:
    spoil(ddpm)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(ddpm))
    assert not (ddpm.parent / "it ran").exists()


@pytest.mark.parametrize(("spoil", "message"), BAD_TEXT.values(), ids=BAD_TEXT.keys())
def test_no_bad_text_model_loads(text: Path, spoil: Spoil, message: str) -> None:
    spoil(text)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(text))
    assert not (text.parent / "it ran").exists()


def test_remote_code_of_a_tokenizer_is_not_even_looked_at(text: Path) -> None:
    reached = {"AutoTokenizer": ["evil--evil.Tokenizer", None]}
    set_json("tokenizer/tokenizer_config.json", auto_map=reached, tokenizer_class="Evil")(text)
    assert load_checkpoint(str(text))["text"] is not None


def test_without_transformers_a_text_model_names_the_extra(
    text: Path, ddpm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"pip install '\.\[text\]'"):
        load_checkpoint(str(text))
    load_checkpoint(str(ddpm))
