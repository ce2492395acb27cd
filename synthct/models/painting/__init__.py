"""Painting patches: batches, noise streams, schedulers, numerics."""

from synthct.models.painting.inpainter import Inpainter, Job
from synthct.models.painting.numerics import numerics_class, pin_numerics
from synthct.models.painting.schedulers import (
    NOT_FROM_IMAGES,
    SCHEDULERS,
    make_scheduler,
    trailing_timesteps,
)

__all__ = [
    "NOT_FROM_IMAGES",
    "SCHEDULERS",
    "Inpainter",
    "Job",
    "make_scheduler",
    "numerics_class",
    "pin_numerics",
    "trailing_timesteps",
]
