"""Probabilistic PCA: x = W z + μ + σ ε, z ~ N(0, I_q), ε ~ N(0, I_d). Posterior and evidence are exact, maximum likelihood closed form."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.conjugate import criteria, linear_gaussian
from vaejax.conjugate.em import FitResult, marked
from vaejax.conjugate.linear_gaussian import Noise, Parts
from vaejax.conjugate.table import Table, centred, table
from vaejax.dists import MultivariateNormal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key, Model


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


@broadcasts
def fit_ml(x: Any, latent_size: int) -> Ppca:
    """The maximum-likelihood parameters, from the eigenvalues of the 1/n covariance.

    σ² is the mean of the d − q smallest eigenvalues, W = U_q (Λ_q − σ² I)^{1/2}, its columns in falling order, each with its largest entry
    positive.

    Args:
        x: ``[n, d]``, or a `Batch` with weights; nothing missing (`fit_em` serves holes).
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
    rows = _opened(x, latent_size)
    if rows.mask is not None:
        raise ValueError("fit_ml needs complete rows, and entries are missing; use fit_em")
    params, variance = _maximum(rows, latent_size)
    _some_noise(params.variance, _least(variance), rows, latent_size)
    return params


@broadcasts
def fit_em(key: Key, x: Any, latent_size: int, *, max_steps: int = 1000, tolerance: float = 1e-9) -> FitResult:
    """Maximum likelihood by EM, missing entries left out: exact under data missing at random.

    The M-step finds W and μ together, a regression of each column on its rows' latents, then σ². Begins at random directions of the
    data's own spread. Without holes a step costs O(d² q), whatever the number of rows. W is turned to its principal axes at the end.

    Args:
        key: typed key, of the start.
        x: ``[n, d]``, or a `Batch` with a mask where entries are missing (or NaN is masked), or weights.
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
        >>> bool(abs(found.objective - exact) < 1e-2)
        True
    """
    checks.key(key)
    checks.positive_int(max_steps, "max_steps")
    checks.real(tolerance, "tolerance", minimum=0.0)
    rows = _opened(x, latent_size)
    begin = linear_gaussian.start(key, rows, latent_size)
    begin = begin._replace(noise=jnp.full_like(begin.noise, jnp.mean(begin.noise)))
    noise = _noise(_least(begin.noise))
    found = linear_gaussian.fit(begin, rows, noise, max_steps, jnp.asarray(tolerance, rows.x.dtype))
    found = linear_gaussian.checked(found, "probabilistic PCA")
    _some_noise(found.params.noise[0], noise.least[0], rows, latent_size)
    return marked(found._replace(params=_ppca(found.params)))


@broadcasts
def em_step(params: Ppca, x: Any) -> Ppca:
    """One E-step and one M-step."""
    checks.params(params, Ppca)
    rows = _opened(x, params.weight.shape[1])
    return _ppca(linear_gaussian.em_step(_parts(params), rows, _noise(jnp.zeros(len(params.mean)))))


@broadcasts
def log_prob(params: Ppca, x: Any) -> Array:
    """log N(x; μ, W Wᵀ + σ² I) of the observed entries of each row, ``[*batch]`` nats.

    Args:
        params: the parameters.
        x: ``[*batch, d]``, or a `Batch` with a mask.

    Examples:
        >>> import jax.numpy as jnp
        >>> params = Ppca(jnp.zeros(3), jnp.ones((3, 1)), jnp.asarray(0.5))
        >>> log_prob(params, jnp.zeros((2, 3))).shape
        (2,)
    """
    return linear_gaussian.log_prob(_parts(params), x)


@broadcasts
def posterior(params: Ppca, x: Any) -> MultivariateNormal:
    """p(z|x) = N(M⁻¹ Wᵀ (x − μ), σ² M⁻¹), M = Wᵀ W + σ² I, of the observed entries of each row.

    Args:
        params: the parameters.
        x: ``[*batch, d]``, or a `Batch` with a mask.

    Source:
        Tipping & Bishop 1999, eq. 6.
    """
    return linear_gaussian.posterior(_parts(params), x)


@broadcasts
def bound(params: Ppca, q: MultivariateNormal, x: Any) -> Array:
    """L(q) = E_q log p(x, z) + H(q) for any Gaussian q(z), ``[*batch]`` nats: log p(x) − KL(q ‖ p(z|x))."""
    return linear_gaussian.bound(_parts(params), q, x)


