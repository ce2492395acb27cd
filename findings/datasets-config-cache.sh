#!/usr/bin/env bash
# datasets 5.2.0: a folder whose card has "configs" is read from the cache after its files changed.
#
# load_dataset(folder) caches what it read under a hash. Without a card, the hash covers when the
# data files were changed: rows that are written anew are read anew. With a card that names the same
# files under "configs", it covers the header of the card only: the old rows come back, and the old
# columns, until the header changes or the cache is deleted. No warning is given. So a program that
# writes datasets should put an id of the files into the header (a config's description will do).
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q datasets==5.2.0
export HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/home"
python - <<'PY'
import os
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

CARD = """---
configs:
- config_name: default
  description: {}
  data_files:
  - split: train
    path: data/train-*.parquet
---
"""


def write(folder: Path, columns: dict[str, list[int]], time: int, description: str | None) -> None:
    path = folder / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    os.utime(path, (time, time))  # an hour between both, whatever the file system's clock
    if description:
        (folder / "README.md").write_text(CARD.format(description))


def read_twice(name: str, first: str | None, second: str | None) -> tuple[list[str], list[str]]:
    folder = Path(name)
    write(folder, {"x": [1]}, 1_700_000_000, first)
    before = load_dataset(name)["train"].column_names
    write(folder, {"x": [2], "y": [3]}, 1_700_003_600, second)
    return before, load_dataset(name)["train"].column_names


print("datasets", version("datasets"))
plain = read_twice("plain", None, None)
carded = read_twice("carded", "same", "same")
told = read_twice("told", "one", "two")
print("columns before and after, without a card:", plain)
print("with a card:", carded)
print("with another description:", told)
assert plain == (["x"], ["x", "y"]), "this has changed"
assert carded == (["x"], ["x"]), "this has changed: the card's folder is read anew"
assert told == (["x"], ["x", "y"]), "this has changed"
PY
