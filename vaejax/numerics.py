"""Stable arithmetic on log-weights: means of their exponentials and powers, and moments one chunk of samples at a time."""

import functools
import math
import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.types import Array

F = TypeVar("F", bound=Callable)


def broadcasts(function: F) -> F:
    """Decorates a function whose docstring documents broadcasting, so that `jax_numpy_rank_promotion` permits it.

    Under ``"raise"`` and ``"warn"`` the ranks inside the function are not checked. Everything outside of it
    is, so a decorated function must not call functions of the user. Under ``"allow"``, the default, the
    decorator changes nothing.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> add = broadcasts(lambda a, b: a + b)
        >>> with jax.numpy_rank_promotion("raise"):
        ...     add(jnp.ones((2, 3)), jnp.ones(3)).shape
        (2, 3)
    """
    config, permission = jax.config, jax.numpy_rank_promotion

    def permitted(*args: Any, **options: Any) -> Any:
        if config.jax_numpy_rank_promotion == "allow":  # type: ignore[attr-defined]
            return function(*args, **options)
        with permission("allow"):
            return function(*args, **options)

    # With the globals of the function, by which doctest recognizes the members of a module.
    scope = getattr(function, "__globals__", globals())
    local = types.FunctionType(permitted.__code__, scope, "permitted", None, permitted.__closure__)
    return cast(F, functools.wraps(function)(local))


def filled(values: Array, where: Any, fill: float) -> Array:
    """Returns ``values`` with ``fill`` where ``where`` is True: NaN for what is undefined, ±∞ for a limit.

    Concrete values are filled on the host, because ``jax_debug_nans`` and ``jax_debug_infs`` inspect what
    JAX computes. An undefined entry of a result, such as the standard error of one draw, is not a failed
    computation. Traced values are filled by `jax.numpy.where`.

    Args:
        values: of any shape.
        where: a bool, or an array of bools that broadcasts to the shape of ``values``.
        fill: the value of the other entries.

    Examples:
        >>> import jax.numpy as jnp
        >>> filled(jnp.arange(3.0), jnp.array([False, True, False]), jnp.inf).tolist()
        [0.0, inf, 2.0]
    """
    if isinstance(values, jax.core.Tracer) or isinstance(where, jax.core.Tracer):
        # Tracers of vmap and grad compute at once, outside of compiled programs.
        with jax.debug_nans(False), jax.debug_infs(False):
            return jnp.where(where, jnp.asarray(fill, values.dtype), values)
    if not np.any(where):
        return values
    host = np.asarray(values)
    return jax.device_put(np.where(where, np.asarray(fill, host.dtype), host))


def weighted_mean(values: Array, weight: Array | None, *, sample_axes: int = 0) -> Array:
    """Computes (Σ_i weight_i · value_i) / Σ_i weight_i over examples, or the plain mean without weights.

    Values of examples of weight 0 are not read, so that they may be infinite or NaN.

    Args:
        values: ``[*sample, *batch, ...]``; axes before and after those of the batch are averaged evenly.
        weight: ``[*batch]``, not negative, or None.
        sample_axes: how many axes stand before those of the batch.

    Returns:
        A scalar; 0 where all weights are 0.

    Examples:
        >>> float(weighted_mean(jnp.array([1.0, 4.0, jnp.inf]), jnp.array([2, 1, 0])))
        2.0
    """
    if weight is None:
        return jnp.mean(values)
    others = (*range(sample_axes), *range(sample_axes + weight.ndim, values.ndim))
    values = jnp.mean(values, axis=others) if others else values
    weight = weight.astype(values.dtype)
    total = jnp.sum(weight)
    return jnp.sum(jnp.where(weight > 0, values * weight, 0)) / jnp.where(total > 0, total, 1)


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


@broadcasts
def _shift(log_weights: Array, log_max: Array) -> Array:
    # Where every weight is zero the maximum is −inf, and −inf − (−inf) would be NaN.
    # Compared with the smallest float, because a constant −∞ stops eager runs under `jax_debug_infs`.
    return jnp.exp(log_weights - jnp.where(log_max < jnp.finfo(log_max.dtype).min, 0.0, log_max))


@broadcasts
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


@broadcasts
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
    variance = moments.sum_squares / jnp.maximum(n - 1, 1)
    return filled(jnp.sqrt(variance / n) / moments.mean, n <= 1, jnp.nan)


def effective_sample_size(moments: WeightMoments) -> Array:
    """Kish's effective sample size (Σ w)² / Σ w², between 1 and K."""
    total = moments.num_samples * moments.mean**2
    return moments.num_samples * total / (moments.sum_squares + total)


