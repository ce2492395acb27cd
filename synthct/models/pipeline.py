"""What the pipelines and networks of synthct's own checkpoints share, to be loaded by diffusers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, ClassVar

from diffusers import DiffusionPipeline
from diffusers.configuration_utils import register_to_config
from pydantic import BaseModel

from synthct.models.folder import check_folder, download_folder, read_json
from synthct.models.layout import Layout


def configured_by(fields: type[BaseModel]) -> Callable[[Callable[..., None]], Any]:
    """Give an ``__init__`` the fields of a model as its signature.

    diffusers reads the names and defaults of a config from there.
    """
    arguments = [
        Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD,
            default=field.get_default(call_default_factory=True),
        )
        for name, field in fields.model_fields.items()
    ]

    def decorate(init: Callable[..., None]) -> Any:
        own = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
        init.__signature__ = Signature([own, *arguments])  # type: ignore[attr-defined]
        return register_to_config(init)

    return decorate


class InpaintPipeline(DiffusionPipeline):
    """A pipeline of synthct that ``from_pretrained`` loads from the Hub.

    Attributes:
        layout: Its files; the first component is the network that declares its patches.
    """

    layout: ClassVar[Layout]

    @classmethod
    def check_config(cls, name: str, config: Mapping[str, Any]) -> None:
        """Refuse the config of the first component if it describes no network.

        Raises:
            CheckpointError: With the first key that is wrong, and why.
        """
        raise NotImplementedError

    @classmethod
    def download(
        cls, pretrained_model_name: str, *, revision: str | None = None, **_: object
    ) -> str:
        """Download a checkpoint from the Hub for ``from_pretrained``, and check it.

        The method of diffusers loads only its own networks and those that come with code.

        Args:
            pretrained_model_name: The Hub id.
            revision: Commit, tag or branch.

        Returns:
            Its folder.

        Raises:
            CheckpointError: If it is not a valid checkpoint of this kind.
            HubError: If the Hub does not deliver it.
        """
        name = pretrained_model_name
        folder = download_folder(name, revision or "main", [cls.layout])[0]
        check_folder(folder, name, [cls.layout], from_hub=True)
        config = f"{cls.layout.components[0].name}/config.json"
        cls.check_config(name, read_json(folder / config, name))
        return str(folder)
