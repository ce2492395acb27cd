"""Label maps from a program of the user's: files in and out, every way in which it can fail."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_tiny_case
from pydantic import ValidationError
from tiny_recipe import tiny_recipe, write_data
from typer.testing import CliRunner

from synthct.build.check import check
from synthct.build.draw import CaseReader
from synthct.build.run import build
from synthct.cli import app
from synthct.dataset.png import decode_hu, decode_labels, decode_mask
from synthct.dataset.writer import read_shard
from synthct.errors import RecipeError, ResourceError, SourceError
from synthct.recipe.recipe import Recipe
from synthct.recipe.relabel import Relabel, Relabeller, parse_command
from synthct.volume import Box, Volume
from synthct.volume.views import from_picture

VALUES = {"kidney": 1, "tumor": 2, "spleen": 9}

#: A segmenter of the old school: what is brighter than 150 HU is 7, what is darker than -500 is 0,
#: the rest is 4. It writes in an orientation of its own.
SEGMENTER = """
import sys
import nibabel as nib
import numpy as np

image = nib.load(sys.argv[1])
hu = np.asarray(image.dataobj)
labels = np.where(hu > 150, 7, np.where(hu < -500, 0, 4)).astype(np.uint8)
turned = nib.as_closest_canonical(nib.Nifti1Image(labels, image.affine))
flip = nib.orientations.axcodes2ornt("LPS")
nib.save(turned.as_reoriented(flip), sys.argv[2])
print("done")
"""


def program(folder: Path, code: str, name: str = "segment it.py") -> tuple[str, ...]:
    path = folder / name
    path.write_text(code)
    return sys.executable, str(path), "{image}", "{labels}"


def relabeller(command: tuple[str, ...], **fields: Any) -> Relabeller:
    asked = {"name": "segmenter 1.0", "labels": {"kidney": 7, "spleen": 4}, **fields}
    return Relabeller(Relabel.model_validate(asked), command, VALUES)


def picture() -> Volume:
    scan = make_tiny_case().scan()
    return scan.crop(Box((0, 0, 12), (48, 40, 13)))


def refusal(tmp_path: Path, code: str, **fields: Any) -> str:
    with pytest.raises(SourceError) as error:
        relabeller(program(tmp_path, code), **fields).labels_of(picture(), "sample-7")
    assert str(error.value).startswith("sample-7: --relabel (segmenter 1.0) ")
    return str(error.value)


@pytest.mark.parametrize("whole", [False, True])
def test_the_programs_values_become_the_datasets(tmp_path: Path, whole: bool) -> None:
    given = make_tiny_case().scan() if whole else picture()
    found = relabeller(program(tmp_path, SEGMENTER)).labels_of(given, "sample")
    hu = given.array
    assert np.array_equal(found, np.where(hu > 150, 1, np.where(hu < -500, 0, 9)))


def test_what_it_writes_elsewhere_is_gone_afterwards(tmp_path: Path) -> None:
    code = SEGMENTER + "\nopen(sys.argv[2] + '.tmp', 'w').close()\nprint(sys.argv[2])"
    seen = tmp_path / "seen"
    code += f"\nopen({str(seen)!r}, 'w').write(sys.argv[2])"
    relabeller(program(tmp_path, code)).labels_of(picture(), "sample")
    assert not Path(seen.read_text()).parent.exists()


def test_a_failing_program_is_quoted(tmp_path: Path) -> None:
    text = refusal(tmp_path, "import sys\nprint('no \\x1b[31mGPU')\nsys.exit(3)")
    assert "failed with exit code 3; its output:\nno  [31mGPU" in text


def test_a_long_complaint_is_quoted_from_its_end(tmp_path: Path) -> None:
    text = refusal(tmp_path, "import sys\nprint('x' * 100_000)\nsys.exit('out of memory')")
    assert text.endswith("out of memory")
    assert len(text) < 1000


def test_a_killed_program_is_distinguished_from_a_failing_one(tmp_path: Path) -> None:
    assert "was ended by signal 9" in refusal(
        tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    )


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(pid)!r}).write_text(str(child.pid))
time.sleep(60)
"""
    started = time.monotonic()
    assert "took more than timeout_s 1.5" in refusal(tmp_path, code, timeout_s=1.5)
    assert time.monotonic() - started < 20
    child = int(pid.read_text())
    for _ in range(50):
        stat = Path(f"/proc/{child}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    os.kill(child, 9)
    pytest.fail("what the program started still runs")


def test_a_program_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be started: No such file"):
        relabeller((str(tmp_path / "gone"), "{image}", "{labels}")).labels_of(picture(), "s")


def test_a_missing_label_map_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, "print('looked at it')")
    assert "wrote no {labels}; its output:\nlooked at it" in text


