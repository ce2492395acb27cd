"""The log of a training run: a progress bar and a file of JSON lines.

A line is ``{"step": ..., "loss": ..., "learning_rate": ..., "seconds": ...}``, with the mean loss
since the line before, or ``{"step": ..., "validation": {...}}``, and once the same with
``noise_fill``. Where several networks have losses of their own, ``loss`` is the sum, and ``losses``
has each by name.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from synthct.errors import RecipeError
from synthct.training.checkpoint import Progress
from synthct.training.recipe import TrainingRecipe
from synthct.training.validate import Measures

logger = logging.getLogger(__name__)

LOG_EVERY = 50

#: Takes values by name and the step, as ``Accelerator.log`` does.
Tracker = Callable[[dict[str, float], int], None]


class Log:
    """Losses and validation measures over the steps.

    A resumed run repeats the steps after its state, so lines of later steps are removed first.
    ``seconds`` count from the start of each run.

    Args:
        path: The file of JSON lines.
        recipe: What is trained.
        progress: Where the run starts or resumes from; new validations are added to it.
        tracker: Gets the same numbers, such as TensorBoard.
    """

    def __init__(
        self,
        path: Path,
        recipe: TrainingRecipe,
        progress: Progress,
        tracker: Tracker | None = None,
    ) -> None:
        self.path, self.recipe, self.step = path, recipe, progress.step
        self.validations = progress.validations
        self.tracker = tracker
        self.losses: list[Mapping[str, Tensor]] = []
        self.learning_rate = 0.0
        self.started = time.monotonic()
        self._truncate(self.step)
        # disable=None: no bar unless stderr is a terminal.
        self.bar = tqdm(total=recipe.optim.max_steps, initial=self.step, unit="step", disable=None)

    def add(self, step: int, losses: Mapping[str, Tensor], learning_rate: float) -> None:
        """Log a step's losses by name; every ``LOG_EVERY`` steps a line is written."""
        self.step, self.learning_rate = step, learning_rate
        self.losses.append(losses)  # its value is read later: that waits for the device
        self.bar.update()
        if step % LOG_EVERY == 0:
            self.flush()

    def add_validation(self, measures: Measures) -> None:
        """Log the measures of a validation."""
        self.validations.append((self.step, measures))
        values = self._add_measures("validation", measures)
        if self.tracker is not None:
            known = {f"validation/{k}": v for k, v in values.items() if v is not None}
            self.tracker(known, self.step)

    def add_noise_fill(self, measures: Measures) -> None:
        """Log what noise in the same masks comes to, which a network has to beat."""
        self._add_measures("noise_fill", measures)

    def _add_measures(self, name: str, measures: Measures) -> dict[str, float | None]:
        self.flush()
        values = measures.as_json()
        self._append({"step": self.step, name: values})
        known = (f"{key} {value:.4g}" for key, value in values.items() if value is not None)
        logger.info("step %d  %s %s", self.step, name.replace("_", " "), "  ".join(known))
        return values

    @property
    def last_validation(self) -> int | None:
        """The step of the last validation."""
        return self.validations[-1][0] if self.validations else None

    def flush(self) -> None:
        """Write the losses that are not yet written.

        Raises:
            RecipeError: If the loss is not finite.
        """
        if not self.losses:
            return
        means = {
            name: math.fsum(float(losses[name]) for losses in self.losses) / len(self.losses)
            for name in self.losses[0]
        }
        mean = math.fsum(means.values())
        if not math.isfinite(mean):
            raise RecipeError(
                f"{self.recipe.name}: the loss is {mean} at step {self.step}; lower "
                "optim.learning_rate or optim.max_grad_norm and go on from the last state"
            )
        seconds = time.monotonic() - self.started
        line = {"step": self.step, "loss": round(mean, 5), "learning_rate": self.learning_rate}
        each = {name: round(value, 5) for name, value in means.items()}
        several = {"losses": each} if len(each) > 1 else {}
        self._append({**line, **several, "seconds": round(seconds, 1)})
        self.bar.set_postfix(loss=f"{mean:.4f}")
        if self.bar.disable:
            logger.info("step %d  loss %.4f", self.step, mean)
        if self.tracker is not None:
            named = {f"loss/{name}": value for name, value in means.items() if len(means) > 1}
            self.tracker({"loss": mean, **named, "learning_rate": self.learning_rate}, self.step)
        self.losses.clear()

    def close(self) -> None:
        """Write the last losses and close the progress bar."""
        self.flush()
        self.bar.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _truncate(self, step: int) -> None:
        """Keep the lines up to a step."""
        if not self.path.exists():
            return
        stored = self.path.read_bytes()
        lines = stored.decode(errors="replace").splitlines(keepends=True)
        readable = [line for line in lines if "\ufffd" not in line]  # lines are ASCII
        if len(readable) < len(lines):
            logger.warning("%s: lines that are no UTF-8 are damaged and left out", self.path)
        kept = [line for line in readable if (at := _step_of(line)) is not None and at <= step]
        if (text := "".join(kept).encode()) != stored:
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_bytes(text)
            temporary.replace(self.path)


def _step_of(line: str) -> int | None:
    """The step of a line; None if the line is cut short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None
