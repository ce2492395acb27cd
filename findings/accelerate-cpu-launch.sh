#!/usr/bin/env bash
# accelerate 1.15.0: "accelerate launch --cpu --num_processes 2" starts one process, without a word.
#
# The number of processes that was asked for is dropped on a machine without GPUs, and the exit
# code is 0: a job that shares out its work by rank does all of it in one process. --multi_gpu, of
# all flags, starts the two processes on CPUs, which then use gloo.
set -euo pipefail
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT && cd "$folder"
python3 -m venv env && . env/bin/activate
pip install -q accelerate==1.15.0 torch==2.13.0
export HF_HOME="$folder/home" CUDA_VISIBLE_DEVICES=
cat > job.py <<'PY'
from accelerate import PartialState

state = PartialState(cpu=True)
print(f"rank {state.process_index} of {state.num_processes}", flush=True)
PY
accelerate launch --cpu --num_processes 2 job.py > cpu.txt 2> cpu.err
accelerate launch --multi_gpu --num_processes 2 job.py > multi.txt 2> multi.err
accelerate --version 2>/dev/null || pip list 2>/dev/null | grep -i '^accelerate'
echo "--cpu:       $(sort cpu.txt | paste -sd';')"
echo "--multi_gpu: $(sort multi.txt | paste -sd';')"
[ "$(cat cpu.txt)" = "rank 0 of 1" ] || { echo "this has changed"; exit 1; }
[ "$(sort multi.txt | paste -sd';')" = "rank 0 of 2;rank 1 of 2" ] || { echo "this has changed"; exit 1; }
