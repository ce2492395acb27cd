"""Labels of painted images from the user's own program, such as a segmenter.

A recipe says which labels the program gives and what its values mean, but never which program it
is: the command comes from the command line (``--relabel``), so that a foreign recipe cannot run
anything. It is run without a shell, and its output is checked like any other label map.
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
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from synthct.errors import RecipeError, ResourceError, SourceError
from synthct.volume import Volume, read_labels, write_volume

#: Placeholders for the two files in the command.
IMAGE, LABELS = "{image}", "{labels}"

#: Number of characters of the program's output that an error quotes.
_QUOTED = 600


class Relabel(BaseModel):
    """Labels that the user's program (``--relabel``) gives to painted images.

    Attributes:
        name: The program and its version, for every sample's provenance.
        labels: Structure to its value in the program's label maps.
        input: The program's input: the painted ``slice``, or the whole ``scan`` with that slice.
        timeout_s: Time limit for one sample.
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
            raise ValueError(
                f"labels gives value {doubled[0]} to two structures; values must differ"
            )
        return labels


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command line, quoted as for a shell, into the program and its arguments.

    Raises:
        RecipeError: If quotes do not match, ``{image}`` or ``{labels}`` is missing, or the program
            does not exist.
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
        raise RecipeError(
            f"--relabel {text}: there is no program '{command[0]}'; install it, or give its path"
        )
    return command


@dataclass(frozen=True)
class Relabeller:
    """A program that labels images.

    Attributes:
        section: The recipe's section.
        command: From ``parse_command``.
        values: Structure to value in the dataset's label maps.
    """

    section: Relabel
    command: tuple[str, ...]
    values: Mapping[str, int]

    def labels_of(self, picture: Volume, what: str) -> npt.NDArray[np.uint16]:
        """The program's labels of an image, in the dataset's values.

        Args:
            picture: int16 HU, canonical; a slice one voxel thick, or a whole scan.
            what: For errors, such as a sample's id.

        Returns:
            Label values (I, J, K) of the image's shape.

        Raises:
            SourceError: If the program fails, takes too long, or its label map is missing,
                damaged, on another grid or has unknown values.
            ResourceError: If the program cannot be started or the disk is full.
        """
        about = f"{what}: --relabel ({self.section.name})"
        with tempfile.TemporaryDirectory(prefix="synthct-relabel-") as name:
            image, answer = Path(name) / "image.nii.gz", Path(name) / "labels.nii.gz"
            write_volume(picture, image)
            places = {IMAGE: str(image), LABELS: str(answer)}
            quoted = self._run([_filled(part, places) for part in self.command], Path(name), about)
            if not answer.is_file():
                raise SourceError(f"{about} wrote no {LABELS}{quoted}")
            try:
                labels = read_labels(answer)
            except SourceError as err:
                reason = str(err).replace(f"{answer}: ", "")
                raise SourceError(f"{about} wrote a label map that is of no use: {reason}") from err
        return self._renumbered(labels, picture, about)

    def _run(self, command: Sequence[str], folder: Path, about: str) -> str:
        """Run the program to its end; returns the end of its output, for error messages."""
        log = folder / "output.txt"
        try:
            with log.open("wb") as out:
                process = subprocess.Popen(  # noqa: S603  (the command of the user who starts the build)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that its child processes end with it
                )
        except OSError as err:
            raise ResourceError(f"{about} cannot be started: {err.strerror}") from err
        try:
            code = process.wait(self.section.timeout_s)
        except subprocess.TimeoutExpired as err:
            raise SourceError(
                f"{about} took more than timeout_s {self.section.timeout_s:g}; allow more time, or "
                f"try the program on one picture{_quoted(log)}"
            ) from err
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code != 0:
            how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            raise SourceError(f"{about} {how}{_quoted(log)}")
        return _quoted(log)

    def _renumbered(self, labels: Volume, picture: Volume, about: str) -> npt.NDArray[np.uint16]:
        """Check a label map of the program, and replace its values by the dataset's."""
        if not labels.has_grid_of(picture):
            raise SourceError(
                f"{about} wrote a label map on another grid ({labels.grid_difference(picture)}); "
                "it must be on the picture's grid"
            )
        structures = {value: name for name, value in self.section.labels.items()}
        if unknown := set(np.unique(labels.array).tolist()) - {0, *structures}:
            raise SourceError(
                f"{about} wrote the value {min(unknown)}, which relabel.labels does not name; "
                "name it, or let the program leave it out"
            )
        table = np.zeros(max(structures) + 1, dtype=np.uint16)
        for value, name in structures.items():
            table[value] = self.values[name]
        return table[labels.array]


def _filled(part: str, places: Mapping[str, str]) -> str:
    for place, path in places.items():
        part = part.replace(place, path)
    return part


def _quoted(log: Path) -> str:
    """The end of the program's output, without control characters."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4 * _QUOTED))
        text = stream.read().decode("utf-8", "replace")
    lines = "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()
    return f"; its output:\n{lines[-_QUOTED:]}" if lines else ""
