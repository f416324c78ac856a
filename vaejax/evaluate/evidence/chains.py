"""What runs of annealed chains have in common: their settings and data at the door, the examples side by side, the estimate at the end."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists import is_reparameterized
from vaejax.estimators.base import Seen, peek_posterior
from vaejax.evaluate.encoding import alone
from vaejax.evaluate.evidence.annealing import Settings
from vaejax.evaluate.stream import budget, check_hashable
from vaejax.numerics import effective_sample_size, filled, log_mean_standard_error, log_mean_weight, weight_moments
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Key, Model, Params

# Families that can be differentiated but not moved anywhere; some do not check where they are asked.
_RESTRICTED = frozenset({"Beta", "Dirichlet", "Gamma", "Kumaraswamy", "LogNormal", "Uniform"})


class Annealed(NamedTuple):
    """A log-evidence by annealed importance sampling for each example.

    Attributes:
        estimate: ``[*batch]`` nats: in the mean a lower bound of log p(x), which rises with chains and, as a rule, with temperatures; from
            `bdmc` also an upper one.
        standard_error: ``[*batch]`` Monte Carlo standard error, from the spread of the chains as if they were independent (those of an
            upper bound begin at one draw); NaN for one chain.
        effective_sample_size: ``[*batch]`` of the chains' weights, between 1 and C.
        log_weights: ``[C, *batch]`` each chain's log-weight; the mean of their exponentials estimates p(x) without bias (of an upper
            bound: that of exp(−log-weight) estimates 1/p(x)).
        acceptance: ``[*batch]`` of the HMC transitions, in the mean over temperatures; NaN where there are none (T = 1).
        weight: ``[*batch]`` the weights of the batch, for means over the examples (`mean_estimate`); None without.
    """

    estimate: Array
    standard_error: Array
    effective_sample_size: Array
    log_weights: Array
    acceptance: Array
    weight: Array | None = None


def sigmoid_schedule(num_temperatures: int, sharpness: float = 4.0) -> np.ndarray:
    """β_0 = 0 < … < β_T = 1 along a sigmoid: small steps at both ends, ``[T + 1]``.

    Source:
        Grosse, Ghahramani & Adams 2015, section 6; Wu et al. 2017, appendix (sharpness 4).

    Examples:
        >>> sigmoid_schedule(2).tolist()
        [0.0, 0.5, 1.0]
    """
    checks.positive_int(num_temperatures, "num_temperatures")
    checks.real(sharpness, "sharpness", minimum=0.0, open_minimum=True)
    rising = 1 / (1 + np.exp(-sharpness * np.linspace(-1, 1, num_temperatures + 1)))
    return (rising - rising[0]) / (rising[-1] - rising[0])


def settings_of(
    num_temperatures: int, num_chains: int, num_leapfrog: int, start: str, schedule: Any
) -> tuple[Settings, Array]:
    """The settings and the temperatures ``[T + 1]``, after their checks."""
    checks.positive_int(num_temperatures, "num_temperatures")
    checks.positive_int(num_chains, "num_chains")
    checks.positive_int(num_leapfrog, "num_leapfrog")
    checks.one_of(start, "start", ("prior", "posterior"))
    betas = sigmoid_schedule(num_temperatures) if schedule is None else np.asarray(schedule, float)
    if betas.shape != (num_temperatures + 1,) or betas[0] != 0 or betas[-1] != 1 or not np.all(np.diff(betas) > 0):
        raise ValueError(
            f"schedule must rise from 0 to 1 in num_temperatures + 1 = {num_temperatures + 1} numbers, got shape {list(betas.shape)}; see "
            "vaejax.evaluate.sigmoid_schedule"
        )
    return Settings(num_chains, num_leapfrog, start), jnp.asarray(betas)


def opened(model: Model, params: Params, key: Key, batch: Any) -> tuple[Batch, tuple[int, ...]]:
    """The batch with one axis of examples, its batch shape, after a look at the latents."""
    checks.key(key)
    check_hashable(model)
    batch = checks.batch(batch, "batch", model)._replace(weight=None)
    seen = peek_posterior(model, params, key, batch)
    reason = unmovable(seen)
    if reason is not None:
        raise TypeError(
            f"{reason}; use vaejax.evaluate.log_marginal, which serves any latents, or let the likelihood transform real ones"
        )
    shape = batch.x.shape[: seen.batch_ndims]
    if not shape:
        return alone(batch), shape
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[len(shape) :]), batch), shape


def unmovable(seen: Seen) -> str | None:
    """Why chains cannot move these latents, or None."""
    kinds = [
        _family(layer) for layer in seen.layers if is_reparameterized(layer) is False or _family(layer) in _RESTRICTED
    ]
    unscored = [layer for layer in seen.layers if not hasattr(layer, "log_prob")]
    if unscored:
        return f"annealing needs log q(z|x) at given latents, but {type(unscored[0]).__name__} has no log_prob"
    if not kinds and all(jnp.issubdtype(z.dtype, jnp.floating) for z in jax.tree.leaves(seen.latents)):
        return None
    return f"annealing moves latents by their gradient over the whole real line, got {(kinds or ['integers'])[0]}"


def _family(layer: Any) -> str:
    return _family(layer.distribution) if type(layer).__name__ == "Independent" else type(layer).__name__


def fingerprint(model: Model, params: Params, batch: Batch) -> tuple[str, list]:
    """The model as a computation, for recognising it in another process: its log-terms as a program, and the constants in that."""

    def terms(params: Params, batch: Batch) -> tuple[Array, ...]:
        return log_terms(model, params, jax.random.key(0), batch, kl="none")[:3]

    program = jax.make_jaxpr(terms)(params, jax.tree.map(lambda leaf: leaf[:1], batch))
    return re.sub(r" at 0x[0-9a-f]+", "", str(program.jaxpr)), list(program.consts)


def annealed(log_weights: Any, acceptance: Any, num_temperatures: int, sign: int = 1) -> Annealed:
    """From ``[*batch, C]``; sign −1 for reverse chains, whose exp(−log-weight) is averaged."""
    moved = jnp.moveaxis(jnp.asarray(log_weights), -1, 0)
    moments = weight_moments(sign * moved)
    error, size = log_mean_standard_error(moments), effective_sample_size(moments)
    acceptance = filled(jnp.asarray(acceptance), num_temperatures == 1, jnp.nan)
    return Annealed(sign * log_mean_weight(moments), error, size, moved, acceptance)


def by_example(settings: Settings, function: Any, examples: Any, entries: int) -> Any:
    """``function`` of each example, as many side by side as the memory of a chunk of samples allows."""
    return jax.lax.map(function, examples, batch_size=max(1, budget() // (settings.num_chains * max(entries, 1))))
