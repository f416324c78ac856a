"""The E-step: responsibilities, summed over chunks of rows into what the M-step needs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax.conjugate.gmm.density import Whitener, scores
from vaejax.numerics import broadcasts
from vaejax.types import Array

# Entries of the arrays [rows, components, d] that one chunk makes: they then stay in a core's cache.
_CHUNK_ENTRIES = 2**18
# Rows below which a chunk that several fits share is no longer worth sharing.
_MIN_ROWS = 1024


class Moments(NamedTuple):
    """Of the rows that each component takes.

    Attributes:
        total: ``[K]`` Σ_n w_n r_nk.
        mean: ``[K, d]``.
        scatter: ``[K, d, d]`` Σ_n w_n r_nk (x_n − mean_k)(x_n − mean_k)ᵀ, or its diagonal ``[K, d]``.
    """

    total: Array
    mean: Array
    scatter: Array


class Rows(NamedTuple):
    """Data in chunks: ``x`` ``[chunks, d, rows]`` and ``weight`` ``[chunks, rows]``, 0 where it only fills up."""

    x: Array
    weight: Array


def at_once(num_rows: int, size: int, num_components: int) -> int:
    """How many fits may share a pass over the rows before its chunks become too short to be worth one."""
    return max(1, _CHUNK_ENTRIES // (num_components * size * min(num_rows, _MIN_ROWS)))


def over_starts(fit: Callable[[Any], Any], starts: Any, group: int) -> Any:
    """``fit`` of each start along the leading axes, ``group`` at a time."""
    count = len(jax.tree.leaves(starts)[0])
    # Without an axis for a group of one: its matrix products are the faster for it.
    return jax.lax.map(fit, starts, batch_size=min(group, count) if min(group, count) > 1 else None)


def in_chunks(x: Array, weight: Array, num_components: int, copies: int = 1) -> Rows:
    """Rows padded and cut so that a chunk's work stays in cache; ``copies`` fits share the pass."""
    entries = num_components * x.shape[1] * copies
    rows = max(16, min(_CHUNK_ENTRIES // entries, len(x)))
    chunks = -(-len(x) // rows)
    rows = -(-len(x) // chunks)
    extra = chunks * rows - len(x)
    columns = jnp.pad(x, ((0, extra), (0, 0))).T
    return Rows(columns.reshape(-1, chunks, rows).swapaxes(0, 1), jnp.pad(weight, (0, extra)).reshape(chunks, rows))


@broadcasts
def expect(white: Whitener, rows: Rows, diagonal: bool) -> tuple[Moments, Array]:
    """Moments under the responsibilities ∝ exp of the scores, and Σ_n w_n log Σ_k exp(score_nk).

    Both factors of a second moment are x − μ_k with the mean of the E-step, near the new one: no difference of large products, wherever
    components are.
    """
    mean = white.mean

    def chunk(sums: tuple, part: Rows) -> tuple[tuple, None]:
        x, weight = part
        away = x - mean[:, :, None]
        score = scores(white, away)
        evidence = jax.nn.logsumexp(score, axis=0)
        taken = jnp.exp(score - evidence) * weight
        first = taken[:, None, :] * away
        second = jnp.sum(first * away, -1) if diagonal else jnp.einsum("kin,kjn->kij", first, away)
        found = (jnp.sum(taken, -1), jnp.sum(first, -1), second, jnp.sum(weight * evidence))
        return jax.tree.map(jnp.add, sums, found), None

    (count, size), dtype = mean.shape, rows.x.dtype
    shapes = ((count,), (count, size), (count, size) if diagonal else (count, size, size), ())
    (total, first, second, evidence), _ = jax.lax.scan(chunk, tuple(jnp.zeros(shape, dtype) for shape in shapes), rows)
    shift = first / jnp.maximum(total, jnp.finfo(dtype).tiny)[:, None]
    if diagonal:
        scatter = jnp.maximum(second - first * shift, 0.0)
    else:
        scatter = second - first[:, :, None] * shift[:, None, :]
        scatter = 0.5 * (scatter + scatter.swapaxes(1, 2))
    return Moments(total, mean + shift, scatter), evidence


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two sets of rows together (Chan, Golub & LeVeque 1983)."""
    total = a.total + b.total
    share = b.total / jnp.maximum(total, jnp.finfo(total.dtype).tiny)
    delta = b.mean - a.mean
    between = (a.total * share)[:, None] * delta
    outer = between * delta if a.scatter.ndim == 2 else between[:, :, None] * delta[:, None, :]
    return Moments(total, a.mean + share[:, None] * delta, a.scatter + b.scatter + outer)


def scaled(moments: Moments, factor: Array | float) -> Moments:
    """As if each row counted ``factor`` times."""
    return Moments(moments.total * factor, moments.mean, moments.scatter * factor)
