"""Randomness of NumPy and scikit-learn from typed keys."""

import jax
import numpy as np

from vaejax import checks
from vaejax.types import Key


def generator(key: Key) -> np.random.Generator:
    """A NumPy generator seeded by a typed key."""
    checks.key(key)
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
