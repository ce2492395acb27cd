import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from synthct.dataset.records import yaml_text
from synthct.errors import RecipeError
from synthct.recipe.yaml_errors import Problem, nearest, path_text
from synthct.recipe.yaml_model import (
    expand_variables,
    fail_at,
    read_yaml,
    validate,
)


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ball(Strict):
    kind: Literal["ball"] = "ball"
    radius_mm: float


class Brick(Strict):
    kind: Literal["brick"] = "brick"
    size_mm: tuple[float, float]
    holes: tuple[str, ...] = ()
    margin_mm: float | tuple[float, float] = 0.0


class Folder(Strict):
    root: Path


class Toy(Strict):
    name: str
    seed: int = 0
    is_big: bool = False
    colour: Literal["red", "green"] = "red"
    parts: tuple[Annotated[Ball | Brick, Field(discriminator="kind")], ...] = ()
    sources: dict[str, Folder] = {}
    owner: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "Toy":
        if self.name == "bad":
            raise fail_at([Problem(("parts", 0, "kind"), "is bad"), Problem(("seed",), "is odd")])
        if self.name == "worse":
            raise ValueError("seed 3 is worse")
        return self


def load_toy(path: Path) -> Toy:
    document = read_yaml(path)
    expand_variables(document, ("sources.*.root",))
    return validate(document, Toy)


@pytest.fixture
def refusal(tmp_path: Path) -> Any:
    """The lines of the error for a text, without the folder."""

    def refuse(text: str | bytes) -> list[str]:
        path = tmp_path / "x.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(RecipeError) as caught:
            load_toy(path)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n")

    return refuse


def load(tmp_path: Path, text: str) -> Toy:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_toy(path)


