"""The evidence and the ELBO by Monte Carlo, streamed: what is held at once grows neither with samples nor with examples."""

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists.chain import layers
from vaejax.dists.factors import factors
from vaejax.evaluate.evidence.pareto import largest, pareto_k, pareto_threshold, tail_length
from vaejax.evaluate.stream import Summary, stream
from vaejax.numerics import (
    WeightMoments,
    broadcasts,
    effective_sample_size,
    filled,
    log_mean_standard_error,
    log_mean_weight,
    merge_moments,
    weight_moments,
)
from vaejax.types import Array, Key, LogTerms, Model, Params, as_batch


class UntrustworthyEstimate(UserWarning):
    """An estimate was made, but its error cannot be told from its own draws."""


class LogMarginal(NamedTuple):
    """An importance-sampled log-evidence for each example, and how far to trust it.

    Attributes:
        estimate: ``[*batch]`` log (1/S) Σ_s p(x, z_s)/q(z_s|x), nats: in the mean a lower bound of log p(x) that rises with S.
        standard_error: ``[*batch]`` Monte Carlo standard error of the estimate (delta method); NaN for one sample. It speaks of
            the spread under other random numbers, not of the bias: where the effective sample size is below some dozens both it
            and the estimate are too low, and more samples are needed.
        effective_sample_size: ``[*batch]`` (Σ w)²/Σ w², between 1 and S; a few means that a few samples decide the number.
        pareto_k: ``[*batch]`` k̂ of the weights' tail (`pareto_k`): above `pareto_threshold(S)` neither the estimate nor its standard
            error can be trusted. NaN where it is not defined: all latents discrete, or S below 21 (below some 50 it says little).
        weight: ``[*batch]`` the weights of the batch, for means over the examples (`mean_estimate`); None without.
    """

    estimate: Array
    standard_error: Array
    effective_sample_size: Array
    pareto_k: Array | None = None
    weight: Array | None = None


class Elbo(NamedTuple):
    """A Monte Carlo ELBO for each example.

    Attributes:
        estimate: ``[*batch]`` nats.
        standard_error: ``[*batch]`` Monte Carlo standard error; NaN for one sample.
        log_likelihood: ``[*batch]`` E_q log p(x|z).
        kl: ``[*batch]`` KL(q(z|x) || p(z)), in closed form where one is known.
        weight: ``[*batch]`` the weights of the batch, for means over the examples (`mean_estimate`); None without.
    """

    estimate: Array
    standard_error: Array
    log_likelihood: Array
    kl: Array
    weight: Array | None = None


def log_marginal(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_samples: int,
    chunk_size: int | None = None,
    progress: bool | None = False,
) -> LogMarginal:
    """log p(x) ≈ log (1/S) Σ_s p(x, z_s)/q(z_s|x), z_s ~ q(z|x), for each example.

    The posterior is the proposal. Samples are drawn ``chunk_size`` at a time and merged into running moments of the weights and a buffer
    of the largest ones. Each example has a key of its own, so its number depends neither on the others nor on how many are worked on at
    once. A warning (`UntrustworthyEstimate`) counts the examples whose k̂ is above the threshold.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``; masked entries drop out, weights are kept for means over the examples.
        num_samples: S.
        chunk_size: samples held at once; None chooses from the size of an example.
        progress: True: a hundred examples at a time, under a bar; None: on a terminal only. The numbers are the same.

    Returns:
        `LogMarginal`, each field ``[*batch]``.

    Raises:
        ValueError: no samples, a chunk below 1, empty data, NaN in the data, params of another model.
        TypeError: a posterior that is a point (a plain autoencoder).

    Source:
        Burda, Grosse & Salakhutdinov 2016, section 5 (the estimator is their L_S); Vehtari et al. 2024 (k̂).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> result = log_marginal(model, params, jax.random.key(1), jax.numpy.ones((5, 4)), num_samples=100)
        >>> result.estimate.shape
        (5,)
    """
    num_samples = checks.positive_int(num_samples, "num_samples")
    kept = stream(WEIGHTS, model, params, key, batch, num_samples=num_samples, chunk_size=chunk_size, progress=progress)
    found = log_marginal_of(kept, num_samples)._replace(weight=as_batch(batch).weight)
    warn_untrustworthy(found.pareto_k, num_samples, found.weight)
    return found


def elbo(
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_samples: int = 1,
    chunk_size: int | None = None,
    progress: bool | None = False,
) -> Elbo:
    """The ELBO of each example, with its Monte Carlo standard error; streamed like `log_marginal`.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``.
        num_samples: draws per example.
        chunk_size: samples held at once; None chooses.
        progress: as in `log_marginal`.

    Source:
        Kingma & Welling 2014, eqs. 6 and 7.
    """
    num_samples = checks.positive_int(num_samples, "num_samples")
    kept = stream(BOUND, model, params, key, batch, num_samples=num_samples, chunk_size=chunk_size, progress=progress)
    return elbo_of(kept, num_samples)._replace(weight=as_batch(batch).weight)


