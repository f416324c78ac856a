"""Where EM begins, and the answer to components that collapse."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaejax.conjugate.gmm.density import Gmm
from vaejax.conjugate.gmm.structures import Structure
from vaejax.conjugate.table import Table, spread
from vaejax.linalg import cholesky
from vaejax.types import Array, Key


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def several(keys: Key, rows: Table, num_components: int, structure: Structure, start: str) -> Gmm:
    """A start for each key, along a leading axis."""
    # One after another: the distances of all rows to all starts at once would be as large as the data, times the starts.
    return jax.lax.map(lambda key: begin(key, rows.x, rows.weight, num_components, structure, start), keys)


def begin(key: Key, x: Array, weight: Array, num_components: int, structure: Structure, start: str) -> Gmm:
    """Equal weights, means at rows of the data, one covariance for all.

    "k-means++" draws each next mean with probability proportional to the squared distance to the nearest so far, columns standardised
    (Arthur & Vassilvitskii 2007), and pools the covariance within the nearest rows; "random" draws rows, with the covariance of all.
    """
    pooled = usable(spread(x, weight)[1])
    if start == "random":
        return around(structure, _rows(key, x, weight, num_components), pooled)
    mean, nearest = k_means_plus_plus(key, x, weight, num_components, jnp.diagonal(pooled))
    away = x - mean[nearest]
    within = (away * weight[:, None]).T @ away / jnp.sum(weight)
    unusable = jnp.any(pivots(within[None]) < floor(x.dtype) * jnp.diagonal(pooled))
    return around(structure, mean, jnp.where(unusable, pooled, within))


def usable(covariance: Array) -> Array:
    """A covariance to begin with: where columns are constant or depend on each other, which a prior bears, its diagonal, filled up."""
    variance = jnp.diagonal(covariance)
    mean = jnp.mean(variance)
    filled = jnp.where(variance > 0, variance, jnp.where(mean > 0, mean, 1.0))
    singular = jnp.any(pivots(covariance[None]) < floor(covariance.dtype) * filled)
    return jnp.where(singular, jnp.diag(filled), covariance)


def around(structure: Structure, mean: Array, covariance: Array) -> Gmm:
    """A mixture of equal weights whose components all have that covariance, as the structure allows."""
    count = len(mean)
    scatter = jnp.diagonal(covariance) if structure.diagonal else covariance
    repeated = jnp.broadcast_to(scatter, (count, *scatter.shape))
    ones = jnp.ones(count, mean.dtype)
    return Gmm(ones / count, mean, structure.maximise(ones, repeated))


def k_means_plus_plus(key: Key, x: Array, weight: Array, count: int, variance: Array) -> tuple[Array, Array]:
    """Means ``[K, d]``, rows of the data, and the nearest of them for each row ``[n]``."""
    first, rest = jax.random.split(key)
    scaled = x / jnp.sqrt(jnp.where(variance > 0, variance, 1.0))

    def distance_to(index: Array) -> Array:
        return jnp.sum((scaled - scaled[index]) ** 2, -1)

    def pick(state: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        nearest, distance = state
        step, key = inputs
        index = _draw(key, weight * distance)
        found = distance_to(index)
        return (jnp.where(found < distance, step, nearest), jnp.minimum(found, distance)), index

    index = _draw(first, weight)
    state = (jnp.zeros(len(x), jnp.int32), distance_to(index))
    steps = (jnp.arange(1, count, dtype=jnp.int32), jax.random.split(rest, count - 1))
    (nearest, _), others = jax.lax.scan(pick, state, steps)
    return x[jnp.concatenate([index[None], others])], nearest


def _draw(key: Key, mass: Array) -> Array:
    """An index with probability proportional to its mass, from one uniform number."""
    return _index(jnp.cumsum(mass), jax.random.uniform(key, (), mass.dtype))


def _index(cumulative: Array, uniform: Array) -> Array:
    # In (0, total]: an index without mass is never the first to reach it.
    point = (1 - uniform) * cumulative[-1]
    return jnp.minimum(jnp.searchsorted(cumulative, point), len(cumulative) - 1)


def _rows(key: Key, x: Array, weight: Array, count: int) -> Array:
    """That many distinct rows, drawn by their weights."""
    gumbel = jax.random.gumbel(key, weight.shape, x.dtype)
    return x[jax.lax.top_k(jnp.log(weight) + gumbel, count)[1]]


def floor(dtype: jnp.dtype) -> float:
    """Share of a column's variance below which a conditional variance of a component counts as collapsed."""
    return float(jnp.finfo(dtype).eps) ** 0.75


def pivots(covariance: Array) -> Array:
    """``[K or 1, d or 1]`` variances of each column given those before it; 0 where a matrix is not positive definite."""
    if covariance.ndim == 2:
        return covariance
    found = jnp.diagonal(cholesky(covariance), axis1=-2, axis2=-1) ** 2
    return jnp.where(jnp.isnan(found), 0.0, found)


def collapsed(params: Gmm, variance: Array) -> Array:
    """``[K]`` which components have shrunk on less than d + 1 rows, or take no rows."""
    flat = jnp.any(~(pivots(params.covariance) >= floor(variance.dtype) * variance), -1)
    return jnp.broadcast_to(flat, params.weight.shape) | ~(params.weight > jnp.finfo(variance.dtype).eps)


class Spare(NamedTuple):
    """What a component that begins anew is made of: made once, not at every step.

    Attributes:
        x: ``[m, d]`` rows.
        cumulative: ``[m]`` running sum of their weights.
        variance: ``[d]`` of all.
        covariance: that of all, in the form of the mixture's.
    """

    x: Array
    cumulative: Array
    variance: Array
    covariance: Array


def spare(x: Array, weight: Array, num_components: int, structure: Structure) -> Spare:
    """Of all rows."""
    _, covariance = spread(x, weight)
    means = jnp.zeros((num_components, x.shape[1]), x.dtype)
    return Spare(
        x, jnp.cumsum(weight), jnp.diagonal(covariance), around(structure, means, usable(covariance)).covariance
    )


def reseed(key: Key, params: Gmm, bad: Array, parts: Spare) -> Gmm:
    """The components that are ``bad`` begin anew at rows of the data, with the covariance of all and an equal weight."""
    points = _index(parts.cumulative, jax.random.uniform(key, bad.shape, parts.x.dtype))
    fresh = Gmm(jnp.full_like(params.weight, 1 / len(bad)), parts.x[points], parts.covariance)

    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(bad[: len(old)].reshape(-1, *[1] * (old.ndim - 1)), new, old)

    mixed = jax.tree.map(chosen, fresh, params)
    return mixed._replace(weight=mixed.weight / jnp.sum(mixed.weight))
