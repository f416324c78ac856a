"""Relaxed discrete families with their densities, in a space where neither overflows at low temperatures.

A binary Concrete state s in (0, 1) is represented by its logit, a Concrete state on the simplex by its logarithm: densities are with
respect to these. log-ratios of two such densities do not depend on the representation.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax.dists.backend import Distribution
from vaejax.dists.chain import draw_layers, layers
from vaejax.dists.factors import Factors, factors, noise
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key

# Outcomes of larger logits are certain.
_CERTAIN = 1e30


class Relaxed(Distribution):
    """A layer of discrete factors at a temperature: y = (logits + noise)/T, whose `state` is what a network sees.

    Binary: y ~ Logistic(l/T, 1/T) and the state σ(y). Categories: y = log softmax((l + G)/T), the state exp(y), with
    log density log (n−1)! + (n−1) log T + Σ_j (l_j − T y_j) − n log Σ_j exp(l_j − T y_j).

    Attributes:
        factors: logits and kind.
        temperature: T > 0, a number or an array that broadcasts against the logits.

    Source:
        Maddison, Mnih & Teh 2017, appendix C.3 (densities in logit and in log space); Jang, Gu & Poole 2017.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> q = Relaxed(Factors(True, jnp.zeros((5, 3)), 1), 0.1)
        >>> y, log_prob = q.sample_and_log_prob(seed=jax.random.key(0), sample_shape=(2,))
        >>> y.shape, log_prob.shape, [round(float(s), 4) for s in q.state(y).sum(-1)[0, :2]]
        ((2, 5, 3), (2, 5), [1.0, 1.0])
    """

    reparameterized = True

    def __init__(self, factors: Factors, temperature: Any):
        super().__init__()
        self.factors, self.temperature = factors, temperature

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The event of the logits."""
        return self.factors.event_shape

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes before the event."""
        return self.factors.logits.shape[: self.factors.logits.ndim - self.factors.event_ndims]

    @property
    def _logits(self) -> Array:
        """The logits, with a finite number in place of ±∞.

        A value cannot hold noise about such a logit, and its density is that of noise 0, or of the largest of the other categories.
        """
        return jnp.clip(self.factors.logits, -_CERTAIN, _CERTAIN)

    def state(self, y: Array) -> Array:
        """The relaxed draw itself: σ(y), or exp(y)."""
        return jnp.exp(y) if self.factors.categorical else jax.nn.sigmoid(y)

    @broadcasts
    def _sample_n(self, key: Key, n: int) -> Array:
        y = (self._logits + noise(self.factors, key, (n,))) / self.temperature
        return jax.nn.log_softmax(y, -1) if self.factors.categorical else y

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """The density of y, summed over the event."""
        t, logits, event_ndims = jnp.asarray(self.temperature), self._logits, self.factors.event_ndims
        if not self.factors.categorical:
            centred = jnp.where(jnp.abs(logits) < _CERTAIN, t * value - logits, 0)
            entries = jnp.log(t) - jnp.abs(centred) - 2 * jnp.log1p(jnp.exp(-jnp.abs(centred)))
            return jnp.sum(entries, tuple(range(-event_ndims, 0)))
        n = logits.shape[-1]
        exponent = logits - t * value
        is_certain = jnp.abs(logits) >= _CERTAIN
        others = jnp.where(is_certain, jnp.finfo(exponent.dtype).min, exponent)
        # By index: the derivative of a maximum compares values, which XLA may compute twice with other rounding.
        largest = jnp.take_along_axis(others, jnp.argmax(others, -1, keepdims=True), -1, mode="promise_in_bounds")
        exponent = jnp.where(is_certain, largest, exponent)
        entries = jnp.sum(exponent, -1) - n * jax.nn.logsumexp(exponent, -1)
        t = t[..., 0] if t.ndim else t
        entries = entries + math.lgamma(n) + (n - 1) * jnp.log(t)
        return jnp.sum(entries, tuple(range(-(event_ndims - 1), 0)))


class RelaxedDraw(NamedTuple):
    """A relaxed latent.

    Attributes:
        y: in logit or log space, where its density is taken.
        state: in (0, 1) or on the simplex, which is what networks see.
    """

    y: Array
    state: Array


def states_of(latents: Any) -> Any:
    """The latents with each `RelaxedDraw` replaced by its state."""
    return jax.tree.map(
        lambda z: z.state if isinstance(z, RelaxedDraw) else z, latents, is_leaf=lambda z: isinstance(z, RelaxedDraw)
    )


class RelaxedLayers:
    """A distribution, or a chain of layers, with every discrete layer relaxed; layers of other kinds stay what they are.

    Attributes:
        distribution: the discrete one.
        temperature: of the relaxation.
    """

    reparameterized = True

    def __init__(self, distribution: Any, temperature: Any):
        self.distribution, self.temperature = distribution, temperature

    def _relaxed(self, layer: Any) -> Any:
        found = factors(layer)
        return layer if found is None else Relaxed(found, self.temperature)

    def sample_and_log_prob(self, *, seed: Key, sample_shape: tuple[int, ...] = ()) -> tuple[Any, Array]:
        """`RelaxedDraw` for each discrete layer, and the log-density of their ``y``."""
        terms = []

        def draw(layer: Any, key: Key, shape: tuple[int, ...]) -> Any:
            relaxed = self._relaxed(layer)
            z, term = relaxed.sample_and_log_prob(seed=key, sample_shape=shape)
            terms.append(term)
            return RelaxedDraw(z, relaxed.state(z)) if isinstance(relaxed, Relaxed) else z

        z = draw_layers(self.distribution, seed, sample_shape, draw, states_of)
        return z, sum(terms)

    def log_prob(self, latents: Any) -> Array:
        """The log-density of the ``y``, layers given the states of those before them."""
        values = latents if isinstance(latents, tuple) and not isinstance(latents, RelaxedDraw) else (latents,)
        seen = layers(self.distribution, states_of(latents))
        return sum(
            self._relaxed(layer).log_prob(z.y if isinstance(z, RelaxedDraw) else z)
            for (layer, _), z in zip(seen, values)
        )
