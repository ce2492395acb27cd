"""The exceptions a user can cause, and the exit code that each one ends the program with.

    SynthCTError            1  (base class, never raised itself)
    ├── RecipeError         2  the recipe or the command line
    ├── SourceError         3  scans, label maps, folders of a source
    ├── MaskError           3  a mask that cannot be made or painted
    ├── CheckpointError     4  a checkpoint that cannot be trusted or does not fit
    ├── ResourceError       5  disk, memory, permission
    ├── ConflictError       6  another build, or another content under the same name
    ├── HubError            7  the Hugging Face Hub
    ├── VerifyError         8  a dataset that does not match its manifest
    ├── PolicyError         9  licence, split or privacy
    └── QuarantineError    10  finished, but without samples for which the model failed

A message says what is wrong, where, the value, the limit and what to do, in a sentence or two.
Any other exception is a bug and keeps its traceback.
"""

from typing import ClassVar

#: Told wherever Python runs as ``python -OO``.
NO_DOCSTRINGS = (
    "python -OO (or PYTHONOPTIMIZE=2) removes docstrings, without which diffusers cannot be "
    "imported; run python without it, or with -O"
)


class SynthCTError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code: ClassVar[int] = 1


class RecipeError(SynthCTError):
    """The recipe (or an option of the command line) is wrong; carries ``file:line:column``."""

    exit_code = 2


class SourceError(SynthCTError):
    """A scan, label map or folder of a source is missing, damaged or inconsistent."""

    exit_code = 3


class MaskError(SynthCTError):
    """A mask cannot be drawn, placed or painted."""

    exit_code = 3


class CheckpointError(SynthCTError):
    """A checkpoint is damaged, untrusted, or does not fit the recipe."""

    exit_code = 4


class ResourceError(SynthCTError):
    """Not enough disk space or memory, or missing permissions."""

    exit_code = 5


class ConflictError(SynthCTError):
    """The output exists with other content, or another build holds it."""

    exit_code = 6


class HubError(SynthCTError):
    """The Hugging Face Hub refused, or cannot be reached."""

    exit_code = 7


class VerifyError(SynthCTError):
    """A dataset on disk does not match its manifest."""

    exit_code = 8


class PolicyError(SynthCTError):
    """A licence, split or privacy rule forbids the operation."""

    exit_code = 9


class QuarantineError(SynthCTError):
    """A dataset is finished, but the model failed for more samples than allowed."""

    exit_code = 10


def printable(text: str) -> str:
    """Text whose file names cannot steer a terminal; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def counted(number: int, noun: str, several: str | None = None) -> str:
    """``1 sample``, ``1,024 samples``, for messages and documents.

    Args:
        number: How many there are.
        noun: What one of them is called; it may go on, as in ``voxel is``.
        several: What any other number of them is called; None adds an ``s``.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
