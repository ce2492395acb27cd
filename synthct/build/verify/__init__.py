"""Whether a finished dataset is what it says it is: bytes, rows, sources, and painted again."""
