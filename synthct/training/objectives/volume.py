"""A network in 3D learns to denoise the masked part of a box."""

from synthct.models.networks.volume import VolumeNetwork
from synthct.training.denoising import DenoisingObjective


class VolumeObjective(DenoisingObjective):
    """A ``VolumeUNet``."""

    network = VolumeNetwork
