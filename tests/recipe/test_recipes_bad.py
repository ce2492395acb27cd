"""Bad recipes: each is told with file, line, column and what to do, at little cost.

The slips of the finger are in ``test_recipe``; here is what people mean in earnest, and what
somebody sends who means harm.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from synthct.errors import RecipeError
from synthct.recipe.recipe import load_recipe

GOOD = """\
name: tiny
version: 1.0.0
sources:
  hosts: {layout: nifti, root: data, image: "{case}.nii.gz", labels: "{case}_seg.nii.gz",
          label_names: {kidney: 1, tumor: 2}}
masks:
  - name: boxes
    kind: box
    around: kidney
    margin_mm: [1, 3]
"""


def edit(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def laughs() -> str:
    """A billion laughs."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi",
                                                                        strict=True)]  # fmt: skip
    return "\n".join(lines) + "\n"


#: The recipe, where its fault is, and what must be said of it.
BAD: dict[str, tuple[str, str, str]] = {
    # row 28: keys, units, types
    "unknown key": (edit("masks:", "seeds: 3\nmasks:"), "6:1", "seeds: unknown key; did you mean"),
    "key of another section": (edit("masks:", "scheduler: ddim\nmasks:"), "6:1", "in 'inpaint'"),
    "key twice": (edit("masks:", "name: other\nmasks:"), "6:1", "duplicate key; .* on line 1"),
    "key twice in a mask": (edit("    around: kidney", "    around: kidney\n    around: tumor"),
                            "10:5", "duplicate key; .* on line 9"),
    "other unit": (edit("margin_mm", "margin_cm"), "10:5", "did you mean 'margin_mm'"),
    "unit in the value": (edit("[1, 3]", "[1cm, 3]"), "10:17", "not '1cm'; did you mean 1"),
    "text for a number": (edit("[1, 3]", '["1", 3]'), "10:17", "did you mean 1, without quotes"),
    "number for text": (edit("name: tiny", "name: 1"), "1:7", "put it in quotes as it stands"),
    "range that falls": (edit("[1, 3]", "[3, 1]"), "10:16", "must rise"),
    "not a number": (edit("[1, 3]", "[.nan, 3]"), "10:17", "not a finite number"),
    "infinity": (edit("[1, 3]", "[1, .inf]"), "10:20", "not a finite number"),
    "number of a thousand digits": (edit("[1, 3]", "[1, 1" + "0" * 1000 + "]"), "10:20", "number"),
    "unknown kind": (edit("kind: box", "kind: sphere"), "8:11", "'sphere' is not known"),
    "unknown layout": (edit("layout: nifti", "layout: nifty"), "4:19", "did you mean 'nifti'"),
    "unknown policy": (edit("masks:", "on_bad_case: ignore\nmasks:"), "6:14", "not known; choose"),
    "policy of a misspelt name": (edit("masks:", "on_bad_cases: skip\nmasks:"), "6:1",
                                  "did you mean 'on_bad_case'"),
    "nan of another word": (edit("root: data", "root: data, nan: fil"), "4:43",
                            "did you mean 'fill'"),
    "negative frame": (edit("root: data", "root: data, frame: -1"), "4:45", "at least 0"),
    "nothing": (edit("masks:", "view:\nmasks:"), "6:1", "view"),
    "a list at the top": ("- a\n- b\n", "1:1", "expected 'key: value' lines"),
    "no masks": (GOOD[: GOOD.index("masks:")], "1:1", "masks: this key is missing; add it"),
    "empty": ("", "1:1", "the file is empty; start it with"),
    # row 29: files that hurt
    "a billion laughs": (laughs(), "1:4", "the anchor '&a' is not allowed; remove it"),
    "merge key": (edit("masks:", "<<: {seed: 3}\nmasks:"), "6:1", "unknown key"),
    "an alias": (edit("[1, 3]", "*m"), "10:16", r"the alias '\*m' is not allowed; write the"),
    "a python object": (edit("name: tiny", "name: !!python/object/apply:os.system [id]"), "1:7",
                        "the tag .* is not allowed; remove it"),
    "a tag of its own": (edit("name: tiny", "name: !env HOME"), "1:7", "the tag '!env'"),
    "forty levels": (edit("[1, 3]", "[" * 40 + "]" * 40), "10:45", "nested deeper than 32"),
    "ten thousand levels": (edit("[1, 3]", "[" * 10_000), "10:45", "nested deeper than 32"),
    "30,000 values": (edit("[1, 3]", "[" + "1," * 30_000 + "]"), "10:", "more than 20000 values"),
    "2 MB": (GOOD + "#" * (2 << 20), "1:1", "larger than 1 MiB, the limit of a recipe; shorten"),
    "two documents": (GOOD + "---\n" + GOOD, "11:1", "a second YAML document starts here; keep"),
    "a null byte": (edit("tiny", "ti\0ny"), "1:9", r"character U\+0000 is not allowed"),
    "a tab": (edit("    around", "\taround"), "9:1", "a tab cannot indent; use spaces"),
    "cut": (GOOD[:-3], "1[01]:", "not valid YAML"),
    "quotes that do not end": (edit("around: kidney", "around: 'kidney"), "", "not valid YAML"),
    "escapes of a terminal": (edit("name: boxes", 'name: "a\\e]0;x\\a"'), "7:11", "name"),
    # row 30: paths
    "pattern up": (edit("{case}.nii.gz", "../{case}.nii.gz"), "4:45", "leads out of root"),
    "absolute pattern": (edit("{case}.nii.gz", "/etc/{case}.nii.gz"), "4:45", "leads out of root"),
    "pattern of a home": (edit("{case}.nii.gz", "~/{case}.nii.gz"), "4:45", "leads out of root"),
    "pattern of a share": (edit("{case}.nii.gz", "\\\\\\\\host\\\\{case}.nii.gz"), "4:45",
                           "leads out of root"),
    "pattern without a case": (edit("{case}.nii.gz", "ct.nii.gz"), "4:45", "has no {case}"),
    "variable that is not set": (edit("root: data", "root: '${NO_SUCH_ROOT}'"), "4:32",
                                 "NO_SUCH_ROOT is not set; set it, or give a default"),
    "half a variable": (edit("root: data", "root: '${HOME'"), "4:32", r"is written \$\{NAME\}"),
    "name that leads out": (edit("name: tiny", "name: ../tiny"), "1:7", "did you mean 'tiny'"),
    "version that leads out": (edit("1.0.0", "../1.0.0"), "2:10", "write three numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "message"), BAD.values(), ids=BAD.keys())
def test_each_bad_recipe_is_reported_at_its_place(
    tmp_path: Path, text: str, place: str, message: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    lines = str(caught.value).replace(f"{tmp_path}/", "").split("\n")
    assert all(re.match(r"x\.yaml:\d+:\d+: \S", line) for line in lines), lines
    assert all(line.isprintable() for line in lines)
    assert any(re.match(rf"x\.yaml:{place}.*{message}", line) for line in lines), lines


def test_there_are_thirty_and_the_good_one_is_good(tmp_path: Path) -> None:
    assert len(BAD) >= 30
    (tmp_path / "x.yaml").write_text(GOOD)
    assert load_recipe(tmp_path / "x.yaml").name == "tiny"


MEASURE = """
import json, sys
from pathlib import Path
from synthct.errors import RecipeError
from synthct.recipe.recipe import load_recipe

def peak_kb():  # not ru_maxrss, which a child process inherits
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

cost = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    before = peak_kb()
    try:
        load_recipe(path)
        said = None
    except RecipeError as err:
        said = str(err)[:200]
    after = peak_kb()
    cost[path.name] = [said, (after - before) / 1024]
print(json.dumps(cost))
"""


@pytest.mark.long
def test_no_recipe_costs_more_than_a_hundred_megabytes(tmp_path: Path) -> None:
    megabyte = 1 << 20
    harm = {
        "laughs": laughs(),
        "deep": "a: " + "[" * 900_000,
        "wide": "a: [" + "1," * 500_000 + "]",
        "keys": "".join(f"k{n}: 1\n" for n in range(80_000)),
        "text": "a: '" + "x" * (megabyte - 100) + "'",
    }
    for name, text in harm.items():
        (tmp_path / name).write_text(text)
    with (tmp_path / "hundred").open("wb") as file:
        file.truncate(100 * megabyte)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    for name, (said, megabytes) in json.loads(done.stdout).items():
        assert said is not None, name
        assert megabytes < 100, (name, megabytes, said)
