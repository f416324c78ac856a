"""Functions that keep their relative precision at the ends of the range: the parts of which log-probabilities and divergences consist.

A Poisson log-probability is −S(x) − D(x, λ), and a binomial one S(n) − S(x) − S(n − x) − D(x, np) − D(n − x, nq). Neither part cancels,
whereas x·log λ − λ − log x! is a difference of numbers near x·log x, which is wrong by 16 nats in float32 at counts of 1e7.

Source:
    Loader 2000, "Fast and accurate computation of binomial probabilities".
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from vaejax.types import Array

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

# Minimax polynomials for float32, lowest power first (mpmath, 40 digits): relative errors below 2e-8, of log Γ below 5e-7.
# x·J(x) in 1/x for x ≥ 1, where J(x) = log Γ(x) − (x − ½) log x + x − ½ log 2π.
_STIRLING = (0.0833324154, 1.93171655e-05, -0.00290497583, 0.000353357436, 0.000423559766, -0.000162225537)
# log Γ(1 + x) / (x (1 − x)) on [0, 1].
_LOG_GAMMA = (-0.577215168, 0.245197439, -0.154471066, 0.108519449, -0.0692421145, 0.0311327324, -0.00670610329)
# (artanh(v) / v − 1) / v² in v² for |v| ≤ ½.
_ARTANH = (0.333333315, 0.200005197, 0.142624834, 0.114867266, 0.0641613495, 0.158759509)
# (exp(u) − 1 − u) / u² for |u| ≤ ½.
_EXCESS = (0.500000012, 0.166666675, 0.041665791, 0.00833312794, 0.00139821957, 0.000199794989)
# The series themselves for float64, where the interval is shorter instead.
_STIRLING_64 = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_ARTANH_64 = tuple(1 / (2 * k + 3) for k in range(9))
_EXCESS_64 = tuple(1 / math.factorial(k + 2) for k in range(12))
# Below exp(_FLOOR) a mean is replaced by its logarithm, so that x / mean does not overflow for x up to 1e20.
_FLOOR = -40.0

# Compiled also outside of ``jit``: one call instead of thirty, and no check of intermediate values.
_compiled = functools.partial(jax.jit, inline=True)


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def as_float(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in the type of log-densities: their common float type, float32 at least."""
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return tuple(jnp.asarray(array).astype(dtype) for array in arrays)


@_compiled
def stirling_remainder(x: Array) -> Array:
    """J(x) = log Γ(x) − (x − ½) log x + x − ½ log 2π for x > 0, which is positive, convex and near 1 / 12x."""
    if x.dtype == jnp.float32:
        large, far = x >= 1, _polynomial(_STIRLING, 1 / jnp.maximum(x, 1)) / jnp.maximum(x, 1)
    else:
        large, safe = x >= 16, jnp.maximum(x, 16)
        far = _polynomial(_STIRLING_64, safe**-2.0) / safe
    small = jnp.where(large, 1, x)
    return jnp.where(large, far, gammaln(small) - (small - 0.5) * jnp.log(small) + small - HALF_LOG_2PI)


@_compiled
def log_factorial_excess(x: Array) -> Array:
    """S(x) = log x! − x log x + x, which is −log Poisson(x; x), for x ≥ 0: 0 at 0, near ½ log 2πx.

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(float(s), 4) for s in log_factorial_excess(jnp.array([0.0, 1.0, 1e8]))]
        [0.0, 1.0, 10.1293]
    """
    return _log_factorial_excess(x, jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny)))


def _log_factorial_excess(x: Array, log_x: Array) -> Array:
    if x.dtype == jnp.float32:
        inverse = 1 / jnp.maximum(x, 1)
        far = inverse * _polynomial(_STIRLING, inverse)
        large, near = x >= 1, x * (1 - x) * _polynomial(_LOG_GAMMA, x)
    else:
        large, safe = x >= 16, jnp.maximum(x, 16)
        far = _polynomial(_STIRLING_64, safe**-2.0) / safe
        near = gammaln(jnp.minimum(x, 16) + 1)
    return jnp.where(large, 0.5 * log_x + HALF_LOG_2PI + far, near + jnp.where(x == 0, 0, x * (1 - log_x)))


@_compiled
def deviance(x: Array, mean: Array, log_mean: Array) -> Array:
    """D(x, mean) = x log(x / mean) + mean − x for x ≥ 0 and mean ≥ 0, which is not negative; 0·log 0 is 0.

    Args:
        x: counts.
        mean: their mean; 0 and ∞ included.
        log_mean: its logarithm, which is used where ``mean`` is below e⁻⁴⁰.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(1e7 * float(deviance(jnp.float32(1e8), jnp.float32(1e8 + 8), jnp.log(jnp.float32(1e8)))), 4)
        3.2
    """
    return _deviance(x, mean, log_mean, _log_floored_ratio(x, mean))


