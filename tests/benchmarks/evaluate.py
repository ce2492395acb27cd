"""The thesis's tables on real scans, and how long an evaluation takes.

    python tests/benchmarks/evaluate.py tables --data ../shared/data
    python tests/benchmarks/evaluate.py speed

``tables`` paints organs and real tumours anew with the starter checkpoint, and the shapes of real
tumours into kidneys, makes the control arms of the very same masks, and prints for each label how
far every arm is from what is real. Copy-paste needs a donor, so it is an arm of the last alone.
Fewer than five patients give a floor that is too low, which the tables say.
``speed`` evaluates 2,000 slices of synthetic tissue.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthct.build.run import build
from synthct.evaluate.collect import FeatureSet
from synthct.evaluate.efficientnet import EfficientNetLite0
from synthct.evaluate.pictures import Crop, Extractor, crop_to_mask
from synthct.evaluate.radiomics import Radiomics
from synthct.evaluate.results import write_results
from synthct.evaluate.run import Options, evaluate
from synthct.evaluate.scores import make_halvings, score_arm, score_floor
from synthct.evaluate.tables import results_markdown
from synthct.recipe.recipe import Recipe
from synthct.storage.defaults import default_cache_dir
from synthct.volume.intensity import SOFT_TISSUE

#: Name in the tables to the recipe's method.
CONTROLS = {"copy-paste": "copy_paste", "noise-fill": "noise_fill"}


def organs(data: Path, masks: int) -> dict[str, Any]:
    """Kidneys, livers and lungs of three patients, painted over."""
    hosts = {
        "layout": "totalsegmentator",
        "root": str(data / "totalsegmentator_v2"),
        "cases": ["s0001", "s0002", "s0003"],
    }
    part = {"kind": "organ", "max_extent_mm": 80}
    return {
        "name": "table-organs",
        "sources": {"hosts": hosts},
        "masks_per_case": masks,
        "masks": [
            {"name": label, "label": label, "margin_mm": margin, **part}
            for label, margin in (("kidney", 3), ("liver", 0), ("lung", 0))
        ],
    }


def tumour_scans(data: Path) -> dict[str, Any]:
    """The scans of eight patients with a real tumour in lung or soft tissue."""
    return {
        "layout": "nifti",
        "root": str(data / "tumours"),
        "image": "{case}/ct.nii.gz",
        "structures": {"tumor": "{case}/seg_gtv_1.nii.gz"},
        "licence": "CC-BY-NC-3.0",
        "attribution": "NSCLC-Radiomics and Soft-tissue-Sarcoma (TCIA)",
    }


def tumours(data: Path, masks: int) -> dict[str, Any]:
    """Real tumours, painted over."""
    return {
        "name": "table-tumors",
        "sources": {"hosts": tumour_scans(data)},
        "masks_per_case": masks,
        "masks": [
            {
                "name": "tumor",
                "kind": "organ",
                "label": "tumor",
                "margin_mm": 2,
                "max_extent_mm": 80,
            }
        ],
    }


def transplants(data: Path, masks: int) -> dict[str, Any]:
    """The shapes of these tumours in the kidneys of three other patients."""
    return {
        "name": "table-transplants",
        "sources": {"hosts": organs(data, 1)["sources"]["hosts"], "donors": tumour_scans(data)},
        "masks_per_case": masks,
        "masks": [
            {
                "name": "tumor",
                "kind": "transplant",
                "label": "tumor",
                "into": "kidney",
                "placement": "random",  # the donors have no kidneys in their label maps
                "deform": {"scale": [0.3, 0.9]},
            }
        ],
    }


def recipe(parts: dict[str, Any], name: str, method: str = "diffusion") -> Recipe:
    """The recipe of one arm: all share their masks, since these follow from the seed alone."""
    common = {
        "version": "1.0.0",
        "seed": 11,
        "keep_original": True,
        "splits": {"train": 1.0},
        "samples_per_shard": 24,
        "inpaint": {"method": method},
    }
    return Recipe.model_validate({**parts, **common, "name": name})


def tables(options: argparse.Namespace) -> None:
    """Build every arm of the three datasets, evaluate, and print."""
    real = table(tumours(options.data, options.tumour_masks), ("noise-fill",), options)
    table(organs(options.data, options.organ_masks), ("noise-fill",), options)
    table(
        transplants(options.data, options.transplant_masks),
        ("copy-paste", "noise-fill"),
        options,
        real=real,
    )


def table(
    parts: dict[str, Any],
    controls: Sequence[str],
    options: argparse.Namespace,
    real: Path | None = None,
) -> Path:
    """Build and evaluate one dataset with its control arms; the dataset's folder."""
    name = parts["name"]
    main = build(recipe(parts, name), options.output, device=options.device, progress=True)
    arms = {
        arm: build(recipe(parts, f"{name}-{arm}", method=CONTROLS[arm]), options.output)
        for arm in controls
    }
    roots = {name: Path(source["root"]) for name, source in parts["sources"].items()}
    asked = Options(arms=arms, roots=roots, real=real, progress=True)
    extractors: list[Extractor] = [Radiomics(), EfficientNetLite0()]
    found = evaluate(main, extractors, asked, cache_dir=default_cache_dir())
    text = results_markdown(found)
    write_results(main.with_name(f"{main.name}.evaluation"), found, text)
    print(text, flush=True)
    return main


def speed(options: argparse.Namespace) -> None:
    """Seconds for the crops of so many slices, painted and original, and all their scores."""
    rng = np.random.default_rng(0)
    crops = []
    for _ in range(8):  # the time does not depend on what is in a crop
        mask = np.zeros((512, 512), dtype=bool)
        mask[200:280, 220:290] = True
        hu = rng.normal(60, 20, mask.shape).astype(np.int16)
        crops.append(crop_to_mask(Crop(hu, mask, (0.8, 0.8), SOFT_TISSUE)))
    count = options.slices
    masks = np.array([f"m{n}" for n in range(count)])
    patients = {mask: f"p{n % 50}" for n, mask in enumerate(masks)}
    halving = make_halvings(list(masks), [], patients)

    for extractor in (Radiomics(), EfficientNetLite0()):
        start, used = time.perf_counter(), time.process_time()
        for _ in range(2 * count // 8):  # painted and original
            extractor.extract(crops)
        extracted = time.perf_counter() - start
        sets = [
            FeatureSet(rng.normal(size=(count, extractor.dim)).astype(np.float32), None, masks)
            for _ in range(2)
        ]
        scale = extractor.name == "radiomics"
        score_arm(sets[0], sets[1], halving, scale=scale)
        score_floor(sets[0], halving, scale=scale)
        total = time.perf_counter() - start
        print(f"{extractor.name}: {count} slices' crops in {total:.0f} s "
              f"({extracted:.0f} s features, {total - extracted:.0f} s scores; "
              f"{time.process_time() - used:.0f} s of one core)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=["tables", "speed"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("out/tables"))
    parser.add_argument("--organ-masks", type=int, default=24, help="masks per case")
    parser.add_argument("--tumour-masks", type=int, default=6, help="masks per case")
    parser.add_argument("--transplant-masks", type=int, default=10, help="masks per case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slices", type=int, default=2000)
    options = parser.parse_args()
    {"tables": tables, "speed": speed}[options.what](options)


if __name__ == "__main__":
    main()
