#!/usr/bin/env bash
# datasets 5.2.0: a Json() column gives other floats than the JSON text that is stored.
#
# Numbers are written with all the digits that Python needs to read them back (repr), into a
# parquet column of Arrow's JSON type. pyarrow gives the text unchanged, and json.loads of it the
# same floats. load_dataset parses the text by a faster parser: of 10,000 random numbers 27 came
# back different, by up to 1e-14 of their value, which is more than the last bit. Whoever computes
# a hash over such values, or compares them with ==, must take the stored text.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q datasets==5.2.0 pyarrow==26.0.1
export HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 HF_HOME="$folder/home"
python - <<'PY'
import json
import random
from importlib.metadata import version

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

draw = random.Random(0)
numbers = [draw.uniform(-1000, 1000) for _ in range(10_000)]
texts = [json.dumps({"v": number}) for number in numbers]
features = {"info": {"features": {"x": {"_type": "Json"}}}}
table = pa.table({"x": pa.array(texts).cast(pa.json_())})
pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), "a.parquet")

stored = pq.read_table("a.parquet")["x"].to_pylist()
assert [json.loads(text)["v"] for text in stored] == numbers, "the stored text is not exact"

loaded = load_dataset("parquet", data_files="a.parquet", split="train", cache_dir="cache")["x"]
pairs = [(a, row["v"]) for a, row in zip(numbers, loaded, strict=True) if a != row["v"]]
worst = max((abs(a - b) / abs(a) for a, b in pairs), default=0.0)
print(f"datasets {version('datasets')}: {len(pairs)} of {len(numbers)} floats differ, ", end="")
print(f"by up to {worst:.1e} of their value; first {pairs[:1]}")
assert 10 <= len(pairs) <= 100 and worst > 2**-52, "this has changed"
PY
