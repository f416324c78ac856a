"""Probabilistic PCA whose posterior is learned: the linear variational autoencoder."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.conjugate import ppca
from vaejax.conjugate.ppca import Ppca
from vaejax.dists import MultivariateNormal, diagonal_normal, likelihoods, standard_normal
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key, Model, Params, as_batch, default_float, flat_examples, observed


def as_model(latent_size: int) -> Model:
    """x = W z + μ + σ ε with the encoder q(z|x) = N(V (x − μ), diag s²), s the same for all x.

    Its best ELBO is the maximum likelihood of probabilistic PCA: a posterior that is exact up to a rotation becomes exact where the
    columns of W are orthogonal, so that, unlike maximum likelihood, it finds the principal directions themselves (Lucas et al. 2019,
    section 4). Params: a dict of ``decoder`` (`Ppca`, with log σ² in place of σ²) and ``encoder`` (``weight`` [q, d], ``log_scale`` [q]).
    `as_ppca` reads the generative part.

    Args:
        latent_size: q, below d.

    Source:
        Lucas, Tucker, Grosse & Norouzi 2019, eqs. 7 to 9.

    Examples:
        >>> import jax
        >>> model = as_model(2)
        >>> params = model.init(jax.random.key(0), jax.random.normal(jax.random.key(1), (50, 4)))
        >>> as_ppca(params).weight.shape
        (4, 2)
    """
    checks.positive_int(latent_size, "latent_size")

    @broadcasts
    def init(key: Key, batch: Any) -> Params:
        batch = as_batch(batch)
        x = jnp.asarray(observed(batch), default_float())
        if x.ndim != 2 or x.shape[1] <= latent_size:
            raise ValueError(f"x must be [n, d] with d above latent_size={latent_size}, got {list(x.shape)}")
        x, counts = flat_examples(batch._replace(x=x), x.shape[1:])
        mean = likelihoods.mean_of_observed(x, counts)
        variance = jnp.average((x - mean) ** 2, weights=counts)
        weight = jnp.linalg.qr(jax.random.normal(key, (x.shape[1], latent_size), x.dtype))[0] * jnp.sqrt(0.5 * variance)
        # The exact posterior of this start.
        gain = weight.T / variance
        scale = jnp.full(latent_size, 0.5 * math.log(0.5), x.dtype)
        return {
            "decoder": Ppca(mean, weight, jnp.log(0.5 * variance)),
            "encoder": {"weight": gain, "log_scale": scale},
        }

    @broadcasts
    def posterior(params: Params, x: Array) -> Any:
        encoder = params["encoder"]
        loc = (x - params["decoder"].mean) @ encoder["weight"].T
        return diagonal_normal(loc, log_scale=jnp.broadcast_to(encoder["log_scale"], loc.shape))

    @broadcasts
    def likelihood(params: Params, z: Array) -> Any:
        mean, weight, log_variance = params["decoder"]
        loc = z @ weight.T + mean
        return diagonal_normal(loc, log_scale=jnp.broadcast_to(0.5 * log_variance, loc.shape))

    return Model(init, posterior, lambda params: standard_normal(latent_size), likelihood)


def as_ppca(params: Params) -> Ppca:
    """The generative model that a linear VAE has learned, whose evidence and posterior are exact."""
    decoder = params["decoder"]
    return decoder._replace(variance=jnp.exp(decoder.variance))


@broadcasts
def bound(params: Params, x: Any) -> Array:
    """The ELBO of a linear VAE in closed form, ``[*batch]`` nats: at most `ppca.log_prob` of `as_ppca`.

    Missing entries drop out of the likelihood, and the encoder sees 0 in their place, as it does in training.

    Source:
        Lucas et al. 2019, appendix C.
    """
    encoder, batch = params["encoder"], as_batch(x)
    loc = (observed(batch) - params["decoder"].mean) @ encoder["weight"].T
    return ppca.bound(as_ppca(params), MultivariateNormal(loc, jnp.diag(jnp.exp(encoder["log_scale"]))), batch)
