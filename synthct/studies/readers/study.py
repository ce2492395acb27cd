"""A study on disk: numbered pictures, the answers of each reader, and the key that tells the truth.

The key lies beside the folder of pictures, so that readers can be given the folder alone. The study
holds the key's hash from the start: nobody can change the truth afterwards.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synthct import seeds
from synthct.dataset.manifest import Release, require_manifest
from synthct.errors import ConflictError, RecipeError, ResourceError, VerifyError
from synthct.storage.files import atomic_write, make_folder, resource_error
from synthct.studies.readers.choose import Picture, choose_pictures

STUDY, PICTURES, ANSWERS, TEMPLATE, READ_ME = (
    "study.json", "pictures", "answers", "answers.csv", "read-me.txt",
)  # fmt: skip

#: Answers are certain by so many degrees, from a guess to certainty.
CONFIDENCE = (1, 2, 3, 4, 5)

#: Painted pictures of a study, unless one asks for more or less.
PAIRS = 20

_COLUMNS = ("picture", "guess", "confidence")

_READ_ME = """\
Some of these pictures show a real part of a CT scan in the middle, in some it was painted by a
program. Say for each which it is. Look at them in order and do not go back.

Fill in {template} (or a copy of it), one line for each picture:

  guess        real or painted
  confidence   1 (a guess) to 5 (certain)

Then run: synthct reader-study DATASET --reader YOUR-NAME --answers {template}
Part of the answers is fine too; the rest may follow. An answer once given stays.
"""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Answer(_Model):
    """A reader's answer to a picture."""

    guess: Literal["real", "painted"]
    confidence: Annotated[int, Field(ge=CONFIDENCE[0], le=CONFIDENCE[-1])]

    @property
    def rating(self) -> int:
        """Positive for painted."""
        return self.confidence if self.guess == "painted" else -self.confidence


class Truth(_Model):
    """What a picture shows.

    Attributes:
        truth: Whether it was painted.
        label: What is in its middle.
        origin: The painted sample, or the real case.
    """

    truth: Literal["real", "painted"]
    label: str
    origin: str


class Key(_Model):
    """The truth of a study.

    Attributes:
        seed: By which the pictures were chosen and mixed.
        pictures: By name, in order.
    """

    seed: int
    pictures: dict[str, Truth]


class Study(_Model):
    """What readers may know of a study.

    Attributes:
        dataset: Name and version.
        content_id: Of its content.
        pictures: Number of pictures; about half of them are painted.
        key_sha256: Of the file with the truth.
    """

    dataset: str
    content_id: str
    pictures: int
    key_sha256: str


