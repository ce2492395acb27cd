"""The kinds of networks that paint: one file each, listed in ``NETWORKS``."""

from synthct.models.layout import Layout
from synthct.models.network import Network
from synthct.models.networks.latent import TextGuided
from synthct.models.networks.med_ddpm import MedDDPM
from synthct.models.networks.palette import Palette
from synthct.models.networks.pix2pix import Pix2Pix
from synthct.models.networks.unconditional import Unconditional
from synthct.models.networks.volume import VolumeNetwork
from synthct.models.networks.vox2vox import Vox2Vox

NETWORKS: tuple[type[Network], ...] = (
    Palette,
    Pix2Pix,
    VolumeNetwork,
    MedDDPM,
    Vox2Vox,
    Unconditional,
    TextGuided,
)


def network_of(pipeline: object) -> type[Network] | None:
    """The network of a pipeline's class name, as ``model_index.json`` gives it."""
    return next((n for n in NETWORKS if n.layout.class_name == pipeline), None)


def layouts() -> list[Layout]:
    """The pipelines that synthct runs."""
    return [network.layout for network in NETWORKS]
