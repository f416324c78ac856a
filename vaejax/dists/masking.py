"""Log-likelihoods with missing entries."""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.backend import distrax
from vaejax.types import Array


def masked_log_prob(distribution: Any, x: Array, mask: Array | None) -> Array:
    """log p(x) over the observed entries: entries where ``mask`` is False contribute nothing, to value or gradient.

    Args:
        distribution: p(x|z) with independent entries: one of vaejax's likelihoods, or a distrax ``Independent`` of a scalar family.
        x: ``[*batch, *event]``; missing entries hold any finite value.
        mask: of x's shape, True where observed; None means everything.

    Returns:
        ``[..., *batch]`` nats.

    Raises:
        TypeError: for a distribution whose entries cannot be told apart.
        ValueError: for a distribution of another event shape than x, which would broadcast.
    """
    checks.same_event(distribution, x, "the likelihood p(x|z)", "x")
    if mask is None:
        return distribution.log_prob(x)
    if hasattr(distribution, "masked_log_prob"):
        return distribution.masked_log_prob(x, mask)
    if isinstance(distribution, distrax.Independent) and distribution.distribution.event_shape == ():
        base = distribution.distribution
        # A where around log p(x) still has a NaN gradient if x lies outside the support: put it inside first.
        inside = jnp.where(mask, x, jax.lax.stop_gradient(_centre(base)))
        entries = jnp.where(mask, base.log_prob(inside), 0.0)
        return jnp.sum(entries, axis=tuple(range(-distribution.reinterpreted_batch_ndims, 0)))
    raise TypeError(
        f"the batch has a mask, but the entries of {type(distribution).__name__} cannot be dropped one by one; return a "
        "distrax.Independent of a scalar family, or let the likelihood function take mask= and use it"
    )


def _centre(distribution: Any) -> Array:
    """Some point of the support: the mean, else the mode, else the median, else 0."""
    for name in ("mean", "mode", "median"):
        try:
            return getattr(distribution, name)()
        except (AttributeError, NotImplementedError):
            continue
    return jnp.zeros(())
