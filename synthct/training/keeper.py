"""What the main process does between the steps: log, validate, sample, save, and release."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from synthct.errors import ResourceError
from synthct.training.cache import TrainingSet
from synthct.training.checkpoint import Parts, Progress, save_state
from synthct.training.log import Log
from synthct.training.objective import Objective
from synthct.training.recipe import TrainingRecipe
from synthct.training.release import Record, write_checkpoint
from synthct.training.sections import EarlyStopping
from synthct.training.sheet import Strip
from synthct.training.validate import Measures, Validation


class Keeper:
    """Keeps the history and the states of one run.

    Args:
        recipe: What is trained.
        output: The run's folder.
        objective: What is trained and released.
        parts: Its networks with what else a state holds.
        data: What it is trained and validated on.
        step: The step that the run goes on from.
        accelerator: Whose trackers get the numbers.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        output: Path,
        objective: Objective,
        parts: Parts,
        data: TrainingSet,
        step: int,
        accelerator: Accelerator,
    ) -> None:
        self.recipe, self.output, self.data = recipe, output, data
        self.objective, self.parts, self.accelerator = objective, parts, accelerator
        self.validation = Validation(recipe, data.slices)
        self.strip = Strip(self.validation, output)
        with self._writing():
            self.log = Log(output / "log.jsonl", recipe, step, self._track)
            self.strip.forget_after(step)

    @property
    def folder(self) -> Path:
        """Where the finished checkpoint goes."""
        return self.output / "checkpoint"

    @property
    def is_enough(self) -> bool:
        """Whether training is to stop early."""
        return is_enough(self.log.validations, self._early_stopping)

    def after_step(self, progress: Progress, loss: Tensor, learning_rate: float) -> None:
        """Note a step, and do what is due at it."""
        recipe, step = self.recipe, progress.step
        with self._writing():
            self.log.add(step, loss, learning_rate)
            if step % recipe.sample_every == 0 and self.data.slices:
                self._sample(step)
            if recipe.validation is not None and step % recipe.validation.every == 0:
                self._validate()
            if step % recipe.save_every == 0:
                self._save(progress)

    def close(self, progress: Progress) -> Path:
        """Validate once more, save, and release the checkpoint unless a better one is there.

        Returns:
            The folder of the checkpoint.
        """
        with self._writing():
            self.log.flush()
            if self.log.last_validation != progress.step:
                self._validate()
            self._save(progress)
            if self._early_stopping is None or not self.folder.is_dir():
                with self._mean_weights():
                    self._release()
            self.log.close()
        return self.folder

    @property
    def _early_stopping(self) -> EarlyStopping | None:
        validation = self.recipe.validation
        return validation.early_stopping if validation and self.data.held_out else None

    def _save(self, progress: Progress) -> None:
        self.log.flush()  # finds a loss that is no number before it gets into a state
        save_state(self.output, progress, self.parts)

    def _sample(self, step: int) -> None:
        with self._mean_weights():
            self.strip.add(self.objective, step)
        for tracker in self.accelerator.trackers:
            picture = np.array(Image.open(self.strip.path).convert("RGB"))
            tracker.log_images({"samples": picture[None]}, step=step, dataformats="NHWC")

    def _validate(self) -> None:
        """Measure the running mean; keep it as the checkpoint if it is the best so far."""
        if not self.data.held_out or not self.data.slices:
            return
        with self._mean_weights():
            self.log.add_validation(self.validation.measure(self.objective))
            rule = self._early_stopping
            if rule is not None and is_best(self.log.validations, rule):
                self._release()

    def _release(self) -> None:
        record = Record(
            steps=self.log.step,
            trained_on=self.data.trained_on,
            held_out=self.data.held_out,
            base=self.objective.base,
            validations=self.log.validations,
        )
        write_checkpoint(self.objective.pipeline(), self.folder, self.recipe, record)

    def _track(self, values: dict[str, float], step: int) -> None:
        if self.accelerator.trackers:
            self.accelerator.log(values, step=step)

    @contextmanager
    def _mean_weights(self) -> Iterator[None]:
        """Give the networks the running mean of their weights, for evaluation, during a block."""
        averaged = [(net, self.parts.ema[name]) for name, net in self.parts.networks.items()]
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
    def _writing(self) -> Iterator[None]:
        """Turn what a disk can do to a run into an error that says so."""
        try:
            yield
        except (OSError, SafetensorError) as err:
            raise ResourceError(
                f"{self.output}: cannot be written ({err}); mend it and run the same command "
                "again, finished states are kept"
            ) from err


def is_best(validations: Sequence[tuple[int, Measures]], rule: EarlyStopping) -> bool:
    """Whether the last validation is better than all before."""
    values = [getattr(measures, rule.measure) for _, measures in validations]
    return all(values[-1] < value for value in values[:-1])


def is_enough(validations: Sequence[tuple[int, Measures]], rule: EarlyStopping | None) -> bool:
    """Whether ``patience`` validations in a row were no better than the best before them."""
    if rule is None or len(validations) <= rule.patience:
        return False
    values = [float(getattr(measures, rule.measure)) for _, measures in validations]
    return min(values[-rule.patience :]) >= min(values[: -rule.patience])
