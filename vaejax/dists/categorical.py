"""Groups of one-hot categories from logits."""

import jax
import jax.numpy as jnp

from vaejax.dists.backend import Distribution
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
        return jax.nn.softmax(self.logits, axis=-1)

    @broadcasts
    def log_prob(self, value: Array) -> Array:
        """Σ over groups and categories of value · log p."""
        value = jnp.asarray(value).astype(self.logits.dtype)
        return jnp.sum(value * log_probs(self.logits), tuple(range(-self.event_ndims, 0)))

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


def log_probs(logits: Array) -> Array:
    """log softmax over the last axis, finite: categories that logits of −∞ rule out must not make 0·(−∞) of what they do not take."""
    return jnp.maximum(jax.nn.log_softmax(logits, axis=-1), jnp.finfo(logits.dtype).min)
