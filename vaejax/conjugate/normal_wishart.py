"""Normal-Wishart distributions: Λ_k ~ Wishart(W_k, ν_k), μ_k ~ N(m_k, (β_k Λ_k)⁻¹), one for each component."""

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import digamma, multigammaln

from vaejax.linalg import cholesky, inverse_tril, log_diagonal
from vaejax.numerics import broadcasts
from vaejax.types import Array


def whiten(matrix: Array) -> tuple[Array, Array]:
    """L⁻¹ and −½ log|matrix| of matrices L Lᵀ."""
    inverse = inverse_tril(cholesky(matrix))
    return inverse, log_diagonal(inverse)


@broadcasts
def expected_log_det(degrees: Array, scatter: Array) -> Array:
    """E log|Λ_k| of degrees ν ``[K]`` and scatter W⁻¹ ``[K, d, d]`` (Bishop 2006, eq. 10.65)."""
    size = scatter.shape[-1]
    halves = 0.5 * (degrees[:, None] - jnp.arange(size, dtype=degrees.dtype))
    return jnp.sum(digamma(halves), -1) + size * math.log(2) + 2 * whiten(scatter)[1]


@broadcasts
def kl(q: Any, prior: Any) -> Array:
    """KL(q(μ_k, Λ_k) ‖ p(μ, Λ)), ``[K]`` nats; both with strength, mean, degrees and scatter, the prior's without a component axis."""
    size = q.mean.shape[-1]
    inverse, log_det = whiten(q.scatter)
    away = jnp.einsum("kij,kj->ki", inverse, q.mean - prior.mean)
    ratio = prior.strength / q.strength
    normal = 0.5 * size * (ratio - 1 - jnp.log(ratio)) + 0.5 * prior.strength * q.degrees * jnp.sum(away**2, -1)
    trace = jnp.einsum("kij,kil,jl->k", inverse, inverse, prior.scatter)
    wishart = _log_normaliser(log_det, q.degrees, size)
    wishart = wishart - _log_normaliser(whiten(prior.scatter)[1], prior.degrees, size)
    wishart = wishart + 0.5 * (q.degrees - prior.degrees) * expected_log_det(q.degrees, q.scatter)
    return normal + wishart + 0.5 * q.degrees * (trace - size)


def _log_normaliser(half_log_det: Array, degrees: Array, size: int) -> Array:
    """log B(W, ν) of a Wishart (Bishop 2006, eq. B.79), from ½ log|W|."""
    return -degrees * half_log_det - 0.5 * degrees * size * math.log(2) - multigammaln(0.5 * degrees, size)
