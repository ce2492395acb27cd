"""What a training run tells while it goes on: a progress bar, and lines of JSON.

A line holds ``{"step": ..., "loss": ..., "learning_rate": ..., "seconds": ...}``, the loss a mean
since the line before, or ``{"step": ..., "validation": {...}}``.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from synthct.errors import RecipeError
from synthct.training.recipe import TrainingRecipe
from synthct.training.validate import Measures

logger = logging.getLogger(__name__)

LOG_EVERY = 50

#: Takes names with values and the step, such as ``Accelerator.log``.
Tracker = Callable[[dict[str, float], int], None]


class Log:
    """Losses and measures over the steps.

    A run that goes on from a state goes through the steps behind that state once more: what an
    earlier run wrote about them is removed, so the file tells the history of the weights there
    are. ``seconds`` count from the start of each run.

    Args:
        path: The file of JSON lines.
        recipe: What is trained.
        step: The step that the run goes on from.
        tracker: Gets the same numbers, such as TensorBoard.
    """

    def __init__(
        self, path: Path, recipe: TrainingRecipe, step: int, tracker: Tracker | None = None
    ) -> None:
        self.path, self.recipe, self.step = path, recipe, step
        self.tracker = tracker
        self.losses: list[Tensor] = []
        self.learning_rate = 0.0
        self.started = time.monotonic()
        self.validations: list[tuple[int, Measures]] = []
        self._go_on_from(step)
        # None: no bar where nobody sees it.
        self.bar = tqdm(total=recipe.optim.max_steps, initial=step, unit="step", disable=None)

    def add(self, step: int, loss: Tensor, learning_rate: float) -> None:
        """Note a step; write the mean of the last ``LOG_EVERY``."""
        self.step, self.learning_rate = step, learning_rate
        self.losses.append(loss)  # asking for its value now would wait for the device
        self.bar.update()
        if step % LOG_EVERY == 0:
            self.flush()

    def add_validation(self, measures: Measures) -> None:
        """Note what a validation came to."""
        self.flush()
        self.validations.append((self.step, measures))
        values = measures.as_json()
        self._append({"step": self.step, "validation": values})
        logger.info(
            "step %d  validation %s",
            self.step,
            "  ".join(f"{name} {value:.4g}" for name, value in asdict(measures).items()),
        )
        if self.tracker is not None:
            known = {f"validation/{k}": v for k, v in values.items() if v is not None}
            self.tracker(known, self.step)

    @property
    def last_validation(self) -> int | None:
        """The step of the last validation."""
        return self.validations[-1][0] if self.validations else None

    def flush(self) -> None:
        """Write what is not yet written.

        Raises:
            RecipeError: If the loss is no number any more.
        """
        if not self.losses:
            return
        mean = math.fsum(float(loss) for loss in self.losses) / len(self.losses)
        if not math.isfinite(mean):
            raise RecipeError(
                f"{self.recipe.name}: the loss is {mean} at step {self.step}; lower "
                "optim.learning_rate or optim.max_grad_norm and go on from the last state"
            )
        seconds = time.monotonic() - self.started
        line = {"step": self.step, "loss": round(mean, 5), "learning_rate": self.learning_rate}
        self._append({**line, "seconds": round(seconds, 1)})
        self.bar.set_postfix(loss=f"{mean:.4f}")
        if self.bar.disable:
            logger.info("step %d  loss %.4f", self.step, mean)
        if self.tracker is not None:
            self.tracker({"loss": mean, "learning_rate": self.learning_rate}, self.step)
        self.losses.clear()

    def close(self) -> None:
        """Write what is not yet written."""
        self.flush()
        self.bar.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _go_on_from(self, step: int) -> None:
        """Keep the lines up to a step, and learn from them what validations came to."""
        if not self.path.exists():
            return
        stored = self.path.read_bytes()
        lines = stored.decode(errors="replace").splitlines(keepends=True)
        readable = [line for line in lines if "\ufffd" not in line]  # our own lines are ASCII
        if len(readable) < len(lines):
            logger.warning("%s: lines that are no UTF-8 are damaged and left out", self.path)
        kept = [line for line in readable if (at := _step_of(line)) is not None and at <= step]
        if (text := "".join(kept).encode()) != stored:
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_bytes(text)
            temporary.replace(self.path)
        found = [json.loads(line) for line in kept]
        self.validations = [
            (line["step"], Measures.from_json(line["validation"]))
            for line in found
            if "validation" in line
        ]


def _step_of(line: str) -> int | None:
    """The step of a line; None for one that a kill cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
