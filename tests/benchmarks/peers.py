"""Samples per second of a build beside other ways to paint, on one thread of this machine.

    OMP_NUM_THREADS=1 python tests/benchmarks/peers.py [--steps 4 20] [--samples 48]

All rows come from one run, and a row's time is the processor time of its process, so that other
work on the machine changes it little. A build is timed from its first shard to its last: masks,
paint, grain, measures, pictures and files; the denoiser's passes alone are timed on the very
patches of that build. The peers paint one 256 x 256 picture:

- the network of the public Palette implementation (62.6 M parameters), with its own 1,000 steps
  (extrapolated from a few timed passes) and with 50, the fair anchor;
- ``diffusers.RePaintPipeline`` with the network of google/ddpm-ema-celebahq-256, for which it was
  written (113.7 M), with its 250 steps and jumps of 10 resampled 10 times (extrapolated).

Weights are random, since speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import RePaintScheduler, UNet2DModel

from synthct.models.palette import PaletteUNet

PALETTE_STEPS, ANCHOR_STEPS = 1000, 50
REPAINT = {"num_inference_steps": 250, "jump_length": 10, "jump_n_sample": 10}
SIDE = 256


class Row(NamedTuple):
    """One way to paint: seconds of processor time per sample, and how that was found."""

    name: str
    passes: int
    seconds: float
    how: str


def recipe(folder: Path, samples: int, steps: int) -> Path:
    """Ellipsoids of 10 to 20 mm in phantoms of abdominal pixel size."""
    content: dict[str, Any] = {
        "name": f"peers-{steps}",
        "version": "1.0.0",
        "sources": {"hosts": {"layout": "phantom", "patients": 4, "spacing_mm": [0.8, 0.8, 4]}},
        "masks_per_case": samples // 4,
        "masks": [{"name": "blobs", "kind": "blob", "radius_mm": [10, 20]}],
        "inpaint": {"num_inference_steps": steps},
        "splits": {"train": 1.0},
        "samples_per_shard": samples // 2,
    }
    path = folder / f"peers-{steps}.yaml"
    path.write_text(json.dumps(content))
    return path


def build_seconds(path: Path, output: Path, samples: int) -> float:
    """Processor seconds per sample of a build, without starting up: two builds, one limited."""

    def seconds(*more: str) -> float:
        words = [sys.executable, "-m", "synthct", "build", str(path), "--workers", "0", *more]
        before = os.times()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        spent = after.children_user - before.children_user
        return spent + after.children_system - before.children_system

    few = samples // 4
    seconds("--output", str(output / "warm"), "--limit", "4")  # makes the phantoms
    start = seconds("--output", str(output / "few"), "--limit", str(few))
    return (seconds("--output", str(output / "all")) - start) / (samples - few)


def pass_seconds(network: torch.nn.Module, *inputs: Any, repeats: int) -> float:
    """Processor seconds of one forward pass, the least of some."""
    spent = []
    with torch.no_grad():
        for _ in range(repeats):
            start = time.process_time()
            network(*inputs)
            spent.append(time.process_time() - start)
    return min(spent)


def starter_seconds(folder: Path, repeats: int) -> float:
    """Processor seconds of one pass of the starter for one sample, by the sizes of its patches."""
    import datasets

    from synthct.models.checkpoint import load_checkpoint
    from synthct.models.methods import Diffusion
    from synthct.models.painting import Inpainter

    inpainter = Inpainter(load_checkpoint("package:starter-2d"), Diffusion())
    rows = datasets.load_dataset(str(folder), split="train")["provenance"]
    sizes = [patch["size"] for row in rows for patch in row["generation"]["patches"]]
    total = 0.0
    for size in sorted(set(sizes)):
        spent = []
        for _ in range(repeats):
            start = time.process_time()
            inpainter.probe(size)
            spent.append(time.process_time() - start)
        total += min(spent) * sizes.count(size)
    return total / len(rows)


def palette() -> PaletteUNet:
    """The public implementation's network, with one channel."""
    network: PaletteUNet = PaletteUNet(
        labels=(), codecs={"default": "full_range"}, patch_sizes=[SIDE], spacing_range_mm=(0.5, 2)
    )
    network.eval()
    return network


def celeba() -> UNet2DModel:
    """The network of google/ddpm-ema-celebahq-256."""
    attention, plain = ("AttnDownBlock2D", "AttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")
    down = [plain[0]] * 4 + [attention[0], plain[0]]
    up = [plain[1], attention[1]] + [plain[1]] * 4
    return UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=down,
        up_block_types=up,
        attention_head_dim=None,
    ).eval()


def rows(options: argparse.Namespace) -> list[Row]:
    torch.set_num_threads(1)
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for steps in options.steps:
            path = recipe(folder, options.samples, steps)
            whole = build_seconds(path, folder, options.samples)
            version = folder / "all" / f"peers-{steps}" / "1.0.0"
            bare = steps * starter_seconds(version, options.repeats)
            found += [
                Row(f"synthct build, {steps} steps", steps, whole, "measured"),
                Row(f"its denoiser alone, {steps} passes", steps, bare, "measured"),
            ]
    blank = torch.zeros((1, 1, SIDE, SIDE))
    label, spacing = torch.zeros(1, dtype=torch.int64), torch.ones((1, 2))
    network = palette()
    inputs = (blank, torch.zeros(1), blank, blank, label, spacing)
    once = pass_seconds(network, *inputs, repeats=options.passes)
    how = f"extrapolated from {options.passes} passes"
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    found += [
        Row(f"Palette ({parameters:.1f} M), {steps} steps", steps, steps * once, how)
        for steps in (PALETTE_STEPS, ANCHOR_STEPS)
    ]
    repaint = celeba()
    scheduler = RePaintScheduler()
    scheduler.set_timesteps(*REPAINT.values())
    # A step towards noise has no pass: only where time falls the network is asked.
    times = scheduler.timesteps.tolist()
    passes = 1 + sum(b < a for a, b in pairwise(times))
    colour = torch.zeros((1, 3, SIDE, SIDE))
    once = pass_seconds(repaint, colour, 10, repeats=max(1, options.passes // 5))
    parameters = sum(p.numel() for p in repaint.parameters()) / 1e6
    found.append(Row(f"RePaint ({parameters:.1f} M)", passes, passes * once, "extrapolated"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 20])
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| | passes | s per sample | samples per s | |\n|---|---|---|---|---|")
    for row in rows(options):
        print(
            f"| {row.name} | {row.passes} | {row.seconds:.2f} | {1 / row.seconds:.3g} | {row.how} |"
        )


if __name__ == "__main__":
    main()
