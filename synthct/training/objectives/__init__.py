"""What trains each kind of network: one file each, listed in ``OBJECTIVES``."""

from synthct.training.objective import Objective
from synthct.training.objectives.med_ddpm import MedDDPMObjective
from synthct.training.objectives.palette import PaletteObjective
from synthct.training.objectives.pix2pix import Pix2PixObjective
from synthct.training.objectives.volume import VolumeObjective
from synthct.training.objectives.vox2vox import Vox2VoxObjective
from synthct.training.recipe import TrainingRecipe

OBJECTIVES: tuple[type[Objective], ...] = (
    PaletteObjective,
    Pix2PixObjective,
    VolumeObjective,
    MedDDPMObjective,
    Vox2VoxObjective,
)


def make_objective(recipe: TrainingRecipe) -> Objective:
    """The objective for the network that a recipe's section ``model`` describes."""
    section = type(recipe.model)
    return next(one for one in OBJECTIVES if one.network.section is section)(recipe)
