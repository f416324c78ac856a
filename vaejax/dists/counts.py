"""Log-probabilities of counts from logarithmic parameters, precise for counts from 0 to 1e8 and beyond.

Both are differentiable any number of times, forwards and backwards. The derivative is written out, so that the parts which depend on the
counts alone are never differentiated for the parameters.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.scipy.special import digamma

from vaejax.dists.special import as_float, deviance, log_factorial_excess, poisson_cost
from vaejax.types import Array

# The largest variance for which counts are drawn by JAX's samplers: their acceptance test is a difference of numbers near λ log λ in
# float32, and that of Poisson counts in int32.
LARGEST_EXACT = 1e4


def poisson_log_prob(x: Array, log_rate: Array) -> Array:
    """x·l − exp(l) − log x!, entry by entry, as −S(x) − D(x, exp(l)); −∞ for x < 0.

    Its relative error in float32 is below 1e-6, plus |x − λ|·2⁻²² nats for the rounding of λ = exp(l).

    Args:
        x: counts, broadcast against ``log_rate``; any numeric type.
        log_rate: l; −∞ is a rate of 0.

    Source:
        Loader 2000.

    Examples:
        >>> import jax.numpy as jnp
        >>> bool(poisson_log_prob(jnp.array(0), jnp.array(-jnp.inf)) == 0)
        True
    """
    return _poisson(*as_float(x, log_rate))


@jax.custom_jvp
def _poisson(x: Array, log_rate: Array) -> Array:
    return jnp.where(x < 0, -jnp.inf, -poisson_cost(x, jnp.exp(log_rate), log_rate))


def _poisson_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, log_rate), (x_dot, rate_dot) = primals, tangents
    # A symbolic zero means that nobody differentiates in that argument: usually the data.
    tangent = jnp.zeros(jnp.broadcast_shapes(x.shape, log_rate.shape), log_rate.dtype)
    if type(rate_dot) is not SymbolicZero:
        tangent += (x - jnp.exp(log_rate)) * rate_dot
    if type(x_dot) is not SymbolicZero:
        tangent += (log_rate - digamma(x + 1)) * x_dot
    return _poisson(x, log_rate), tangent


_poisson.defjvp(_poisson_jvp, symbolic_zeros=True)


def binomial_log_prob(x: Array, logits: Array, total_count: int) -> Array:
    """log C(n, x) + x·l − n·softplus(l), entry by entry; −∞ for x < 0 and x > n.

    As S(n) − S(x) − S(n − x) − D(x, np) − D(n − x, nq) with p = sigmoid(l) and q = sigmoid(−l).

    Args:
        x: counts, broadcast against ``logits``; any numeric type.
        logits: l; ±∞ are certain outcomes.
        total_count: n, a static number.

    Source:
        Loader 2000.

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(float(v), 4) for v in binomial_log_prob(jnp.array([0, 1]), jnp.array([-jnp.inf, 0.0]), 2)]
        [0.0, -0.6931]
    """
    return _binomial(float(total_count), *as_float(x, logits))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _binomial(n: float, x: Array, logits: Array) -> Array:
    total = jnp.asarray(n, x.dtype)
    failures = total - x
    coefficient = log_factorial_excess(total) - log_factorial_excess(x) - log_factorial_excess(failures)
    # sigmoid(l) and sigmoid(−l) with one exponential, the smaller one to full precision.
    excess = jnp.exp(-jnp.abs(logits))
    larger, smaller = n / (1 + excess), n * excess / (1 + excess)
    mean, rest = jnp.where(logits < 0, smaller, larger), jnp.where(logits < 0, larger, smaller)
    # The logarithms are used for tiny means, where log sigmoid(l) = l.
    log_n = math.log(n)
    value = coefficient - deviance(x, mean, log_n + jnp.minimum(logits, 0))
    value = value - deviance(failures, rest, log_n - jnp.maximum(logits, 0))
    return jnp.where((x < 0) | (failures < 0), -jnp.inf, value)


def _binomial_jvp(n: float, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, logits), (x_dot, logits_dot) = primals, tangents
    tangent = jnp.zeros(jnp.broadcast_shapes(x.shape, logits.shape), logits.dtype)
    if type(logits_dot) is not SymbolicZero:
        tangent += (x - n * jax.nn.sigmoid(logits)) * logits_dot
    if type(x_dot) is not SymbolicZero:
        tangent += (logits - digamma(x + 1) + digamma(n - x + 1)) * x_dot
    return _binomial(n, x, logits), tangent


_binomial.defjvp(_binomial_jvp, symbolic_zeros=True)


def rounded_normal(z: Array, mean: Array, variance: Array, skewness: Any = 1.0, kurtosis: Any = 1.0) -> Array:
    """Counts from standard normal numbers by the expansion of Cornish & Fisher to the fourth cumulant, rounded, as floats.

    At variances above `LARGEST_EXACT` their distribution function is within 1e-4 of the exact one.

    Args:
        z: standard normal numbers.
        mean: of the counts.
        variance: σ² of the counts.
        skewness: σ times the skewness: 1 for Poisson counts, 1 − 2p for binomial ones.
        kurtosis: σ² times the excess kurtosis: 1 for Poisson counts, 1 − 6p(1 − p) for binomial ones.

    Source:
        Cornish & Fisher 1938, "Moments and cumulants in the specification of distributions".
    """
    root = jnp.sqrt(variance)
    fourth = kurtosis * (z**3 - 3 * z) / 24 - skewness**2 * (2 * z**3 - 5 * z) / 36
    return jnp.round(mean + (root * z + skewness * (z**2 - 1) / 6 + fourth / root))