def test_a_damaged_label_map_is_refused_without_naming_a_temporary_file(tmp_path: Path) -> None:
    text = refusal(tmp_path, "import sys\nopen(sys.argv[2], 'wb').write(b'not a scan')")
    assert "wrote a label map that is of no use" in text
    assert "synthct-relabel-" not in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("labels = labels[::2]", r"another grid \(\(24, 40, 1\), not \(48, 40, 1\)\)"),
        ("image.affine[0, 3] += 3", r"another grid .*, 3.00 mm away\)"),
        ("labels[0, 0, 0] = 11", "wrote the value 11, which relabel.labels does not name"),
        ("labels = labels - 0.5", "wrote a label map that is of no use: .*0.5"),
    ],
)
def test_what_does_not_fit_the_picture_is_refused(
    tmp_path: Path, change: str, expected: str
) -> None:
    code = f"""
import sys
import nibabel as nib
import numpy as np

image = nib.load(sys.argv[1])
labels = np.zeros(image.shape, dtype=np.uint8)
{change}
nib.save(nib.Nifti1Image(labels, image.affine), sys.argv[2])
"""
    assert re.search(expected, refusal(tmp_path, code))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true {image}", r"has no \{labels\}"),
        ("true {labels}", r"has no \{image\}"),
        ("no-such-program-here {image} {labels}", "there is no program 'no-such-program-here'"),
        ("true '{image} {labels}", "No closing quotation"),
        ("", r"has no \{image\}"),
    ],
)
def test_a_senseless_command_is_refused(text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        parse_command(text)


def test_a_command_is_split_as_by_a_shell_but_run_by_none(tmp_path: Path) -> None:
    assert parse_command("sh -c 'cp {image} {labels}'") == ("sh", "-c", "cp {image} {labels}")
    canary = tmp_path / "canary"
    code = "import sys\nopen(sys.argv[3], 'w').write('|'.join(sys.argv[4:]))\n" + SEGMENTER
    command = (*program(tmp_path, code), str(canary), f"$(touch {tmp_path}/x); `id`", "a b")
    relabeller(command).labels_of(picture(), "sample")
    assert canary.read_text() == f"$(touch {tmp_path}/x); `id`|a b"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "fields",
    [{"labels": {}}, {"labels": {"a": 0}}, {"labels": {"a": 1, "b": 1}}, {"timeout_s": 0},
     {"name": "a\x1bb"}, {"command": "rm"}],
)  # fmt: skip
def test_senseless_sections_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Relabel.model_validate({"name": "s", "labels": {"kidney": 7}, **fields})


# --- In a recipe ---------------------------------------------------------------------------------

BOX = {"name": "boxes", "kind": "box", "around": "kidney", "margin_mm": [1, 3],
       "max_extent_mm": 20, "label_map": "relabel"}  # fmt: skip
ASKED = {"name": "segmenter 1.0", "labels": {"kidney": 7, "tumor": 4}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("relabel") / "data")


def fields(data: Path, checkpoint: Path, **changes: Any) -> dict[str, Any]:
    return tiny_recipe(
        data, checkpoint, masks=[BOX], relabel=ASKED, masks_per_case=1, variants=1, **changes
    )


