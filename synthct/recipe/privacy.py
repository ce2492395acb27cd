"""The ``privacy`` section of a recipe: how like a training region a painting may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: Above all of 450 regions of 57 patients who were not in an index of 4,500 or 2,400, of which one
#: had 0.76 (tests/benchmarks/privacy.py).
MOST_ALIKE = 0.78


class Privacy(BaseModel):
    """A painting that is too like a region that its checkpoint was trained on is rejected.

    It is compared by the keys of the checkpoint's privacy index; ``synthct privacy`` compares what
    was built with the training scans, too.

    Attributes:
        max_training_key: Largest similarity to the key of a training region, at most 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_training_key: Annotated[float, Field(gt=0, le=1)] = MOST_ALIKE
