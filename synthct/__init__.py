"""Build versioned datasets of CT scans in which diffusion models have painted.

The names below are loaded when they are first used, so that importing the package stays fast.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from synthct.version import __version__

if TYPE_CHECKING:
    from synthct.api import (
        build,
        check,
        evaluate,
        export,
        inpaint,
        inpaint_file,
        load,
        report,
        verify,
    )
    from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet
    from synthct.models.pix2pix import Pix2PixGenerator, Pix2PixInpaintPipeline
    from synthct.recipe.recipe import load_recipe
    from synthct.volume.intensity import Window
    from synthct.volume.volume import Volume

#: Public name to the module it lives in. Networks and their pipelines are here because diffusers
#: looks for them by the name of the package that a checkpoint's model_index.json gives.
_HOMES = {
    "PaletteInpaintPipeline": "synthct.models.palette",
    "PaletteUNet": "synthct.models.palette",
    "Pix2PixGenerator": "synthct.models.pix2pix",
    "Pix2PixInpaintPipeline": "synthct.models.pix2pix",
    "Volume": "synthct.volume.volume",
    "Window": "synthct.volume.intensity",
    "build": "synthct.api",
    "check": "synthct.api",
    "evaluate": "synthct.api",
    "export": "synthct.api",
    "inpaint": "synthct.api",
    "inpaint_file": "synthct.api",
    "load": "synthct.api",
    "load_recipe": "synthct.recipe.recipe",
    "report": "synthct.api",
    "verify": "synthct.api",
}

__all__ = [
    "PaletteInpaintPipeline",
    "PaletteUNet",
    "Pix2PixGenerator",
    "Pix2PixInpaintPipeline",
    "Volume",
    "Window",
    "__version__",
    "build",
    "check",
    "evaluate",
    "export",
    "inpaint",
    "inpaint_file",
    "load",
    "load_recipe",
    "report",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthct' has no attribute '{name}'")
    if sys.flags.optimize > 1:
        from synthct.errors import NO_DOCSTRINGS

        raise ImportError(NO_DOCSTRINGS)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package, in which ``synthct.build`` and ``synthct.evaluate`` stay functions.

    Importing the submodules of the same names would otherwise put these in their place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
