"""Where EM begins, and the answer to components that collapse."""

import functools
import math
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


def given(start: Gmm, rows: Table, count: int, kind: Structure) -> Gmm:
    """A start with a leading axis, if it is one for these data."""
    if not isinstance(start, Gmm):
        raise TypeError(f"start must be 'k-means++', 'random' or a Gmm, got {type(start).__name__}")
    wanted = jax.eval_shape(
        lambda x, w: around(kind, x[:count], jnp.eye(x.shape[1], dtype=x.dtype)), rows.x, rows.weight
    )
    for name, leaf, model in zip(Gmm._fields, start, wanted):
        if jnp.shape(leaf) != model.shape:
            raise ValueError(
                f"start.{name} must have shape {list(model.shape)} for {count} components with covariance={kind.name!r} over "
                f"{rows.x.shape[1]} columns, got {list(jnp.shape(leaf))}"
            )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, rows.x.dtype)[None], start)


def begin(key: Key, x: Array, weight: Array, num_components: int, structure: Structure, start: str) -> Gmm:
    """Equal weights, means at rows of the data, one covariance for all.

    "k-means++" draws each next mean with probability proportional to the squared distance to the nearest so far, columns standardised
    (Arthur & Vassilvitskii 2007; the best of a few draws), and pools the covariance within the nearest rows; "random" draws rows, with
    the covariance of all.
    """
    pooled = usable(spread(x, weight)[1])
    if start == "random":
        return around(structure, _rows(key, x, weight, num_components), pooled)
    mean, nearest = k_means_plus_plus(key, x, weight, num_components, jnp.diagonal(pooled))
    away = x - mean[nearest]
    within = (away * weight[:, None]).T @ away / jnp.sum(weight)
    unusable = singular(within[None], jnp.diagonal(pooled))[0]
    return around(structure, mean, jnp.where(unusable, pooled, within))


def usable(covariance: Array) -> Array:
    """A covariance to begin with: where columns are constant or depend on each other, which a prior bears, its diagonal, filled up."""
    variance = jnp.diagonal(covariance)
    mean = jnp.mean(variance)
    filled = jnp.where(variance > 0, variance, jnp.where(mean > 0, mean, 1.0))
    return jnp.where(singular(covariance[None], filled)[0], jnp.diag(filled), covariance)


def around(structure: Structure, mean: Array, covariance: Array) -> Gmm:
    """A mixture of equal weights whose components all have that covariance, as the structure allows."""
    count = len(mean)
    scatter = jnp.diagonal(covariance) if structure.diagonal else covariance
    repeated = jnp.broadcast_to(scatter, (count, *scatter.shape))
    ones = jnp.ones(count, mean.dtype)
    return Gmm(ones / count, mean, structure.maximise(ones, repeated))


