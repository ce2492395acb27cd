"""Each kind of addition needs one file and one name: six of them in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_tiny_case
from rooms import PACKAGE

from synthct.volume import write_volume

EXAMPLES = PACKAGE.parent / "examples"
ADDITIONS = Path(__file__).parent / "additions"

#: Each file that is added, where to, in which file its name is added, and before which words.
ADDED = [
    (EXAMPLES / "add_mask_kind.py", "masks", "Ball", "masks/__init__.py", "Organ | ", "Ball | "),
    (ADDITIONS / "pairs.py", "sources", "Pairs", "sources/__init__.py", "Kits | ", "Pairs | "),
    (ADDITIONS / "membrane.py", "models/networks", "Membrane", "models/networks/__init__.py",
     "    Palette,\n", "Membrane, "),
    (ADDITIONS / "stretching.py", "training/objectives", "Stretching",
     "training/objectives/__init__.py", "    PaletteObjective,\n", "    Stretching,\n"),
    (ADDITIONS / "edge_count.py", "metrics", "EDGE_COUNT", "metrics/table.py",
     "MASK_AREA,\n        PAINTED", "EDGE_COUNT,\n        "),
    (ADDITIONS / "raw.py", "publish/export", "Raw", "publish/export/run.py", '"nifti": ',
     '"raw": Raw(), '),
]  # fmt: skip

#: Builds and exports a dataset that has all of them, and begins to train the network.
USE = """
import json, sys
from pathlib import Path
import synthct
assert Path(synthct.__file__).is_relative_to(Path.cwd()), synthct.__file__
folder = synthct.build("recipe.yaml", "out", cache_dir=Path("cache"), workers=0)
plain = synthct.export(folder, "raw")
from datasets import load_dataset
rows = load_dataset(str(folder), cache_dir="hf")["train"]
from synthct.training.objectives import make_objective
from synthct.training.recipe import load_training_recipe
trained = make_objective(load_training_recipe(Path("training.yaml")))
print(json.dumps({
    "trained": [type(trained).__name__, *trained.networks],
    "kinds": sorted(set(rows["mask_kind"])),
    "cases": sorted(set(rows["case_id"])),
    "edges": [value for value in rows["edge_count"] if value is not None],
    "card": (folder / "README.md").read_text(),
    "raw": len(list(plain.glob("train/*.npy"))),
}))
"""


@pytest.mark.long
def test_each_addition_is_one_file_and_one_name(tmp_path: Path) -> None:
    package = tmp_path / "synthct"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, room, name, listing, before, words in ADDED:
        module = f"synthct.{room.replace('/', '.')}.{source.stem}"
        shutil.copy(source, package / room)
        path = package / listing
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, (listing, before)
        text = text.replace(before, words + before)
        first = re.search("^from synthct", text, re.MULTILINE)
        assert first, listing
        line = f"from {module} import {name}\n"
        path.write_text(text[: first.start()] + line + text[first.start() :], encoding="utf-8")

    for number in range(3):
        case = make_tiny_case(f"p{number}", noise_seed=number)
        write_volume(case.scan(), tmp_path / f"{case.case_id}-ct.nii.gz")
        write_volume(case.labels, tmp_path / f"{case.case_id}-labels.nii.gz")
    checkpoint = tmp_path / "membrane"
    checkpoint.mkdir()
    (checkpoint / "model_index.json").write_text(json.dumps({"_class_name": "MembranePipeline"}))
    recipe = {
        "name": "additions",
        "version": "1.0.0",
        "sources": {"hosts": {"layout": "pairs", "root": str(tmp_path)}},
        "masks_per_case": 2,
        "masks": [{"name": "balls", "kind": "ball", "within": "kidney", "radius_mm": 5}],
        "inpaint": {"checkpoint": str(checkpoint), "batch_size": 2},
        "quality": {"edge_count": {"max": 10_000}},
        "splits": {"train": 1.0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    training = {
        "name": "membrane",
        "sources": recipe["sources"],
        "masks": recipe["masks"],
        "model": {"kind": "membrane", "patch_sizes": [32]},
    }
    (tmp_path / "training.yaml").write_text(json.dumps(training))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["kinds"] == ["ball"]
    assert made["trained"] == ["Stretching", "tension"]
    assert made["cases"] == ["p0", "p1", "p2"]
    assert len(made["edges"]) == made["raw"] == 6
    assert "a membrane has filled" in made["card"]
    assert "steps of more than 100 HU inside" in made["card"]
