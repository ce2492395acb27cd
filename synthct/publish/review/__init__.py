"""``synthct review``: a person accepts or rejects every sample in a browser."""
