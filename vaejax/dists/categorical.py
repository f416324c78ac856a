"""Groups of one-hot categories from logits."""

import jax
import jax.numpy as jnp

from vaejax.dists.backend import Distribution
from vaejax.dists.special import relative_excess
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key


class OneHotCategorical(Distribution):
    """Independent groups, each with one of n categories as a one-hot vector of floats; log-probabilities are summed over the event.

    The log-probability is linear in the value, Σ value · log softmax(logits), so that it extends to mixtures of categories.

    Attributes:
        logits: ``[*batch, *groups, n]``, of any scale: only differences within a group count.
        event_ndims: how many trailing axes form the event, the categories' own axis included.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> q = OneHotCategorical(jnp.zeros((5, 2, 4)), event_ndims=2)
        >>> z = q.sample(seed=jax.random.key(0), sample_shape=(3,))
        >>> z.shape, q.log_prob(z).shape
        ((3, 5, 2, 4), (3, 5))
    """

    def __init__(self, logits: Array, event_ndims: int = 1):
        super().__init__()
        self.logits = jnp.asarray(logits)
        self.event_ndims = int(event_ndims)
        if event_ndims < 1 or self.logits.ndim < event_ndims:
            raise ValueError(
                f"logits of shape {list(self.logits.shape)} lack event_ndims={event_ndims} trailing axes, the categories' own among them"
            )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``(*groups, n)``."""
        return self.logits.shape[self.logits.ndim - self.event_ndims :]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes before the event."""
        return self.logits.shape[: self.logits.ndim - self.event_ndims]

    @property
    def probs(self) -> Array:
        """``[*batch, *groups, n]``."""
        return probs(self.logits)

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """Σ over groups and categories of value · log p; −∞ where a category that cannot occur has a share."""
        value = jnp.asarray(value).astype(self.logits.dtype)
        log_p = log_probs(self.logits)
        axes = tuple(range(-self.event_ndims, 0))
        is_impossible = jnp.any((log_p <= _impossible(log_p)) & (value > 0), axes)
        return jnp.where(is_impossible, -jnp.inf, jnp.sum(value * log_p, axes))

    def _sample_n(self, key: Key, n: int) -> Array:
        index = jax.random.categorical(key, self.logits, axis=-1, shape=(n, *self.logits.shape[:-1]))
        return jax.nn.one_hot(index, self.logits.shape[-1], dtype=self.logits.dtype)

    def mean(self) -> Array:
        """The probabilities."""
        return self.probs

    def mode(self) -> Array:
        """The likeliest category of each group, one-hot."""
        return jax.nn.one_hot(jnp.argmax(self.logits, -1), self.logits.shape[-1], dtype=self.logits.dtype)

    def entropy(self) -> Array:
        """−Σ p log p."""
        return -self.log_prob(self.probs)


def probs(logits: Array) -> Array:
    """softmax over the last axis; a logit of +∞ is a certain category."""
    return jax.nn.softmax(jnp.minimum(logits, jnp.finfo(logits.dtype).max), axis=-1)


def log_probs(logits: Array) -> Array:
    """log softmax over the last axis, finite: categories that logits of −∞ rule out must not make 0·(−∞) of what they do not take."""
    limits = jnp.finfo(logits.dtype)
    return jnp.maximum(jax.nn.log_softmax(jnp.minimum(logits, limits.max), axis=-1), limits.min)


def _impossible(log_p: Array) -> float:
    """Where `log_probs` are at most this, the category cannot occur."""
    return float(jnp.finfo(log_p.dtype).min) / 2


@jax.custom_jvp
def divergence(q_logits: Array, p_logits: Array) -> Array:
    """KL between categories over the last axis, ``[...]``: not negative, and the limit at logits of ±∞."""
    log_q, log_p = log_probs(q_logits), log_probs(p_logits)
    log_p = jnp.where(log_p <= _impossible(log_p), -jnp.inf, log_p)
    return jnp.sum(relative_excess(jnp.exp(log_q), jnp.exp(log_p), log_p - log_q), -1)


@divergence.defjvp
def _divergence_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    q, p = (probs(logits) for logits in primals)
    value = divergence(*primals)
    relative = log_probs(primals[0]) - log_probs(primals[1]) - value[..., None]
    slope = jnp.where(q == 0, 0, q * relative)
    return value, jnp.sum(slope * tangents[0] + (p - q) * tangents[1], -1)
