"""The HU of the tissues of procedural phantoms, which ship as synthct/build/phantom_tissue.json.

    python tests/benchmarks/phantom_tissue.py --patients 8 > synthct/build/phantom_tissue.json

Run it again when the phantoms change. Every patient has the same weight.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from synthct.metrics.distribution import hu_quantiles
from synthct.sources.phantom import PHANTOM_UNIONS
from synthct.sources.phantoms import PHANTOM_LABELS
from synthct.sources.scanner import Scanner

SEED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--patients", type=int, default=8)
    scanner = Scanner(region="abdomen_chest", tumours=True, spacing_mm=(1.2, 1.2, 4))
    parts = {name: (name,) for name in PHANTOM_LABELS} | dict(PHANTOM_UNIONS)
    found: dict[str, list[np.ndarray]] = {name: [] for name in parts}
    for patient in range(parser.parse_args().patients):
        ct, labels = scanner.scan(SEED, patient)
        for name, structures in parts.items():
            hu = ct.array[np.isin(labels.array, [PHANTOM_LABELS[s] for s in structures])]
            if hu.size:
                found[name].append(hu_quantiles(hu))
    table = {
        name: hu_quantiles(np.concatenate(many)).astype(int).tolist()
        for name, many in sorted(found.items())
        if many
    }
    lines = [f"{json.dumps(name)}: {json.dumps(hu)}" for name, hu in table.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
