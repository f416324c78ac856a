"""The evidence by importance sampling, streamed: memory depends neither on the number of samples nor on that of examples."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.numerics import (
    WeightMoments,
    effective_sample_size,
    log_mean_standard_error,
    log_mean_weight,
    merge_moments,
    weight_moments,
)
from vaejax.terms import batch_shape, log_terms
from vaejax.types import Array, Batch, Key, LogTerms, Model, Params

# Entries of x|z held at once: 4 MB of float32 stays in a CPU's cache, where larger blocks run at the speed of memory;
# accelerators want large blocks.
_BUDGET = {"cpu": 2**20}
_ACCELERATOR_BUDGET = 2**26
_LARGEST_CHUNK = 64


class LogMarginal(NamedTuple):
    """An importance-sampled log-evidence for each example, and how far to trust it.

    Attributes:
        estimate: ``[*batch]`` log (1/S) Σ_s p(x, z_s)/q(z_s|x), nats: in the mean a lower bound of log p(x) that rises with S.
        standard_error: ``[*batch]`` Monte Carlo standard error of the estimate (delta method); NaN for one sample. It speaks of
            the spread under other random numbers, not of the bias: where the effective sample size is below some dozens both it
            and the estimate are too low, and more samples are needed.
        effective_sample_size: ``[*batch]`` (Σ w)²/Σ w², between 1 and S; a few means that a few samples decide the number.
    """

    estimate: Array
    standard_error: Array
    effective_sample_size: Array


class Elbo(NamedTuple):
    """A Monte Carlo ELBO for each example.

    Attributes:
        estimate: ``[*batch]`` nats.
        standard_error: ``[*batch]`` Monte Carlo standard error; NaN for one sample.
        log_likelihood: ``[*batch]`` E_q log p(x|z).
        kl: ``[*batch]`` KL(q(z|x) || p(z)), in closed form where one is known.
    """

    estimate: Array
    standard_error: Array
    log_likelihood: Array
    kl: Array


def log_marginal(
    model: Model, params: Params, key: Key, batch: Any, *, num_samples: int, chunk_size: int | None = None
) -> LogMarginal:
    """log p(x) ≈ log (1/S) Σ_s p(x, z_s)/q(z_s|x), z_s ~ q(z|x), for each example.

    The posterior is the proposal. Samples are drawn ``chunk_size`` at a time and merged into running moments of the weights.
    Each example has a key of its own, so its number depends neither on the others nor on how many are worked on at once.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``; masked entries drop out.
        num_samples: S.
        chunk_size: samples held at once; None chooses from the size of an example.

    Returns:
        `LogMarginal`, each field ``[*batch]``.

    Raises:
        ValueError: no samples, a chunk below 1, empty data, NaN in the data, params of another model.

    Source:
        Burda, Grosse & Salakhutdinov 2016, section 5 (the estimator is their L_S).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> params = model.init(jax.random.key(0), None)
        >>> result = log_marginal(model, params, jax.random.key(1), jax.numpy.ones((5, 4)), num_samples=100)
        >>> result.estimate.shape
        (5,)
    """
    num_samples = checks.positive_int(num_samples, "num_samples")
    moments = _map_examples(_moments_of, model, params, key, batch, num_samples, chunk_size)
    return LogMarginal(log_mean_weight(moments), log_mean_standard_error(moments), effective_sample_size(moments))


def elbo(
    model: Model, params: Params, key: Key, batch: Any, *, num_samples: int = 1, chunk_size: int | None = None
) -> Elbo:
    """The ELBO of each example, with its Monte Carlo standard error; streamed like `log_marginal`.

    Args:
        model: the model.
        params: its parameters.
        key: typed key.
        batch: a `Batch` or an array ``[*batch, *event]``.
        num_samples: draws per example.
        chunk_size: samples held at once; None chooses.

    Source:
        Kingma & Welling 2014, eqs. 6 and 7.
    """
    num_samples = checks.positive_int(num_samples, "num_samples")
    count, mean, squares, log_likelihood, kl = _map_examples(
        _elbo_sums_of, model, params, key, batch, num_samples, chunk_size
    )
    variance = squares / jnp.where(count > 1, count - 1, jnp.nan)
    return Elbo(mean, jnp.sqrt(variance / count), log_likelihood, kl)


class _ElboSums(NamedTuple):
    num_samples: Array
    mean: Array
    sum_squares: Array
    log_likelihood: Array
    kl: Array


def _moments_of(terms: LogTerms) -> WeightMoments:
    moments = weight_moments(terms.log_weights)
    return moments._replace(num_samples=jnp.broadcast_to(moments.num_samples, moments.mean.shape))


def _elbo_sums_of(terms: LogTerms) -> _ElboSums:
    sampled = terms.log_posterior - terms.log_prior
    kl = sampled if terms.kl is None else jnp.broadcast_to(terms.kl, sampled.shape)
    values = terms.log_likelihood - kl
    mean = jnp.mean(values, 0)
    count = jnp.full(mean.shape, values.shape[0], mean.dtype)
    return _ElboSums(count, mean, jnp.sum((values - mean) ** 2, 0), jnp.mean(terms.log_likelihood, 0), jnp.mean(kl, 0))


def _merge_sums(a: _ElboSums, b: _ElboSums) -> _ElboSums:
    count = a.num_samples + b.num_samples
    share, delta = b.num_samples / count, b.mean - a.mean
    squares = a.sum_squares + b.sum_squares + delta**2 * a.num_samples * share
    averages = (
        (1 - share) * left + share * right for left, right in ((a.log_likelihood, b.log_likelihood), (a.kl, b.kl))
    )
    return _ElboSums(count, a.mean + share * delta, squares, *averages)


_MERGE: dict[Callable, Callable] = {_moments_of: merge_moments, _elbo_sums_of: _merge_sums}


def _map_examples(
    summary: Callable, model: Model, params: Params, key: Key, batch: Any, num_samples: int, chunk_size: int | None
) -> Any:
    """Runs the stream for every example of the leading axis, several at a time, in one compiled program."""
    checks.key(key)
    batch = checks.batch(batch, "batch", model)
    try:
        hash(model)
    except TypeError as error:
        raise TypeError(
            f"the model's functions must be hashable to be compiled ({error}); use plain functions or frozen dataclasses"
        ) from error
    if chunk_size is not None:
        checks.positive_int(chunk_size, "chunk_size")
    return _compiled(summary, model, num_samples, chunk_size, params, key, batch._replace(weight=None))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _compiled(
    summary: Callable, model: Model, num_samples: int, chunk_size: int | None, params: Params, key: Key, batch: Batch
) -> Any:
    shape = batch_shape(model, params, key, batch)
    examples = shape[0] if shape else 1
    entries = max(1, batch.x.size // max(examples, 1))
    budget = _BUDGET.get(jax.default_backend(), _ACCELERATOR_BUDGET)
    chunk = min(num_samples, chunk_size or max(1, min(_LARGEST_CHUNK, budget // entries)))
    if not shape:
        return _stream(summary, model, num_samples, chunk, params, key, batch)

    def one(example: tuple[Key, Batch]) -> Any:
        example_key, single = example
        out = _stream(
            summary, model, num_samples, chunk, params, example_key, jax.tree.map(lambda leaf: leaf[None], single)
        )
        return jax.tree.map(lambda leaf: leaf[0], out)

    block = max(1, min(examples, budget // (chunk * entries)))
    return jax.lax.map(one, (jax.random.split(key, examples), batch), batch_size=block)


def _stream(
    summary: Callable, model: Model, num_samples: int, chunk: int, params: Params, key: Key, batch: Batch
) -> Any:
    """Summaries of ``num_samples`` draws, ``chunk`` at a time, merged as they come."""

    def draw(index: Any, size: int) -> Any:
        return summary(log_terms(model, params, jax.random.fold_in(key, index), batch, num_samples=size))

    full, rest = divmod(num_samples, chunk)
    merge = _MERGE[summary]
    total = draw(0, chunk)
    total = jax.lax.fori_loop(1, full, lambda i, running: merge(running, draw(i, chunk)), total)
    return merge(total, draw(full, rest)) if rest else total
