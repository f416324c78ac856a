"""Where EM begins, and the answer to components that collapse."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate.gmm.density import Gmm
from vaejax.conjugate.gmm.structures import Structure
from vaejax.conjugate.table import Table, spread
from vaejax.linalg import cholesky
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key

# Of numbers that users write or that float32 has summed.
_ROUNDING = 1e-5


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
@broadcasts
def several(keys: Key, rows: Table, num_components: int, structure: Structure, start: str) -> Gmm:
    """A start for each key, along a leading axis."""
    # One after another: the distances of all rows to all starts at once would be as large as the data, times the starts.
    return jax.lax.map(lambda key: begin(key, rows.x, rows.weight, num_components, structure, start), keys)


@broadcasts
def given(start: Gmm, rows: Table, count: int, kind: Structure) -> Gmm:
    """A start with a leading axis, if it is one for these data."""
    if not isinstance(start, Gmm):
        raise TypeError(f"start must be 'k-means++', 'random' or a Gmm, got {type(start).__name__}")
    size, dtype = rows.x.shape[1], rows.x.dtype
    wanted = jax.eval_shape(lambda: around(kind, jnp.zeros((count, size), dtype), jnp.eye(size, dtype=dtype)))
    for name, leaf, model in zip(Gmm._fields, start, wanted):
        if jnp.shape(leaf) != model.shape:
            raise ValueError(
                f"start.{name} must have shape {list(model.shape)} for {count} components with covariance={kind.name!r} over "
                f"{size} columns, got {list(jnp.shape(leaf))}"
            )
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), start)
    _check_values(start)
    return jax.tree.map(lambda leaf: leaf[None], start)


def _check_values(start: Gmm) -> None:
    """Raises where a concrete start is no mixture."""
    if not checks.is_concrete(start):
        return
    for name, leaf in zip(Gmm._fields, start):
        checks.values(leaf, np.isfinite, f"start.{name}", "finite numbers")
    checks.values(start.weight, lambda v: v >= 0, "start.weight", "no negative numbers")
    total = float(np.sum(np.asarray(start.weight), dtype=np.float64))
    if abs(total - 1) > _ROUNDING:
        raise ValueError(f"start.weight must sum to 1, got a sum of {total:g}; divide it by that")
    covariance = np.asarray(start.covariance)
    if covariance.ndim == 2:
        checks.values(covariance, lambda v: v > 0, "start.covariance", "positive variances")
        return
    positive_definite(
        start.covariance, "start.covariance", "add to its diagonal, or begin with the covariance of all rows"
    )


@broadcasts
def positive_definite(matrix: Array, name: str, way: str) -> None:
    """Raises where concrete matrices ``[K, d, d]`` are not symmetric, or are singular, within rounding."""
    if not checks.is_concrete(matrix):
        return
    host = np.asarray(matrix, np.float64)
    scale = np.sqrt(np.abs(np.diagonal(host, axis1=-2, axis2=-1)))
    gap = np.abs(host - host.swapaxes(-1, -2))
    if (gap > _ROUNDING * scale[:, :, None] * scale[:, None, :]).any():
        k, i, j = np.unravel_index(np.argmax(gap), gap.shape)
        raise ValueError(
            f"{name} must be symmetric, got {host[k, i, j]:g} at [{i}, {j}] and {host[k, j, i]:g} across the diagonal; take (A + A.T) / 2"
        )
    broken = np.flatnonzero(singular(matrix, jnp.min(jnp.diagonal(matrix, axis1=-2, axis2=-1), 0)))
    if len(broken):
        which = f" (number {broken[0]} of {len(host)} is not)" if len(host) > 1 else ""
        raise ValueError(f"{name} must be positive definite in {matrix.dtype}{which}; {way}")


@broadcasts
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


@broadcasts
def usable(covariance: Array) -> Array:
    """A covariance to begin with: where columns are constant or depend on each other, which a prior bears, its diagonal, filled up."""
    variance = jnp.diagonal(covariance)
    mean = jnp.mean(variance)
    filled = jnp.where(variance > 0, variance, jnp.where(mean > 0, mean, 1.0))
    return jnp.where(singular(covariance[None], filled)[0], jnp.diag(filled), covariance)


@broadcasts
def around(structure: Structure, mean: Array, covariance: Array) -> Gmm:
    """A mixture of equal weights whose components all have that covariance, as the structure allows."""
    count = len(mean)
    scatter = jnp.diagonal(covariance) if structure.diagonal else covariance
    repeated = jnp.broadcast_to(scatter, (count, *scatter.shape))
    ones = jnp.ones(count, mean.dtype)
    return Gmm(ones / count, mean, structure.maximise(ones, repeated))


@broadcasts
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


@broadcasts
def pivots(covariance: Array) -> Array:
    """``[K or 1, d or 1]`` variances of each column given those before it; 0 where a matrix is not positive definite."""
    if covariance.ndim == 2:
        return covariance
    found = jnp.diagonal(cholesky(covariance), axis1=-2, axis2=-1) ** 2
    return jnp.where(jnp.isnan(found), 0.0, found)


@broadcasts
def singular(covariance: Array, variance: Array, factor: Array | float = 1.0) -> Array:
    """``[K or 1]`` which covariances rounding cannot tell from singular ones.

    A conditional variance below ``factor`` d ε of the column's own variance in the component, or a standard deviation below 100 ε of the
    column's in the data ``variance`` ``[d]``: ε is the precision of the floats. Small components are none.
    """
    eps, size = jnp.finfo(variance.dtype).eps, len(variance)
    own = jnp.diagonal(covariance, axis1=-2, axis2=-1) if covariance.ndim == 3 else jnp.zeros(())
    least = jnp.asarray(factor, variance.dtype)[..., None] * size * eps * own + (100 * eps) ** 2 * variance
    return jnp.any(~(pivots(covariance) > least), -1)


@broadcasts
def collapsed(params: Gmm, parts: "Spare") -> Array:
    """``[K]`` which components take no rows, or have a covariance that is `singular`; under a prior, one that has no Cholesky factor.

    A component of its own covariance that is left with no more rows than columns is on its way there long before rounding hides it, and in
    float32 its log-likelihood is noise by then: it is told from a thousand times further away. With more rows, or with a covariance that
    others share, such variances are but correlation.
    """
    lost = ~(params.weight > jnp.finfo(parts.variance.dtype).eps)
    if parts.penalised:
        return lost | jnp.any(~(pivots(params.covariance) > 0), -1)
    few = params.weight * parts.total < parts.few if parts.few else jnp.zeros((), bool)
    return lost | singular(params.covariance, parts.variance, jnp.where(few, 1000.0, 1.0))


class Spare(NamedTuple):
    """What a component that begins anew is made of, and what tells one that must: made once, not at every step.

    Attributes:
        x: ``[m, d]`` rows.
        cumulative: ``[m]`` running sum of their weights.
        total: ``[]`` weight of all data, of which these may be a sample.
        variance: ``[d]`` of all.
        covariance: that of all, in the form of the mixture's.
        few: rows below which a component that shrinks is told early; 0 where none is.
        penalised: whether a prior keeps covariances from shrinking.
    """

    x: Array
    cumulative: Array
    total: Array
    variance: Array
    covariance: Array
    few: float
    penalised: bool


@broadcasts
def spare(
    x: Array,
    weight: Array,
    num_components: int,
    structure: Structure,
    total: Array | None = None,
    *,
    penalised: bool = False,
) -> Spare:
    """Of all rows, or of a sample from rows that weigh ``total``."""
    _, covariance = spread(x, weight)
    size = x.shape[1]
    form = around(structure, jnp.zeros((num_components, size), x.dtype), usable(covariance)).covariance
    total = jnp.sum(weight) if total is None else total
    # Between d + 1 rows, which span d dimensions, and d + 2: rows far off have responsibilities too.
    few = size + 1.5 if structure.own and num_components > 1 else 0.0
    return Spare(x, _cumulative(weight), total, jnp.diagonal(covariance), form, few, penalised)


@broadcasts
def reseed(key: Key, params: Gmm, bad: Array, parts: Spare) -> Gmm:
    """The components that are ``bad`` begin anew at rows of the data, with the covariance of all and an equal weight.

    A covariance that components share begins anew only where all of them do.
    """
    points = _index(parts.cumulative, jax.random.uniform(key, bad.shape, parts.x.dtype))
    fresh = Gmm(jnp.full_like(params.weight, 1 / len(bad)), parts.x[points], parts.covariance)

    def chosen(new: Array, old: Array) -> Array:
        which = bad if len(old) == len(bad) else jnp.all(bad, keepdims=True)
        return jnp.where(which.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    mixed = jax.tree.map(chosen, fresh, params)
    return mixed._replace(weight=mixed.weight / jnp.sum(mixed.weight))
