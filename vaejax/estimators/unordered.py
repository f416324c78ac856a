"""Draws without replacement: the unordered-set estimator."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vaejax.dists.factors import Factors, factors
from vaejax.estimators.base import Terms, refuse
from vaejax.estimators.problem import check_layers, discrete_layers, problem, replaced, stateless
from vaejax.estimators.weighted import log_num_states, weighted_estimate
from vaejax.numerics import broadcasts
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Estimate, Estimator, Key, LogTerms, Model, Params

# The integral over t = e^y / r: the integrand is smooth in y, so evenly spaced points converge faster than any power.
_LOWEST, _HIGHEST, _NODES = -30.0, 5.0, 200


def unordered_set(model: Model, objective: Any, *, num_samples: int = 2, terms: Terms = log_terms) -> Estimator:
    """K different states drawn without replacement, weighed as an unordered set, with the baseline that such a set allows.

    Σ_{s ∈ S} p(s) R(S, s) ∇log p(s) (f(s) − Σ_{s'} p(s') R^{∖s}(S, s') f(s')): exact where S holds every state.

    Args:
        model: with one layer of Bernoullis or categories, of any size.
        objective: an objective that averages over draws.
        num_samples: K > 1, at most the number of states.
        terms: as in `pathwise`.

    Raises:
        ValueError: K = 1; from ``init``, fewer states than K.
        TypeError: from ``init``, for chains and for latents that are not discrete.

    Source:
        Kool, van Hoof & Welling 2020, eqs. 9, 12–15 and appendix B (the integral); draws by Gumbel-top-k, Kool et al. 2019b.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = unordered_set(model, vaejax.objectives.elbo, num_samples=4)
    """
    made = problem("unordered_set", model, objective, num_samples, terms, averages=True)
    if num_samples < 2:
        refuse(
            "unordered_set",
            made.objective,
            "it needs K > 1 draws, got K=1",
            "use num_samples=2 or more, or score_function (for Bernoullis also disarm)",
        )

    def init(params: Params, key: Key, batch: Any) -> None:
        seen = check_layers(
            "unordered_set", made, params, key, batch, kinds=("bernoulli", "categorical"), way_out="score_function"
        )
        if len(seen.layers) > 1:
            raise TypeError(
                f"unordered_set serves one layer of latents, got {len(seen.layers)}; use vimco, rebar or score_function"
            )
        found = factors(seen.layers[0])
        if found is not None and math.log(num_samples) > log_num_states(found) + 1e-9:
            raise ValueError(
                f"unordered_set cannot draw {num_samples} different states of {math.exp(log_num_states(found)):.0f}; use enumerate_latents"
            )

    def estimate(params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
        key, noise_key = jax.random.split(key)
        drawn = made.draw(params, key, batch, 1)
        [(found, _)] = discrete_layers(drawn)
        stopped_factors = found._replace(logits=jax.lax.stop_gradient(found.logits))  # type: ignore[union-attr]
        # A chain of one layer has a tuple of latents.
        z = replaced(drawn.latents, 0, draw_without_replacement(stopped_factors, noise_key, num_samples))
        stopped = made.at(jax.lax.stop_gradient(params), z, key, batch)
        log_prob, values = stopped.log_posterior, made.values(stopped, step)
        weight, baseline = set_weights(log_prob, values)

        def weigh(params: Params) -> tuple[LogTerms, Array, Array]:
            live = made.at(params, z, key, batch)
            return live, weight, jnp.sum(weight * (values - baseline) * live.log_posterior, 0)

        return weighted_estimate(made, params, batch, step, weigh)

    return stateless(made, init, estimate)


@broadcasts
def set_weights(log_prob: Array, values: Array) -> tuple[Array, Array]:
    """The weight p(s)·R(S, s) of each state of a set drawn without replacement, and its baseline Σ_s' p(s') R^{∖s}(S, s') f(s').

    Σ weight·f is unbiased for E f; both are ``[K, *batch]``, as the arguments are.

    Args:
        log_prob: log p(s) of K different states.
        values: f(s).

    Source:
        Kool, van Hoof & Welling 2020, eqs. 9 and 15; appendix B: P(S) = ∫ r e^(−rt) Π_{s ∈ S} (1 − e^(−p(s)t)) dt with r the rest's mass.

    Examples:
        >>> weight, baseline = set_weights(jnp.log(jnp.array([0.25, 0.75])), jnp.array([4.0, 8.0]))
        >>> weight.round(5).tolist(), baseline.round(4).tolist()
        ([0.25, 0.75], [7.0, 7.0])
    """
    rest = jnp.clip(1 - jnp.sum(jnp.exp(log_prob), 0), jnp.finfo(log_prob.dtype).tiny, 1.0)
    whole, one, two = _log_set_probabilities(log_prob, jnp.log(rest))
    weight = jnp.exp(log_prob + one - whole)
    # Row s: its own ratio is 1, which the left-out pair (s, s) gives.
    return weight, jnp.sum(jnp.exp(log_prob + two - one[:, None]) * values, 1)


@broadcasts
def _log_set_probabilities(log_prob: Array, log_rest: Array) -> tuple[Array, Array, Array]:
    """log P(S∖C), that all of S∖C come before anything outside S, with C none ``[*batch]``, one ``[K, *batch]``, two ``[K, K, *batch]``."""
    count = len(log_prob)
    y = jnp.linspace(_LOWEST, _HIGHEST, _NODES).reshape(-1, *(1,) * log_prob.ndim)
    # log(1 − exp(−p t)) with log(p t) = a, which may be far below what exp can hold.
    a = log_prob + y - log_rest
    entries = jnp.where(a < -10, a - jnp.exp(jnp.minimum(a, 0)) / 2, jnp.log(-jnp.expm1(-jnp.exp(jnp.maximum(a, -10)))))
    whole = (y - jnp.exp(y))[:, 0] + jnp.sum(entries, 1)

    def integral(density: Array) -> Array:
        return jax.nn.logsumexp(density, 0) + math.log((_HIGHEST - _LOWEST) / (_NODES - 1))

    def without(s: Array) -> tuple[Array, Array]:
        # A row at a time: all pairs at once would hold K² integrands.
        left = whole - jnp.take(entries, s, axis=1)
        others = jnp.where(jnp.arange(count).reshape(-1, *(1,) * (log_prob.ndim - 1)) == s, 0.0, entries)
        return integral(left), integral(left[:, None] - others)

    one, two = jax.lax.map(without, jnp.arange(count))
    return integral(whole), one, two


def draw_without_replacement(q: Factors, key: Key, num_samples: int) -> Array:
    """K different states with the probabilities of drawing one after the other, ``[K, *batch, *event]``.

    Gumbel-top-k over all joint states, found group by group: the largest of a node's children has the node's own Gumbel.

    Source:
        Kool, van Hoof & Welling 2019b, algorithm 1 (stochastic beam search).
    """
    logits = q.logits if q.categorical else jnp.stack([jnp.zeros_like(q.logits), q.logits], -1)
    event = q.event_shape
    batch = q.logits.shape[: q.logits.ndim - q.event_ndims]
    size = logits.shape[-1]
    groups = jnp.moveaxis(jax.nn.log_softmax(logits).reshape(*batch, -1, size), -2, 0)

    def one_group(
        carry: tuple[Array, Array], given: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        log_prob, gumbel = carry
        group, group_key = given
        child = log_prob[..., None] + group[..., None, :]
        drawn = child + jax.random.gumbel(group_key, child.shape, child.dtype)
        drawn = _below(drawn, gumbel[..., None])
        flat = drawn.reshape(*batch, -1)
        best, index = jax.lax.top_k(flat, num_samples)
        chosen = jnp.take_along_axis(child.reshape(*batch, -1), index, -1)
        return (chosen, best), (index // size, index % size)

    start = jnp.zeros((*batch, num_samples), logits.dtype)
    only = start.at[..., 1:].set(-jnp.inf)
    steps = (groups, jax.random.split(key, len(groups)))
    _, (parents, digits) = jax.lax.scan(one_group, (start, only), steps)
    found = jnp.moveaxis(_trace_back(parents, digits), (0, -1), (-1, 0))
    if q.categorical:
        return jax.nn.one_hot(found, size, dtype=q.logits.dtype).reshape(num_samples, *batch, *event)
    return found.astype(q.logits.dtype).reshape(num_samples, *batch, *event)


def _below(drawn: Array, top: Array) -> Array:
    """Gumbels of a node's children, shifted so that the largest is the node's own (Kool et al. 2019b, appendix B.3)."""
    # By index: XLA may compute `drawn` again with another rounding, so that no entry equals the maximum.
    is_largest = jnp.arange(drawn.shape[-1]) == jnp.argmax(drawn, -1, keepdims=True)
    largest = jnp.max(drawn, -1, keepdims=True)
    gap = jnp.minimum(drawn - largest, 0.0)
    v = top - drawn + jnp.log(-jnp.expm1(jnp.minimum(gap, -jnp.finfo(drawn.dtype).tiny)))
    shifted = top - jnp.maximum(v, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(v)))
    shifted = jnp.where(is_largest, top, shifted)
    return jnp.where(jnp.isneginf(top), -jnp.inf, shifted)


def _trace_back(parents: Array, digits: Array) -> Array:
    """The digits of each surviving state, ``[groups, *batch, K]``, from each step's choice of parents."""

    def back(place: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        parent, digit = given
        return jnp.take_along_axis(parent, place, -1), jnp.take_along_axis(digit, place, -1)

    place = jnp.broadcast_to(jnp.arange(parents.shape[-1], dtype=parents.dtype), parents.shape[1:])
    return jax.lax.scan(back, place, (parents, digits), reverse=True)[1]
