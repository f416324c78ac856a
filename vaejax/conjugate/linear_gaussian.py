"""What probabilistic PCA and factor analysis share: x = W z + μ + ε, z ~ N(0, I_q), ε ~ N(0, diag ψ), exact, with or without holes."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.conjugate.em import FitResult, iterate
from vaejax.conjugate.table import Table, centred, spread
from vaejax.dists import MultivariateNormal, diagonal_normal, standard_normal
from vaejax.linalg import cholesky, inverse_and_log_det
from vaejax.numerics import broadcasts
from vaejax.types import Array, Batch, Key, Model, Params, observed


class Parts(NamedTuple):
    """A linear-Gaussian model, whatever its noise.

    Attributes:
        mean: ``[d]``.
        weight: ``[d, q]``.
        noise: ``[d]`` variances.
    """

    mean: Array
    weight: Array
    noise: Array


class Noise(NamedTuple):
    """Which noise the M-step may choose.

    Attributes:
        shared: ``[]`` bool, whether all columns have the same variance.
        least: ``[d]`` below which no variance goes; the M-step's maximum under that bound, since each variance has one optimum.
    """

    shared: Array
    least: Array

    def maximise(self, squares: Array, entries: Array) -> Array:
        """Variances ``[d]`` from expected squares and how many entries they sum."""
        pooled = jnp.sum(squares) / jnp.sum(entries)
        return jnp.maximum(jnp.where(self.shared, pooled, squares / entries), self.least)


@broadcasts
def log_prob(parts: Parts, x: Any) -> Array:
    """log N(x; μ, W Wᵀ + diag ψ) of the observed entries of each row, in O(d q²) a row with holes, O(d q) without."""
    residual, seen = _residual(parts, x)
    return _infer(parts, residual, seen)[2]


@broadcasts
def posterior(parts: Parts, x: Any) -> MultivariateNormal:
    """p(z|x) = N(M⁻¹ Wᵀ Ψ⁻¹ (x − μ), M⁻¹), M = I + Wᵀ Ψ⁻¹ W, of the observed entries."""
    mean, covariance, _ = _infer(parts, *_residual(parts, x))
    return MultivariateNormal(mean, cholesky(covariance))


@broadcasts
def bound(parts: Parts, q: MultivariateNormal, x: Any) -> Array:
    """L(q) = E_q log p(x, z) + H(q) of the observed entries, for any Gaussian q(z)."""
    residual, seen = _residual(parts, x)
    seen = jnp.ones_like(residual) if seen is None else seen
    error = residual - seen * (q.mean() @ parts.weight.T)
    doubt = jnp.einsum("da,...ab,db->...d", parts.weight, q.covariance(), parts.weight)
    fit = jnp.sum(seen * (jnp.log(2 * jnp.pi * parts.noise) + (error**2 + doubt) / parts.noise), -1)
    size = parts.weight.shape[1]
    near = jnp.sum(q.mean() ** 2 + q.variance(), -1) + size * math.log(2 * math.pi)
    return -0.5 * (fit + near) + q.entropy()


@broadcasts
def sample(parts: Parts, key: Key, num_samples: int) -> tuple[Array, Array]:
    """Draws x ``[n, d]`` and their latents ``[n, q]``."""
    checks.key(key)
    checks.positive_int(num_samples, "num_samples")
    first, second = jax.random.split(key)
    size, latents = parts.weight.shape
    z = jax.random.normal(first, (num_samples, latents), parts.weight.dtype)
    noise = jax.random.normal(second, (num_samples, size), parts.weight.dtype)
    return z @ parts.weight.T + parts.mean + jnp.sqrt(parts.noise) * noise, z


def as_model(params: Params, parts_of: Callable[[Params], Parts]) -> Model:
    """A `Model` with the exact posterior, whose ``init`` returns ``params``; gradients move them in posterior and likelihood."""
    size = parts_of(params).weight.shape[1]

    def exact(params: Params, x: Array, *, mask: Array | None = None) -> MultivariateNormal:
        return posterior(parts_of(params), Batch(x, mask=mask))

    @broadcasts
    def likelihood(params: Params, z: Array) -> Any:
        parts = parts_of(params)
        loc = z @ parts.weight.T + parts.mean
        return diagonal_normal(loc, jnp.broadcast_to(jnp.sqrt(parts.noise), loc.shape))

    return Model(lambda key, batch=None: params, exact, lambda params: standard_normal(size), likelihood)


@broadcasts
def start(key: Key, rows: Table, latent_size: int) -> Parts:
    """Random directions of the data's own spread."""
    centre, rows = centred(rows)
    seen = jnp.ones_like(rows.x) if rows.mask is None else rows.mask.astype(rows.x.dtype)
    seen = seen * rows.weight[:, None]
    mean = jnp.sum(seen * rows.x, 0) / jnp.sum(seen, 0)
    variance = jnp.sum(seen * (rows.x - mean) ** 2, 0) / jnp.sum(seen, 0)
    directions = jnp.linalg.qr(jax.random.normal(key, (rows.x.shape[1], latent_size), rows.x.dtype))[0]
    return Parts(mean + centre, directions * jnp.sqrt(jnp.mean(variance)), variance)


