"""synthct: versioned datasets of CT scans in which diffusion models have painted.

The names below are loaded when they are first used, so that importing the package stays fast.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from synthct.version import __version__

if TYPE_CHECKING:
    from synthct.api import inpaint
    from synthct.build.run import build
    from synthct.models.palette import PaletteInpaintPipeline, PaletteUNet
    from synthct.recipe.recipe import load_recipe

#: Public name to the module it lives in. The two classes are here because diffusers looks for
#: them by the name of the package that a checkpoint's model_index.json gives.
_HOMES = {
    "PaletteInpaintPipeline": "synthct.models.palette",
    "PaletteUNet": "synthct.models.palette",
    "build": "synthct.build.run",
    "inpaint": "synthct.api",
    "load_recipe": "synthct.recipe.recipe",
}

__all__ = [
    "PaletteInpaintPipeline",
    "PaletteUNet",
    "__version__",
    "build",
    "inpaint",
    "load_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthct' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


class _Package(ModuleType):
    """This package: ``synthct.build`` and ``synthct.inpaint`` stay the functions.

    Importing a submodule of the same name would otherwise put the module in their place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
