"""The thermodynamic variational objective: Riemann sums along the path from posterior to joint."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.numerics import broadcasts, tempered_mean
from vaejax.objectives.base import less_penalty, objective, plus_penalty
from vaejax.types import Array, LogTerms

_BISECTIONS = 30


def log_uniform_partition(size: int, *, smallest: float = 0.1) -> np.ndarray:
    """0 and ``size`` inverse temperatures equally spaced in their logarithms from ``smallest`` to 1.

    Source:
        Masrani, Le & Wood 2019, section 5.1.

    Examples:
        >>> log_uniform_partition(3, smallest=0.01).round(4).tolist()
        [0.0, 0.01, 0.1, 1.0]
    """
    checks.positive_int(size, "size")
    checks.real(smallest, "smallest", minimum=0.0, maximum=1.0, open_minimum=True)
    inner = np.geomspace(smallest, 1.0, size) if size > 1 else np.ones(1)
    return np.concatenate([[0.0], inner])


def _is_maximised(*, side: str = "left", **_: Any) -> bool:
    return side != "right"


def _is_of_weights(*, partition: Any = None, **_: Any) -> bool:
    # An adaptive partition is held fixed in the gradient, so the gradient is not that of a function of the log-weights.
    return not (isinstance(partition, str) and partition == "adaptive")


@objective(maximize=_is_maximised, of_log_weights=_is_of_weights)
def tvo(
    terms: LogTerms, *, partition: Any = 5, side: str = "left", num_intervals: int | None = None, step: Any = 0
) -> Array:
    """The thermodynamic variational objective: a left or right Riemann sum of log p(x) = ∫₀¹ E_{π_β}[log w] dβ, in nats.

    π_β(z) ∝ q(z|x)^(1−β) p(x, z)^β; its expectations are taken with the self-normalised weights w_k^β. Per draw the left sum is
    at most IWAE and the right one at least. With one interval the left sum is the ELBO.

    Args:
        terms: log-terms ``[K, *batch]``.
        partition: increasing inverse temperatures from 0 to 1; or a number of intervals, spaced by `log_uniform_partition`; or
            ``"adaptive"``: ``num_intervals`` that rise by equal amounts of E_{π_β}[log w], found for each example from its draws
            and held fixed in the gradient.
        side: ``"left"``, a lower bound in the mean, or ``"right"``, an upper one in population, which is minimised, whose
            finite-sample estimate is biased low, and which suits the encoder alone (see `cubo`).
        num_intervals: for the adaptive partition, 5 where it is None.
        step: not used.

    Returns:
        ``[*batch]``.

    Raises:
        ValueError: a partition that does not increase from 0 to 1, an unknown side.

    Source:
        Masrani, Le & Wood 2019, eqs. 8, 10 and 13; Brekelmans et al. 2020, section 5 (adaptive: moment spacing).

    Examples:
        >>> import jax.numpy as jnp
        >>> terms = LogTerms(jnp.array([[-1.0], [-3.0]]), jnp.zeros((2, 1)), jnp.zeros((2, 1)))
        >>> [round(float(tvo(terms, partition=[0.0, 0.5, 1.0], side=side)[0]), 4) for side in ("left", "right")]
        [-1.7689, -1.3881]
    """
    checks.one_of(side, "side", ("left", "right"))
    adaptive = isinstance(partition, str)
    if num_intervals is not None and checks.positive_int(num_intervals, "num_intervals") and not adaptive:
        raise ValueError(
            f"num_intervals={num_intervals} is for partition='adaptive', got partition={partition}; use partition={num_intervals}"
        )
    log_weights = terms.log_weights
    if adaptive:
        checks.one_of(partition, "partition", ("adaptive",))
        points = moment_spaced(jax.lax.stop_gradient(log_weights), num_intervals or 5)
    else:
        points = _fixed(partition).reshape(-1, *(1,) * (log_weights.ndim - 1)).astype(log_weights.dtype)
    chosen = points[:-1] if side == "left" else points[1:]
    means = jax.vmap(lambda beta: tempered_mean(log_weights, beta))(chosen)
    value = jnp.sum((points[1:] - points[:-1]) * means, axis=0)
    return less_penalty(value, terms) if side == "left" else plus_penalty(value, terms)


def _fixed(partition: Any) -> Array:
    if isinstance(partition, int | np.integer) and not isinstance(partition, bool):
        partition = log_uniform_partition(int(partition))
    if checks.is_concrete(partition):
        points = np.asarray(partition, float)
        rising = points.ndim == 1 and points.size > 1 and (np.diff(points) > 0).all()
        if not (rising and points[0] == 0.0 and points[-1] == 1.0):
            raise ValueError(
                f"partition must increase from 0 to 1, got {points.tolist()}; use a number of intervals, "
                "log_uniform_partition, or numpy.linspace(0, 1, T + 1)"
            )
    return jnp.asarray(partition)


@broadcasts
def moment_spaced(log_weights: Array, num_intervals: int) -> Array:
    """``[T + 1, *batch]`` inverse temperatures at equal steps of E_{π_β}[log w], which rises with β: by bisection."""
    ends = [tempered_mean(log_weights, jnp.full(log_weights.shape[1:], beta)) for beta in (0.0, 1.0)]
    share = jnp.linspace(0.0, 1.0, num_intervals + 1)[1:-1].reshape(-1, *(1,) * ends[0].ndim)
    target = ends[0] + share * (ends[1] - ends[0])

    def halve(_: Any, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = 0.5 * (low + high)
        below = jax.vmap(lambda beta: tempered_mean(log_weights, beta))(middle) < target
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(target), jnp.ones_like(target)))
    zero = jnp.zeros((1, *ends[0].shape), log_weights.dtype)
    return jnp.concatenate([zero, 0.5 * (low + high), zero + 1])