@broadcasts
def log_mean_exp(log_weights: Array, axis: int = 0) -> Array:
    """log (1/K) Σ_k w_k over one axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(log_mean_exp(jnp.array([-1000.0, -1000.0])))
        -1000.0
    """
    return jax.nn.logsumexp(log_weights, axis=axis) - math.log(log_weights.shape[axis])


@broadcasts
def leave_one_out_log_mean_exp(log_weights: Array, axis: int = 0) -> Array:
    """log (1/(K−1)) Σ_{j≠k} w_j for each k: the shape of ``log_weights``, K > 1 along ``axis``.

    Subtracting w_k from the sum is safe for every weight but the largest, whose others are summed afresh.

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(float(v), 2) for v in leave_one_out_log_mean_exp(jnp.array([0.0, -1000.0, -1000.0]))]
        [-1000.0, -0.69, -0.69]
    """
    count = log_weights.shape[axis]
    if count < 2:
        raise ValueError(f"leaving one weight out needs at least 2, got {count}")
    position = jnp.argmax(log_weights, axis=axis, keepdims=True)
    is_top = jnp.expand_dims(jnp.arange(count), [i for i in range(log_weights.ndim) if i != axis % log_weights.ndim])
    is_top = is_top == position
    largest = jax.lax.stop_gradient(jnp.max(log_weights, axis=axis, keepdims=True))
    weights = _shift(log_weights, largest)
    rest = jnp.where(is_top, 1.0, jnp.sum(weights, axis=axis, keepdims=True) - weights)
    others = jax.nn.logsumexp(jnp.where(is_top, -jnp.inf, log_weights), axis=axis, keepdims=True)
    return jnp.where(is_top, others, largest + jnp.log(rest)) - math.log(count - 1)


@broadcasts
def log_power_mean(log_weights: Array, power: Any) -> Array:
    """(1/s) log (1/K) Σ_k w_k^s over the leading axis: the mean of log w at s = 0, its maximum at ∞, its minimum at −∞.

    Accurate for every s, however near 0, and smooth through it; ``power`` may be traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> log_weights = jnp.array([0.0, 2.0])
        >>> [round(float(log_power_mean(log_weights, s)), 4) for s in (-jnp.inf, 0.0, 1e-6, 1.0, jnp.inf)]
        [0.0, 1.0, 1.0, 1.4338, 2.0]
    """
    # By index: the derivative of a maximum compares values, which XLA may compute twice with other rounding, and is then 0/0.
    largest, smallest = (
        jnp.take_along_axis(log_weights, index(log_weights, axis=0)[None], axis=0, mode="promise_in_bounds")[0]
        for index in (jnp.argmax, jnp.argmin)
    )
    if isinstance(power, int | float) and abs(power) > float(jnp.finfo(log_weights.dtype).max):
        return largest if power > 0 else smallest
    power = jnp.asarray(power, log_weights.dtype)
    safe = jnp.where((power == 0) | jnp.isinf(power), 1.0, power)
    # Measured from the end that dominates every exponent is at most 0, and the two forms of the logarithm meet without cancellation.
    extreme = jax.lax.stop_gradient(jnp.where(safe > 0, largest, smallest))
    exponent = safe * (log_weights - jnp.where(jnp.isfinite(extreme), extreme, 0.0))
    mean = jnp.mean(jnp.exp(exponent), axis=0)
    near = mean > 0.5
    log_mean = jnp.where(near, jnp.log1p(jnp.mean(jnp.expm1(exponent), axis=0)), jnp.log(jnp.where(near, 1.0, mean)))
    finite = jnp.where(power == 0, jnp.mean(log_weights, axis=0), extreme + log_mean / safe)
    return jnp.where(jnp.isinf(power), jnp.where(power > 0, largest, smallest), finite)


@broadcasts
def tempered_mean(log_weights: Array, beta: Array) -> Array:
    """Σ_k w̃_k log w_k with w̃_k ∝ w_k^β, over the leading axis; ``beta`` broadcasts against the remaining ones."""
    centre = jax.lax.stop_gradient(jnp.max(log_weights, axis=0))
    # At β = 0 a weight of zero still has its share, and the mean is −∞.
    share = jax.nn.softmax(beta * jnp.where(beta == 0, 0.0, log_weights), axis=0)
    return centre + jnp.sum(share * jnp.where(share > 0, log_weights - centre, 0.0), axis=0)
