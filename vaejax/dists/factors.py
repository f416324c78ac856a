"""Discrete factorised layers seen alike: Bernoullis and one-hot categories as hardened location families of their logits.

A draw is b = H(y), y = logits + noise, with logistic noise and H the sign for a Bernoulli, Gumbel noise and H the largest for categories.
Relaxations soften H by a temperature; the coupling draws y given b.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax.dists.backend import distrax
from vaejax.dists.bernoulli import Bernoulli, Binomial, entry_log_probs
from vaejax.dists.categorical import OneHotCategorical, log_probs, probs
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key


class Factors(NamedTuple):
    """A layer of independent discrete latents.

    Attributes:
        categorical: False: logits ``[..., *event]`` of Bernoullis. True: ``[..., *groups, n]`` of one-hot categories.
        logits: log-odds, or unnormalised log-probabilities.
        event_ndims: how many trailing axes of the logits form the event.
    """

    categorical: bool
    logits: Array
    event_ndims: int

    @property
    def probs(self) -> Array:
        """The mean of a draw, of the shape of the logits."""
        return probs(self.logits) if self.categorical else jax.nn.sigmoid(self.logits)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The trailing axes of the logits."""
        return self.logits.shape[self.logits.ndim - self.event_ndims :]

    def sum_event(self, values: Array) -> Array:
        """Sum over the event of values that have the logits' trailing axes."""
        return jnp.sum(values, tuple(range(-self.event_ndims, 0)))

    def distribution(self) -> Bernoulli | OneHotCategorical:
        """As a distribution of vaejax's own."""
        family = OneHotCategorical if self.categorical else Bernoulli
        return family(self.logits, event_ndims=self.event_ndims)


def factors(distribution: Any) -> Factors | None:
    """The factors of a discrete distribution, vaejax's own or distrax's; None for any other."""
    if isinstance(distribution, Binomial):
        return Factors(False, distribution.logits, distribution.event_ndims) if distribution.total_count == 1 else None
    if isinstance(distribution, OneHotCategorical):
        return Factors(True, distribution.logits, distribution.event_ndims)
    if isinstance(distribution, distrax.OneHotCategorical):
        return Factors(True, distribution.logits, 1)
    if isinstance(distribution, distrax.Bernoulli):
        return Factors(False, distribution.logits, 0)
    if isinstance(distribution, distrax.Independent):
        inner = factors(distribution.distribution)
        if inner is not None:
            return inner._replace(event_ndims=inner.event_ndims + distribution.reinterpreted_batch_ndims)
    return None


@broadcasts
def log_prob_entries(q: Factors, z: Array) -> Array:
    """log q of each latent: ``[..., *event]``, without the categories' axis. Linear in z."""
    if q.categorical:
        return jnp.sum(z * log_probs(q.logits), -1)
    return entry_log_probs(z, q.logits)


@broadcasts
def score(q: Factors, z: Array) -> Array:
    """∂ log q(z) / ∂ logits = z − E z, of the logits' shape."""
    return z - q.probs


def noise(q: Factors, key: Key, sample_shape: tuple[int, ...]) -> Array:
    """Standard logistic (Bernoulli) or Gumbel (categories) noise, ``[*sample, ...]`` before the logits' own axes."""
    draw = jax.random.gumbel if q.categorical else jax.random.logistic
    return draw(key, (*sample_shape, *q.logits.shape), q.logits.dtype)


def harden(q: Factors, y: Array) -> Array:
    """H(y): 1 where y > 0, or one-hot where y is largest."""
    if q.categorical:
        return jax.nn.one_hot(jnp.argmax(y, -1), y.shape[-1], dtype=y.dtype)
    return (y > 0).astype(y.dtype)


def relax(q: Factors, y: Array, temperature: Any) -> Array:
    """σ(y/T), or softmax(y/T): H(y) as T → 0.

    Source:
        Maddison, Mnih & Teh 2017, eqs. 3 and 10; Jang, Gu & Poole 2017, eq. 2.
    """
    return jax.nn.softmax(y / temperature, -1) if q.categorical else jax.nn.sigmoid(y / temperature)


@broadcasts
def couple(q: Factors, z: Array, noise: Array) -> Array:
    """y given that H(y) = z, as a differentiable function of the logits and of fresh independent noise: REBAR's coupling.

    Bernoulli: for z = 1, y = softplus(v + softplus(l)), v logistic; for z = 0 the same with both signs changed. Categories: the largest is
    Gumbel whoever it is, the others are Gumbel truncated below it.

    Args:
        q: the factors.
        z: hard draws ``[..., *event]``, with the logits' trailing axes.
        noise: as `noise` gives it, of z's shape, independent of z.

    Returns:
        y, of z's shape.

    Source:
        Tucker et al. 2017, appendix C (Bernoulli); Grathwohl et al. 2018, appendix B (categories).

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> q = Factors(True, jnp.array([0.0, 3.0, 1.0]), 1)
        >>> z = jnp.array([0.0, 0.0, 1.0])
        >>> bool((harden(q, couple(q, z, jnp.array([2.0, 0.3, -1.0]))) == z).all())
        True
    """
    if not q.categorical:
        sign = 2 * z - 1
        return sign * jax.nn.softplus(sign * noise + jax.nn.softplus(sign * q.logits))
    logits = jax.nn.log_softmax(q.logits, -1)
    # With normalised logits the largest is standard Gumbel.
    top = jnp.sum(z * noise, -1, keepdims=True)
    below = -jnp.logaddexp(-(logits + noise), -top)
    return jnp.where(z > 0.5, top, below)
