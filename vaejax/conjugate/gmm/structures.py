"""Covariances that components may have: what each leaves free, and the M-step that follows."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.numerics import broadcasts
from vaejax.types import Array


class Structure(NamedTuple):
    """A family of covariances.

    Attributes:
        name: of the family.
        diagonal: whether only the diagonals of the scatters are wanted.
        maximise: ``(total [K], scatter [K, d, d] or [K, d]) -> covariance`` that maximises −½ Σ_k (N_k log|Σ_k| + tr Σ_k⁻¹ S_k).
        num_parameters: ``(K, d) -> `` how many numbers it leaves free.
        own: whether each component has a covariance of its own, made from its own rows alone.
        dimensions: how many the rows must span for the likelihood to be bounded at all; None for all columns.
    """

    name: str
    diagonal: bool
    maximise: Callable[[Array, Array], Array]
    num_parameters: Callable[[int, int], int]
    own: bool = True
    dimensions: int | None = None


def _full(total: Array, scatter: Array) -> Array:
    return scatter / total[:, None, None]


def _tied(total: Array, scatter: Array) -> Array:
    return jnp.sum(scatter, 0, keepdims=True) / jnp.sum(total)


def _diag(total: Array, scatter: Array) -> Array:
    return scatter / total[:, None]


def _spherical(total: Array, scatter: Array) -> Array:
    return jnp.mean(_diag(total, scatter), -1, keepdims=True)


def _equal_shape(total: Array, scatter: Array) -> Array:
    """Σ_k = λ_k D_k A D_kᵀ, |A| = 1: D_k from the eigenvectors of S_k; λ and A in turn, convex in their logarithms."""
    values, vectors = jnp.linalg.eigh(scatter)
    values = jnp.maximum(values, jnp.finfo(values.dtype).tiny)

    def turn(_: int, log_volume: Array) -> Array:
        return jnp.log(jnp.mean(values * jnp.exp(-_log_shape(values, log_volume)), -1) / total)

    log_volume = jax.lax.fori_loop(0, 100, turn, jnp.mean(jnp.log(values), -1) - jnp.log(total))
    spread = jnp.exp(log_volume[:, None] + _log_shape(values, log_volume))
    return jnp.einsum("kij,kj,klj->kil", vectors, spread, vectors)


def _log_shape(values: Array, log_volume: Array) -> Array:
    pooled = jax.nn.logsumexp(jnp.log(values) - log_volume[:, None], axis=0)
    return pooled - jnp.mean(pooled)


def low_rank_parts(total: Array, scatter: Array, latent_size: int) -> tuple[Array, Array]:
    """Probabilistic PCA of each scatter: W ``[K, d, q]`` and σ² ``[K]`` (Tipping & Bishop 1999, eqs. 7 and 8)."""
    values, vectors = jnp.linalg.eigh(scatter / total[:, None, None])
    variance = jnp.mean(values[:, :-latent_size], -1)
    gain = jnp.sqrt(jnp.maximum(values[:, -latent_size:] - variance[:, None], 0.0))
    return (vectors[:, :, -latent_size:] * gain[:, None, :])[:, :, ::-1], variance


@functools.cache
def low_rank(latent_size: int) -> Structure:
    """Σ_k = W_k W_kᵀ + σ_k² I with W_k ``[d, q]``: mixtures of probabilistic PCA."""

    @broadcasts
    def maximise(total: Array, scatter: Array) -> Array:
        weight, variance = low_rank_parts(total, scatter, latent_size)
        eye = jnp.eye(scatter.shape[-1], dtype=scatter.dtype)
        return weight @ weight.swapaxes(-1, -2) + variance[:, None, None] * eye

    def num_parameters(count: int, size: int) -> int:
        return count * (size * latent_size - latent_size * (latent_size - 1) // 2 + 1)

    return Structure(f"low_rank({latent_size})", False, maximise, num_parameters, dimensions=latent_size + 1)


STRUCTURES = {
    found.name: found
    for found in (
        Structure("full", False, _full, lambda count, size: count * size * (size + 1) // 2),
        Structure("tied", False, _tied, lambda count, size: size * (size + 1) // 2, own=False),
        Structure("diag", True, _diag, lambda count, size: count * size),
        Structure("spherical", True, _spherical, lambda count, size: count, dimensions=1),
        Structure(
            "equal_shape",
            False,
            _equal_shape,
            lambda count, size: count * (1 + size * (size - 1) // 2) + size - 1,
            own=False,
        ),
    )
}


def structure(covariance: str | Structure) -> Structure:
    """The structure of that name."""
    if isinstance(covariance, Structure):
        return covariance
    return STRUCTURES[checks.one_of(covariance, "covariance", STRUCTURES)]
