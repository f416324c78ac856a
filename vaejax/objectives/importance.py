"""Importance-weighted bounds: log-means of the weights w_k = p(x, z_k)/q(z_k|x), and their combinations."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.numerics import leave_one_out_log_mean_exp, log_mean_exp
from vaejax.objectives.base import less_penalty, objective, scheduled
from vaejax.types import Array, LogTerms


@objective(of_log_weights=True)
def iwae(terms: LogTerms, *, step: Any = 0) -> Array:
    """log (1/K) Σ_k w_k: the importance-weighted bound, in nats.

    In the mean a lower bound of log p(x) that rises with K; the ELBO at K = 1.

    Args:
        terms: log-terms ``[K, *batch]``.
        step: not used.

    Returns:
        ``[*batch]``, larger is better.

    Source:
        Burda, Grosse & Salakhutdinov 2016, eq. 8.

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.log(jnp.array([[1.0], [3.0]])), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
        >>> round(float(jnp.exp(iwae(terms)[0])), 6)
        2.0
    """
    return less_penalty(log_mean_exp(terms.log_weights), terms)


@objective(of_log_weights=True)
def miwae(terms: LogTerms, *, groups: int, step: Any = 0) -> Array:
    """The mean over M groups of the importance-weighted bound of K/M draws each.

    Between the ELBO (M = K) and the IWAE bound (M = 1): a looser bound whose gradient has a better signal-to-noise ratio.

    Args:
        terms: log-terms ``[K, *batch]``.
        groups: M; must divide K.
        step: not used.

    Returns:
        ``[*batch]`` nats, larger is better; in the mean the bound of ``iwae`` at K/M.

    Raises:
        ValueError: M < 1, or not a divisor of K.

    Source:
        Rainforth et al. 2018, eq. 16.

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.log(jnp.array([[1.0], [3.0]])), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
        >>> round(float(jnp.exp(2 * miwae(terms, groups=2)[0])), 5)
        3.0
    """
    checks.positive_int(groups, "groups")
    log_weights = terms.log_weights
    num_samples = log_weights.shape[0]
    if num_samples % groups:
        raise ValueError(f"groups={groups} does not divide the K={num_samples} draws; choose num_samples=M·k")
    grouped = log_weights.reshape(groups, num_samples // groups, *log_weights.shape[1:])
    return less_penalty(jnp.mean(log_mean_exp(grouped, axis=1), axis=0), terms)


@objective(of_log_weights=True)
def ciwae(terms: LogTerms, *, beta: Any, step: Any = 0) -> Array:
    """β·ELBO + (1 − β)·IWAE on the same draws, in nats.

    Args:
        terms: log-terms ``[K, *batch]``; the ELBO is taken from the log-weights.
        beta: from 0 (IWAE) to 1 (ELBO), or a schedule ``step -> beta``.
        step: the training step, for schedules.

    Returns:
        ``[*batch]``, larger is better; in the mean a lower bound of log p(x).

    Raises:
        ValueError: β outside [0, 1].

    Source:
        Rainforth et al. 2018, eq. 17.

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.array([[-1.0], [-3.0]]), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
        >>> float(ciwae(terms, beta=1.0)[0])
        -2.0
    """
    beta = scheduled(beta, "beta", step, minimum=0.0, maximum=1.0)
    log_weights = terms.log_weights
    return less_penalty(beta * jnp.mean(log_weights, axis=0) + (1 - beta) * log_mean_exp(log_weights), terms)


@objective(of_log_weights=True)
def jackknife(terms: LogTerms, *, order: int = 1, step: Any = 0) -> Array:
    """The IWAE estimate of log p(x) with its bias in 1/K removed up to the given order: JVI-1, JVI-2, in nats.

    Not a bound: it may lie above log p(x), also in the mean. With L_n the mean of the IWAE estimates over all subsets of n of the
    K draws, order 1 is K·L_K − (K−1)·L_{K−1} and order 2 is K²/2·L_K − (K−1)²·L_{K−1} + (K−2)²/2·L_{K−2}.

    Args:
        terms: log-terms ``[K, *batch]``, K > order, of finite log-weights.
        order: 1 or 2. Order 2 looks at all pairs of draws: memory K².
        step: not used.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: another order, or too few draws.

    Source:
        Nowozin 2018, eq. 9 and section 3 (the generalised jackknife of Schucany et al. 1971).

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.full((3, 1), -1.0), jnp.zeros((3, 1)), jnp.zeros((3, 1)))
        >>> round(float(jackknife(terms, order=2)[0]), 5)
        -1.0
    """
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    log_weights = terms.log_weights
    count = log_weights.shape[0]
    if count <= order:
        raise ValueError(f"jackknife of order {order} leaves out {order} draws, so it needs K > {order}, got K={count}")
    # About a common value, so that coefficients of order K² do not magnify the rounding of large log-weights.
    centre = log_mean_exp(log_weights)
    rest = jnp.mean(leave_one_out_log_mean_exp(log_weights) - centre[None], axis=0)
    if order == 1:
        return less_penalty(centre - (count - 1) * rest, terms)
    pairs = _leave_two_out(log_weights - centre[None])
    return less_penalty(centre - (count - 1) ** 2 * rest + 0.5 * (count - 2) ** 2 * pairs, terms)


def _leave_two_out(log_weights: Array) -> Array:
    """The mean over pairs of log (1/(K−2)) Σ of the other weights."""
    count = log_weights.shape[0]
    # Row i: the indices of all draws but i.
    others = np.arange(count - 1) + (np.arange(count - 1) >= np.arange(count)[:, None])
    return jnp.mean(leave_one_out_log_mean_exp(log_weights[others], axis=1), axis=(0, 1))
