"""The processes that a command runs in: those of a launch, and the workers of each of them."""