@broadcasts
def sample(params: Ppca, key: Key, num_samples: int) -> tuple[Array, Array]:
    """Draws x ``[n, d]`` and their latents z ``[n, q]``."""
    return linear_gaussian.sample(_parts(params), key, num_samples)


def num_parameters(params: Ppca) -> int:
    """How many numbers a model of this shape leaves free: d + d q − q (q − 1) / 2 + 1."""
    checks.params(params, Ppca)
    return linear_gaussian.num_loadings(*params.weight.shape) + 1


@broadcasts
def aic(params: Ppca, x: Any) -> Array:
    """Akaike's criterion 2 p − 2 log p(x), of all data: smaller is better."""
    return criteria.aic(log_prob(params, x), x, num_parameters(params))


@broadcasts
def bic(params: Ppca, x: Any) -> Array:
    """Schwarz's criterion p log n − 2 log p(x), of all data: smaller is better."""
    return criteria.bic(log_prob(params, x), x, num_parameters(params))


def as_model(params: Ppca) -> Model:
    """The same as a `Model` with its exact posterior, whose ``init`` returns ``params``.

    The ELBO of its posterior is the evidence; gradients move all three parameters in posterior and likelihood. `linear_vae`
    learns the encoder too.

    Examples:
        >>> import jax, jax.numpy as jnp, vaejax
        >>> params = Ppca(jnp.zeros(3), jnp.ones((3, 1)), jnp.asarray(0.5))
        >>> model = as_model(params)
        >>> bound = vaejax.evaluate.elbo(model, params, jax.random.key(0), jnp.ones((1, 3)), num_samples=20_000)
        >>> bool(abs(bound.estimate - log_prob(params, jnp.ones((1, 3))))[0] < 0.05)
        True
    """
    return linear_gaussian.as_model(params, _parts)


def _noise(least: Array) -> Noise:
    return Noise(jnp.asarray(True), least)


def _least(variance: Array) -> Array:
    """What rounding may leave of a variance of 0."""
    return (100 * jnp.finfo(variance.dtype).eps) ** 2 * variance


def _some_noise(variance: Array, least: Array, rows: Table, latent_size: int) -> None:
    """Raises where a concrete noise is no more than rounding."""
    if checks.is_concrete(variance, least) and not variance > 2 * least:
        one = latent_size == 1
        what = f"{latent_size} latent dimension{'' if one else 's'} explain{'s' * one} all {len(rows.x)} rows and leave{'s' * one} no noise"
        raise ValueError(f"{what}, so that the likelihood has no bound; take fewer, or more rows")


def _parts(params: Ppca) -> Parts:
    checks.params(params, Ppca)
    mean, weight, variance = map(jnp.asarray, params)
    return Parts(mean, weight, jnp.broadcast_to(variance, mean.shape))


def _ppca(parts: Parts) -> Ppca:
    return Ppca(parts.mean, parts.weight, parts.noise[0])


def _opened(x: Any, latent_size: int) -> Table:
    checks.positive_int(latent_size, "latent_size")
    rows = table(x, "probabilistic PCA", missing=True)
    if latent_size >= rows.x.shape[1]:
        raise ValueError(
            f"latent_size must be below the {rows.x.shape[1]} columns of x, got {latent_size}; take fewer latents"
        )
    return rows


@functools.partial(jax.jit, static_argnums=1)
@broadcasts
def _maximum(rows: Table, latent_size: int) -> tuple[Ppca, Array]:
    """The parameters, and the mean variance of the columns."""
    centre, rows = centred(rows)
    mean = rows.weight @ rows.x / jnp.sum(rows.weight)
    # Singular values of the rows, not eigenvalues of their covariance: twice the digits.
    scaled = (rows.x - mean) * jnp.sqrt(rows.weight / jnp.sum(rows.weight))[:, None]
    _, singular, basis = jnp.linalg.svd(scaled, full_matrices=False)
    values = singular**2
    variance = jnp.sum(values[latent_size:]) / (len(mean) - latent_size)
    weight = basis[:latent_size].T * jnp.sqrt(jnp.maximum(values[:latent_size] - variance, 0.0))
    return Ppca(mean + centre, weight * linear_gaussian.signs(weight), variance), jnp.sum(values) / len(mean)
