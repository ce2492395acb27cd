"""Labels of painted pictures from a program of the user's, such as a segmenter: file in, file out.

A recipe says that labels are wanted and what the program's values mean, but never which program:
the command comes from who starts the build (``--relabel``), so that a recipe from elsewhere can
run nothing. It is started without a shell, and its answer is checked like any other label map.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthct.errors import RecipeError, ResourceError, SourceError
from synthct.volume import Volume, read_labels, write_volume

#: Stand in the command for the two files.
IMAGE, LABELS = "{image}", "{labels}"

#: So many characters of what the program said are quoted in an error.
_QUOTED = 600


class Relabel(BaseModel):
    """What a program of the user's, given with ``--relabel``, says of painted pictures.

    Attributes:
        name: Names the program and its version; stands in every sample's provenance.
        labels: Structure to its value in the program's label maps.
        input: The program gets the painted slice, or the whole scan with that slice in it.
        timeout_s: So long it may take for one sample.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[\w .+()-]+$")]
    labels: Annotated[dict[str, Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1)]
    input: Literal["slice", "scan"] = "slice"
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0

    @field_validator("labels")
    @classmethod
    def _values_differ(cls, labels: dict[str, int]) -> dict[str, int]:
        values = list(labels.values())
        if doubled := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"labels gives value {doubled[0]} to two structures")
        return labels


def parse_command(text: str) -> tuple[str, ...]:
    """The program and its arguments from one line, quoted as for a shell.

    Raises:
        RecipeError: If it cannot be read, lacks ``{image}`` or ``{labels}``, or there is no such
            program.
    """
    try:
        command = tuple(shlex.split(text))
    except ValueError as err:
        raise RecipeError(f"--relabel {text}: {err}") from err
    for place in (IMAGE, LABELS):
        if not any(place in part for part in command):
            raise RecipeError(
                f"--relabel {text}: has no {place}; the program reads the painted picture from "
                f"{IMAGE} and writes its label map to {LABELS}, both NIfTI files"
            )
    if shutil.which(command[0]) is None:
        raise RecipeError(f"--relabel {text}: there is no program '{command[0]}' here")
    return command


@dataclass(frozen=True)
class Relabeller:
    """A program that labels pictures.

    Attributes:
        asked: The recipe's section.
        command: From ``parse_command``.
        values: Structure to value in the dataset's label maps.
    """

    asked: Relabel
    command: tuple[str, ...]
    values: Mapping[str, int]

    def labels_of(self, picture: Volume, what: str) -> npt.NDArray[np.uint16]:
        """What the program says of a picture, in the dataset's values.

        Args:
            picture: int16 HU, canonical; a slice one voxel thick, or a whole scan.
            what: Named in errors, such as a sample's id.

        Returns:
            Label values (I, J, K) of the picture's shape.

        Raises:
            SourceError: If the program fails, takes too long, or its label map is missing,
                damaged, on another grid or has unknown values.
            ResourceError: If the program cannot be started or the disk is full.
        """
        about = f"{what}: --relabel ({self.asked.name})"
        with tempfile.TemporaryDirectory(prefix="synthct-relabel-") as name:
            image, answer = Path(name) / "image.nii.gz", Path(name) / "labels.nii.gz"
            write_volume(picture, image)
            places = {IMAGE: str(image), LABELS: str(answer)}
            said = self._run([_filled(part, places) for part in self.command], Path(name), about)
            if not answer.is_file():
                raise SourceError(f"{about} wrote no {LABELS}{said}")
            try:
                found = read_labels(answer)
            except SourceError as err:
                reason = str(err).replace(f"{answer}: ", "")
                raise SourceError(f"{about} wrote a label map that is of no use: {reason}") from err
        return self._renumbered(found, picture, about)

    def _run(self, command: Sequence[str], folder: Path, about: str) -> str:
        """Run the program to its end; what it said, to be quoted."""
        log = folder / "said.txt"
        try:
            with log.open("wb") as out:
                process = subprocess.Popen(  # noqa: S603  (given by whom starts the build)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that what it starts can be ended with it
                )
        except OSError as err:
            raise ResourceError(f"{about} cannot be started: {err.strerror}") from err
        try:
            code = process.wait(self.asked.timeout_s)
        except subprocess.TimeoutExpired as err:
            raise SourceError(
                f"{about} took more than timeout_s {self.asked.timeout_s:g}; allow more time, or "
                f"try the program on one picture{_quoted(log)}"
            ) from err
        finally:
            _end(process)
        if code != 0:
            how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            raise SourceError(f"{about} {how}{_quoted(log)}")
        return _quoted(log)

    def _renumbered(self, found: Volume, picture: Volume, about: str) -> npt.NDArray[np.uint16]:
        if not found.has_grid_of(picture):
            raise SourceError(
                f"{about} wrote a label map on another grid ({found.grid_difference(picture)}); "
                "it must lie on the picture's"
            )
        structures = {value: name for name, value in self.asked.labels.items()}
        if unknown := set(np.unique(found.array).tolist()) - {0, *structures}:
            raise SourceError(
                f"{about} wrote the value {min(unknown)}, which relabel.labels does not name; "
                "name it, or let the program leave it out"
            )
        table = np.zeros(max(structures) + 1, dtype=np.uint16)
        for value, name in structures.items():
            table[value] = self.values[name]
        return table[found.array]


def _filled(part: str, places: Mapping[str, str]) -> str:
    for place, path in places.items():
        part = part.replace(place, path)
    return part


def _end(process: subprocess.Popen[Any]) -> None:
    """End the program, and whatever it started that still runs."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _quoted(log: Path) -> str:
    """The end of what the program said, without control characters."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4 * _QUOTED))
        text = stream.read().decode("utf-8", "replace")
    lines = "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()
    return f"; it said:\n{lines[-_QUOTED:]}" if lines else ""
