"""The layout of a pipeline's folder: components, their classes and their files.

Each kind of network states its own. No other class is run and no other file opened, whatever a
``model_index.json`` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INDEX = "model_index.json"
#: The noise schedule of a pipeline that has one.
SCHEDULE = "scheduler/scheduler_config.json"

#: How diffusers and transformers name a network's config and weights.
DIFFUSERS = ("config.json", "diffusion_pytorch_model.safetensors")
TRANSFORMERS = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Component:
    """A network, or another part of a pipeline that has a folder of its own.

    Attributes:
        name: Its key in ``model_index.json``, and its folder.
        role: Description in messages.
        libraries: Libraries by which its class may be named there.
        class_name: The one class that is run.
        files: Alternative sets of files; the first complete set is read.
        optional: Files that are also read if they exist.
    """

    name: str
    role: str
    libraries: tuple[str, ...]
    class_name: str
    files: tuple[tuple[str, ...], ...] = (DIFFUSERS,)
    optional: tuple[str, ...] = ()

    @property
    def weights(self) -> str | None:
        """Its safetensors, relative to the checkpoint; None if it has no tensors."""
        names = [n for n in self.files[0] if n.endswith(".safetensors")]
        return f"{self.name}/{names[0]}" if names else None

    def files_in(self, folder: Path) -> tuple[str, ...]:
        """The files read from a checkpoint's folder; the first set where none is complete."""
        home = folder / self.name
        complete = (names for names in self.files if all((home / n).exists() for n in names))
        optional = (n for n in self.optional if (home / n).exists())
        return tuple(f"{self.name}/{n}" for n in (*next(complete, self.files[0]), *optional))

    @property
    def all_files(self) -> Iterator[str]:
        """Every file that is read from some checkpoint."""
        names = {*(n for files in self.files for n in files), *self.optional}
        return (f"{self.name}/{name}" for name in sorted(names))


@dataclass(frozen=True)
class Layout:
    """A pipeline: a folder that ``save_pretrained`` wrote.

    Attributes:
        class_name: The pipeline's class.
        what: Description in messages.
        components: What is loaded, beside the scheduler.
        ignored: Keys of ``model_index.json`` that are not loaded and may be missing.
        has_schedule: Whether it comes with a noise schedule.
    """

    class_name: str
    what: str
    components: tuple[Component, ...]
    ignored: frozenset[str] = frozenset()
    has_schedule: bool = True

    @property
    def weights(self) -> tuple[str, ...]:
        """The safetensors of all components."""
        return tuple(c.weights for c in self.components if c.weights is not None)

    @property
    def all_files(self) -> Iterator[str]:
        """Every file that is read from some checkpoint of this layout."""
        yield from (INDEX, *((SCHEDULE,) if self.has_schedule else ()))
        for component in self.components:
            yield from component.all_files

    def files_in(self, folder: Path) -> tuple[str, ...]:
        """Every file of a folder that takes part in painting; their hashes name the checkpoint."""
        parts = (file for component in self.components for file in component.files_in(folder))
        return (INDEX, *parts, *((SCHEDULE,) if self.has_schedule else ()))
