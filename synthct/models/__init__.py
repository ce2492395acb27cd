"""Networks that paint, as diffusers classes, and the loading of their checkpoints."""

from synthct.models.checkpoint import (
    Checkpoint,
    CheckpointFiles,
    find_checkpoint,
    load_checkpoint,
)

__all__ = ["Checkpoint", "CheckpointFiles", "find_checkpoint", "load_checkpoint"]
