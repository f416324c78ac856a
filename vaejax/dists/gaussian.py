"""Gaussians whose pytree form is safe to compile, scan and differentiate.

distrax's ``MultivariateNormalDiag`` keeps bound methods in its tree definition: every instance retraces ``jit``, and
``tree.map(stop_gradient, q)`` misses its scale. ``Independent(Normal, 1)`` has neither fault, so it is what we build on.
"""

import math
from typing import Any

import jax.numpy as jnp

from vaejax import checks, random
from vaejax.dists.backend import Distribution, distrax
from vaejax.dists.special import HALF_LOG_2PI, quotient
from vaejax.linalg import log_diagonal, solve_tril
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key, default_float


class Normal(distrax.Normal):
    """distrax's, its noise from `vaejax.random`: the same numbers, sooner."""

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """log N(value; loc, scale²), of the broadcast shape."""
        return super().log_prob(value)

    def _noise(self, key: Key, n: int) -> Array:
        return random.normal(key, (n, *self.batch_shape), jnp.result_type(self._loc, self._scale))

    @broadcasts
    def _standardize(self, value: Array) -> Array:
        return quotient(value - self._loc, self._scale)

    @broadcasts
    def _sample_n(self, key: Key, n: int) -> Array:
        return self.scale * self._noise(key, n) + self.loc

    @broadcasts
    def _sample_n_and_log_prob(self, key: Key, n: int) -> tuple[Array, Array]:
        noise = self._noise(key, n)
        return self._scale * noise + self._loc, -0.5 * noise**2 - 0.5 * math.log(2 * math.pi) - jnp.log(self._scale)


def _as_float(values: Any) -> Array:
    values = jnp.asarray(values)
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(float)


class LogScaleNormal(Normal):
    """N(loc, exp(log_scale)²), whose densities and divergences use the logarithm itself.

    exp(−120) is 0 in float32 and exp(120) is ∞, whereas the terms of a density are finite there.

    Attributes:
        log_scale: logarithm of the standard deviation, broadcast against ``loc``.
    """

    def __init__(self, loc: Array, log_scale: Array):
        distrax.Distribution.__init__(self)
        self._loc, self._log_scale = _as_float(loc), _as_float(log_scale)

    @property
    def _scale(self) -> Array:
        return jnp.exp(self._log_scale)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The parameters' shape."""
        return jnp.broadcast_shapes(self._loc.shape, self._log_scale.shape)

    @property
    def log_scale(self) -> Array:
        """The logarithm of the scale, of the batch shape."""
        return jnp.broadcast_to(self._log_scale, self.batch_shape)

    @broadcasts
    def _sample_n_and_log_prob(self, key: Key, n: int) -> tuple[Array, Array]:
        noise = self._noise(key, n)
        return self._scale * noise + self._loc, -0.5 * noise**2 - HALF_LOG_2PI - self._log_scale

    @broadcasts
    def _standardize(self, value: Array) -> Array:
        # In two factors: a difference of 0 times ∞ would be NaN.
        half = jnp.exp(-0.5 * self._log_scale)
        return (value - self._loc) * half * half

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """−½ z² − log scale − ½ log 2π."""
        return -0.5 * self._standardize(value) ** 2 - (self._log_scale + HALF_LOG_2PI)

    def entropy(self) -> Array:
        """½ (1 + log 2π) + log scale."""
        return 0.5 + HALF_LOG_2PI + self.log_scale

    def __getitem__(self, index: Any) -> "LogScaleNormal":
        """The distributions at an index of the batch."""
        return LogScaleNormal(self.loc[index], self.log_scale[index])