def _log_floored_ratio(x: Array, mean: Array) -> Array:
    """log(x / max(mean, e⁻⁴⁰)), finite for every count up to 1e20."""
    return jnp.log(jnp.maximum(x / jnp.maximum(mean, math.exp(_FLOOR)), jnp.finfo(x.dtype).tiny))


def _deviance(x: Array, mean: Array, log_mean: Array, log_floored_ratio: Array) -> Array:
    difference = x - mean
    v = difference / jnp.maximum(x + mean, jnp.finfo(x.dtype).tiny)
    single = x.dtype == jnp.float32
    # x log(x / mean) = 2x artanh(v): the series serves where the two terms would cancel.
    series = _polynomial(_ARTANH if single else _ARTANH_64, v * v)
    near = v * (difference + 2 * x * (v * v) * series)
    log_ratio = log_floored_ratio + jnp.maximum(_FLOOR - log_mean, 0)
    far = jnp.where(x > 0, x * log_ratio, 0) - difference
    return jnp.where(jnp.abs(v) < (0.5 if single else 0.1), near, far)


@_compiled
def poisson_cost(x: Array, mean: Array, log_mean: Array) -> Array:
    """S(x) + D(x, mean), which is −log Poisson(x; mean), with one logarithm for both."""
    log_floored_ratio = _log_floored_ratio(x, mean)
    log_x = log_floored_ratio + jnp.maximum(log_mean, _FLOOR)
    return _log_factorial_excess(x, log_x) + _deviance(x, mean, log_mean, log_floored_ratio)


@jax.custom_jvp
@_compiled
def exp_excess(u: Array) -> Array:
    """exp(u) − 1 − u, which is not negative; half of it at u = log σ_q² − log σ_p² is a divergence between normals.

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(float(v), 10) for v in exp_excess(jnp.array([-240.0, 0.0, 1e-4]))]
        [239.0, 0.0, 5e-09]
    """
    single = u.dtype == jnp.float32
    limit = 0.5 if single else 0.1
    inner = jnp.clip(u, -limit, limit)
    near = inner * inner * _polynomial(_EXCESS if single else _EXCESS_64, inner)
    # The logarithm of what overflows is finite, and so is the difference of −∞ and −1.
    return jnp.where(jnp.abs(u) < limit, near, jnp.where(u == jnp.inf, u, jnp.expm1(u) - u))


@exp_excess.defjvp
def _exp_excess_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return exp_excess(*primals), jnp.expm1(primals[0]) * tangents[0]


@_compiled
def relative_excess(weight: Array, other: Array, log_ratio: Array) -> Array:
    """weight·(exp(r) − 1 − r) with ``other`` = weight·exp(r): what an outcome adds to Σ q log(q / p) where Σ q = Σ p.

    Each term is not negative, so that the sum is not. A weight of 0 adds ``other``; an ``other`` of 0 adds ∞ unless the weight is 0.
    """
    far = other - weight - jnp.where(weight == 0, 0, weight * log_ratio)
    near = weight * exp_excess(jnp.where(jnp.abs(log_ratio) < 1, log_ratio, 0))
    return jnp.where(jnp.abs(log_ratio) < 1, near, far)


@jax.custom_jvp
def quotient(a: Array, b: Array) -> Array:
    """a / b, whose derivative never forms b², which underflows for scales below 1e-19 in float32."""
    return a / b


@quotient.defjvp
def _quotient_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    # Products, since XLA makes (a / b) / b a division by b².
    value, inverse = quotient(a, b), 1 / b
    return value, a_dot * inverse - value * (b_dot * inverse)


def log_ratio(a: Array, b: Array) -> Array:
    """log(a / b) for positive numbers, precise where they are nearly equal and finite where their ratio is not."""
    return _log_ratio(*jnp.broadcast_arrays(*as_float(a, b)))


@jax.custom_jvp
@_compiled
def _log_ratio(a: Array, b: Array) -> Array:
    relative = (a - b) / b
    is_near = jnp.abs(relative) < 0.5
    return jnp.where(is_near, jnp.log1p(jnp.where(is_near, relative, 0)), jnp.log(a) - jnp.log(b))


@_log_ratio.defjvp
def _log_ratio_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    return _log_ratio(a, b), a_dot / a - b_dot / b


def log_sum_squares(*parts: Array) -> Array:
    """log Σ part², from parts whose squares may overflow or underflow; differentiable in each."""
    largest = functools.reduce(jnp.maximum, [jnp.abs(part) for part in parts])
    # Any constant unit gives the same value and the same derivatives.
    unit = jax.lax.stop_gradient(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    return 2 * jnp.log(unit) + jnp.log(sum((part / unit) ** 2 for part in parts))


def log_gamma_ratio(x: Array, shift: Array) -> Array:
    """log Γ(x + s) − log Γ(x) for x ≥ 1 and s ≥ 0, as a sum of terms that are not larger than the result where x is large."""
    sum_ = x + shift
    remainder = stirling_remainder(sum_) - stirling_remainder(x)
    return (x - 0.5) * jnp.log1p(shift / x) + shift * (jnp.log(sum_) - 1) + remainder