def test_values_arrive_with_their_types(tmp_path: Path) -> None:
    toy = load(
        tmp_path,
        "\ufeffname: '1.0'  # quoted, so text\nseed: 3\nis_big: true\nowner: ~\n"
        "parts:\n- {kind: ball, radius_mm: 2}\n- kind: brick\n  size_mm: [1, 2.5e1]\n"
        "  holes:\n    - yes\n    - 1_0\n",
    )
    assert toy.name == "1.0"
    assert toy.is_big is True
    assert toy.owner is None
    assert toy.parts == (Ball(radius_mm=2), Brick(size_mm=(1, 25), holes=("yes", "1_0")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nsed: 1\n", "x.yaml:2:1: sed: unknown key; did you mean 'seed'?"),
        ("seed: 1\n", "x.yaml:1:1: name: this key is missing; add it"),
        (
            "name: 1.0\n",
            "x.yaml:1:7: name: expected text, not 1.0; put it in quotes as it stands there",
        ),
        ("name:\n", "x.yaml:1:1: name: expected text, not nothing"),
        ("name: a\nseed: 1.5\n", "x.yaml:2:7: seed: expected a whole number, not 1.5"),
        (
            "name: a\nseed: '1'\n",
            "x.yaml:2:7: seed: expected a whole number, not '1'; did you mean 1, without quotes?",
        ),
        (
            "name: a\nis_big: yes\n",
            "x.yaml:2:9: is_big: expected true or false, not 'yes'; did you mean true?",
        ),
        (
            "name: a\ncolour: gren\n",
            "x.yaml:2:9: colour: 'gren' is not known; did you mean 'green'?",
        ),
        (
            "name: a\ncolour: 7\n",
            "x.yaml:2:9: colour: 7 is not known; choose one of: red, green",
        ),
        (
            "name: a\nparts:\n  - {kind: bal, radius_mm: 1}\n",
            "x.yaml:3:12: parts[0].kind: 'bal' is not known; did you mean 'ball'?",
        ),
        (
            "name: a\nparts:\n  - {knd: ball, radius_mm: 1}\n",
            "x.yaml:3:6: parts[0].knd: unknown key; did you mean 'kind'?",
        ),
        (
            "name: a\nparts:\n  - radius_mm: 1\n",
            "x.yaml:3:5: parts[0].kind: this key is missing; choose one of: ball, brick",
        ),
        (
            "name: a\nparts:\n  - {kind: ball}\n",
            "x.yaml:3:5: parts[0].radius_mm: this key is missing; add it",
        ),
        (
            "name: a\nparts:\n  - {kind: ball, radius: 1}\n",
            "x.yaml:3:18: parts[0].radius: unknown key; did you mean 'radius_mm'?",
        ),
        (
            "name: a\nparts:\n  - {kind: ball, radius_cm: 1}\n",
            "x.yaml:3:18: parts[0].radius_cm: unknown key; did you mean 'radius_mm'?",
        ),
        (
            "name: a\nparts:\n  - {kind: ball, radius_mm: 1 mm}\n",
            "x.yaml:3:29: parts[0].radius_mm: expected a number, not '1 mm'; did you mean 1? "
            "The key names the unit",
        ),
        (
            "name: a\nparts:\n  - {kind: ball, radius_mm: 80%}\n",
            "x.yaml:3:29: parts[0].radius_mm: expected a number, not '80%'; did you mean 0.8? "
            "It is a fraction",
        ),
        (
            "name: a\nparts:\n- kind: brick\n  size_mm: [1, x]\n",
            "x.yaml:4:16: parts[0].size_mm[1]: expected a number, not 'x'",
        ),
        (
            "name: a\nparts:\n- kind: brick\n  size_mm: [1]\n",
            "x.yaml:4:12: parts[0].size_mm: the list [1] is too short",
        ),
        (
            "name: a\nparts:\n- {kind: brick, size_mm: [1, 2], holes: round}\n",
            "x.yaml:3:41: parts[0].holes: expected a list, not 'round'; did you mean [round]?",
        ),
        (
            "name: a\nparts:\n- {kind: brick, size_mm: [1, 2], margin_mm: [1, x]}\n",
            "x.yaml:3:49: parts[0].margin_mm[1]: expected a number, not 'x'",
        ),
        (
            "name: a\nparts:\n- {kind: brick, size_mm: [1, 2], margin_mm: x}\n",
            "x.yaml:3:45: parts[0].margin_mm: expected a number or a list, not 'x'",
        ),
        (
            "name: a\nparts: 3\n",
            "x.yaml:2:8: parts: expected a list, not 3; begin each of its parts with '-'",
        ),
        ("name: a\nparts: [3]\n", "x.yaml:2:9: parts[0]: expected a mapping (key: value), not 3"),
        ("name: a\nroot: x\n", "x.yaml:2:1: root: unknown key; it belongs in 'sources'"),
        (
            "name: a\nparts:\n- {kind: brick, size_mm: [1, 2], margin_mm: [1, 2], radius_mm: 3}\n",
            "x.yaml:3:53: parts[0].radius_mm: unknown key; it is of kind ball",
        ),
        ("name: worse\nseed: 3\n", "x.yaml:2:7: seed: seed 3 is worse"),
        ("name: a\nname: b\n", "x.yaml:2:1: name: duplicate key; it already stands on line 1"),
        ("name: &n a\n", "x.yaml:1:7: the anchor '&n' is not allowed; remove it"),
        ("name: *n\n", "x.yaml:1:7: the alias '*n' is not allowed; write the value out"),
        (
            "name: !!str a\n",
            "x.yaml:1:7: the tag 'tag:yaml.org,2002:str' is not allowed; remove it",
        ),
        ("name: !!python/name:os.system\n", "x.yaml:1:7: the tag"),
        ("seed: .inf\n", "x.yaml:1:7: seed: .inf is not a finite number"),
        ("seed: 1e999\n", "x.yaml:1:7: seed: 1e999 is not a finite number"),
        ("[1]: a\n", "x.yaml:1:1: a key must be text"),
        ("a: {: 1}\n", "x.yaml:1:6: a: a key must be text"),
        ("- a\n", "x.yaml:1:1: expected 'key: value' lines at the top level"),
        ("", "x.yaml:1:1: the file is empty; start it with 'name: ...'"),
        ("# nothing\n---\n", "x.yaml:1:1: the file is empty; start it with 'name: ...'"),
        (
            "name: a\n---\nname: b\n",
            "x.yaml:2:1: a second YAML document starts here; keep only one",
        ),
        ("name: a\nparts: [\n", "x.yaml:3:1: not valid YAML: "),
        ("name:\n\t- a\n", "x.yaml:2:1: not valid YAML: a tab cannot indent; use spaces"),
        ("name: a: b\n", "x.yaml:1:8: not valid YAML: mapping values are not allowed here"),
        (b"name: a\nowner: \xff\n", "x.yaml:2:8: not UTF-8; save the file as UTF-8"),
        ("name: a\nowner: \x07\n", "x.yaml:2:8: character U+0007 is not allowed in YAML"),
        ("name: a\r\nsed: 1\r\n", "x.yaml:2:1: sed: unknown key; did you mean 'seed'?"),
        ('"a\\e[31m": 1\nname: a\n', "x.yaml:1:1: a\\x1b[31m: unknown key"),
    ],
)
def test_each_fault_is_reported_at_its_place(
    refusal: Any, text: str | bytes, expected: str
) -> None:
    (line,) = refusal(text)
    assert line[: len(expected)] == expected


