"""Networks that paint, as diffusers classes, their checkpoints, and the patches they see."""