class StudyFolder:
    """A study on disk.

    Args:
        folder: Where it is.

    Raises:
        VerifyError: If it or its key is damaged.
        ResourceError: If it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study: Study = _parsed(folder / STUDY, Study)
        self.names = [f"{n:03}" for n in range(1, self.study.pictures + 1)]

    def picture(self, name: str) -> bytes:
        """The PNG of a picture."""
        path = self.folder / PICTURES / f"{name}.png"
        try:
            return path.read_bytes()
        except OSError as err:
            raise resource_error(path, err) from err

    def key(self) -> Key:
        """The truth.

        Raises:
            VerifyError: If it is not the one that the study began with.
        """
        path = key_path(self.folder)
        key: Key = _parsed(path, Key)
        if hashlib.sha256(path.read_bytes()).hexdigest() != self.study.key_sha256:
            raise VerifyError(f"{path} is not the key that {self.folder} was made with")
        return key

    def readers(self) -> dict[str, dict[str, Answer]]:
        """The answers of everybody, by reader and picture."""
        files = sorted((self.folder / ANSWERS).glob("*.csv"))
        return {path.stem: self.read_answers(path) for path in files}

    def answers_of(self, reader: str) -> dict[str, Answer]:
        """The answers that a reader has given so far, by picture.

        Raises:
            RecipeError: If the name is none for a file.
        """
        path = self._path(reader)
        return self.read_answers(path) if path.is_file() else {}

    def read_answers(self, path: Path) -> dict[str, Answer]:
        """The answers in a file, by picture; lines without a guess are left out.

        Raises:
            RecipeError: If it is damaged; says in which line.
            ResourceError: If it cannot be read.
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as err:
            raise resource_error(path, err) from err
        except UnicodeDecodeError as err:
            raise RecipeError(f"{path} is no UTF-8 text; save it as CSV in UTF-8") from err
        table = csv.DictReader(io.StringIO(text, newline=""))
        if lacking := [name for name in _COLUMNS if name not in (table.fieldnames or ())]:
            raise RecipeError(f"{path}:1: has no column '{lacking[0]}'; see {READ_ME}")
        answers: dict[str, Answer] = {}
        for row in table:
            name, guess, confidence = ((row[column] or "").strip() for column in _COLUMNS)
            if not guess:
                continue
            where = f"{path}:{table.line_num}: picture '{name}'"
            name = name.zfill(3)  # spreadsheets drop zeros
            if name not in self.names or name in answers:
                problem = "is there twice" if name in answers else "is none of this study"
                raise RecipeError(f"{where} {problem}")
            if guess.lower() not in ("real", "painted") or confidence not in map(str, CONFIDENCE):
                raise RecipeError(
                    f"{where}: guess '{guess}', confidence '{confidence}'; write real or painted, "
                    f"and {CONFIDENCE[0]} to {CONFIDENCE[-1]}"
                )
            answers[name] = Answer.model_validate(
                {"guess": guess.lower(), "confidence": int(confidence)}
            )
        return answers

    def add_answers(self, reader: str, new: Mapping[str, Answer]) -> dict[str, Answer]:
        """Take in answers; returns all that the reader has given.

        Raises:
            ConflictError: If one was given before and was another.
            RecipeError: If the name is none for a file.
            ResourceError: If they cannot be written.
        """
        given = self.answers_of(reader)
        for name, answer in new.items():
            if given.get(name, answer) != answer:
                raise ConflictError(
                    f"reader '{reader}' has answered picture {name} before, and otherwise "
                    f"({given[name].guess}, {given[name].confidence}); an answer stays"
                )
        given = {name: both[name] for both in [{**given, **new}] for name in sorted(both)}
        make_folder(self.folder / ANSWERS)
        atomic_write(self._path(reader), _table(given).encode())
        return given

    def _path(self, reader: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", reader):
            raise RecipeError(f"reader '{reader}': a name is letters, digits, - and _")
        return self.folder / ANSWERS / f"{reader}.csv"


def open_study(
    dataset: Path,
    folder: Path,
    *,
    pairs: int | None,
    seed: int | None,
    roots: Mapping[str, Path],
    cache_dir: Path,
    real: Path | None = None,
    advance: Callable[[], object] = lambda: None,
) -> StudyFolder:
    """The study of a dataset; chooses the pictures if there is none yet.

    Args:
        dataset: The folder of a version.
        folder: Where the study is, or goes.
        pairs: Number of painted pictures, and of real ones; None for ``PAIRS``.
        seed: Chooses and mixes; None for one that nobody knows.
        roots: Source name to folder; phantoms need none.
        cache_dir: Folder of cached indexes and phantoms.
        real: A version whose slices before painting are the real ones; None for structures of the
            dataset's own sources.
        advance: Called once per picture.

    Raises:
        ConflictError: If there is one of another dataset, or of other settings.
        SynthCTError: If there is nothing to be told apart, or something is damaged.
    """
    release = require_manifest(dataset).release
    if not (folder / STUDY).is_file():
        choose = partial(
            choose_pictures, dataset, pairs or PAIRS,
            roots=roots, cache_dir=cache_dir, other=real, advance=advance,
        )  # fmt: skip
        return _make(folder, release, secrets.randbits(63) if seed is None else seed, choose)
    study = StudyFolder(folder)
    if study.study.content_id != release.content_id:
        raise ConflictError(
            f"{folder} is about content {study.study.content_id[:12]}, {dataset} is "
            f"{release.content_id[:12]}; give another --output"
        )
    if (pairs, seed, real) != (None, None, None):
        raise ConflictError(
            f"{folder} is there already, with its pictures; leave --pairs, --seed and --real out "
            "to go on, or give another --output"
        )
    return study


def _make(
    folder: Path,
    release: Release,
    seed: int,
    choose: Callable[[np.random.Generator], list[Picture]],
) -> StudyFolder:
    """Choose pictures and write a study."""
    pictures = choose(seeds.generator(seed, "reader study", release.content_id))
    names = [f"{n:03}" for n in range(1, len(pictures) + 1)]
    key = Key(seed=seed, pictures=dict(zip(names, map(_truth, pictures), strict=True)))
    secret = f"{key.model_dump_json(indent=1)}\n".encode()
    make_folder(folder / PICTURES)
    atomic_write(key_path(folder), secret)
    for name, picture in zip(names, pictures, strict=True):
        atomic_write(folder / PICTURES / f"{name}.png", picture.png)
    atomic_write(folder / TEMPLATE, _table(dict.fromkeys(names)).encode())
    atomic_write(folder / READ_ME, _READ_ME.format(template=TEMPLATE).encode())
    study = Study(
        dataset=f"{release.name} {release.version}",
        content_id=release.content_id,
        pictures=len(pictures),
        key_sha256=hashlib.sha256(secret).hexdigest(),
    )
    atomic_write(folder / STUDY, f"{study.model_dump_json(indent=1)}\n".encode())
    return StudyFolder(folder)


def key_path(folder: Path) -> Path:
    """Where the truth of a study is: beside it."""
    return folder.with_name(f"{folder.name}-key.json")


def _truth(picture: Picture) -> Truth:
    truth: Literal["real", "painted"] = "painted" if picture.is_painted else "real"
    return Truth(truth=truth, label=picture.label, origin=picture.origin)


def _table(answers: Mapping[str, Answer | None]) -> str:
    rows: Iterable[tuple[Any, ...]] = (
        (name, "" if one is None else one.guess, "" if one is None else one.confidence)
        for name, one in answers.items()
    )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    return stream.getvalue()


def _parsed(path: Path, kind: type[Any]) -> Any:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as err:
        raise ResourceError(f"{path}: {err.strerror}; mend it, or make the study anew") from err
    except (ValidationError, json.JSONDecodeError) as err:
        reason = str(err).splitlines()[0]
        raise VerifyError(f"{path} is damaged ({reason}); take it from its source") from err
