"""``synthct review``: somebody looks at every sample and accepts or rejects it."""
