"""Binary and binomial data from logits: the toolkit's hottest line, fused.

log p(x) = x·l − n·softplus(l) needs one exponential and one logarithm an entry. The logarithm is what costs, so the
factors 1 + exp(−|l|) are multiplied in groups first and one logarithm is taken of each product.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from vaejax import random
from vaejax.dists.backend import Distribution
from vaejax.dists.counts import LARGEST_EXACT, binomial_log_prob, rounded_normal
from vaejax.dists.special import relative_excess
from vaejax.numerics import broadcasts
from vaejax.types import Array, Key

# Factors in a product, the fastest first; beyond 16 XLA's CPU loops stop unrolling.
_LARGEST = 16
_GROUPS = (7, 8, 4, 5, 16, 10, 6, 9, 14, 3, 11, 12, 13, 15, 2)


def logits_log_prob(x: Array, logits: Array, *, total_count: float = 1.0, event_ndims: int = 1) -> Array:
    """Σ over the event of x·l − n·softplus(l): the log-probability of binary data, of binomial data up to its coefficient.

    Exact to rounding. Values below −10⁻³ of the largest float become −∞, so that logits of ±∞ give the limit.
    Differentiable any number of times, forwards and backwards, in ``x`` and ``logits``: ∂/∂l = x − n·sigmoid(l), ∂/∂x = l.

    Args:
        x: ``[..., *event]``, broadcast against ``logits``; any real or integer type.
        logits: ``[..., *event]``.
        total_count: n, a static number.
        event_ndims: how many trailing axes to sum over.

    Returns:
        ``[...]``, nats.

    Examples:
        >>> import jax.numpy as jnp
        >>> logits_log_prob(jnp.array([1.0, 0.0]), jnp.array([1e4, -1e4]))
        Array(0., dtype=float32)
    """
    logits = jnp.asarray(logits)
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    x, logits = jnp.asarray(x).astype(dtype), logits.astype(dtype)
    shape = jnp.broadcast_shapes(x.shape, logits.shape)
    lead = shape[: len(shape) - event_ndims]
    # One event axis: both sides are flattened alike, and x keeps size-1 leading axes instead of being copied K times.
    flat = [jnp.broadcast_to(a, (*a.shape[: a.ndim - event_ndims], *shape[len(lead) :])) for a in (x, logits)]
    size = math.prod(shape[len(lead) :])
    flat = [a.reshape(*a.shape[: a.ndim - event_ndims], size) for a in flat]
    return jnp.broadcast_to(_fused(float(total_count), *flat), lead)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@broadcasts
def _fused(n: float, x: Array, logits: Array) -> Array:
    size = logits.shape[-1]
    if 0 in (size, x.size, logits.size):
        return jnp.zeros(jnp.broadcast_shapes(x.shape, logits.shape)[:-1], logits.dtype)
    group = size if size <= _LARGEST else next((g for g in _GROUPS if size % g == 0), None)
    if group is None:
        # An entry with logit −∞ and x = 0 adds nothing; −1e9 is −∞ enough, and 0·(−1e9) is 0.
        pad = [(0, 0)] * (logits.ndim - 1) + [(0, -size % 8)]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + pad[-1:])
        logits, group = jnp.pad(logits, pad, constant_values=-1e9), 8
    # Infinite logits become the largest finite ones, so that a certain outcome adds 0 and not 0·∞.
    bound = 0.9 * float(jnp.finfo(logits.dtype).max) / max(n, 1)
    logits = jnp.clip(logits, -bound, bound)
    excess = jnp.exp(-jnp.abs(logits))
    # x·l − n·max(l, 0) with one factor, which loses no digits where x is near n.
    linear = jnp.where(logits < 0, x, x - n) * logits
    # Entry j goes to product j mod (size / group): neighbours to neighbouring products, which vectors then hold.
    shape = (*linear.shape[:-1], group, linear.shape[-1] // group)
    excess = jnp.broadcast_to(excess, linear.shape).reshape(shape)
    zero = jnp.zeros((), linear.dtype)
    # One pass for both sums. Π(1 + e) − 1 is built up without ever adding 1, so that a softplus below epsilon survives.
    product, total = jax.lax.reduce(
        (excess, linear.reshape(shape)),
        (zero, zero),
        lambda a, b: (a[0] + b[0] + a[0] * b[0], a[1] + b[1]),
        (len(shape) - 2,),
    )
    value = jnp.sum(total - n * _log1p(product), -1)
    return jnp.where(value < -1e-3 * bound, -jnp.inf, value)


def _log1p(x: Array) -> Array:
    """log(1 + x) for x ≥ 0: of float32, to 3e-7 of itself in half the time that XLA takes on CPUs (benchmarks/NOTES.md)."""
    if x.dtype != jnp.float32:
        return jnp.log1p(x)
    # Of s = x / (2 + x) it is 2 artanh(s); a term more would be below rounding where x < ½.
    s = x / (2 + x)
    square = s * s
    near = 2 * s * (1 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square / 9))))
    return jnp.where(x < 0.5, near, jnp.log(1 + x))


@broadcasts
def _fused_jvp(n: float, primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, logits = primals
    x_dot, logits_dot = tangents
    value = _fused(n, x, logits)
    tangent = jnp.zeros_like(value)
    # A symbolic zero means nobody differentiates in that argument (the data, usually): no work for it.
    if type(logits_dot) is not SymbolicZero:
        tangent += jnp.sum((x - n * jax.nn.sigmoid(logits)) * logits_dot, -1)
    if type(x_dot) is not SymbolicZero:
        limits = jnp.finfo(logits.dtype)
        tangent += jnp.sum(jnp.clip(logits, limits.min, limits.max) * x_dot, -1)
    return value, tangent


_fused.defjvp(_fused_jvp, symbolic_zeros=True)


@jax.custom_jvp
def entry_log_probs(x: Array, logits: Array) -> Array:
    """x·l − softplus(l) for each entry: `logits_log_prob` before its sum, linear in x."""
    coefficient = x - jnp.where(logits < 0, 0, 1)
    linear = jnp.where(coefficient == 0, 0, coefficient * logits)
    return linear - jnp.log1p(jnp.exp(-jnp.abs(logits)))


@entry_log_probs.defjvp
def _entry_log_probs_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, logits), (x_dot, logits_dot) = primals, tangents
    limits = jnp.finfo(logits.dtype)
    tangent = (x - jax.nn.sigmoid(logits)) * logits_dot + jnp.clip(logits, limits.min, limits.max) * x_dot
    return entry_log_probs(x, logits), tangent


@jax.custom_jvp
def divergence(q_logits: Array, p_logits: Array) -> Array:
    """KL between Bernoullis, entry by entry: not negative, symmetric in the outcomes, and the limit at logits of ±∞."""
    gap = jnp.where(q_logits == p_logits, 0, p_logits - q_logits)
    is_near = jnp.abs(gap) < 1
    near = jnp.where(is_near, gap, 0)

    def outcome(sign: float) -> Array:
        q, p = (jax.nn.sigmoid(sign * logits) for logits in (q_logits, p_logits))
        # log p / q, without the difference of two softplus where they are nearly equal.
        small = -jnp.log1p(jax.nn.sigmoid(-sign * q_logits) * jnp.expm1(-sign * near))
        large = jax.nn.softplus(-sign * q_logits) - jax.nn.softplus(-sign * p_logits)
        return relative_excess(q, p, jnp.where(is_near, small, large))

    return outcome(1) + outcome(-1)


@divergence.defjvp
def _divergence_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (q_logits, p_logits), (q_dot, p_dot) = primals, tangents
    q, p = jax.nn.sigmoid(q_logits), jax.nn.sigmoid(p_logits)
    # A certain outcome has no slope, whose product with an infinite logit would be NaN.
    gap = jnp.where(q_logits == p_logits, 0, q_logits - p_logits)
    slope = jnp.clip(gap, -1e30, 1e30) * q * jax.nn.sigmoid(-q_logits)
    return divergence(q_logits, p_logits), slope * q_dot + (p - q) * p_dot


class Binomial(Distribution):
    """Independent counts out of ``total_count`` with success probability sigmoid(logits), summed over the event.

    Draws of a variance above 1e4 are those of `counts.rounded_normal`.

    Attributes:
        logits: ``[*batch, *event]``.
        total_count: number of trials, the same for every entry.
        event_ndims: how many trailing axes form the event.
    """

    def __init__(self, total_count: int, logits: Array, event_ndims: int = 1):
        super().__init__()
        self.logits = jnp.asarray(logits)
        self.total_count = int(total_count)
        self.event_ndims = int(event_ndims)
        if self.logits.ndim < event_ndims:
            raise ValueError(f"logits of shape {self.logits.shape} have fewer than event_ndims={event_ndims} axes")

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The trailing ``event_ndims`` axes."""
        return self.logits.shape[self.logits.ndim - self.event_ndims :]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes before the event."""
        return self.logits.shape[: self.logits.ndim - self.event_ndims]

    def log_prob(self, value: Array) -> Array:
        """Σ log C(n, x) + x·l − n·softplus(l); exact for |l| up to 1e4 and beyond, and the limit at ±∞."""
        return self._log_prob(value, self.logits, None)

    def masked_log_prob(self, value: Array, mask: Array) -> Array:
        """`log_prob` over the entries where ``mask`` is True only."""
        # A failure that was certain says nothing: masked entries become x = 0 at a logit of nearly −∞.
        logits = self.logits.astype(jnp.promote_types(self.logits.dtype, jnp.float32))
        logits = jnp.where(mask, logits, -1e9)
        return self._log_prob(jnp.where(mask, value, 0), logits, mask)

    def _log_prob(self, value: Array, logits: Array, mask: Array | None) -> Array:
        if self.total_count == 1:
            return logits_log_prob(value, logits, event_ndims=self.event_ndims)
        entries = binomial_log_prob(value, logits, self.total_count)
        entries = entries if mask is None else jnp.where(mask, entries, 0)
        return jnp.sum(entries, axis=tuple(range(-self.event_ndims, 0)))

    def _sample_n(self, key: Key, n: int) -> Array:
        total, shape = float(self.total_count), (n, *self.logits.shape)
        failure, variance = jax.nn.sigmoid(-self.logits), self.variance()
        is_exact = variance <= LARGEST_EXACT
        # JAX's sampler does not end where the probability is NaN.
        exact = jax.random.binomial(key, total, jnp.where(is_exact, self.probs, 0), shape)
        if self.total_count / 4 > LARGEST_EXACT:
            z = random.normal(random.fold_in(key, 1), shape, self.probs.dtype)
            cumulants = variance, failure - self.probs, 1 - 6 * self.probs * failure
            large = rounded_normal(z, self.mean(), *cumulants)
            exact = jnp.where(is_exact, exact, jnp.clip(large, 0, total))
        return jnp.where(jnp.isnan(self.probs), jnp.nan, exact).astype(self.logits.dtype)

    @property
    def probs(self) -> Array:
        """Success probabilities ``[*batch, *event]``."""
        return jax.nn.sigmoid(self.logits)

    def mean(self) -> Array:
        """n·sigmoid(l) ``[*batch, *event]``."""
        return float(self.total_count) * self.probs

    def mode(self) -> Array:
        """⌊(n + 1)·p⌋, at most n."""
        return jnp.minimum(jnp.floor((self.total_count + 1.0) * self.probs), float(self.total_count))

    def variance(self) -> Array:
        """n·p·(1−p)."""
        return float(self.total_count) * self.probs * jax.nn.sigmoid(-self.logits)


class Bernoulli(Binomial):
    """Independent binary entries with logits, summed over the event; samples are floats 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> p = Bernoulli(jnp.zeros((5, 28, 28)), event_ndims=2)
        >>> p.log_prob(jnp.ones((5, 28, 28))).shape
        (5,)
    """

    def __init__(self, logits: Array, event_ndims: int = 1):
        super().__init__(1, logits, event_ndims)

    def _sample_n(self, key: Key, n: int) -> Array:
        return random.bernoulli(key, self.probs, (n, *self.logits.shape)).astype(self.logits.dtype)

    def entropy(self) -> Array:
        """−Σ p log p + (1−p) log(1−p)."""
        # Beyond 1e4 one factor of each term is 0, and so is the slope.
        logits = jnp.clip(self.logits, -1e4, 1e4)
        entries = jax.nn.sigmoid(logits) * jax.nn.softplus(-logits)
        entries += jax.nn.sigmoid(-logits) * jax.nn.softplus(logits)
        return jnp.sum(entries, axis=tuple(range(-self.event_ndims, 0)))

    def mode(self) -> Array:
        """1 where p > ½."""
        return (self.logits > 0).astype(self.logits.dtype)
