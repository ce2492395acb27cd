"""Prompt embeddings by CLIP's tokenizer and text encoder (Radford et al. 2021).

The only file that needs transformers, from the extra ``text``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synthct.errors import CheckpointError
from synthct.models.folder import read_json
from synthct.models.network import CheckpointFiles
from synthct.models.weights import build, fill

#: Config fields that weights or arithmetic depend on.
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_SPECIAL = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}


@dataclass(frozen=True, eq=False)
class TextModel:
    """Tokenizer and text encoder of a checkpoint.

    Attributes:
        name: The checkpoint's name.
        encoder: CLIP's text encoder.
        tokenizer: CLIP's tokenizer.
        length: Number of tokens to which prompts are padded.
    """

    name: str
    encoder: nn.Module
    tokenizer: Any
    length: int

    @torch.no_grad()
    def encode(self, text: str) -> Tensor:
        """The embedding (length, C) of a text.

        Raises:
            CheckpointError: If it has more than ``length`` tokens.
        """
        tokens: list[int] = self.tokenizer(text).input_ids
        if len(tokens) > self.length:
            raise CheckpointError(
                f"checkpoint '{self.name}' reads {self.length} tokens and the prompt has "
                f"{len(tokens)}; shorten '{text[:60]}...'"
            )
        padded = tokens + [int(self.tokenizer.pad_token_id)] * (self.length - len(tokens))
        device = next(self.encoder.parameters()).device
        embeddings: Tensor = self.encoder(torch.tensor([padded], device=device))[0]
        return embeddings[0]


def load_text_model(files: CheckpointFiles, device: str) -> TextModel:
    """Load tokenizer and text encoder.

    Raises:
        CheckpointError: If one of their files is invalid.
    """
    name, folder, config = files.name, files.folder, files.configs["text_encoder"]
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    fields = {field: config[field] for field in _FIELDS if field in config}
    encoder = build(name, lambda: CLIPTextModel(CLIPTextConfig(**fields)))
    prefix = "text_model."  # in tensor names of transformers before version 5
    kept = prefix if any(n.startswith(prefix) for n in encoder.state_dict()) else ""

    def rename(tensor: str) -> str | None:
        bare = tensor.removeprefix(prefix)
        return None if bare == "embeddings.position_ids" else f"{kept}{bare}"

    weights = "text_encoder/model.safetensors"
    fill(encoder, name, folder, weights, files.hashes[weights], rename)
    for module in encoder.modules():
        if "position_ids" in dict(module.named_buffers(recurse=False)):
            places = torch.arange(encoder.config.max_position_embeddings)[None]
            module.register_buffer("position_ids", places, persistent=False)
    vocabulary, merges = _words(folder / "tokenizer", name, encoder.config.vocab_size)
    special = _special_tokens(folder / "tokenizer", name, vocabulary)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, **special)
    limit = read_json(folder / "tokenizer/tokenizer_config.json", name).get("model_max_length")
    length = int(encoder.config.max_position_embeddings)
    if isinstance(limit, int):
        length = min(length, max(limit, 2))
    return TextModel(name, encoder.to(device), tokenizer, length)


def _words(
    folder: Path, name: str, vocab_size: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary (token to id) and merges (pairs of tokens, in order) of the tokenizer.

    Raises:
        CheckpointError: If they do not fit together or exceed the encoder's vocabulary.
    """
    words: Any
    pairs: Sequence[Any]
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        file, words = "vocab.json", read_json(folder / "vocab.json", name)
        lines = (folder / "merges.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
    else:
        file = "tokenizer.json"
        model = read_json(folder / file, name).get("model")
        fields = model if isinstance(model, dict) else {}
        words, pairs = fields.get("vocab"), fields.get("merges") or []
        pairs = [pair.split() if isinstance(pair, str) else pair for pair in pairs]
    if not isinstance(words, dict) or not all(type(n) is int for n in words.values()):
        raise CheckpointError(f"checkpoint '{name}': tokenizer/{file} does not number words")
    numbers = set(words.values())
    if len(numbers) < len(words) or min(numbers, default=-1) < 0 or max(numbers) >= vocab_size:
        raise CheckpointError(
            f"checkpoint '{name}': tokenizer/{file} does not number its words apart from each "
            f"other and below {vocab_size}, the vocab_size of the text encoder"
        )
    merges = []
    for pair in pairs:
        match pair:
            case [str(first), str(second)] if {first, second, first + second} <= words.keys():
                merges.append((first, second))
            case other:
                raise CheckpointError(
                    f"checkpoint '{name}': the tokenizer merges {str(other)[:60]}, which {file} "
                    "does not have"
                )
    return words, merges


def _special_tokens(folder: Path, name: str, vocabulary: Mapping[str, int]) -> dict[str, str]:
    """Special tokens from ``special_tokens_map.json`` or else the tokenizer's config."""
    stated = read_json(folder / "tokenizer_config.json", name)
    if (folder / "special_tokens_map.json").exists():
        stated = {**stated, **read_json(folder / "special_tokens_map.json", name)}
    tokens = {}
    for key, usual in _SPECIAL.items():
        token = stated.get(key) or usual
        token = token.get("content") if isinstance(token, dict) else token
        if not isinstance(token, str) or token not in vocabulary:
            raise CheckpointError(
                f"checkpoint '{name}': the tokenizer's {key} {str(token)[:60]} is not in its "
                "vocabulary"
            )
        tokens[key] = token
    return tokens
