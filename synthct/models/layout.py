"""The pipelines that synthct runs: their components, the class of each, and the files it is in.

A folder's ``model_index.json`` picks one of ``LAYOUTS`` by name; nothing that it says makes
anything else run or any other file be opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INDEX = "model_index.json"
#: Keys of it that name no component.
INDEX_KEYS = frozenset({"_class_name", "_diffusers_version", "_name_or_path"})

_DIFFUSERS = ("config.json", "diffusion_pytorch_model.safetensors")
_TRANSFORMERS = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Component:
    """A network, or what else a pipeline has in a folder of its own.

    Attributes:
        name: Its key in ``model_index.json``, and its folder.
        role: What a message calls it.
        libraries: By which its class may be named there.
        class_name: The one class that is run.
        files: What it is read from; of several sets, the first that is there.
        optional: What else is read if it is there.
    """

    name: str
    role: str
    libraries: tuple[str, ...]
    class_name: str
    files: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()

    @property
    def weights(self) -> str | None:
        """Its safetensors, relative to the checkpoint; None if it has no tensors."""
        found = [n for n in self.files[0] if n.endswith(".safetensors")]
        return f"{self.name}/{found[0]}" if found else None

    def files_in(self, folder: Path) -> tuple[str, ...]:
        """What is read of a checkpoint's folder; the first set of files where none is complete."""
        home = folder / self.name
        complete = (names for names in self.files if all((home / n).exists() for n in names))
        there = (n for n in self.optional if (home / n).exists())
        return tuple(f"{self.name}/{n}" for n in (*next(complete, self.files[0]), *there))


@dataclass(frozen=True)
class Layout:
    """A pipeline: a folder that ``save_pretrained`` wrote.

    Attributes:
        class_name: The pipeline's class.
        what: What a message calls such a checkpoint.
        components: What is loaded, beside the scheduler.
        ignored: Keys of ``model_index.json`` that are neither loaded nor missed.
    """

    class_name: str
    what: str
    components: tuple[Component, ...]
    ignored: frozenset[str] = frozenset()

    @property
    def weights(self) -> tuple[str, ...]:
        """The safetensors of all components."""
        return tuple(c.weights for c in self.components if c.weights is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that takes part in painting, as a new folder has them."""
        return self.files_in(Path())

    def files_in(self, folder: Path) -> tuple[str, ...]:
        """Every file of a folder that takes part in painting; their hashes name the checkpoint."""
        parts = (file for component in self.components for file in component.files_in(folder))
        return (INDEX, *parts, SCHEDULE)


#: The noise schedule of every pipeline.
SCHEDULE = "scheduler/scheduler_config.json"
#: The U-Net of every pipeline.
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"

PALETTE = Layout(
    "PaletteInpaintPipeline",
    "a checkpoint of synthct",
    (
        Component(
            "unet", "network", ("synthct", "synthct.models.palette"), "PaletteUNet", (_DIFFUSERS,)
        ),
    ),
)

UNCONDITIONAL = Layout(
    "DDPMPipeline",
    "an unconditional model",
    (Component("unet", "network", ("diffusers",), "UNet2DModel", (_DIFFUSERS,)),),
)

TEXT = Layout(
    "StableDiffusionInpaintPipeline",
    "a model told by text",
    (
        Component("unet", "network", ("diffusers",), "UNet2DConditionModel", (_DIFFUSERS,)),
        Component("vae", "autoencoder", ("diffusers",), "AutoencoderKL", (_DIFFUSERS,)),
        Component(
            "text_encoder", "text encoder", ("transformers",), "CLIPTextModel", (_TRANSFORMERS,)
        ),
        Component(
            "tokenizer",
            "tokenizer",
            ("transformers",),
            "CLIPTokenizer",
            (
                ("tokenizer_config.json", "vocab.json", "merges.txt"),
                ("tokenizer_config.json", "tokenizer.json"),
            ),
            optional=("special_tokens_map.json",),
        ),
    ),
    ignored=frozenset({"feature_extractor", "requires_safety_checker", "safety_checker"}),
)

LAYOUTS = {layout.class_name: layout for layout in (PALETTE, UNCONDITIONAL, TEXT)}


def all_files() -> Iterator[str]:
    """Every file that some layout reads."""
    yield from (INDEX, SCHEDULE)
    components = (component for layout in LAYOUTS.values() for component in layout.components)
    for one in components:
        names = {*(n for files in one.files for n in files), *one.optional}
        yield from (f"{one.name}/{name}" for name in sorted(names))
