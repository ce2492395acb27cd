"""How a build scales with its processes, and whether its memory stays flat. Run by hand.

    python tests/benchmarks/processes.py speed [--processes 1 2] [--samples 96]
    python tests/benchmarks/processes.py memory [--samples 100 1000]

Both build from procedural phantoms. ``speed`` paints with the starter in 20 steps, one thread per
process and no workers, and counts from the first finished shard to the last, so that starting up
is left out; the numbers of processes take turns, since the machine may be busy. ``memory`` paints
in two steps, since peak memory does not depend on their number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CORES = len(os.sched_getaffinity(0))


def recipe(folder: Path, samples: int, steps: int, per_shard: int) -> Path:
    """Half kidneys, half boxes; as many masks of each of 4 patients as are asked for."""
    content: dict[str, Any] = {
        "name": "scaling",
        "version": "1.0.0",
        "seed": 1,
        "sources": {"hosts": {"layout": "phantom", "patients": 4, "spacing_mm": [0.8, 0.8, 3]}},
        "masks_per_case": samples // 4,
        "masks": [
            {"name": "kidneys", "kind": "organ", "label": "kidney", "margin_mm": 3},
            {"name": "boxes", "kind": "box", "around": "kidney", "margin_mm": [10, 25]},
        ],
        "inpaint": {"checkpoint": "package:starter-2d", "num_inference_steps": steps},
        "splits": {"train": 1.0},
        "samples_per_shard": per_shard,
    }
    path = folder / "scaling.yaml"
    path.write_text(json.dumps(content))
    return path


def command(path: Path, output: Path, processes: int) -> list[str]:
    words = [sys.executable, "-m", "synthct", "build", str(path), "--output", str(output)]
    return [*words, "--num-processes", str(processes), "--workers", "0"]


def samples_per_second(path: Path, processes: int, per_shard: int) -> float:
    """From the first finished shard to the last."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "scaling/.1.0.0.building/journal")
        build = subprocess.Popen(
            command(path, Path(folder), processes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seen: list[tuple[float, int]] = []
        while build.poll() is None:
            done = len(list(journal.glob("*.shard")))
            if done and (not seen or done > seen[-1][1]):
                seen.append((time.monotonic(), done))
            time.sleep(0.02)
        assert build.returncode == 0
    (start, first), (end, last) = seen[0], seen[-1]
    return (last - first) * per_shard / (end - start)


def speed(numbers: list[int], samples: int, rounds: int) -> None:
    per_shard = 4
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory() as folder:
        path = recipe(Path(folder), samples, 20, per_shard)
        for _ in range(rounds):
            for number in numbers:
                load = os.getloadavg()[0]
                rate = samples_per_second(path, number, per_shard)
                rates[number].append(rate)
                print(f"{number} processes  {rate:.3f} samples/s  (load before: {load:.1f})")
    base = statistics.median(rates[numbers[0]])
    for number in numbers:
        rate = statistics.median(rates[number])
        print(f"{number} processes: median {rate:.3f} samples/s, {rate / base:.2f} times")


def peak_mib(path: Path, processes: int) -> float:
    """Greatest resident size of any process of a build."""
    with tempfile.TemporaryDirectory() as folder:
        build = subprocess.Popen(
            command(path, Path(folder), processes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(build.pid, 0)
        assert status == 0
    return usage.ru_maxrss / 1024


def memory(numbers: list[int]) -> None:
    peaks = []
    for samples in numbers:
        with tempfile.TemporaryDirectory() as folder:
            peaks.append(peak_mib(recipe(Path(folder), samples, 2, 20), 1))
        print(f"{samples} samples: peak {peaks[-1]:.0f} MiB, {peaks[-1] / peaks[0] - 1:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samples", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(f"{CORES} cores, load {os.getloadavg()[0]:.1f}")
    if asked.what == "speed":
        speed(asked.processes, (asked.samples or [96])[0], asked.rounds)
    else:
        memory(asked.samples or [100, 1000])


if __name__ == "__main__":
    main()
