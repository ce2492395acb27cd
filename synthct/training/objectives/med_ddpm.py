"""Med-DDPM learns to denoise the masked part of a box."""

from synthct.models.networks.med_ddpm import MedDDPM
from synthct.training.denoising import DenoisingObjective


class MedDDPMObjective(DenoisingObjective):
    """A ``MedDDPMUNet``."""

    network = MedDDPM