class _ElboSums(NamedTuple):
    num_samples: Array
    mean: Array
    sum_squares: Array
    log_likelihood: Array
    kl: Array


def log_marginal_of(kept: tuple[WeightMoments, Array], num_samples: int) -> LogMarginal:
    """From what `WEIGHTS` kept of S draws."""
    moments, tail = kept
    k = pareto_k(jnp.moveaxis(tail, tail.ndim - moments.mean.ndim, 0) if moments.mean.ndim else tail)
    return LogMarginal(log_mean_weight(moments), log_mean_standard_error(moments), effective_sample_size(moments), k)


def elbo_of(kept: Any, num_samples: int) -> Elbo:
    """From what `BOUND` kept of S draws."""
    count, mean, squares, log_likelihood, kl = kept
    error = jnp.sqrt(squares / max(num_samples - 1, 1) / count)
    return Elbo(mean, filled(error, num_samples == 1, jnp.nan), log_likelihood, kl)


def warn_untrustworthy(k: Any, num_samples: int, weight: Any = None) -> None:
    """Counts in a warning the examples of positive weight whose k̂ is above the threshold; under tracing nothing can be said."""
    if k is None or not checks.is_concrete(k, weight):
        return
    limit, values = pareto_threshold(num_samples), np.asarray(k)
    values = values if weight is None else values[np.asarray(weight) > 0]
    above = int(np.sum(values > limit))
    if above:
        warnings.warn(
            f"importance sampling cannot be trusted for {above} of {values.size} examples: their weights have Pareto k̂ above {limit:.2f} "
            f"(the largest is {np.nanmax(values):.2f}), so that the estimates may be too low by more than their standard errors say; take "
            "more samples, a better posterior, or vaejax.evaluate.ais",
            UntrustworthyEstimate,
            stacklevel=3,
        )


def _moments(log_weights: Array) -> WeightMoments:
    moments = weight_moments(log_weights)
    return moments._replace(num_samples=jnp.broadcast_to(moments.num_samples, moments.mean.shape))


def refuse_deterministic(terms: LogTerms) -> None:
    """Raises for a posterior that is a point: it has no density, and so there are no importance weights."""
    for layer, _ in layers(terms.posterior, terms.latents):
        base = layer
        while type(base).__name__ == "Independent":
            base = base.distribution
        if "Deterministic" in type(base).__name__:
            raise TypeError(
                f"the posterior q(z|x) must have a density, got {type(base).__name__}: an autoencoder without noise defines no "
                "log p(x). Report log p(x|z) of its reconstructions, or give the posterior a scale"
            )


def _weights_of(terms: LogTerms, num_samples: int) -> tuple[WeightMoments, Array]:
    refuse_deterministic(terms)
    # Weights of discrete latents take few values: no tail to fit.
    discrete = all(factors(layer) is not None for layer, _ in layers(terms.posterior, terms.latents))
    return _moments(terms.log_weights), largest(terms.log_weights, 1 if discrete else tail_length(num_samples))


def _add_weights(running: tuple[WeightMoments, Array], terms: LogTerms) -> tuple[WeightMoments, Array]:
    moments, tail = running
    more = terms.log_weights
    return merge_moments(moments, _moments(more)), largest(jnp.concatenate([tail, more]), len(tail))


WEIGHTS = Summary(_weights_of, _add_weights)


@broadcasts
def _elbo_sums_of(terms: LogTerms, num_samples: int = 0) -> _ElboSums:
    sampled = terms.log_posterior - terms.log_prior
    kl = sampled if terms.kl is None else jnp.broadcast_to(terms.kl, sampled.shape)
    values = terms.log_likelihood - kl
    mean = jnp.mean(values, 0)
    count = jnp.full(mean.shape, values.shape[0], mean.dtype)
    return _ElboSums(count, mean, jnp.sum((values - mean) ** 2, 0), jnp.mean(terms.log_likelihood, 0), jnp.mean(kl, 0))


def _add_sums(a: _ElboSums, terms: LogTerms) -> _ElboSums:
    b = _elbo_sums_of(terms)
    count = a.num_samples + b.num_samples
    share, delta = b.num_samples / count, b.mean - a.mean
    squares = a.sum_squares + b.sum_squares + delta**2 * a.num_samples * share
    averages = (
        (1 - share) * left + share * right for left, right in ((a.log_likelihood, b.log_likelihood), (a.kl, b.kl))
    )
    return _ElboSums(count, a.mean + share * delta, squares, *averages)


BOUND = Summary(_elbo_sums_of, _add_sums)
