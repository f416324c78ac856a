"""Many draws in the memory of a few: log-terms and their gradients, one chunk of draws at a time.

Pass one evaluates each chunk and keeps only its log-terms ``[K, *batch]``; they give the objective and its cotangents. Pass two
draws each chunk again from the same key, ``fold_in(key, chunk)``, and pulls its share of the cotangents back. An objective that
is a mean over draws needs no second pass: the cotangents of a draw do not depend on the others.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import random
from vaejax.types import Array, Key, LogTerms

# (key, how many draws) -> (their log-terms, pull of (cotangents of them, or arrays with one entry per draw) -> gradients)
Linear = Callable[[Key, int], tuple[LogTerms, Callable[..., Any]]]


def bare(terms: LogTerms) -> LogTerms:
    """The log-terms without the latents and the posterior, which only objectives on all draws at once could read, and the weights."""
    return terms._replace(latents=None, posterior=None, weight=None)


def in_chunks(
    linear: Linear, key: Key, num_samples: int, chunk_size: int | None
) -> tuple[LogTerms, Callable[..., Any]]:
    """``linear`` for all K draws, as ``linear(key, K)`` would give it, but chunk by chunk where a chunk size is given.

    The pull takes any number of cotangents as `LogTerms` and of arrays ``[K, *batch]``, and hands each chunk its share of them.
    """
    if chunk_size is None:
        return linear(key, num_samples)
    runs = chunk_runs(num_samples, chunk_size)
    draws = [count * size for _, count, size in runs]

    def terms_of(chunk_key: Key, size: int) -> LogTerms:
        return linear(chunk_key, size)[0]

    terms = _join([_many(terms_of, _keys(key, first, count), size) for first, count, size in runs], draws)

    def pull(*given: LogTerms | Array) -> Any:
        total, start = None, 0
        for first, count, size in runs:
            rows = slice(start, start + count * size)
            start += count * size
            shares = tuple(_split(one, rows, count, size) for one in given)

            def one_chunk(chunk: Any, size: int = size) -> Any:
                chunk_key, shares = chunk
                return linear(chunk_key, size)[1](*shares)

            total = _add(total, _sum_over(one_chunk, (_keys(key, first, count), shares)))
        return total

    return terms, pull


def mean_over_chunks(evaluate: Callable[[Key, int], Any], key: Key, num_samples: int, chunk_size: int) -> Any:
    """The mean of ``evaluate(key, K)`` over chunks, weighted by their draws: one pass, for objectives that average over draws."""
    total = None
    for first, count, size in chunk_runs(num_samples, chunk_size):
        several = _sum_over(functools.partial(_flipped, evaluate, size), _keys(key, first, count))
        total = _add(total, jax.tree.map(functools.partial(jnp.multiply, size / num_samples), several))
    return total


def chunk_runs(num_samples: int, chunk_size: int) -> list[tuple[int, int, int]]:
    """Runs of equal chunks: (index of the first, how many, draws in each)."""
    full, rest = divmod(num_samples, chunk_size)
    return [(0, full, chunk_size)] * (full > 0) + [(full, 1, rest)] * (rest > 0)


def _keys(key: Key, first: int, count: int) -> Key:
    return jax.vmap(lambda i: random.fold_in(key, i))(jnp.arange(first, first + count))


def _flipped(evaluate: Callable[[Key, int], Any], size: int, key: Key) -> Any:
    return evaluate(key, size)


def _many(evaluate: Callable[[Key, int], LogTerms], keys: Key, size: int) -> LogTerms:
    """Log-terms of several chunks, the sample axes joined; what has no sample axis is averaged."""
    terms = jax.lax.map(lambda k: bare(evaluate(k, size)), keys)
    rows = len(keys) * size
    has_samples = _has_samples(jax.tree.map(lambda leaf: leaf[0], terms))
    return LogTerms(
        *(
            jax.tree.map(lambda leaf, s=s: leaf.reshape(rows, *leaf.shape[2:]) if s else jnp.mean(leaf, 0), part)
            for part, s in zip(terms, has_samples)
        )
    )


def _join(several: list[LogTerms], draws: list[int]) -> LogTerms:
    """Runs of chunks one after the other; what has no sample axis is averaged by the number of draws."""

    def join(*leaves: Array, s: bool) -> Array:
        if s:
            return jnp.concatenate(leaves)
        weighted = [count / sum(draws) * leaf for count, leaf in zip(draws, leaves)]
        return functools.reduce(jnp.add, weighted)

    parts = zip(zip(*several), _has_samples(several[0]))
    return LogTerms(*(jax.tree.map(functools.partial(join, s=s), *leaves) for leaves, s in parts))


def _has_samples(terms: LogTerms) -> tuple[bool, ...]:
    per_draw = terms.kl is not None and terms.kl.ndim == terms.log_prior.ndim
    return (True, True, True, per_draw, per_draw, False, False, False)


def _split(given: LogTerms | Array, rows: slice, count: int, size: int) -> LogTerms | Array:
    """Each chunk's part: its rows where there is a sample axis, a share by its draws of the rest."""
    if not isinstance(given, LogTerms):
        return given[rows].reshape(count, size, *given.shape[1:])
    num_samples = len(given.log_prior)

    def part(leaf: Array, s: bool) -> Array:
        if s:
            return leaf[rows].reshape(count, size, *leaf.shape[1:])
        return jnp.broadcast_to(size / num_samples * leaf, (count, *leaf.shape))

    parts = zip(given, _has_samples(given))
    return LogTerms(*(jax.tree.map(lambda leaf, s=s: part(leaf, s), leaves) for leaves, s in parts))


def _sum_over(evaluate: Callable[[Any], Any], chunks: Any) -> Any:
    """Σ evaluate(chunk) over the leading axis, one chunk in memory at a time."""
    start = jax.eval_shape(evaluate, jax.tree.map(lambda leaf: leaf[0], chunks))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), start)
    return jax.lax.scan(lambda total, chunk: (_add(total, evaluate(chunk)), None), zeros, chunks)[0]


def _add(a: Any, b: Any) -> Any:
    return b if a is None else jax.tree.map(jnp.add, a, b)
