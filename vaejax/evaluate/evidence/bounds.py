"""The ELBO, IWAE's bound and importance sampling from the same draws, so that they stand in order draw by draw."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from vaejax import checks
from vaejax.evaluate.evidence.importance import (
    BOUND,
    WEIGHTS,
    Elbo,
    LogMarginal,
    elbo_of,
    log_marginal_of,
    warn_untrustworthy,
)
from vaejax.evaluate.stream import Summary, stream
from vaejax.numerics import filled, log_mean_exp
from vaejax.types import Array, Key, LogTerms, Model, Params, as_batch


class Iwae(NamedTuple):
    """IWAE's bound with K draws for each example.

    Attributes:
        estimate: ``[*batch]`` the mean over groups of K draws of log (1/K) Σ_k w_k, nats: an unbiased estimate of L_K ≤ log p(x).
        standard_error: ``[*batch]`` Monte Carlo standard error; NaN for one group.
        weight: ``[*batch]`` the weights of the batch, for means over the examples (`mean_estimate`); None without.
    """

    estimate: Array
    standard_error: Array
    weight: Array | None = None


class Bounds(NamedTuple):
    """Three lower bounds of each example's evidence, each with more draws inside its logarithm.

    Attributes:
        elbo: one draw.
        iwae: K draws.
        importance: all S draws; never below ``iwae`` (Jensen's inequality holds for the draws themselves).
    """

    elbo: Elbo
    iwae: Iwae
    importance: LogMarginal


def bounds(
    model: Model, params: Params, key: Key, batch: Any, *, num_samples: int = 5000, num_draws: int = 50
) -> Bounds:
    """ELBO, L_K and importance sampling with S samples, from one pass over the same S draws of every example.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``.
        num_samples: S, a multiple of K.
        num_draws: K.

    Raises:
        ValueError: S that is no multiple of K; as `log_marginal`.

    Source:
        Burda, Grosse & Salakhutdinov 2016, section 3 (L_K).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> found = bounds(model, params, jax.random.key(1), jax.numpy.ones((5, 4)), num_samples=200, num_draws=20)
        >>> bool((found.iwae.estimate <= found.importance.estimate).all())
        True
    """
    checks.positive_int(num_samples, "num_samples")
    checks.positive_int(num_draws, "num_draws")
    if num_samples % num_draws:
        nearest = num_samples // num_draws * num_draws or num_draws
        raise ValueError(
            f"num_samples={num_samples} must be a multiple of num_draws={num_draws}; take num_samples={nearest}"
        )
    kept = stream(_ALL, model, params, key, batch, num_samples=num_samples, chunk_size=num_draws)
    count, mean, squares = kept[1]
    error = jnp.sqrt(squares / jnp.maximum(count - 1, 1) / count)
    error = filled(error, num_samples == num_draws, jnp.nan)
    weight = as_batch(batch).weight
    importance = log_marginal_of(kept[2], num_samples)._replace(weight=weight)
    warn_untrustworthy(importance.pareto_k, num_samples, weight)
    return Bounds(elbo_of(kept[0], num_samples)._replace(weight=weight), Iwae(mean, error, weight), importance)


class _Groups(NamedTuple):
    groups: Array
    mean: Array
    sum_squares: Array


def _group(terms: LogTerms, num_samples: int = 0) -> _Groups:
    value = log_mean_exp(terms.log_weights)
    return _Groups(jnp.ones_like(value), value, jnp.zeros_like(value))


def _add_group(running: _Groups, terms: LogTerms) -> _Groups:
    value = log_mean_exp(terms.log_weights)
    count = running.groups + 1
    delta = value - running.mean
    mean = running.mean + delta / count
    return _Groups(count, mean, running.sum_squares + delta * (value - mean))


def _side_by_side(*parts: Summary) -> Summary:
    return Summary(
        lambda terms, num_samples: tuple(part.begin(terms, num_samples) for part in parts),
        lambda kept, terms: tuple(part.add(one, terms) for part, one in zip(parts, kept)),
    )


# A chunk of draws is one group.
_ALL = _side_by_side(BOUND, Summary(_group, _add_group), WEIGHTS)
BOUND_AND_WEIGHTS = _side_by_side(BOUND, WEIGHTS)