@functools.partial(jax.jit, static_argnums=3)
@broadcasts
def fit(begin: Parts, rows: Table, noise: Noise, max_steps: int, tolerance: Array) -> FitResult:
    """EM; without holes on the covariance alone, whatever the number of rows."""
    centre, rows = centred(rows)
    begin = begin._replace(mean=begin.mean - centre)
    found = (_fit_covariance if rows.mask is None else _fit_rows)(begin, rows, noise, max_steps, tolerance)
    return found._replace(params=found.params._replace(mean=found.params.mean + centre))


def _fit_rows(begin: Parts, rows: Table, noise: Noise, max_steps: int, tolerance: Array) -> FitResult:
    data, seen = rows.x, jnp.asarray(rows.mask, rows.x.dtype)

    def expect(parts: Parts) -> tuple[Array, Array, Array]:
        return _infer(parts, seen * (data - parts.mean), seen)

    def step(parts: Parts) -> tuple[Parts, Array]:
        z, covariance, evidence = expect(parts)
        better = _maximise(data, seen * rows.weight[:, None], z, covariance, noise)
        return better, jnp.sum(rows.weight * evidence)

    def objective(parts: Parts) -> Array:
        return jnp.sum(rows.weight * expect(parts)[2])

    return iterate(step, objective, begin, max_steps=max_steps, tolerance=tolerance)


@broadcasts
def principal(weight: Array, noise: Array) -> Array:
    """W turned so that Wᵀ Ψ⁻¹ W is diagonal and falling, the largest entry of each column positive: the likelihood knows no rotation."""
    _, turn = jnp.linalg.eigh(weight.T @ (weight / noise[:, None]))
    return weight @ turn[:, ::-1] * signs(weight @ turn[:, ::-1])


@broadcasts
def signs(weight: Array) -> Array:
    """Of the largest entry of each column."""
    largest = jnp.argmax(jnp.abs(weight), axis=0)
    return jnp.sign(weight[largest, jnp.arange(weight.shape[1])])


@broadcasts
def num_loadings(size: int, latent_size: int) -> int:
    """Free numbers of μ and W, one rotation being like another."""
    return size + size * latent_size - latent_size * (latent_size - 1) // 2


@broadcasts
def checked(found: FitResult, model: str) -> FitResult:
    """The fit, W turned to its principal axes.

    Raises:
        ValueError: where it ended without a finite log-likelihood.
    """
    if checks.is_concrete(found.params) and not jnp.isfinite(found.objective):
        raise ValueError(
            f"the log-likelihood of {model} is not finite after {int(found.num_steps)} steps: squares overflow, or the latents "
            "explain the rows and leave no noise; take fewer latents, more rows, columns of one scale, or float64"
        )
    parts = found.params
    return found._replace(params=parts._replace(weight=principal(parts.weight, parts.noise)))


@broadcasts
def em_step(parts: Parts, rows: Table, noise: Noise) -> Parts:
    """One E-step and one M-step."""
    return fit(parts, rows, noise, 1, jnp.zeros((), rows.x.dtype)).params


