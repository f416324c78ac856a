"""Stable arithmetic on log-weights: the mean and spread of their exponentials, one chunk of samples at a time."""

from typing import NamedTuple

import jax.numpy as jnp

from vaejax.types import Array


class WeightMoments(NamedTuple):
    """Mean and spread of weights w_k = exp(log w_k) in units of their largest, so that nothing overflows.

    Attributes:
        log_max: the largest log-weight so far.
        mean: mean of w_k / exp(log_max).
        sum_squares: Σ_k (w_k / exp(log_max) − mean)².
        num_samples: how many weights.
    """

    log_max: Array
    mean: Array
    sum_squares: Array
    num_samples: Array


def _shift(log_weights: Array, log_max: Array) -> Array:
    # Where every weight is zero the maximum is −inf, and −inf − (−inf) would be NaN.
    return jnp.exp(log_weights - jnp.where(jnp.isneginf(log_max), 0.0, log_max))


def weight_moments(log_weights: Array) -> WeightMoments:
    """Moments over the leading axis of ``log_weights`` ``[K, ...]``; −inf stands for a weight of zero.

    The spread is summed about the mean, in a second look at the chunk: equal weights give exactly zero, which the textbook
    difference of squares does not.

    Examples:
        >>> import jax.numpy as jnp
        >>> moments = weight_moments(jnp.array([-1000.0, -1000.0, -1000.0]))
        >>> float(log_mean_weight(moments)), float(moments.sum_squares)
        (-1000.0, 0.0)
    """
    log_max = jnp.max(log_weights, axis=0)
    weights = _shift(log_weights, log_max)
    mean = jnp.mean(weights, axis=0)
    return WeightMoments(
        log_max, mean, jnp.sum((weights - mean) ** 2, axis=0), jnp.asarray(log_weights.shape[0], mean.dtype)
    )


def merge_moments(a: WeightMoments, b: WeightMoments) -> WeightMoments:
    """Moments of two sets of weights together (Chan, Golub & LeVeque 1983, eq. 2.1), rescaled to the larger maximum."""
    log_max = jnp.maximum(a.log_max, b.log_max)
    scale_a, scale_b = _shift(a.log_max, log_max), _shift(b.log_max, log_max)
    mean_a, mean_b = a.mean * scale_a, b.mean * scale_b
    num_samples = a.num_samples + b.num_samples
    delta = mean_b - mean_a
    mean = mean_a + delta * (b.num_samples / num_samples)
    sum_squares = (
        a.sum_squares * scale_a**2
        + b.sum_squares * scale_b**2
        + delta**2 * (a.num_samples * b.num_samples / num_samples)
    )
    return WeightMoments(log_max, mean, sum_squares, num_samples)


def log_mean_weight(moments: WeightMoments) -> Array:
    """log (1/K) Σ_k w_k."""
    return moments.log_max + jnp.log(moments.mean)


def log_mean_standard_error(moments: WeightMoments) -> Array:
    """Standard error of `log_mean_weight` by the delta method: sd(w) / (mean(w) √K), NaN for a single weight."""
    n = moments.num_samples
    variance = moments.sum_squares / jnp.where(n > 1, n - 1, jnp.nan)
    return jnp.sqrt(variance / n) / moments.mean


def effective_sample_size(moments: WeightMoments) -> Array:
    """Kish's effective sample size (Σ w)² / Σ w², between 1 and K."""
    total = moments.num_samples * moments.mean**2
    return moments.num_samples * total / (moments.sum_squares + total)
