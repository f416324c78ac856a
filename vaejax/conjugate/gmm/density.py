"""Gaussian mixtures: p(x) = Σ_k π_k N(x; μ_k, Σ_k), with everything about them exact."""

import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate import criteria
from vaejax.conjugate.gmm.structures import Structure, structure
from vaejax.dists import MultivariateNormal, OneHotCategorical, diagonal_normal
from vaejax.linalg import cholesky, inverse_tril, log_diagonal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Batch, Key, Model


class Gmm(NamedTuple):
    """The parameters of a Gaussian mixture.

    Attributes:
        weight: ``[K]`` π, of sum 1.
        mean: ``[K, d]``.
        covariance: ``[K, d, d]``, or ``[1, d, d]`` shared by all, or variances ``[K, d]``, or ``[K, 1]``.
    """

    weight: Array
    mean: Array
    covariance: Array


class Whitener(NamedTuple):
    """What turns rows into log-densities: −½ |A_k x − b_k|² + c_k.

    Attributes:
        matrix: ``[K or 1, d, d]`` A, lower triangular, or its diagonal ``[K, d or 1]``.
        mean: ``[K, d]``.
        constant: ``[K]`` c.
    """

    matrix: Array
    mean: Array
    constant: Array


@broadcasts
def whitener(params: Gmm) -> Whitener:
    """Of log π_k + log N(x; μ_k, Σ_k)."""
    size = params.mean.shape[-1]
    if params.covariance.ndim == 3:
        matrix = inverse_tril(cholesky(params.covariance))
        log_det = log_diagonal(matrix)
    else:
        matrix = jax.lax.rsqrt(params.covariance)
        log_det = jnp.sum(jnp.broadcast_to(jnp.log(matrix), params.mean.shape), -1)
    constant = jnp.log(params.weight) + log_det - 0.5 * size * math.log(2 * math.pi)
    return Whitener(matrix, params.mean, jnp.broadcast_to(constant, params.weight.shape))


@broadcasts
def scores(white: Whitener, away: Array) -> Array:
    """``[K, n]`` log π_k N(x_n; μ_k, Σ_k) from the rows about each mean, ``away`` ``[K, d, n]``, by one matrix product for each component.

    Rows come last so that sums over d and K run over whole vectors of them. Whitening x and μ apart would be one product for all, and lose
    in their difference the digits of components far from where x is taken.
    """
    matrix = white.matrix
    y = (
        away * matrix[:, :, None]
        if matrix.ndim == 2
        else jnp.broadcast_to(matrix, (len(away), *matrix.shape[1:])) @ away
    )
    return white.constant[:, None] - 0.5 * jnp.sum(y**2, 1)


@broadcasts
def row_scores(white: Whitener, x: Array) -> Array:
    """`scores` of rows ``[*batch, d]``: ``[*batch, K]``."""
    away = x.reshape(-1, x.shape[-1]).T - white.mean[:, :, None]
    return scores(white, away).T.reshape(*x.shape[:-1], -1)


@broadcasts
def log_joint(params: Gmm, x: Array) -> Array:
    """``[*batch, K]`` log π_k N(x; μ_k, Σ_k)."""
    checks.params(params, Gmm)
    params = Gmm(*map(jnp.asarray, params))
    checks.event_shape(x, params.mean.shape[-1:])
    return row_scores(whitener(params), jnp.asarray(x, params.mean.dtype))


@broadcasts
def log_prob(params: Gmm, x: Any) -> Array:
    """log p(x) ``[*batch]`` nats of rows ``[*batch, d]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> params = Gmm(jnp.array([0.5, 0.5]), jnp.zeros((2, 3)), jnp.ones((2, 1)))
        >>> log_prob(params, jnp.zeros((4, 3))).shape
        (4,)
    """
    return jax.nn.logsumexp(log_joint(params, complete(x)), axis=-1)


@broadcasts
def posterior(params: Gmm, x: Any) -> OneHotCategorical:
    """p(k|x), the responsibilities, as one-hot components; ``.probs`` are ``[*batch, K]``.

    Source:
        Bishop 2006, eq. 9.13.
    """
    return OneHotCategorical(jax.nn.log_softmax(log_joint(params, complete(x)), axis=-1))


@broadcasts
def bound(params: Gmm, q: OneHotCategorical, x: Any) -> Array:
    """L(q) = E_q log p(x, k) + H(q) for any responsibilities, ``[*batch]`` nats: log p(x) − KL(q ‖ p(k|x)).

    Source:
        Bishop 2006, eq. 9.71.
    """
    joint = log_joint(params, complete(x))
    return jnp.sum(jnp.where(q.probs > 0, q.probs * joint, 0.0), -1) + q.entropy()


@broadcasts
def sample(params: Gmm, key: Key, num_samples: int) -> tuple[Array, Array]:
    """Draws ``[n, d]`` and the component of each ``[n]``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> params = Gmm(jnp.array([0.5, 0.5]), jnp.array([[-9.0], [9.0]]), jnp.ones((2, 1)))
        >>> x, component = sample(params, jax.random.key(0), 5)
        >>> bool(((x[:, 0] > 0) == (component == 1)).all())
        True
    """
    checks.params(params, Gmm)
    checks.key(key)
    checks.positive_int(num_samples, "num_samples")
    which, noise = jax.random.split(key)
    component = jax.random.categorical(which, jnp.log(params.weight), shape=(num_samples,))
    normal = jax.random.normal(noise, (num_samples, params.mean.shape[-1]), params.mean.dtype)
    return _component(params, jax.nn.one_hot(component, len(params.weight), dtype=normal.dtype)).from_standard(
        normal
    ), component


