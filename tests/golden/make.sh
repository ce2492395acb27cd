#!/usr/bin/env bash
# Make a golden checkpoint and a golden dataset with the synthct of a commit:
#
#   bash tests/golden/make.sh 452426b 1.0.0    # the last commit that wrote format 1.0.0
#   bash tests/golden/make.sh 7cd8c31 1.1.0    # synthct 0.1.0
#   bash tests/golden/make.sh 4c2f3e7 1.2.0    # the first commit that wrote format 1.2.0
#   bash tests/golden/make.sh aeec15c 1.3.0    # the first format that has volumes
#   bash tests/golden/make.sh 7367031 1.4.0   # the first with a grain ratio
#
# What was committed is never made again: a synthct of that time wrote it. The packages are those
# of the environment that is active. Needs the history of this repository.
set -euo pipefail
commit=$1 format=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'git -C "$here" worktree remove --force "$work/code"; rm -rf "$work"' EXIT
git -C "$here" worktree add --detach "$work/code" "$commit"
mkdir -p "$here/checkpoints" "$here/datasets"
cd "$work"
export PYTHONPATH="$work/code"
python -m synthct train "$here/training.yaml" --output run --cache-dir cache --device cpu --threads 1
cp -r run/checkpoint "$here/checkpoints/$format"
export GOLDEN_CHECKPOINT=../run/checkpoint
mkdir build && cd build
python -m synthct build "$here/dataset.yaml" --output out --cache-dir ../cache
cp -r out/golden/1.0.0 "$here/datasets/$format"
[ "$(printf '%s\n' 1.3.0 "$format" | sort -V | head -1)" = 1.3.0 ] || exit 0
python -m synthct build "$here/volume.yaml" --output out --cache-dir ../cache
mkdir -p "$here/volumes" && cp -r out/golden-volume/1.0.0 "$here/volumes/$format"
