#!/usr/bin/env bash
# diffusers 0.42.1: scheduler_config.json of the DPM-Solvers is not JSON.
#
# Their setting lambda_min_clipped is minus infinity unless stated, and save_pretrained writes it as
# -Infinity, which JSON does not have. Python's json and from_pretrained read it back; a strict reader
# (orjson 3.11.4) refuses the file. Every pipeline whose sampler was exchanged for one of these before
# it was saved has such a file; DDPM, DDIM, Euler, UniPC and DEIS do not.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q diffusers==0.42.1 torch==2.13.0 numpy==2.4.6 orjson==3.11.4
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1
cat > try_it.py <<'PY'
import json
from pathlib import Path

import diffusers
import orjson

print("diffusers", diffusers.__version__, "orjson", orjson.__version__)
refused = []
for name in ("DDPM", "DDIM", "EulerDiscrete", "UniPCMultistep", "DEISMultistep",
             "DPMSolverMultistep", "DPMSolverSinglestep"):
    kind = getattr(diffusers, f"{name}Scheduler")
    kind().save_pretrained(name)
    path = Path(name, "scheduler_config.json")
    kind.from_pretrained(name)
    value = json.loads(path.read_bytes()).get("lambda_min_clipped")
    try:
        orjson.loads(path.read_bytes())
        answer = "read"
    except orjson.JSONDecodeError as err:
        answer = f"refused ({err})"
        refused.append(name)
    print(name, "lambda_min_clipped", value, answer)
assert refused == ["DPMSolverMultistep", "DPMSolverSinglestep"], refused
PY
python try_it.py