def structure_name(params: Gmm) -> str:
    """The structure that the shape of the covariance tells: "full", "tied", "diag" or "spherical"."""
    count, size = params.mean.shape
    shape = params.covariance.shape
    if len(shape) == 3:
        return "tied" if shape[0] == 1 < count else "full"
    return "spherical" if shape[-1] == 1 < size else "diag"


def num_parameters(params: Gmm, covariance: str | Structure | None = None) -> int:
    """How many numbers a mixture of this shape leaves free; ``covariance`` where its shape does not say ("equal_shape", `low_rank`)."""
    checks.params(params, Gmm)
    count, size = params.mean.shape
    if covariance is None:
        _warn_of_hidden_structure(params)
        covariance = structure_name(params)
    kind = structure(covariance)
    if kind.diagonal != (params.covariance.ndim == 2):
        raise ValueError(
            f"covariance={kind.name!r} does not go with covariances {list(params.covariance.shape)}; leave it out"
        )
    return count - 1 + count * size + kind.num_parameters(count, size)


def _warn_of_hidden_structure(params: Gmm) -> None:
    """Where concrete covariances look like a structure that their shape does not tell, counting them as free is wrong."""
    if params.covariance.ndim != 3 or len(params.covariance) < 2 or not checks.is_concrete(params):
        return
    values = np.linalg.eigvalsh(np.asarray(params.covariance, np.float64))
    if not (values > 0).all():
        return
    near = 1e3 * float(jnp.finfo(params.covariance.dtype).eps) * values[:, -1:] / values[:, :1]
    shape = values / np.exp(np.mean(np.log(values), 1, keepdims=True))
    alike = (np.abs(shape / shape[:1] - 1) < near).all() and near.max() < 0.1
    flat = values.shape[1] > 2 and (np.abs(values[:, 1:2] / values[:, :1] - 1) < near).all() and near.max() < 0.1
    if alike or flat:
        found = "covariance='equal_shape'" if alike else "covariance=gmm.low_rank(q)"
        warnings.warn(
            f"the covariances look like those fitted with {found}, and are counted as free; say so if they are",
            stacklevel=checks.outside(),
        )


@broadcasts
def aic(params: Gmm, x: Any, covariance: str | Structure | None = None) -> Array:
    """Akaike's criterion 2 p − 2 log p(x), of all data: smaller is better."""
    return criteria.aic(log_prob(params, x), x, num_parameters(params, covariance))


@broadcasts
def bic(params: Gmm, x: Any, covariance: str | Structure | None = None) -> Array:
    """Schwarz's criterion p log n − 2 log p(x), of all data: smaller is better. n is the sum of the weights."""
    return criteria.bic(log_prob(params, x), x, num_parameters(params, covariance))


def as_model(params: Gmm) -> Model:
    """The same as a `Model` of one-hot components with its exact posterior, whose ``init`` returns ``params``.

    Every importance weight is the evidence; `vaejax.evaluate.exact_log_marginal` enumerates the components.

    Examples:
        >>> import jax, jax.numpy as jnp, vaejax
        >>> params = Gmm(jnp.array([0.3, 0.7]), jnp.array([[-1.0], [2.0]]), jnp.ones((2, 1)))
        >>> exact = vaejax.evaluate.exact_log_marginal(as_model(params), params, jnp.ones((1, 1)))
        >>> bool(abs(exact - log_prob(params, jnp.ones((1, 1))))[0] < 1e-5)
        True
    """
    checks.params(params, Gmm)

    def prior(params: Gmm) -> OneHotCategorical:
        return OneHotCategorical(jnp.log(params.weight))

    def exact(params: Gmm, x: Array, *, mask: Array | None = None) -> OneHotCategorical:
        return posterior(params, Batch(x, mask=mask))

    return Model(lambda key, batch=None: params, exact, prior, _likelihood)


def _likelihood(params: Gmm, z: Array) -> Any:
    if params.covariance.ndim == 3:
        return _component(params, z)
    variance = jnp.einsum("...k,kd->...d", z, jnp.broadcast_to(params.covariance, params.mean.shape))
    return diagonal_normal(z @ params.mean, jnp.sqrt(variance))


def _component(params: Gmm, z: Array) -> MultivariateNormal:
    """N(μ_z, Σ_z) of one-hot components."""
    count, size = params.mean.shape
    if params.covariance.ndim == 3:
        tril = cholesky(params.covariance)
    else:
        tril = jnp.sqrt(jnp.broadcast_to(params.covariance, (count, size)))[:, :, None] * jnp.eye(size)
    if len(tril) == 1:
        return MultivariateNormal(z @ params.mean, tril[0])
    return MultivariateNormal(z @ params.mean, jnp.einsum("...k,kij->...ij", z, tril))


@broadcasts
def complete(x: Any) -> Array:
    """Rows without a mask, or with one that hides none."""
    batch = checks.batch(x, "x")
    mask = batch.mask
    if mask is not None and not (checks.is_concrete(mask) and np.asarray(mask).all()):
        raise ValueError("a Gaussian mixture needs complete rows, got a mask; leave incomplete rows out")
    return batch.x
