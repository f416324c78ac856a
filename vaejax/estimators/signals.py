"""Learning signals: what the log-probability of a draw is multiplied by in a score-function gradient.

A signal of draw k is ``[K, *batch]``, or ``[K, *batch, *entries]`` where each latent has its own; the gradient is the mean over k of signal
times score.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.chain import drawing_order, layers
from vaejax.dists.factors import Factors, factors, log_prob_entries
from vaejax.dists.factors import couple as rebar_couple
from vaejax.numerics import broadcasts, leave_one_out_log_mean_exp
from vaejax.objectives import Objective, as_objective, iwae
from vaejax.types import Array, LogTerms

__all__ = ["arm_signal", "disarm_signal", "leave_one_out", "local_signals", "rebar_couple", "vimco_signal"]


# Log-weights per example that `vimco_signal` holds at once.
_WEIGHTS = 2**15


@broadcasts
def leave_one_out(signals: Array) -> Array:
    """The mean of the other draws' signals, for each draw: ``[K, ...]``, K > 1.

    Source:
        Kool, van Hoof & Welling 2019, eq. 8; Mnih & Rezende 2016, section 2.2.

    Examples:
        >>> leave_one_out(jnp.array([1.0, 2.0, 6.0])).tolist()
        [4.0, 3.5, 1.5]
    """
    finite = jnp.isfinite(signals)
    kept = jnp.where(finite, signals, 0.0)
    # Infinite ones apart: the difference would be NaN where a signal's own infinity is taken off.
    beyond = jnp.where(finite, 0.0, signals)
    others = jnp.where(jnp.sum(~finite, 0) > ~finite, jnp.sum(beyond, 0), 0.0)
    return (jnp.sum(kept, 0) - kept) / (len(signals) - 1) + others


def vimco_signal(log_weights: Array, *, mean: str = "geometric", objective: Any = iwae, step: Any = 0) -> Array:
    """F(w) − F(w with w_k replaced by the mean of the others), for each k: the learning signal of z_k, ``[K, *batch]``.

    Args:
        log_weights: ``[K, *batch]``, K > 1.
        mean: ``"geometric"`` or ``"arithmetic"``, of the other weights.
        objective: F, a function of the log-weights that rises by c where all of them do, as every bound on log p(x) does.
        step: for schedules.

    Source:
        Mnih & Rezende 2016, eqs. 8–10.

    Examples:
        >>> [round(float(s), 4) for s in vimco_signal(jnp.log(jnp.array([1.0, 3.0])))]
        [-0.4055, 0.6931]
    """
    checks.one_of(mean, "mean", ("geometric", "arithmetic"))
    evaluate, count = as_objective(objective), len(log_weights)
    # Objectives of the log-weights move with them: measured from the largest, nothing large is subtracted.
    largest = jnp.max(log_weights, 0)
    centred = log_weights - jnp.where(jnp.isfinite(largest), largest, 0.0)[None]
    stand_in = leave_one_out(centred) if mean == "geometric" else leave_one_out_log_mean_exp(centred)

    def without(k: Array, value: Array) -> Array:
        return _of_weights(evaluate, centred.at[k].set(value), step)

    # So many at once as keep the memory of K sets of K weights in bounds.
    block = max(1, min(count, _WEIGHTS // count))
    without_each = jax.lax.map(lambda given: without(*given), (jnp.arange(count), stand_in), batch_size=block)
    return _of_weights(evaluate, centred, step)[None] - without_each


def moves_with_log_weights(objective: Objective, num_samples: int) -> bool:
    """Whether F(log w + c) = F(log w) + c, tried on K numbers.

    Examples:
        >>> moves_with_log_weights(as_objective(iwae), 3)
        True
    """
    with jax.ensure_compile_time_eval():
        log_weights = jnp.linspace(-1.0, 1.0, num_samples)[:, None] ** 3
        before, after = (_of_weights(objective, log_weights + c, 0) for c in (0.0, 2.0))
        return bool(jnp.all(jnp.abs(after - before - 2.0) < 1e-3))


@broadcasts
def arm_signal(drawn: Array, other: Array, u: Array) -> Array:
    """(f(1[u > σ(−l)]) − f(1[u < σ(l)])) (u − ½), given f at the draw 1[u < σ(l)] and at the other; values broadcast against u.

    Source:
        Yin & Zhou 2019, eq. 5.
    """
    return (other - drawn) * (u - 0.5)


@broadcasts
def disarm_signal(drawn: Array, other: Array, z: Array, antithetic: Array, logits: Array) -> Array:
    """½ (f(z) − f(z̃)) (z − z̃) σ(|l|), given f at both.

    Source:
        Dong, Mnih & Tucker 2020, eq. 6, with (−1)^z̃ 1[z ≠ z̃] = z − z̃.
    """
    return 0.5 * (drawn - other) * (z - antithetic) * jax.nn.sigmoid(jnp.abs(logits))


def _of_weights(objective: Objective, log_weights: Array, step: Any) -> Array:
    zeros = jnp.zeros_like(log_weights)
    return objective(LogTerms(log_weights, zeros, zeros), step=step)


def local_signals(terms: LogTerms, prior: Any, values: Array, slopes: tuple[Array, Array]) -> list[Array]:
    """Signals without the terms whose mean given a latent's parents they multiply by a score of mean zero (Rao–Blackwell).

    Of layer l, the log q of the layers before it is left out; of latent i in a factorised layer, the log q of the layer's other latents,
    and where there is but one layer under a factorised prior of its kind, their log p.

    Args:
        terms: of the draws.
        prior: the prior at the draws.
        values: ``[K, *batch]`` the objective of each draw.
        slopes: its derivatives in the draw's log p(z) and log q(z|x), ``[K, *batch]`` each.

    Returns:
        One signal for each layer, with entries where the layer is factorised.

    Source:
        Ranganath, Gerrish & Blei 2014, eqs. 3–5; Mnih & Gregor 2014, section 2.3 (local learning signals).
    """
    of_prior, of_posterior = slopes
    seen = layers(terms.posterior, terms.latents)
    out: list[Any] = [None] * len(seen)
    before: Any = 0.0
    for place in drawing_order(terms.posterior, len(seen)):
        layer, z = seen[place]
        signal, found = values - of_posterior * before, factors(layer)
        before = before + layer.log_prob(z)
        if found is not None:
            signal = _less_others(signal, found, z, of_posterior)
            own = factors(prior) if len(seen) == 1 else None
            if own is not None and own.categorical == found.categorical and own.event_ndims == found.event_ndims:
                signal = _less_others(signal, own, z, of_prior)
        out[place] = signal
    return out


def _less_others(signal: Array, q: Factors, z: Array, slope: Array) -> Array:
    """The signal of each entry, less slope × the log-probabilities of the other entries."""
    entries = log_prob_entries(q, z)
    axes = q.event_ndims - q.categorical
    lead = slope.ndim
    total = jnp.sum(entries, tuple(range(entries.ndim - axes, entries.ndim)), keepdims=True)
    signal = signal.reshape(*signal.shape, *(1,) * (lead + axes - signal.ndim))
    return signal - slope.reshape(*slope.shape, *(1,) * axes) * (total - entries)
