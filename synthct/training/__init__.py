"""Training of checkpoints on the same sources and masks that builds use."""