@pytest.mark.parametrize("given", ["slice", "scan"])
def test_the_label_map_under_a_box_is_what_the_program_says(
    data: Path, tiny_checkpoint: Path, tmp_path: Path, given: str
) -> None:
    recipe = Recipe.model_validate(
        fields(data, tiny_checkpoint) | {"relabel": {**ASKED, "input": given}}
    )
    shapes = tmp_path / "shapes"
    code = SEGMENTER + f"\nopen({str(shapes)!r}, 'a').write(f'{{image.shape}}\\n')"
    command = program(tmp_path, code)
    out = build(recipe, tmp_path, cache_dir=tmp_path / "c", workers=0, relabel=command)
    expected = "(48, 40, 1)" if given == "slice" else "(48, 40, 24)"
    assert set(shapes.read_text().splitlines()) == {expected}
    checked = check(recipe, cache_dir=tmp_path / "c")
    rows = [r for path in out.glob("data/*") for r in read_shard(path).to_pylist()]
    assert len(rows) == 2
    for row in rows:
        hu = from_picture(decode_hu(row["image"]["bytes"]), "axial")[..., 0]
        mask = from_picture(decode_mask(row["mask"]["bytes"]), "axial")[..., 0]
        labels = from_picture(decode_labels(row["label_map"]["bytes"]), "axial")[..., 0]
        host = CaseReader(checked.label_names).read(checked.index.entry("hosts", row["case_id"]))
        before = host.labels.array[..., row["slice_index"]]
        said = np.where(hu > 150, 1, np.where(hu < -500, 0, 2))
        assert np.array_equal(labels, np.where(mask, said, before))
        stored = json.loads(row["provenance"])["mask"]
        assert stored["label_map"] == "relabel"
        assert stored["relabelled_by"] == {**ASKED, "input": given}
        assert str(tmp_path) not in row["provenance"]
    assert "the output of `segmenter 1.0`" in (out / "README.md").read_text()
    for path in (out / "recipe.yaml", out / "synthct.lock"):
        assert "segment it.py" not in path.read_text()


def test_a_recipe_alone_runs_nothing(data: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(fields(data, tiny_checkpoint))
    with pytest.raises(RecipeError, match=r"relabel: the label maps come from 'segmenter 1.0'"):
        build(recipe, tmp_path, cache_dir=tmp_path / "c", workers=0)
    plain = Recipe.model_validate(tiny_recipe(data, tiny_checkpoint))
    with pytest.raises(RecipeError, match="no mask of the recipe says label_map: relabel"):
        build(plain, tmp_path, cache_dir=tmp_path / "c", relabel=("true", "{image}", "{labels}"))


def test_what_must_go_together_goes_together(data: Path, tiny_checkpoint: Path) -> None:
    alone = fields(data, tiny_checkpoint)
    del alone["relabel"]
    with pytest.raises(ValueError, match="needs a section relabel"):
        Recipe.model_validate(alone)
    with pytest.raises(ValueError, match="no mask says label_map: relabel"):
        Recipe.model_validate(tiny_recipe(data, tiny_checkpoint, relabel=ASKED))


def test_a_label_that_no_source_numbers_is_refused_early(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    asked = {"name": "s", "labels": {"kidny": 7}}
    recipe = Recipe.model_validate(fields(data, tiny_checkpoint) | {"relabel": asked})
    with pytest.raises(RecipeError, match=r"relabel.labels.kidny: no source numbers 'kidny'"):
        check(recipe, cache_dir=tmp_path)


def test_a_failing_program_ends_the_build_and_the_command_line_says_so(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(fields(data, tiny_checkpoint)))
    command = shlex.join(program(tmp_path, "raise SystemExit('no licence')"))
    arguments = ["build", str(path), "--output", str(tmp_path / "out"), "--workers", "0",
                 "--cache-dir", str(tmp_path / "c"), "--relabel"]  # fmt: skip
    done = CliRunner().invoke(app, [*arguments, command])
    assert done.exit_code == 3
    assert "failed with exit code 1; its output:\nno licence" in done.output
    assert "case_0000" in done.output
    assert not list((tmp_path / "out").glob("tiny/1.0.0"))
    done = CliRunner().invoke(app, [*arguments, "nothing-here {image} {labels}"])
    assert done.exit_code == 2