def k_means_plus_plus(key: Key, x: Array, weight: Array, count: int, variance: Array) -> tuple[Array, Array]:
    """Means ``[K, d]``, rows of the data, and the nearest of them for each row ``[n]``.

    Each is the best of 2 + log K draws: of what remains of the distances.
    """
    trials = 2 + int(math.log(count))
    first, rest = jax.random.split(key)
    scaled = x / jnp.sqrt(jnp.where(variance > 0, variance, 1.0))

    def distance_to(index: Array) -> Array:
        return jnp.sum((scaled - scaled[index]) ** 2, -1)

    def pick(state: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        nearest, distance = state
        step, key = inputs
        trial = _index(_cumulative(weight * distance), jax.random.uniform(key, (trials,), distance.dtype))
        # One after another: all their distances at once would be as large as the data.
        left = jax.lax.map(lambda index: weight @ jnp.minimum(distance, distance_to(index)), trial)
        index = trial[jnp.argmin(left)]
        found = distance_to(index)
        return (jnp.where(found < distance, step, nearest), jnp.minimum(found, distance)), index

    index = _draw(first, weight)
    state = (jnp.zeros(len(x), jnp.int32), distance_to(index))
    steps = (jnp.arange(1, count, dtype=jnp.int32), jax.random.split(rest, count - 1))
    (nearest, _), others = jax.lax.scan(pick, state, steps)
    return x[jnp.concatenate([index[None], others])], nearest


def _draw(key: Key, mass: Array) -> Array:
    """An index with probability proportional to its mass, from one uniform number."""
    return _index(_cumulative(mass), jax.random.uniform(key, (), mass.dtype))


def _cumulative(mass: Array) -> Array:
    # Summed in a tree, a float32 running sum may fall by rounding where nothing is added.
    return jax.lax.cummax(jnp.cumsum(mass))


def _index(cumulative: Array, uniform: Array) -> Array:
    # In (0, total]: an index without mass is never the first to reach it.
    point = (1 - uniform) * cumulative[-1]
    return jnp.minimum(jnp.searchsorted(cumulative, point), len(cumulative) - 1)


def _rows(key: Key, x: Array, weight: Array, count: int) -> Array:
    """That many distinct rows, drawn by their weights."""
    gumbel = jax.random.gumbel(key, weight.shape, x.dtype)
    return x[jax.lax.top_k(jnp.log(weight) + gumbel, count)[1]]


def pivots(covariance: Array) -> Array:
    """``[K or 1, d or 1]`` variances of each column given those before it; 0 where a matrix is not positive definite."""
    if covariance.ndim == 2:
        return covariance
    found = jnp.diagonal(cholesky(covariance), axis1=-2, axis2=-1) ** 2
    return jnp.where(jnp.isnan(found), 0.0, found)


def singular(covariance: Array, variance: Array, factor: Array | float = 1.0) -> Array:
    """``[K or 1]`` which covariances rounding cannot tell from singular ones.

    A conditional variance below ``factor`` d ε of the column's own variance in the component, or a standard deviation below 100 ε of the
    column's in the data ``variance`` ``[d]``: ε is the precision of the floats. Small components are none.
    """
    eps, size = jnp.finfo(variance.dtype).eps, len(variance)
    own = jnp.diagonal(covariance, axis1=-2, axis2=-1) if covariance.ndim == 3 else jnp.zeros(())
    least = jnp.asarray(factor, variance.dtype)[..., None] * size * eps * own + (100 * eps) ** 2 * variance
    return jnp.any(~(pivots(covariance) > least), -1)


def collapsed(params: Gmm, parts: "Spare") -> Array:
    """``[K]`` which components have shrunk on rows that span less than d dimensions, or take no rows.

    A component of few rows is on its way there long before rounding hides it, and in float32 its log-likelihood is noise by then.
    """
    few = params.weight * parts.total < 5 * (len(parts.variance) + 1)
    flat = singular(params.covariance, parts.variance, jnp.where(few, 1000.0, 1.0))
    return flat | ~(params.weight > jnp.finfo(parts.variance.dtype).eps)


class Spare(NamedTuple):
    """What a component that begins anew is made of: made once, not at every step.

    Attributes:
        x: ``[m, d]`` rows.
        cumulative: ``[m]`` running sum of their weights.
        total: ``[]`` weight of all data, of which these may be a sample.
        variance: ``[d]`` of all.
        covariance: that of all, in the form of the mixture's.
    """

    x: Array
    cumulative: Array
    total: Array
    variance: Array
    covariance: Array


def spare(x: Array, weight: Array, num_components: int, structure: Structure, total: Array | None = None) -> Spare:
    """Of all rows, or of a sample from rows that weigh ``total``."""
    _, covariance = spread(x, weight)
    form = around(structure, jnp.zeros((num_components, x.shape[1]), x.dtype), usable(covariance)).covariance
    total = jnp.sum(weight) if total is None else total
    return Spare(x, _cumulative(weight), total, jnp.diagonal(covariance), form)


def reseed(key: Key, params: Gmm, bad: Array, parts: Spare) -> Gmm:
    """The components that are ``bad`` begin anew at rows of the data, with the covariance of all and an equal weight."""
    points = _index(parts.cumulative, jax.random.uniform(key, bad.shape, parts.x.dtype))
    fresh = Gmm(jnp.full_like(params.weight, 1 / len(bad)), parts.x[points], parts.covariance)

    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(bad[: len(old)].reshape(-1, *[1] * (old.ndim - 1)), new, old)

    mixed = jax.tree.map(chosen, fresh, params)
    return mixed._replace(weight=mixed.weight / jnp.sum(mixed.weight))
