"""The folder of a checkpoint: checks before any of its files is used.

Only JSON, word lists and safetensors, in regular files of limited size inside the folder; classes
from a list of layouts; no code. Each network validates its own configs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthct.errors import CheckpointError
from synthct.models.config import OF_DIFFUSERS
from synthct.models.layout import INDEX, Component, Layout
from synthct.storage.hub import COMMIT, HUB_ID, asking_hub

TRAINING, TRAINING_INDEX, README = "training.json", "training_index.parquet", "README.md"
#: Files that tell how a checkpoint was trained: painting does not depend on them.
BESIDE = (TRAINING, TRAINING_INDEX)
#: Hashes of the files, in the format of ``sha256sum``: damaged weights may still be finite.
SUMS = "SHA256SUMS"

#: Key of a DPM-Solver's config that is minus infinity where nothing is clipped, the usual case.
UNBOUNDED = "lambda_min_clipped"

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_MAX_JSON_BYTES = 1 << 22
_MAX_WORDS_BYTES = 1 << 24
_MAX_WEIGHTS_BYTES = 1 << 33
_MAX_HEADER_BYTES = 1 << 24

_log = logging.getLogger(__name__)


def download_folder(name: str, revision: str, layouts: Sequence[Layout]) -> tuple[Path, str]:
    """Download a checkpoint's files from the Hub.

    Args:
        name: The id of the repository.
        revision: Commit, tag or branch.
        layouts: Pipelines whose files are downloaded; nothing else is.

    Returns:
        The folder and the commit.

    Raises:
        CheckpointError: If the name is no Hub id.
        HubError: If the Hub does not deliver it.
    """
    from huggingface_hub import snapshot_download

    if not HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"checkpoint '{name}' is no Hub id 'owner/name', but a revision is given; remove it"
        )
    files = dict.fromkeys(file for layout in layouts for file in layout.all_files)
    with asking_hub(f"checkpoint '{name}' at revision '{revision}'"):
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=[*files, *BESIDE, SUMS, README]
            )
        )
        commit = folder.name  # a snapshot's folder is named after its commit
        if not COMMIT.fullmatch(commit):
            raise ValueError(f"it calls a commit '{commit}'")
    return folder, commit


def check_folder(
    folder: Path, name: str, layouts: Sequence[Layout], *, from_hub: bool
) -> tuple[Layout, dict[str, str]]:
    """Refuse a folder with a file that is missing, damaged or not allowed, and hash its files.

    Args:
        folder: The checkpoint's folder.
        name: The checkpoint's name, for messages.
        layouts: The allowed pipelines.
        from_hub: Whether it is in the Hub's cache, where files are links out of the folder.

    Returns:
        The layout of its pipeline, and the sha256 of each file that takes part in painting.

    Raises:
        CheckpointError: If a file is missing, not regular, too large or not as in ``SHA256SUMS``;
            if there is code, or pickles in place of safetensors; or if a class is not allowed.
    """
    if not (folder / INDEX).exists():
        raise CheckpointError(f"checkpoint '{name}' lacks {INDEX}; {_hint(folder, layouts[0])}")
    _require_plain(folder, INDEX, name, anywhere=from_hub)
    index = read_json(folder / INDEX, name)
    pipeline = index.get("_class_name")
    layout = next((one for one in layouts if one.class_name == pipeline), None)
    if layout is None:
        raise CheckpointError(
            f"checkpoint '{name}' asks for the pipeline {pipeline}; synthct runs "
            f"{', '.join(one.class_name for one in layouts)} only"
        )
    files = layout.files_in(folder)
    missing = [n for n in files if not (folder / n).exists()]
    if missing:
        raise CheckpointError(
            f"checkpoint '{name}' lacks {', '.join(missing)}; {_hint(folder, layout)}"
        )
    present = [n for n in (*files, *BESIDE, SUMS) if (folder / n).exists()]
    for file in present:
        _require_plain(folder, file, name, anywhere=from_hub)
    code = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.py"))
    if code:
        raise CheckpointError(
            f"checkpoint '{name}' comes with Python code ({code[0]}), which synthct never runs; "
            "delete it if the checkpoint does without, else use another checkpoint"
        )
    hashes = {n: _sha256(folder / n, name) for n in present if n != SUMS}
    if from_hub:
        _check_blobs(folder, hashes, name)
    if SUMS in present:
        _check_sums(folder / SUMS, hashes, name)
    else:
        _log.info("checkpoint %s has no %s: damaged weights may go unnoticed", name, SUMS)
    _check_classes(folder, index, layout, name)
    for weights in layout.weights:
        _check_weights_header(folder, weights, name)
    return layout, {n: hashes[n] for n in files}


def write_sums(folder: Path) -> None:
    """Write the hashes that ``check_folder`` compares; the last file of a new checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    lines = [f"{_sha256(folder / n, folder.name)}  {n}\n" for n in names if n not in (SUMS, README)]
    (folder / SUMS).write_text("".join(lines))


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a JSON object without duplicate keys or numbers that are not finite.

    But for ``UNBOUNDED``, in whose place diffusers writes ``-Infinity``.

    Raises:
        CheckpointError: If the file holds anything else.
    """
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_constant)
    except (OSError, ValueError, RecursionError) as err:
        raise CheckpointError(f"checkpoint '{name}': {path.name} is not JSON ({err})") from err
    if not isinstance(value, dict):
        raise CheckpointError(f"checkpoint '{name}': {path.name} is not an object")
    return value


def _hint(folder: Path, layout: Layout) -> str:
    """What to do about a missing file."""
    for weights in layout.weights:
        path = folder / weights
        if path.exists():
            continue
        if path.with_name(f"{path.name}.index.json").exists():
            return "its weights are in several files; save them in one (max_shard_size='8GB')"
        if variants := sorted(path.parent.glob(f"{path.stem}.*.safetensors")):
            return (
                f"{path.parent.name}/{variants[0].name} is a variant of it, and is not taken in "
                f"its place; rename it to {path.name}"
            )
    pickles = sorted(p.name for p in folder.rglob("*") if p.suffix in _PICKLES)
    if pickles:
        return (
            f"it holds pickles ({pickles[0]}), which can run code and are never opened; "
            "convert it with save_pretrained(..., safe_serialization=True)"
        )
    return "name the folder that save_pretrained wrote"


def _require_plain(folder: Path, file: str, name: str, *, anywhere: bool) -> None:
    path = folder / file
    try:
        state = path.stat()
        inside = anywhere or path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as err:
        raise CheckpointError(f"checkpoint '{name}': {file} cannot be read ({err})") from err
    limit = (
        _MAX_WEIGHTS_BYTES if file.endswith(".safetensors")
        else _MAX_WORDS_BYTES if file.startswith("tokenizer/") or file == TRAINING_INDEX
        else _MAX_JSON_BYTES
    )  # fmt: skip
    what = (
        "is not a regular file" if not stat.S_ISREG(state.st_mode)
        else "leads out of its folder; copy the file" if not inside
        else f"has {state.st_size} bytes, more than the {limit} allowed"
        if state.st_size > limit
        else None
    )  # fmt: skip
    if what is not None:
        raise CheckpointError(f"checkpoint '{name}': {file} {what}")


def _check_classes(folder: Path, index: Mapping[str, Any], layout: Layout, name: str) -> None:
    """Refuse classes and components that are not in the layout."""
    for component in layout.components:
        classes = [_class_of(index.get(component.name), component)]
        if component.weights is not None:
            classes.append(_own_class(read_json(folder / component.name / "config.json", name)))
        for named in classes:
            if named != component.class_name:
                raise CheckpointError(
                    f"checkpoint '{name}' asks for the {component.role} {named}; synthct runs "
                    f"{component.class_name} only"
                )
    known = OF_DIFFUSERS | layout.ignored | {component.name for component in layout.components}
    if layout.has_schedule:
        known |= {"scheduler"}
        match index.get("scheduler"):
            case ["diffusers", str(scheduler)] if re.fullmatch(r"\w+Scheduler", scheduler):
                pass
            case other:
                raise CheckpointError(
                    f"checkpoint '{name}' asks for the scheduler {other}; one of diffusers is "
                    "allowed"
                )
    more = sorted(k for k, value in index.items() if k not in known and value != [None, None])
    if more:
        raise CheckpointError(
            f"checkpoint '{name}': {INDEX} asks for '{more[0]}', which synthct never loads"
        )


def _class_of(entry: Any, component: Component) -> Any:
    """The class in an entry of model_index.json; the entry itself if it is not allowed."""
    match entry:
        case [str(library), str(class_name)] if library in component.libraries:
            return class_name
    return entry


def _own_class(config: Mapping[str, Any]) -> Any:
    """The class that a component's config names, in diffusers' or transformers' format."""
    match config.get("architectures"):
        case [str(class_name)]:
            return class_name
    return config.get("_class_name")


