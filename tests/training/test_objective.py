"""The door for objectives: two networks that train each other, killed in the middle of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file
from torch import Tensor, nn
from training_recipes import tiny_recipe

from synthct.models import networks
from synthct.models.checkpoint import load_checkpoint
from synthct.models.layout import Component, Layout
from synthct.models.methods import Diffusion
from synthct.models.network import Checkpoint, CheckpointFiles, Network
from synthct.models.painting.tensors import as_tensors
from synthct.models.palette_config import PaletteSection
from synthct.models.patch import Patch, PatchRules
from synthct.models.weights import load_network
from synthct.training import objectives
from synthct.training.data import Batch
from synthct.training.loop import train
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe

pytestmark = pytest.mark.usefixtures("one_thread")


class Generator(ModelMixin, ConfigMixin):
    """Known region and mask to a picture, with dropout for chance."""

    @register_to_config
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, channels, 3, padding=1), nn.SiLU(), nn.Dropout(0.1),
            nn.Conv2d(channels, 1, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        fake = self.body(torch.cat([image * (1 - mask), mask], dim=1))
        return torch.where(mask > 0.5, fake, image)


class GanPipeline(DiffusionPipeline):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.register_modules(generator=generator)


class Gan(Network):
    """Paints in one pass, without a scheduler."""

    layout = Layout(
        "GanPipeline",
        "a GAN",
        (Component("generator", "generator", (__name__,), "Generator"),),
        has_schedule=False,
    )
    section = PaletteSection

    @classmethod
    def check_configs(cls, name: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        assert configs["generator"]["channels"] == 8

    @classmethod
    def rules(
        cls, files: CheckpointFiles, inpaint: Diffusion, labels: Sequence[str | None]
    ) -> PatchRules:
        raise NotImplementedError

    @classmethod
    def load(cls, files: CheckpointFiles, device: str) -> Mapping[str, Any]:
        return {"generator": load_network(files, "generator", Generator, device)}

    def __init__(
        self, checkpoint: Checkpoint, inpaint: Diffusion, prompts: Sequence[str | None]
    ) -> None:
        self.generator = checkpoint["generator"]
        self.device = next(self.generator.parameters()).device

    def paint_batch(self, patches: Sequence[Patch], seeds: Sequence[int]) -> Tensor:
        image, mask, _ = as_tensors(patches, seeds, self.device)
        painted: Tensor = self.generator(image, mask)[:, 0]
        return painted

    def probe(self, size: int) -> None:
        pass


class Adversarial(Objective):
    """A generator and its critic, each with an optimiser of its own."""

    network = Gan
    killed_at = -1

    def __init__(self, recipe: TrainingRecipe) -> None:
        torch.manual_seed(recipe.seed)
        self.generator = Generator()
        self.critic = nn.Sequential(nn.Conv2d(2, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3))
        self.networks = {"generator": self.generator, "critic": self.critic}
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), betas=(0.5, 0.999)),
            "critic": torch.optim.SGD(self.critic.parameters(), lr=1.0, momentum=0.9),
        }
        self.rules = PatchRules.from_config(
            {**recipe.model.model_dump(), "labels": list(recipe.labels)}
        )
        self.steps = 0

    def losses(
        self, nets: Mapping[str, nn.Module], batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        image, mask = batch["image"], batch["mask"]
        fake = nets["generator"](image, mask)
        real_score = nets["critic"](torch.cat([image, mask], dim=1))
        fake_score = nets["critic"](torch.cat([fake.detach(), mask], dim=1))
        yield "critic", ((real_score - 1) ** 2).mean() + (fake_score**2).mean()
        self.steps += 1
        if self.steps == self.killed_at:
            raise KeyboardInterrupt  # one optimiser has taken its step, the other has not
        self.critic.requires_grad_(False)
        score = nets["critic"](torch.cat([fake, mask], dim=1))
        loss = ((score - 1) ** 2).mean() + 5 * (fake - image).abs().mean()
        self.critic.requires_grad_(True)
        yield "generator", loss
        assert all(p.grad is None for net in self.networks.values() for p in net.parameters())

    def validation_loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        loss: Tensor = (self.generator(batch["image"], batch["mask"]) - batch["image"]).abs().mean()
        return loss

    def pipeline(self) -> DiffusionPipeline:
        return GanPipeline(self.generator)


def states(output: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of the last state, by file."""
    last = max((output / "states").iterdir())
    return {path.name: load_file(path) for path in sorted(last.glob("*.safetensors"))}


def test_two_networks_and_optimisers_go_on_exactly_after_a_kill(
    kits_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "OBJECTIVES", (Adversarial,))
    monkeypatch.setattr(networks, "NETWORKS", (*networks.NETWORKS, Gan))
    recipe = tiny_recipe(
        kits_root,
        validation={"masks": 2, "every": 4},
        optim={"max_steps": 6, "batch_size": 1, "warmup_steps": 0, "decay_steps": 0},
        save_every=2,
    )
    runs: dict[str, Any] = {"cache_dir": tmp_path / "cache", "device": "cpu", "workers": 0}
    train(recipe, tmp_path / "whole", **runs)

    monkeypatch.setattr(Adversarial, "killed_at", 4)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed", **runs)
    assert max((tmp_path / "killed" / "states").iterdir()).name == "step-00000002"
    monkeypatch.setattr(Adversarial, "killed_at", -1)
    folder = train(recipe, tmp_path / "killed", **runs)

    whole, killed = states(tmp_path / "whole"), states(tmp_path / "killed")
    assert set(whole) == {
        f"{name}{part}.safetensors"
        for name in ("generator", "critic")
        for part in ("", ".ema", ".optimizer")
    }
    assert whole.keys() == killed.keys()
    for file, tensors in whole.items():
        assert tensors.keys() == killed[file].keys()
        assert all(torch.equal(value, killed[file][name]) for name, value in tensors.items()), file

    # The checkpoint is the generator alone, with its running mean, and loads through the door.
    loaded = load_checkpoint(str(folder))
    assert loaded.files.network is Gan
    for name, value in whole["generator.ema.safetensors"].items():
        assert torch.equal(loaded["generator"].state_dict()[name], value.half().float()), name
    fresh = Adversarial(recipe).critic.state_dict()
    assert any(not torch.equal(whole["critic.safetensors"][n], v) for n, v in fresh.items())
