"""Information criteria from the log-likelihood of each row."""

from typing import Any

import jax.numpy as jnp

from vaejax.types import Array, Batch


def aic(log_prob: Array, x: Any, num_parameters: int) -> Array:
    """2 p − 2 Σ w log p(x_n)."""
    return 2 * num_parameters - 2 * _total(log_prob, x)


def bic(log_prob: Array, x: Any, num_parameters: int) -> Array:
    """p log n − 2 Σ w log p(x_n), n the sum of the weights."""
    weight = x.weight if isinstance(x, Batch) else None
    size = float(log_prob.size) if weight is None else jnp.sum(weight)
    return num_parameters * jnp.log(size) - 2 * _total(log_prob, x)


def _total(log_prob: Array, x: Any) -> Array:
    return jnp.sum(log_prob if not isinstance(x, Batch) or x.weight is None else x.weight * log_prob)
