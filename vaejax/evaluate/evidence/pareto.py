"""How heavy the tail of importance weights is: Pareto k̂, from a buffer of the largest weights that is filled as draws come."""

import functools
import math

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.evaluate.evidence import backend
from vaejax.numerics import broadcasts, filled
from vaejax.types import Array

_FEWEST = 5
# Tails fitted together: one fit holds some fifty times its tail.
_AT_ONCE = 64


def tail_size(num_samples: int) -> int:
    """How many of S weights are the tail: ⌈min(S/5, 3√S)⌉.

    Source:
        Vehtari, Simpson, Gelman, Yao & Gabry 2024, section 3.1.

    Examples:
        >>> tail_size(100), tail_size(10_000)
        (20, 300)
    """
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def tail_length(num_samples: int) -> int:
    """How many of the largest weights `pareto_k` needs: the tail and its threshold, or 1 where the tail is too short for a fit."""
    size = tail_size(num_samples)
    return size + 1 if size >= _FEWEST else 1


def pareto_threshold(num_samples: int) -> float:
    """The k̂ above which a mean of S weights cannot be trusted: min(1 − 1/log₁₀ S, 0.7).

    Source:
        Vehtari et al. 2024, eq. 13.

    Examples:
        >>> round(pareto_threshold(100), 2), pareto_threshold(100_000)
        (0.5, 0.7)
    """
    checks.positive_int(num_samples, "num_samples")
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 10 else 0.0


def largest(log_weights: Array, count: int) -> Array:
    """The largest over the leading axis, falling, ``[count, ...]``; −inf where there are fewer."""
    missing = max(0, count - log_weights.shape[0])
    padding = jnp.full((missing, *log_weights.shape[1:]), -jnp.inf, log_weights.dtype)
    top, _ = jax.lax.top_k(jnp.moveaxis(jnp.concatenate([log_weights, padding]), 0, -1), count)
    return jnp.moveaxis(top, -1, 0)


def pareto_k(tail: Array) -> Array:
    """The shape k̂ of the generalised Pareto distribution of weights above the smallest of these.

    Below 0.5 the weights' variance is finite, below 1 their mean. The fit is BlackJAX's: Zhang and Stephens' quasi-Bayesian one, drawn
    towards 0.5 as much as ten more weights would.

    Args:
        tail: ``[M + 1, ...]`` the largest log-weights, falling; the last is the threshold (`largest` with `tail_size` + 1).

    Returns:
        ``[...]`` k̂: NaN where M < 5, −inf where the tail's weights are equal but for rounding, +inf where most of them vanish
        beside the largest, or all are zero or infinite.

    Source:
        Zhang & Stephens 2009, section 3; Vehtari et al. 2024, appendix C.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> heavy = jax.random.exponential(jax.random.key(0), (100_000,)) * 0.8  # weights with P(w > t) = t^(−1/0.8)
        >>> round(float(pareto_k(largest(heavy, tail_size(100_000) + 1))), 1)
        0.8
    """
    if tail.shape[0] - 1 < _FEWEST:
        return filled(jnp.zeros(tail.shape[1:], tail.dtype), True, jnp.nan)
    k, equal, undefined = _fit(tail)
    k = filled(k, undefined, jnp.inf)
    return filled(filled(k, equal, -jnp.inf), jnp.isnan(tail[0]), jnp.nan)


@jax.jit
@broadcasts
def _fit(tail: Array) -> tuple[Array, Array, Array]:
    """k̂ where there is one, and where the weights are equal, and where k̂ is infinite."""
    count = tail.shape[0] - 1
    top, threshold = tail[0], tail[-1]
    reference = jnp.where(jnp.isfinite(top), top, 0.0)
    weights = jnp.exp(tail - reference)
    equal = top - threshold <= 32 * jnp.finfo(tail.dtype).eps * (1 + jnp.abs(reference))
    # The fit divides by the lower quartile of the excesses.
    vanishing = weights[count - int(count / 4 + 0.5)] - weights[-1] <= 1e-30
    usable = ~equal & ~vanishing & jnp.isfinite(top)
    spread = jnp.where(usable, weights, jnp.linspace(1.0, 0.0, count + 1).reshape(-1, *(1,) * (tail.ndim - 1)))
    # The library's tail is a fraction of what it is given: all of these but the threshold.
    fit = functools.partial(backend.blackjax().pareto_khat, tail="upper", tail_frac=(count + 0.5) / (count + 1))
    k = jax.lax.map(fit, jnp.moveaxis(spread, 0, -1).reshape(-1, count + 1), batch_size=_AT_ONCE).reshape(top.shape)
    known = usable & ~jnp.isnan(k)
    return jnp.where(known, k, 0.0).astype(tail.dtype), ~known & equal & jnp.isfinite(top), ~known
