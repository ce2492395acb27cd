"""Random streams named after what they are for, so that no draw depends on order, rank or time."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str) -> int:
    """A 63-bit seed for the stream ``names`` of a recipe's ``seed``.

    The names are length-prefixed before hashing, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256(f"synthct/seed/v1/{seed}".encode())
    for name in names:
        encoded = name.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def generator(seed: int, *names: str) -> np.random.Generator:
    """A numpy generator (Philox, counter-based) for the stream ``names``."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, *names)))
