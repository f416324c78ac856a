"""Probabilistic PCA: x = W z + μ + σ ε, z ~ N(0, I_q), ε ~ N(0, I_d). Posterior and evidence are exact, maximum likelihood closed form."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate.em import FitResult, iterate
from vaejax.dists import MultivariateNormal, diagonal_normal, standard_normal
from vaejax.types import Array, Batch, Key, Model, default_float, observed


class Ppca(NamedTuple):
    """The parameters of probabilistic PCA.

    Attributes:
        mean: ``[d]`` μ.
        weight: ``[d, q]`` W; its columns matter up to a rotation.
        variance: ``[]`` σ², positive.
    """

    mean: Array
    weight: Array
    variance: Array


def fit_ml(x: Any, latent_size: int) -> Ppca:
    """The maximum-likelihood parameters, from the eigenvalues of the 1/n covariance.

    σ² is the mean of the d − q smallest eigenvalues, W = U_q (Λ_q − σ² I)^{1/2}, its columns in falling order, each with its largest entry
    positive.

    Args:
        x: ``[n, d]``, nothing missing (`fit_em` serves holes).
        latent_size: q, below d and below n − 1.

    Raises:
        ValueError: NaN, other shapes, a q that leaves no noise.

    Source:
        Tipping & Bishop 1999, eqs. 7 and 8.

    Examples:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (100, 5))
        >>> fit_ml(x, 2).weight.shape
        (5, 2)
    """
    x, mask = _opened(x, latent_size)
    if mask is not None:
        raise ValueError("fit_ml needs complete rows, and entries are missing; use fit_em")
    count, size = x.shape
    mean = jnp.mean(x, 0)
    _, singular, basis = jnp.linalg.svd(x - mean, full_matrices=False)
    values = singular**2 / count
    variance = jnp.sum(values[latent_size:]) / (size - latent_size)
    if checks.is_concrete(variance) and not variance > jnp.finfo(x.dtype).eps * values[0]:
        raise ValueError(
            f"{latent_size} latent dimensions explain all {count} rows and leave no noise, so that the likelihood has no bound; take "
            "fewer, or more rows"
        )
    weight = basis[:latent_size].T * jnp.sqrt(values[:latent_size] - variance)
    return Ppca(mean, weight * _signs(weight), variance)


def fit_em(key: Key, x: Any, latent_size: int, *, max_steps: int = 1000, tolerance: float = 1e-9) -> FitResult:
    """Maximum likelihood by EM, missing entries left out: exact under data missing at random.

    The M-step finds W and μ together, a regression of each column on its rows' latents, then σ². Begins at random directions of the
    data's own spread.

    Args:
        key: typed key, of the start.
        x: ``[n, d]``, or a `Batch` with a mask where entries are missing (or NaN is masked).
        latent_size: q, below d.
        max_steps: at most.
        tolerance: relative gain of the log-likelihood below which it ends; in float32 rounding hides gains below some 1e-7.

    Returns:
        `FitResult` with `Ppca`.

    Raises:
        ValueError: NaN where nothing says that it is missing; other shapes; a column or a row without any entry.

    Source:
        Tipping & Bishop 1999, section 3.3 and appendix B; for missing entries Ilin & Raiko 2010, section 4.

    Examples:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (100, 5)) @ jax.random.normal(jax.random.key(1), (5, 5))
        >>> found = fit_em(jax.random.key(2), x, 2)
        >>> exact = log_prob(fit_ml(x, 2), x).sum()
        >>> bool(abs(found.log_likelihood - exact) < 1e-2)
        True
    """
    checks.key(key)
    checks.positive_int(max_steps, "max_steps")
    checks.real(tolerance, "tolerance", minimum=0.0)
    x, mask = _opened(x, latent_size)
    seen = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
    return _em(key, x, seen, latent_size, max_steps, jnp.asarray(tolerance, x.dtype))


def log_prob(params: Ppca, x: Any) -> Array:
    """log N(x; μ, W Wᵀ + σ² I) of the observed entries of each row, ``[*batch]`` nats, in O(d q²) a row.

    Args:
        params: the parameters.
        x: ``[*batch, d]``, or a `Batch` with a mask.

    Examples:
        >>> import jax.numpy as jnp
        >>> params = Ppca(jnp.zeros(3), jnp.ones((3, 1)), jnp.asarray(0.5))
        >>> log_prob(params, jnp.zeros((2, 3))).shape
        (2,)
    """
    residual, seen = _residual(params, x)
    return _posterior(params, residual, seen)[2]


def posterior(params: Ppca, x: Any) -> MultivariateNormal:
    """p(z|x) = N(M⁻¹ Wᵀ (x − μ), σ² M⁻¹), M = Wᵀ W + σ² I, of the observed entries of each row.

    Args:
        params: the parameters.
        x: ``[*batch, d]``, or a `Batch` with a mask.

    Source:
        Tipping & Bishop 1999, eq. 6.
    """
    mean, covariance, _ = _posterior(params, *_residual(params, x))
    return MultivariateNormal(mean, jnp.linalg.cholesky(covariance))


def as_model(params: Ppca) -> Model:
    """The same as a `Model` with its exact posterior, whose ``init`` returns ``params``.

    The ELBO of its posterior is the evidence; gradients move all three parameters in posterior and likelihood.

    Examples:
        >>> import jax, jax.numpy as jnp, vaejax
        >>> params = Ppca(jnp.zeros(3), jnp.ones((3, 1)), jnp.asarray(0.5))
        >>> model = as_model(params)
        >>> bound = vaejax.evaluate.elbo(model, params, jax.random.key(0), jnp.ones((1, 3)), num_samples=20_000)
        >>> bool(abs(bound.estimate - log_prob(params, jnp.ones((1, 3))))[0] < 0.05)
        True
    """
    size = params.weight.shape[1]

    def exact(params: Ppca, x: Array, *, mask: Array | None = None) -> MultivariateNormal:
        return posterior(params, Batch(x, mask=mask))

    def likelihood(params: Ppca, z: Array) -> Any:
        loc = z @ params.weight.T + params.mean
        return diagonal_normal(loc, jnp.broadcast_to(jnp.sqrt(params.variance), loc.shape))

    return Model(lambda key, batch=None: params, exact, lambda params: standard_normal(size), likelihood)


def _opened(x: Any, latent_size: int) -> tuple[Array, Array | None]:
    """Data in floats with missing entries 0, and their mask where any is missing."""
    batch = checks.batch(x, "x")
    checks.positive_int(latent_size, "latent_size")
    if batch.weight is not None or batch.context is not None:
        raise ValueError("probabilistic PCA takes neither weights nor a context; give Batch(x, mask=mask) or x")
    if batch.x.ndim != 2 or latent_size >= batch.x.shape[1]:
        raise ValueError(
            f"x must be [n, d] with d above latent_size={latent_size}, got {list(batch.x.shape)}; flatten images, or take fewer latents"
        )
    mask = batch.mask
    if mask is not None and checks.is_concrete(mask):
        host = np.asarray(mask)
        for axis, name in ((0, "column"), (1, "row")):
            empty = ~host.any(axis)
            if empty.any():
                raise ValueError(f"{name} {int(np.argmax(empty))} has no observed entry; leave it out")
        mask = None if host.all() else mask
    return observed(batch._replace(x=jnp.asarray(batch.x, default_float()))), mask


def _signs(weight: Array) -> Array:
    largest = jnp.argmax(jnp.abs(weight), axis=0)
    return jnp.sign(weight[largest, jnp.arange(weight.shape[1])])


def _residual(params: Ppca, x: Any) -> tuple[Array, Array | None]:
    batch = checks.batch(x, "x")
    checks.event_shape(batch.x, params.mean.shape)
    seen = None if batch.mask is None else batch.mask.astype(params.mean.dtype)
    residual = observed(batch._replace(x=jnp.asarray(batch.x, params.mean.dtype))) - params.mean
    return (residual if seen is None else residual * seen), seen


def _posterior(params: Ppca, residual: Array, seen: Array | None) -> tuple[Array, Array, Array]:
    """Mean ``[*batch, q]``, covariance ``[*batch, q, q]`` and log-evidence ``[*batch]``, missing residuals being 0."""
    weight, variance = params.weight, params.variance
    gram = weight.T @ weight if seen is None else jnp.einsum("...d,da,db->...ab", seen, weight, weight)
    inner = gram + variance * jnp.eye(weight.shape[1], dtype=weight.dtype)
    tril = jnp.linalg.cholesky(inner)
    mean = jnp.einsum("...ab,...b->...a", jnp.linalg.inv(inner), residual @ weight)
    covariance = variance * jnp.linalg.inv(inner)
    size = residual.shape[-1] if seen is None else jnp.sum(seen, -1)
    fitted = mean @ weight.T
    # rᵀ C⁻¹ r = rᵀ (r − W E z) / σ²: no difference of large squares.
    distance = jnp.sum(residual * (residual - (fitted if seen is None else fitted * seen)), -1) / variance
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)), -1)
    log_det = log_det + (size - weight.shape[1]) * jnp.log(variance)
    covariance = jnp.broadcast_to(covariance, (*mean.shape, mean.shape[-1]))
    return mean, covariance, -0.5 * (distance + log_det + size * jnp.log(2 * jnp.pi))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _em(key: Key, x: Array, seen: Array, latent_size: int, max_steps: int, tolerance: Array) -> FitResult:
    entries = jnp.sum(seen)
    mean = jnp.sum(seen * x, 0) / jnp.sum(seen, 0)
    spread = jnp.sum(seen * (x - mean) ** 2) / entries
    directions = jnp.linalg.qr(jax.random.normal(key, (x.shape[1], latent_size), x.dtype))[0]
    begin = Ppca(mean, directions * jnp.sqrt(spread), spread)

    def expect(params: Ppca) -> tuple[Array, Array, Array]:
        return _posterior(params, seen * (x - params.mean), seen)

    def step(params: Ppca) -> tuple[Ppca, Array]:
        z, covariance, log_evidence = expect(params)
        return _maximise(x, seen, z, covariance), jnp.sum(log_evidence)

    return iterate(step, lambda params: jnp.sum(expect(params)[2]), begin, max_steps=max_steps, tolerance=tolerance)


def _maximise(x: Array, seen: Array, z: Array, covariance: Array) -> Ppca:
    """W and μ by a regression of each column on (z, 1), second moments in expectation; then σ²."""
    with_one = jnp.concatenate([z, jnp.ones_like(z[:, :1])], 1)
    second = with_one[:, :, None] * with_one[:, None, :]
    second = second.at[:, :-1, :-1].add(covariance)
    moments = jnp.einsum("nd,nab->dab", seen, second)
    cross = jnp.einsum("nd,na->da", seen * x, with_one)
    found = jnp.linalg.solve(moments, cross[..., None])[..., 0]
    weight, mean = found[:, :-1], found[:, -1]
    residual = seen * (x - mean - z @ weight.T)
    spread = jnp.einsum("nd,nab,da,db->", seen, covariance, weight, weight)
    return Ppca(mean, weight, (jnp.sum(residual**2) + spread) / jnp.sum(seen))
