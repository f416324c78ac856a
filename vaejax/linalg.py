"""Factors of many small positive-definite matrices at once, as plain array operations.

On CPU jaxlib's batched LAPACK kernels wait inside the very thread pool that runs them (0.10.2): as many of them at once as there are
cores never end. These cannot; on accelerators they also spare a call for each matrix. Each is compiled by itself, so that its loop is not
compiled anew at every call outside of ``jit``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax.numerics import broadcasts
from vaejax.types import Array


@jax.custom_jvp
@jax.jit
def cholesky(matrix: Array) -> Array:
    """L, lower triangular with L Lᵀ = A, of ``[..., d, d]``; NaN from the first column where A is not positive definite.

    Examples:
        >>> import jax.numpy as jnp
        >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 5.0]])).tolist()
        [[2.0, 0.0], [1.0, 2.0]]
    """
    matrix = jnp.asarray(matrix, jnp.result_type(matrix, jnp.float32))
    size = matrix.shape[-1]
    below = jnp.arange(size)

    def column(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, factor = state
        found = jax.lax.dynamic_index_in_dim(rest, j, axis=-1, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(found, j, axis=-1)
        found = jnp.where(below >= j, found / jnp.sqrt(pivot), 0.0)
        factor = jax.lax.dynamic_update_index_in_dim(factor, found, j, axis=-1)
        return rest - found[..., :, None] * found[..., None, :], factor

    return jax.lax.fori_loop(0, size, column, (matrix, jnp.zeros_like(matrix)))[1]


@cholesky.defjvp
def _cholesky_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    tril = cholesky(*primals)
    inverse = inverse_tril(tril)
    inner = inverse @ tangents[0] @ _t(inverse)
    # Of a symmetric tangent; the lower half with half the diagonal (Murray 2016, section 3.1).
    half = jnp.tril(0.5 * (inner + _t(inner))) * (1 - 0.5 * jnp.eye(tril.shape[-1], dtype=tril.dtype))
    return tril, tril @ half


@jax.custom_jvp
@jax.jit
@broadcasts
def inverse_tril(tril: Array) -> Array:
    """L⁻¹ of lower-triangular ``[..., d, d]``, by forward substitution.

    Examples:
        >>> import jax.numpy as jnp
        >>> inverse_tril(jnp.array([[2.0, 0.0], [1.0, 2.0]])).tolist()
        [[0.5, 0.0], [-0.25, 0.5]]
    """
    size = tril.shape[-1]
    eye = jnp.eye(size, dtype=tril.dtype)

    def row(i: Array, found: Array) -> Array:
        given = jax.lax.dynamic_index_in_dim(tril, i, axis=-2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(given, i, axis=-1)
        # Rows not found yet are 0.
        new = (eye[i] - jnp.einsum("...j,...jk->...k", given, found)) / pivot
        return jax.lax.dynamic_update_index_in_dim(found, new, i, axis=-2)

    return jax.lax.fori_loop(0, size, row, jnp.zeros_like(tril))


@inverse_tril.defjvp
def _inverse_tril_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    inverse = inverse_tril(*primals)
    return inverse, -inverse @ jnp.tril(tangents[0]) @ inverse


@jax.custom_jvp
@jax.jit
@broadcasts
def solve_tril(tril: Array, vector: Array) -> Array:
    """L⁻¹ v of ``[..., d, d]`` and ``[..., d]``, leading axes broadcast.

    A factor that all vectors share is inverted once; where each has its own, forward substitution.
    """
    if tril.ndim == 2:
        return vector @ inverse_tril(tril).T
    size = tril.shape[-1]
    shape = jnp.broadcast_shapes(tril.shape[:-1], vector.shape)

    def row(i: Array, found: Array) -> Array:
        given = jax.lax.dynamic_index_in_dim(tril, i, axis=-2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(given, i, axis=-1, keepdims=False)
        wanted = jax.lax.dynamic_index_in_dim(vector, i, axis=-1, keepdims=False)
        # Entries not found yet are 0.
        new = (wanted - jnp.sum(given * found, -1)) / pivot
        return jax.lax.dynamic_update_index_in_dim(found, new, i, axis=-1)

    return jax.lax.fori_loop(0, size, row, jnp.zeros(shape, vector.dtype))


@solve_tril.defjvp
def _solve_tril_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    tril, (moved_tril, moved) = primals[0], tangents
    found = solve_tril(*primals)
    change = jnp.einsum("...ij,...j->...i", jnp.tril(moved_tril), found)
    return found, solve_tril(tril, moved - change)


def log_diagonal(tril: Array) -> Array:
    """Σ_i log L_ii."""
    return jnp.sum(jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)), -1)


def inverse_and_log_det(matrix: Array) -> tuple[Array, Array]:
    """A⁻¹ and log|A| of positive-definite ``[..., d, d]``."""
    tril = cholesky(matrix)
    inverse = inverse_tril(tril)
    return _t(inverse) @ inverse, 2 * log_diagonal(tril)


def _t(matrix: Array) -> Any:
    return jnp.swapaxes(matrix, -1, -2)
