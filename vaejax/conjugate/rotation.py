"""Rotations of loadings: the likelihood knows none, readers do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.conjugate.linear_gaussian import signs
from vaejax.numerics import broadcasts
from vaejax.types import Array


@broadcasts
def varimax(weight: Array, *, normalize: bool = True, max_sweeps: int = 100, tolerance: float = 1e-5) -> Array:
    """W R for the rotation R under which each column of W has few large entries: Kaiser's varimax.

    R maximises Σ_k [Σ_j v_jk⁴ / d − (Σ_j v_jk² / d)²] of V = W R, the variance of the squared loadings within factors. Columns come out in
    falling order of their squares, the largest entry of each positive (of normalised rows where those are sought). W Wᵀ, and with it
    log-likelihood and noise, stay as they are: ``params._replace(weight=varimax(params.weight))`` is the same density with other factors,
    which stay uncorrelated. Differentiable forwards only (`jax.jvp`).

    Args:
        weight: ``[d, q]`` W.
        normalize: whether each row has length 1 while R is sought (Kaiser's normalisation, as R's ``factanal`` does), so that columns
            count alike however much of them the factors explain.
        max_sweeps: at most; each turns every pair of columns in its plane, where the best angle has a closed form.
        tolerance: angle in radians below which no plane turns any more.

    Raises:
        TypeError, ValueError: no matrix of real numbers; NaN.

    Source:
        Kaiser 1958.

    Examples:
        >>> import jax.numpy as jnp
        >>> turn = jnp.array([[0.6, -0.8], [0.8, 0.6]])
        >>> simple = jnp.array([[0.9, 0.0], [0.8, 0.0], [0.7, 0.0], [0.0, 0.6], [0.0, 0.5]])
        >>> bool(jnp.abs(varimax(simple @ turn) - simple).max() < 1e-4)
        True
    """
    if not hasattr(weight, "dtype"):
        raise TypeError(f"weight must be an array [d, q], got {type(weight).__name__}; give params.weight of a fit")
    if not jnp.issubdtype(weight.dtype, jnp.floating) and not jnp.issubdtype(weight.dtype, jnp.integer):
        raise TypeError(f"weight must hold real numbers, got {weight.dtype}")
    weight = jnp.asarray(weight, jnp.result_type(weight, jnp.float32))
    if weight.ndim != 2 or not weight.size:
        raise ValueError(f"weight must be [d, q], got {list(weight.shape)}; give the loadings of one fit")
    checks.finite(weight, "weight", remedy="give the loadings of a fit that ended well")
    checks.positive_int(max_sweeps, "max_sweeps")
    checks.real(tolerance, "tolerance", minimum=0.0)
    return _varimax(weight, bool(normalize), max_sweeps, tolerance)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _varimax(weight: Array, normalize: bool, max_sweeps: int, tolerance: Array) -> Array:
    length = jnp.sqrt(jnp.sum(weight**2, 1, keepdims=True))
    rows = weight / jnp.where(length > 0, length, 1.0) if normalize else weight

    size, count = weight.shape
    if count == 1:
        return weight * signs(weight)
    first, second = jnp.triu_indices(count, 1)

    def plane(pair: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        """The best rotation in the plane of two columns, in closed form, so that no step overshoots."""
        turn, widest = state
        chosen = jnp.stack([first[pair], second[pair]])
        x, y = (rows @ turn[:, chosen]).T
        u, v = x**2 - y**2, 2 * x * y
        slope = 2 * (u @ v) - 2 * jnp.sum(u) * jnp.sum(v) / size
        angle = jnp.arctan2(slope, u @ u - v @ v - (jnp.sum(u) ** 2 - jnp.sum(v) ** 2) / size) / 4
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        turned = turn[:, chosen] @ jnp.array([[cos, -sin], [sin, cos]])
        return turn.at[:, chosen].set(turned), jnp.maximum(widest, jnp.abs(angle))

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, widest = jax.lax.fori_loop(0, len(first), plane, (state[0], jnp.zeros((), weight.dtype)))
        return turn, widest, state[2] + 1

    def more(state: tuple[Array, Array, Array]) -> Array:
        return (state[2] < max_sweeps) & (state[1] > tolerance)

    start = (jnp.eye(count, dtype=weight.dtype), jnp.full((), jnp.inf, weight.dtype), jnp.zeros((), jnp.int32))
    found = weight @ jax.lax.while_loop(more, sweep, start)[0]
    turned = found / jnp.where(length > 0, length, 1.0) if normalize else found
    order = jnp.argsort(-jnp.sum(turned**2, 0))
    return found[:, order] * signs(turned[:, order])


@broadcasts
def correlations(weight: Array, noise: Array) -> np.ndarray:
    """corr(x_j, z_k) = W_jk / √(Σ_k W_jk² + ψ_j) under the model, ``[d, q]``: loadings of standardised columns.

    Args:
        weight: ``[d, q]`` W.
        noise: ``[d]`` ψ, or one σ² for all.
    """
    loadings = np.asarray(weight)
    return loadings / np.sqrt(np.sum(loadings**2, 1) + np.asarray(noise))[:, None]
