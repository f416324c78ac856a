"""Mixtures of probabilistic PCA: p(x) = Σ_k π_k N(x; μ_k, W_k W_kᵀ + σ_k² I), each component with latents of its own."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from vaejax import checks
from vaejax.conjugate import gmm
from vaejax.conjugate.em import FitResult
from vaejax.conjugate.gmm import Gmm
from vaejax.conjugate.gmm.structures import low_rank, low_rank_parts
from vaejax.dists import Chain, MultivariateNormal, OneHotCategorical, diagonal_normal, standard_normal
from vaejax.linalg import cholesky, inverse_and_log_det
from vaejax.numerics import broadcasts
from vaejax.types import Array, Batch, Key, Model, as_batch


class Mppca(NamedTuple):
    """The parameters of a mixture of probabilistic PCA.

    Attributes:
        weight: ``[K]`` π, of sum 1.
        mean: ``[K, d]``.
        loading: ``[K, d, q]`` W; the columns of each matter up to a rotation.
        variance: ``[K]`` σ².
    """

    weight: Array
    mean: Array
    loading: Array
    variance: Array


@broadcasts
def fit_em(key: Key, x: Any, num_components: int, latent_size: int, **settings: Any) -> FitResult:
    """Maximum likelihood by EM: a Gaussian mixture whose M-step is probabilistic PCA in closed form on each component's covariance.

    Latents are summed out: q is over the components alone, and ``half_steps(gmm, to_gmm(params), x, covariance=gmm.low_rank(q))`` shows
    its two halves.

    Args:
        key: typed key, of the starts.
        x: ``[n, d]``, or a `Batch` with weights.
        num_components: K.
        latent_size: q, below d.
        settings: those of `gmm.fit_em` (``num_starts``, ``max_steps``, ``tolerance``, ``prior_count``, …).

    Returns:
        `FitResult` with `Mppca`.

    Raises:
        ValueError: as `gmm.fit_em`; a q not below d.

    Source:
        Tipping & Bishop 1999 (mixtures), section 4 and appendix C.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> line = jax.random.normal(jax.random.key(0), (300, 1)) * jnp.array([3.0, 3.0, 0.0])
        >>> x = line + 0.3 * jax.random.normal(jax.random.key(1), (300, 3))
        >>> x = x.at[:150, 2].add(5)
        >>> found = fit_em(jax.random.key(2), x, 2, 1)
        >>> found.params.loading.shape, bool((found.params.variance < 0.2).all())
        ((2, 3, 1), True)
    """
    checks.positive_int(latent_size, "latent_size")
    for name in ("covariance", "start"):
        if name in settings and (name == "covariance" or not isinstance(settings[name], str)):
            raise TypeError(f"a mixture of probabilistic PCA has its own {name}; leave it out, or use gmm.fit_em")
    size = jnp.shape(getattr(x, "x", x))[-1]
    if latent_size >= size:
        raise ValueError(f"latent_size must be below the {size} columns of x, got {latent_size}; take fewer latents")
    found = gmm.fit_em(key, x, num_components, covariance=low_rank(latent_size), **settings)
    return found._replace(params=from_gmm(found.params, latent_size))


@broadcasts
def from_gmm(params: Gmm, latent_size: int) -> Mppca:
    """Each component's covariance as W Wᵀ + σ² I, exact where it is such a one, else of maximal likelihood."""
    weight, variance = low_rank_parts(jnp.ones_like(params.weight), params.covariance, latent_size)
    return Mppca(params.weight, params.mean, weight, variance)


@broadcasts
def to_gmm(params: Mppca) -> Gmm:
    """The same density, latents summed out."""
    checks.params(params, Mppca)
    eye = jnp.eye(params.mean.shape[-1], dtype=params.mean.dtype)
    covariance = params.loading @ params.loading.swapaxes(-1, -2) + params.variance[:, None, None] * eye
    return Gmm(params.weight, params.mean, covariance)


@broadcasts
def log_prob(params: Mppca, x: Any) -> Array:
    """log p(x) ``[*batch]`` nats of rows ``[*batch, d]``."""
    return gmm.log_prob(to_gmm(params), x)


@broadcasts
def posterior(params: Mppca, x: Any) -> Chain:
    """p(k|x) p(z|x, k): one-hot components, then the latents of the component drawn.

    Source:
        Tipping & Bishop 1999 (mixtures), eqs. 21 and 22.
    """
    components = gmm.posterior(to_gmm(params), x)
    weight = params.loading
    size = weight.shape[-1]
    inner = weight.swapaxes(-1, -2) @ weight + params.variance[:, None, None] * jnp.eye(size, dtype=weight.dtype)
    inverse, _ = inverse_and_log_det(inner)
    gain = inverse @ weight.swapaxes(-1, -2)
    rows = jnp.asarray(as_batch(x).x, params.mean.dtype)
    mean = jnp.einsum("kqd,...kd->...kq", gain, rows[..., None, :] - params.mean)
    tril = cholesky(params.variance[:, None, None] * inverse)

    def latents(drawn: tuple[Array, ...]) -> MultivariateNormal:
        component = drawn[0]
        loc = jnp.einsum("...k,...kq->...q", component, mean)
        return MultivariateNormal(loc, jnp.einsum("...k,kij->...ij", component, tril))

    return Chain([lambda _: components, latents])


@broadcasts
def sample(params: Mppca, key: Key, num_samples: int) -> tuple[Array, Array]:
    """Draws ``[n, d]`` and the component of each ``[n]``."""
    return gmm.sample(to_gmm(params), key, num_samples)


def as_model(params: Mppca) -> Model:
    """The same as a `Model` whose latents are (one-hot component, z), with its exact posterior; ``init`` returns ``params``.

    Examples:
        >>> import jax, jax.numpy as jnp, vaejax
        >>> params = Mppca(jnp.array([0.5, 0.5]), jnp.zeros((2, 3)), jnp.ones((2, 3, 1)), jnp.array([0.5, 2.0]))
        >>> x = jnp.ones((4, 3))
        >>> terms = vaejax.log_terms(as_model(params), params, jax.random.key(0), x, num_samples=5)
        >>> bool(abs(terms.log_weights - log_prob(params, x)).max() < 1e-4)
        True
    """
    checks.params(params, Mppca)
    size = params.loading.shape[-1]

    def prior(params: Mppca) -> Chain:
        return Chain([lambda _: OneHotCategorical(jnp.log(params.weight)), lambda drawn: _standard(drawn[0], size)])

    def likelihood(params: Mppca, z: tuple[Array, Array]) -> Any:
        component, latents = z
        loading = jnp.einsum("...k,kdq->...dq", component, params.loading)
        loc = component @ params.mean + jnp.einsum("...dq,...q->...d", loading, latents)
        scale = jnp.sqrt(component @ params.variance)
        return diagonal_normal(loc, jnp.broadcast_to(scale[..., None], loc.shape))

    def exact(params: Mppca, x: Array, *, mask: Array | None = None) -> Chain:
        return posterior(params, Batch(x, mask=mask))

    return Model(lambda key, batch=None: params, exact, prior, likelihood)


def _standard(component: Array, size: int) -> Any:
    if component.ndim == 1:
        return standard_normal(size)
    zeros = jnp.zeros((*component.shape[:-1], size), component.dtype)
    return diagonal_normal(zeros, jnp.ones_like(zeros))
