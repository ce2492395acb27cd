"""What the main process does between steps: log, validate, sample, save, and write checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from synthct.errors import RecipeError, ResourceError
from synthct.training.cache import TrainingSet
from synthct.training.checkpoint import Progress, TrainState, save_state
from synthct.training.log import Log
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe
from synthct.training.regions import index_regions
from synthct.training.release import TrainingSummary, write_checkpoint
from synthct.training.sections import EarlyStopping
from synthct.training.sheet import SampleStrip
from synthct.training.validate import Measures, Validation

logger = logging.getLogger(__name__)


class Callbacks:
    """Writes the log, the states, the sample strip and the checkpoint of one run.

    Args:
        recipe: What is trained.
        output: The run's folder.
        objective: What is validated and written as a checkpoint.
        train_state: Its networks and optimisers.
        data: Slices to validate on, and the cases to name in the checkpoint.
        progress: Where the run starts or resumes from.
        accelerator: For its trackers, such as TensorBoard.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        output: Path,
        objective: Objective,
        train_state: TrainState,
        data: TrainingSet,
        progress: Progress,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.output, self.data = recipe, output, data
        self.objective, self.train_state, self.accelerator = objective, train_state, accelerator
        self.validation = Validation(recipe, data.slices)
        self.strip = SampleStrip(self.validation, output)
        with self._disk_errors():
            self.log = Log(output / "log.jsonl", recipe, progress, self._track)
            self.strip.remove_after(progress.step)

    @property
    def folder(self) -> Path:
        """Folder of the checkpoint."""
        return self.output / "checkpoint"

    @property
    def should_stop(self) -> bool:
        """Whether early stopping ends the training."""
        return should_stop(self.log.validations, self._early_stopping)

    def after_step(
        self, progress: Progress, losses: Mapping[str, Tensor], learning_rate: float
    ) -> None:
        """Log a step; sample, validate and save if it is time."""
        recipe, step = self.recipe, progress.step
        with self._disk_errors():
            self.log.add(step, losses, learning_rate)
            if step % recipe.sample_every == 0 and self.data.slices:
                self._sample(step)
            if recipe.validation is not None and step % recipe.validation.every == 0:
                self._validate()
            if step % recipe.save_every == 0:
                self._save(progress)

    def close(self, progress: Progress) -> None:
        """Validate, save, and write the checkpoint unless early stopping kept a better one.

        Raises:
            RecipeError: If the networks have collapsed; there is a state, but no checkpoint of it.
        """
        with self._disk_errors():
            self.log.flush()
            if self.log.last_validation != progress.step:
                self._validate()
            self._save(progress)
            if self._early_stopping is None or not self.folder.is_dir():
                with self._averaged_weights():
                    self._require_sound()
                    self._write_checkpoint()
            self.log.close()

    @property
    def _early_stopping(self) -> EarlyStopping | None:
        validation = self.recipe.validation
        return validation.early_stopping if validation and self.data.held_out else None

    def _save(self, progress: Progress) -> None:
        self.log.flush()  # refuses a NaN loss before it reaches a state
        save_state(self.output, progress, self.train_state)

    def _sample(self, step: int) -> None:
        with self._averaged_weights():
            self.strip.add(self.objective, step)
        for tracker in self.accelerator.trackers:
            picture = np.array(Image.open(self.strip.path).convert("RGB"))
            tracker.log_images({"samples": picture[None]}, step=step, dataformats="NHWC")

    def _validate(self) -> None:
        """Measure the averaged weights; with early stopping, keep the best ones as checkpoint."""
        if not self.data.held_out or not self.data.slices:
            return
        if not self.log.validations:
            self.log.add_noise_fill(self.validation.noise_fill())
        with self._averaged_weights():
            self.log.add_validation(self.validation.measure(self.objective))
            rule, reason = self._early_stopping, self._collapse()
            if reason is not None:
                logger.warning("step %d: the network has collapsed: %s", self.log.step, reason)
            elif rule is not None and is_best(self.log.validations, rule):
                self._write_checkpoint()

    def _collapse(self) -> str | None:
        """Why the averaged weights are worth nothing, if they are."""
        watched = self.objective.may_collapse and self.data.slices
        return self.validation.collapse(self.objective) if watched else None

    def _require_sound(self) -> None:
        if (reason := self._collapse()) is not None:
            raise RecipeError(
                f"{self.recipe.name}: the network has collapsed by step {self.log.step}: {reason}; "
                "no checkpoint is written. Lower optim.learning_rate and train into another folder"
            )

    def _write_checkpoint(self) -> None:
        summary = TrainingSummary(
            steps=self.log.step,
            trained_on=self.data.trained_on,
            held_out=self.data.held_out,
            base=self.objective.base,
            validations=self.log.validations,
            regions=self._regions,
        )
        write_checkpoint(self.objective.pipeline(), self.folder, self.recipe, summary)

    @cached_property
    def _regions(self) -> pa.Table:
        """The privacy index."""
        objective, data = self.objective, self.data
        return index_regions(
            data.patches, data.trained_on, objective.rules, objective.base, self.recipe.seed
        )

    def _track(self, values: dict[str, float], step: int) -> None:
        if self.accelerator.trackers:
            self.accelerator.log(values, step=step)

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Evaluate with the moving average of the weights during a block."""
        averaged = [
            (net, self.train_state.ema[name]) for name, net in self.train_state.networks.items()
        ]
        for net, ema in averaged:
            ema.store(net.parameters())
            ema.copy_to(net.parameters())
            net.eval()
        try:
            yield
        finally:
            for net, ema in averaged:
                ema.restore(net.parameters())
                net.train()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn errors of the disk into a ``ResourceError``."""
        try:
            yield
        except (OSError, SafetensorError) as err:
            raise ResourceError(
                f"{self.output}: cannot be written ({err}); mend it and run the same command "
                "again, finished states are kept"
            ) from err


def is_best(validations: Sequence[tuple[int, Measures]], rule: EarlyStopping) -> bool:
    """Whether the last validation is the best."""
    values = [getattr(measures, rule.measure) for _, measures in validations]
    return all(values[-1] < value for value in values[:-1])


def should_stop(validations: Sequence[tuple[int, Measures]], rule: EarlyStopping | None) -> bool:
    """Whether the last ``patience`` validations were no better than the best before them."""
    if rule is None or len(validations) <= rule.patience:
        return False
    values = [float(getattr(measures, rule.measure)) for _, measures in validations]
    return min(values[-rule.patience :]) >= min(values[: -rule.patience])
