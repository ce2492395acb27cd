"""The objectives of training: one file each, listed in ``OBJECTIVES``."""

from synthct.training.objective import Objective
from synthct.training.objectives.palette import PaletteObjective

#: By ``model.kind`` of a training recipe.
OBJECTIVES: dict[str, type[Objective]] = {"palette": PaletteObjective}