def _check_weights_header(folder: Path, weights: str, name: str) -> None:
    """Refuse weights whose header is longer than the file or the limit."""
    path = folder / weights
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > min(size - 8, _MAX_HEADER_BYTES):
        raise CheckpointError(
            f"checkpoint '{name}': {weights} is damaged (its header claims {header} of {size} "
            f"bytes; at most {_MAX_HEADER_BYTES} are allowed)"
        )


def _check_blobs(folder: Path, hashes: Mapping[str, str], name: str) -> None:
    """Compare files in the Hub's cache with their digests there: SHA-256, of small ones git's.

    The cache keeps each file under its digest, and a link to it in the checkpoint's folder. Where
    there are no links there are no digests.
    """
    for file, sha256 in hashes.items():
        blob = (folder / file).resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            intact = blob.name == sha256
        elif COMMIT.fullmatch(blob.name):
            content = blob.read_bytes()
            found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
            intact = blob.name == found.hexdigest()
        else:
            continue
        if not intact:
            raise CheckpointError(
                f"checkpoint '{name}': {file} is damaged in the Hub's cache; delete {blob} and run "
                "the command again"
            )


def _check_sums(path: Path, hashes: Mapping[str, str], name: str) -> None:
    sums: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
        if entry is None or entry[2] in sums:
            raise CheckpointError(f"checkpoint '{name}': {SUMS} is damaged at '{line[:80]}'")
        sums[entry[2]] = entry[1]
    for file in BESIDE:
        if file in sums.keys() - hashes.keys():
            raise CheckpointError(f"checkpoint '{name}' lacks {file}; fetch it again")
    for file, sha256 in hashes.items():
        if sums.get(file) != sha256:
            raise CheckpointError(
                f"checkpoint '{name}': {file} is not what {SUMS} says; fetch it again, or write "
                "the sums anew if you changed it"
            )


def _sha256(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise CheckpointError(f"checkpoint '{name}': {path.name} cannot be read ({err})") from err


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    for key, one in pairs:
        if key != UNBOUNDED and _is_infinite(one):
            raise ValueError("-Infinity is no number")
    return value


def _is_infinite(value: Any) -> bool:
    return any(map(_is_infinite, value)) if isinstance(value, list) else value == -math.inf


def _constant(text: str) -> float:
    if text != "-Infinity":
        raise ValueError(f"{text} is no number")
    return -math.inf
