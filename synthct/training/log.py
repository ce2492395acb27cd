"""What a training run tells while it goes on: a progress bar, and a line of JSON now and then."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path

from tqdm import tqdm

from synthct.training.recipe import TrainingRecipe

logger = logging.getLogger(__name__)

LOG_EVERY = 50


class Log:
    """Loss over the steps, as ``{"step": ..., "loss": ..., "seconds": ...}``.

    A run that goes on from a state goes through the steps behind that state once more: what an
    earlier run wrote about them is removed, so the file tells the history of the weights there
    are. ``seconds`` count from the start of each run.

    Args:
        path: The file of JSON lines.
        recipe: What is trained.
        step: The step that the run goes on from.
    """

    def __init__(self, path: Path, recipe: TrainingRecipe, step: int) -> None:
        self.path, self.step = path, step
        self.losses: list[float] = []
        self.started = time.monotonic()
        self._forget_after(step)
        # None: no bar where nobody sees it.
        self.bar = tqdm(total=recipe.optim.max_steps, initial=step, unit="step", disable=None)

    def add(self, step: int, loss: float) -> None:
        """Note a step; write the mean of the last ``LOG_EVERY``."""
        self.step = step
        self.losses.append(loss)
        self.bar.update()
        if step % LOG_EVERY == 0:
            self._write()

    def close(self) -> None:
        """Write what is not yet written."""
        if self.losses:
            self._write()
        self.bar.close()

    def _write(self) -> None:
        mean, seconds = math.fsum(self.losses) / len(self.losses), time.monotonic() - self.started
        line = {"step": self.step, "loss": round(mean, 5), "seconds": round(seconds, 1)}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.bar.set_postfix(loss=f"{mean:.4f}")
        if self.bar.disable:
            logger.info("step %d  loss %.4f", self.step, mean)
        self.losses.clear()

    def _forget_after(self, step: int) -> None:
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
        if kept != lines:
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text("".join(kept))
            temporary.replace(self.path)


def _step_of(line: str) -> int | None:
    """The step of a line; None for one that a kill cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