def _fit_covariance(begin: Parts, rows: Table, noise: Noise, max_steps: int, tolerance: Array) -> FitResult:
    total = jnp.sum(rows.weight)
    mean, _ = spread(rows.x, rows.weight)
    size = len(mean)
    entries = jnp.broadcast_to(total, (size,))
    # The covariance is F Fᵀ: with F all that follows are sums of squares, which float32 bears where differences would cancel.
    root = jnp.linalg.qr((rows.x - mean) * jnp.sqrt(rows.weight / total)[:, None], mode="r").T

    def solved(parts: Parts) -> tuple[Array, Array, Array]:
        """M⁻¹, G = M⁻¹ Wᵀ Ψ⁻¹ and the log-likelihood. A mean that is not that of the data adds to their covariance."""
        inverse, log_det = _inner(parts.weight, parts.noise, None)
        gain = inverse @ (parts.weight / parts.noise[:, None]).T
        seen = jnp.concatenate([root, (mean - parts.mean)[:, None]], 1)
        latent = gain @ seen
        distance = jnp.sum((seen - parts.weight @ latent) ** 2 / parts.noise[:, None]) + jnp.sum(latent**2)
        log_det = log_det + jnp.sum(jnp.log(parts.noise))
        return inverse, gain, -0.5 * total * (size * math.log(2 * math.pi) + log_det + distance)

    def step(parts: Parts) -> tuple[Parts, Array]:
        inverse, gain, evidence = solved(parts)
        latent = gain @ root
        weight = root @ latent.T @ inverse_and_log_det(inverse + latent @ latent.T)[0]
        squares = jnp.sum((root - weight @ latent) ** 2, 1) + jnp.einsum("da,ab,db->d", weight, inverse, weight)
        # The latents of data that are not centred where the model is have a mean of their own.
        centre = mean - weight @ (gain @ (mean - parts.mean))
        return Parts(centre, weight, noise.maximise(total * squares, entries)), evidence

    return iterate(step, lambda parts: solved(parts)[2], begin, max_steps=max_steps, tolerance=tolerance)


def _maximise(x: Array, seen: Array, z: Array, covariance: Array, noise: Noise) -> Parts:
    """W and μ by a regression of each column on (z, 1), second moments in expectation; then ψ."""
    with_one = jnp.concatenate([z, jnp.ones_like(z[:, :1])], 1)
    second = with_one[:, :, None] * with_one[:, None, :]
    second = second.at[:, :-1, :-1].add(covariance)
    moments = jnp.einsum("nd,nab->dab", seen, second)
    cross = jnp.einsum("nd,na->da", seen * x, with_one)
    found = jnp.einsum("dab,db->da", inverse_and_log_det(moments)[0], cross)
    weight, mean = found[:, :-1], found[:, -1]
    error = jnp.sum(seen * (x - mean - z @ weight.T) ** 2, 0)
    doubt = jnp.einsum("dab,da,db->d", jnp.einsum("nd,nab->dab", seen, covariance), weight, weight)
    return Parts(mean, weight, noise.maximise(error + doubt, jnp.sum(seen, 0)))


def _residual(parts: Parts, x: Any) -> tuple[Array, Array | None]:
    batch = checks.batch(x, "x")
    checks.event_shape(batch.x, parts.mean.shape)
    seen = None if batch.mask is None else batch.mask.astype(parts.mean.dtype)
    residual = observed(batch._replace(x=jnp.asarray(batch.x, parts.mean.dtype))) - parts.mean
    return (residual if seen is None else residual * seen), seen


@broadcasts
def _inner(weight: Array, noise: Array, seen: Array | None) -> tuple[Array, Array]:
    """M⁻¹ ``[..., q, q]`` and log|M|, M = I + Wᵀ Ψ⁻¹ W over the observed entries."""
    scaled = weight / noise[:, None]
    gram = weight.T @ scaled if seen is None else jnp.einsum("...d,da,db->...ab", seen, weight, scaled)
    return inverse_and_log_det(gram + jnp.eye(weight.shape[1], dtype=weight.dtype))


@broadcasts
def _infer(parts: Parts, residual: Array, seen: Array | None) -> tuple[Array, Array, Array]:
    """Mean ``[*batch, q]``, covariance ``[*batch or nothing, q, q]`` and log-evidence ``[*batch]``, missing residuals being 0."""
    inverse, log_det = _inner(parts.weight, parts.noise, seen)
    mean = jnp.einsum("...ab,...b->...a", inverse, (residual / parts.noise) @ parts.weight)
    fitted = mean @ parts.weight.T
    present = jnp.ones_like(residual) if seen is None else seen
    # rᵀ C⁻¹ r as a sum of squares: no difference of large ones.
    distance = jnp.sum((residual - fitted * present) ** 2 / parts.noise, -1) + jnp.sum(mean**2, -1)
    constants = jnp.sum(present * jnp.log(2 * jnp.pi * parts.noise), -1)
    return mean, inverse, -0.5 * (distance + log_det + constants)
