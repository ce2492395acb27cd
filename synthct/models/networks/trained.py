"""What networks share that ``synthct train`` makes, whatever they are trained for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from synthct.models.config import PatchFields, require_declared
from synthct.models.methods import Diffusion
from synthct.models.network import CheckpointFiles, Network
from synthct.models.patch import PatchRules


class Trained(Network):
    """A pipeline around one network, whose config declares the patches that it takes.

    Attributes:
        part: The folder of its network in a checkpoint.
        config: The fields of its network.
    """

    part: ClassVar[str]
    config: ClassVar[type[PatchFields]]

    @staticmethod
    @abstractmethod
    def classes() -> tuple[type[Any], type[Any]]:
        """The classes of its network and of its pipeline."""

    @classmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        """As in ``Network``."""
        require_declared(name, f"{cls.part}/config.json", configs[cls.part], cls.config)

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        """As in ``Network``; the checkpoint declares them, but for a guidance that is stated."""
        del labels
        rules = PatchRules.from_config(files.configs[cls.part])
        stated = inpaint.guidance_scale
        return rules if stated is None else replace(rules, guidance={"default": stated})

    @classmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        """As in ``Network``."""
        from synthct.models.weights import load_network

        return {cls.part: load_network(files, cls.part, cls.classes()[0], device)}
