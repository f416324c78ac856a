"""Variational bounds of the Rényi and χ families: power means of the weights."""

from typing import Any

import numpy as np

from vaejax import checks
from vaejax.numerics import log_power_mean
from vaejax.objectives.base import less_penalty, objective, plus_penalty, scheduled
from vaejax.types import Array, LogTerms


def _is_smooth(*, alpha: Any = 0.0, **_: Any) -> bool:
    # At α = ±∞ the derivative jumps where two weights tie, and second derivatives do not tell.
    if callable(alpha) or not checks.is_concrete(alpha):
        return True
    return bool(np.isfinite(checks.extended_real(alpha, "alpha")))


@objective(of_log_weights=_is_smooth)
def renyi(terms: LogTerms, *, alpha: Any, step: Any = 0) -> Array:
    """The variational Rényi bound 1/(1−α) · log (1/K) Σ_k w_k^(1−α), in nats.

    Per draw not increasing in α: the largest log-weight at α = −∞ (VR-max), IWAE at 0, the ELBO at 1, the smallest at +∞. For
    α > 0 a lower bound of log p(x) in the limit of many draws, for α < 0 an upper one, of which a finite sample is biased low.

    Args:
        terms: log-terms ``[K, *batch]``.
        alpha: any real number, ±∞, or a schedule ``step -> alpha``.
        step: the training step, for schedules.

    Returns:
        ``[*batch]``; always maximised (as published, α < 0 included: use `cubo` to minimise an upper bound).

    Raises:
        TypeError: α is no number.
        ValueError: α is NaN.

    Source:
        Li & Turner 2016, eqs. 9 and 14.

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.array([[-1.0], [-3.0]]), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
        >>> [round(float(renyi(terms, alpha=a)[0]), 4) for a in (-jnp.inf, 0.0, 1.0, jnp.inf)]
        [-1.0, -1.5662, -2.0, -3.0]
    """
    alpha = alpha(step) if callable(alpha) else checks.extended_real(alpha, "alpha")
    return less_penalty(log_power_mean(terms.log_weights, 1 - alpha), terms)


@objective(maximize=False, of_log_weights=True)
def cubo(terms: LogTerms, *, n: Any = 2.0, step: Any = 0) -> Array:
    """The χ upper bound (1/n) · log (1/K) Σ_k w_k^n, in nats; minimised.

    An upper bound of log p(x) in population only: with finitely many draws the logarithm makes it biased low, and heavily so
    where the weights have heavy tails. exp(n·CUBO) is unbiased for its population value. It belongs to the encoder alone: a decoder
    that minimises it lowers log p(x); ``estimators.piwae(model, encoder=cubo, decoder=iwae)`` trains both.

    Args:
        terms: log-terms ``[K, *batch]``.
        n: at least 1 (2 is the χ² divergence), or a schedule ``step -> n``.
        step: the training step, for schedules.

    Returns:
        ``[*batch]``, smaller is better; ``renyi(alpha=1−n)`` per draw.

    Raises:
        ValueError: n < 1.

    Source:
        Dieng et al. 2017, eq. 5.

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.log(jnp.array([[1.0], [7.0]])), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
        >>> round(float(jnp.exp(cubo(terms, n=2)[0])), 5)
        5.0
    """
    n = scheduled(n, "n", step, minimum=1.0)
    return plus_penalty(log_power_mean(terms.log_weights, n), terms)
