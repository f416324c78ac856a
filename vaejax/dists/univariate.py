"""Univariate families that distrax lacks: Cauchy, log-normal, Kumaraswamy, Poisson.

The continuous ones sample by their inverse distribution function, so that their draws are differentiable in the parameters.
"""

import abc
import math

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln, ndtri

from vaejax import random
from vaejax.dists.backend import Distribution
from vaejax.dists.counts import LARGEST_EXACT, poisson_log_prob, rounded_normal
from vaejax.dists.special import HALF_LOG_2PI, log_gamma_ratio, log_sum_squares, quotient
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key


def open_uniform(key: Key, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
    """Uniform draws on the open interval (0, 1): neither end, at which inverse distribution functions are infinite."""
    return random.uniform(key, shape, dtype, float(jnp.finfo(dtype).tiny), 1.0)


class _Pair(Distribution):
    """A scalar family with two broadcast parameters."""

    _names: tuple[str, str]

    def __init__(self, first: Array, second: Array):
        super().__init__()
        first, second = jnp.broadcast_arrays(*(jnp.asarray(a, jnp.result_type(float, a)) for a in (first, second)))
        for name, value in zip(self._names, (first, second)):
            setattr(self, name, value)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``()``."""
        return ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The parameters' shape."""
        return getattr(self, self._names[0]).shape

    @abc.abstractmethod
    @broadcasts
    def quantile(self, u: Array) -> Array:
        """The inverse of the distribution function."""

    def _sample_n(self, key: Key, n: int) -> Array:
        dtype = getattr(self, self._names[0]).dtype
        return self.quantile(open_uniform(key, (n, *self.batch_shape), dtype))


class Cauchy(_Pair):
    """Cauchy(loc, scale), density 1 / (π·scale·(1 + ((x − loc)/scale)²))."""

    _names = ("loc", "scale")
    loc: Array
    scale: Array

    @broadcasts
    def quantile(self, u: Array) -> Array:
        """loc + scale · tan(π (u − ½))."""
        return self.loc + self.scale * jnp.tan(jnp.pi * (u - 0.5))

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """−log π − log scale − log(1 + z²)."""
        return jnp.log(self.scale) - jnp.log(jnp.pi) - log_sum_squares(self.scale, value - self.loc)

    def median(self) -> Array:
        """loc (there is no mean)."""
        return self.loc

    def entropy(self) -> Array:
        """log(4π·scale)."""
        return jnp.log(4 * jnp.pi) + jnp.log(self.scale)


class LogNormal(_Pair):
    """The distribution of exp(y), y ~ N(loc, scale²)."""

    _names = ("loc", "scale")
    loc: Array
    scale: Array

    @broadcasts
    def quantile(self, u: Array) -> Array:
        """exp(loc + scale · Φ⁻¹(u))."""
        return jnp.exp(self.loc + self.scale * ndtri(u))

    def _sample_n(self, key: Key, n: int) -> Array:
        return jnp.exp(self.loc + self.scale * random.normal(key, (n, *self.batch_shape), self.loc.dtype))

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """log N(log x; loc, scale²) − log x; −∞ outside x > 0."""
        inside = value > 0
        log_x = jnp.log(jnp.where(inside, value, 1.0))
        # Not JAX's logpdf, which squares the scale.
        z = quotient(log_x - self.loc, self.scale)
        return jnp.where(inside, -0.5 * z**2 - HALF_LOG_2PI - jnp.log(self.scale) - log_x, -jnp.inf)

    def entropy(self) -> Array:
        """loc + ½ log(2πe·scale²)."""
        return self.loc + 0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(self.scale)

    def mean(self) -> Array:
        """exp(loc + scale²/2)."""
        return jnp.exp(self.loc + 0.5 * self.scale**2)

    def mode(self) -> Array:
        """exp(loc − scale²)."""
        return jnp.exp(self.loc - self.scale**2)


class Kumaraswamy(_Pair):
    """Density a·b·x^(a−1)·(1 − x^a)^(b−1) on (0, 1): Beta-like, with a closed inverse (Kumaraswamy 1980)."""

    _names = ("a", "b")
    a: Array
    b: Array

    @broadcasts
    def quantile(self, u: Array) -> Array:
        """(1 − (1 − u)^(1/b))^(1/a), through logarithms; kept inside (0, 1)."""
        log_x = jnp.log(-jnp.expm1(jnp.log1p(-u) / self.b)) / self.a
        limits = jnp.finfo(self.a.dtype)
        return jnp.clip(jnp.exp(log_x), limits.tiny, 1 - limits.epsneg)

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """log a + log b + (a − 1) log x + (b − 1) log(1 − x^a); −∞ outside of [0, 1]."""
        is_inside = (value >= 0) & (value <= 1)
        log_x = jnp.log(jnp.where(is_inside, value, 0.5))
        powers = _times_log(self.a - 1, log_x) + _times_log(self.b - 1, _log_complement(self.a * log_x))
        return jnp.where(is_inside, jnp.log(self.a) + jnp.log(self.b) + powers, -jnp.inf)

    def entropy(self) -> Array:
        """(1 − 1/b) + (1 − 1/a)·H_b − log(ab), H_b = ψ(b + 1) + γ the harmonic number."""
        harmonic = digamma(self.b + 1) + jnp.euler_gamma
        return (1 - 1 / self.b) + (1 - 1 / self.a) * harmonic - jnp.log(self.a) - jnp.log(self.b)

    def mean(self) -> Array:
        """b·Γ(1 + 1/a)·Γ(b) / Γ(1 + 1/a + b)."""
        return jnp.exp(gammaln(1 + 1 / self.a) - log_gamma_ratio(1 + self.b, 1 / self.a))


def _times_log(power: Array, log_x: Array) -> Array:
    """power · log x with 0 · (−∞) = 0."""
    return jnp.where(power == 0, 0, power * jnp.where((power == 0) & jnp.isinf(log_x), 0, log_x))


def _log_complement(log_x: Array) -> Array:
    """log(1 − x) from log x ≤ 0, without cancellation at either end."""
    is_near = log_x > -math.log(2)
    near = jnp.log(-jnp.expm1(jnp.where(is_near, log_x, -1)))
    return jnp.where(is_near, near, jnp.log1p(-jnp.exp(jnp.where(is_near, -1, log_x))))


class Poisson(Distribution):
    """Counts with rate exp(log_rate), as floats; a log-rate of −∞ is a rate of 0.

    Draws of rates above 1e4 are those of `counts.rounded_normal`.
    """

    def __init__(self, log_rate: Array):
        super().__init__()
        self.log_rate = jnp.asarray(log_rate, jnp.result_type(float, log_rate))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``()``."""
        return ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The rate's shape."""
        return self.log_rate.shape

    def _sample_n(self, key: Key, n: int) -> Array:
        rate, shape = self.mean(), (n, *self.batch_shape)
        is_exact = rate <= LARGEST_EXACT
        exact = jax.random.poisson(key, jnp.where(is_exact, rate, 0), shape).astype(rate.dtype)
        z = random.normal(random.fold_in(key, 1), shape, rate.dtype)
        large = rounded_normal(z, rate, jnp.where(is_exact, 1, rate))
        return jnp.where(is_exact, exact, jnp.where(rate == jnp.inf, rate, large))

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """x·log λ − λ − log x!, to 1e-6 of itself for counts up to 1e8 and beyond (`counts.poisson_log_prob`)."""
        return poisson_log_prob(value, self.log_rate)

    def mean(self) -> Array:
        """λ."""
        return jnp.exp(self.log_rate)

    def mode(self) -> Array:
        """⌊λ⌋."""
        return jnp.floor(self.mean())

    def variance(self) -> Array:
        """λ."""
        return self.mean()