def test_all_faults_are_reported_in_the_order_of_the_file(refusal: Any) -> None:
    lines = refusal("seed: x\nname: 3\nparts:\n- {kind: ball, radus_mm: 1}\ncolour: blue\n")
    assert [line.split(": ")[1] for line in lines] == [
        "seed",
        "name",
        "parts[0].radus_mm",
        "colour",
    ]


def test_a_validator_can_place_its_faults_deep_inside(refusal: Any) -> None:
    assert refusal("name: bad\nparts:\n- {kind: ball, radius_mm: 1}\n") == [
        "x.yaml:1:1: seed: is odd",
        "x.yaml:3:10: parts[0].kind: is bad",
    ]


def test_variables_are_expanded_in_paths_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_ROOT", "/data")
    monkeypatch.delenv("TOY_OTHER", raising=False)
    toy = load(
        tmp_path,
        "name: ${TOY_ROOT}\nsources:\n  a: {root: '${TOY_ROOT}/x'}\n"
        "  b: {root: '${TOY_OTHER:-here}/y'}\n  ${TOY_ROOT}: {root: z}\n",
    )
    assert toy.name == "${TOY_ROOT}"
    assert toy.sources["a"].root == Path("/data/x")
    assert toy.sources["b"].root == Path("here/y")
    assert toy.sources["${TOY_ROOT}"].root == Path("z")


def test_an_unset_variable_is_named(refusal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_ROOT", raising=False)
    (line,) = refusal("name: a\nsources:\n  a: {root: '${TOY_ROOT}/x'}\n")
    assert line.startswith("x.yaml:3:13: sources.a.root: the environment variable TOY_ROOT is not")
    (line,) = refusal("name: a\nsources:\n  a: {root: '${TOY-ROOT}/x'}\n")
    assert line.startswith("x.yaml:3:13: sources.a.root: a variable is written ${NAME}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: " + "[" * 40 + "]" * 40, "nested deeper than 32 levels"),
        ("a: [" + "1," * 20_000 + "]", "more than 20000 values"),
        ("#" * (1 << 20) + "\n", "larger than 1 MiB"),
        ("a: &a [x,x]\nb: &b [*a,*a]\n", "the anchor '&a' is not allowed"),
        ("a: " + "{b: " * 10_000, "nested deeper than 32 levels"),
        ("{" * 500_000, "a key must be text"),
        ("a: '" + "x" * 900_000, "not valid YAML"),
    ],
)
def test_a_file_that_could_hurt_is_refused_quickly(refusal: Any, text: str, reason: str) -> None:
    start = time.process_time()
    (line,) = refusal(text)
    assert reason in line
    assert time.process_time() - start < 10  # unbounded, it would be minutes


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("name: a\n")
    with pytest.raises(RecipeError, match=r"quickstrt.yaml: no such file; did you mean '.*/quick"):
        read_yaml(tmp_path / "quickstrt.yaml")
    with pytest.raises(RecipeError, match="not a regular file"):
        read_yaml(tmp_path)


def test_what_is_dumped_is_read_back_equal(tmp_path: Path) -> None:
    value = {
        "b": ["1", "1.0", "true", "null", "~", "", "1e3", "0o7", ".inf", "2024-01-01", "a: b"],
        "a": {"x": 1, "y": 1.5, "z": None, "n": -2, "f": 1e-7, "t": True},
        "text": "two\nlines # and ü\x07 and \x1b",
        "1": "- [x]",
        "${A}": "${B:-c}",
        "empty": [],
    }
    path = tmp_path / "x.yaml"
    path.write_text(yaml_text(value), encoding="utf-8")
    read = read_yaml(path).value
    assert read == value
    assert list(read) == list(value)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("margin", "margin_mm"),
        ("marginMm", "margin_mm"),
        ("margin-mm", "margin_mm"),
        ("margn_mm", "margin_mm"),
        ("margin_cm", "margin_mm"),
        ("scales", "scale"),
        ("zzz", None),
    ],
)
def test_the_nearest_word_is_the_one_that_was_meant(word: str, near: str | None) -> None:
    assert nearest(word, ["max_extent_mm", "margin_mm", "scale", "label"]) == near


def test_a_location_reads_as_people_write_it() -> None:
    assert path_text(("masks", 1, "margin_mm", 0)) == "masks[1].margin_mm[0]"