def diagonal_normal(
    loc: Array, scale: Array | None = None, *, log_scale: Array | None = None, event_ndims: int = 1
) -> Distribution:
    """N(loc, diag(scale²)) over the last ``event_ndims`` axes.

    Args:
        loc: ``[*batch, *event]`` means.
        scale: standard deviations, broadcast against ``loc``; give this or ``log_scale``.
        log_scale: their logarithms, which are not exponentiated for densities and divergences: ±120 is as good as 0.
        event_ndims: how many axes form the event; log densities are summed over them.

    Raises:
        TypeError: unless exactly one of ``scale`` and ``log_scale`` is given.
        ValueError: for a scale that is not positive (where its values can be read).

    Examples:
        >>> import jax.numpy as jnp
        >>> q = diagonal_normal(jnp.zeros((5, 2)), log_scale=jnp.zeros((5, 2)))
        >>> q.batch_shape, q.event_shape
        ((5,), (2,))
    """
    if (scale is None) == (log_scale is None):
        raise TypeError("diagonal_normal takes either scale or log_scale")
    if log_scale is not None:
        return distrax.Independent(LogScaleNormal(loc, log_scale), event_ndims)
    checks.values(scale, lambda s: s > 0, "scale", "positive numbers")
    return distrax.Independent(Normal(loc, scale), event_ndims)


def standard_normal(shape: int | tuple[int, ...]) -> Distribution:
    """N(0, I) over an event of the given shape, without batch axes.

    Examples:
        >>> standard_normal(3).event_shape
        (3,)
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    zeros = jnp.zeros(shape, default_float())
    return diagonal_normal(zeros, jnp.ones_like(zeros), event_ndims=len(shape))


class MultivariateNormal(Distribution):
    """N(loc, L Lᵀ) with a lower-triangular L, so that the latents may be correlated.

    Attributes:
        loc: ``[*batch, d]``.
        scale_tril: ``[*batch, d, d]``, positive diagonal; entries above it are ignored.
    """

    def __init__(self, loc: Array, scale_tril: Array):
        super().__init__()
        loc, scale_tril = jnp.asarray(loc), jnp.asarray(scale_tril)
        if loc.ndim < 1 or scale_tril.shape[-2:] != (loc.shape[-1],) * 2:
            raise ValueError(
                f"scale_tril must be [*batch, d, d] for loc [*batch, d], got {scale_tril.shape} and {loc.shape}"
            )
        batch = jnp.broadcast_shapes(loc.shape[:-1], scale_tril.shape[:-2])
        self.loc = jnp.broadcast_to(loc, (*batch, loc.shape[-1]))
        self.scale_tril = jnp.broadcast_to(jnp.tril(scale_tril), (*batch, *scale_tril.shape[-2:]))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``(d,)``."""
        return self.loc.shape[-1:]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes before the event."""
        return self.loc.shape[:-1]

    @broadcasts
    def from_standard(self, noise: Array) -> Array:
        """loc + L · noise, for standard normal ``noise`` ``[..., *batch, d]``."""
        return self.loc + jnp.einsum("...ij,...j->...i", self.scale_tril, noise)

    @broadcasts
    def _sample_n(self, key: Key, n: int) -> Array:
        return self.from_standard(random.normal(key, (n, *self.loc.shape), self.loc.dtype))

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """log N(value; loc, L Lᵀ) ``[...]``."""
        white = solve_tril(self.scale_tril, value - self.loc)
        constant = 0.5 * self.loc.shape[-1] * math.log(2 * math.pi)
        return -0.5 * jnp.sum(white**2, -1) - log_diagonal(self.scale_tril) - constant

    def entropy(self) -> Array:
        """½ d (1 + log 2π) + Σ log L_ii."""
        return 0.5 * self.loc.shape[-1] * (1 + math.log(2 * math.pi)) + log_diagonal(self.scale_tril)

    def mean(self) -> Array:
        """The location ``[*batch, d]``."""
        return self.loc

    def covariance(self) -> Array:
        """L Lᵀ ``[*batch, d, d]``."""
        return self.scale_tril @ jnp.swapaxes(self.scale_tril, -1, -2)

    def variance(self) -> Array:
        """The diagonal of the covariance ``[*batch, d]``."""
        return jnp.sum(self.scale_tril**2, -1)
