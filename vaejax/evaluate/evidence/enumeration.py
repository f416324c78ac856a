"""The evidence of discrete latents, exact: a sum over all their states."""

import functools
import math
from typing import Any

import jax

from vaejax import checks, compilation
from vaejax.dists.factors import factors
from vaejax.estimators.base import Seen, peek_posterior
from vaejax.estimators.roles import by_roles, together
from vaejax.estimators.weighted import all_states, log_num_states
from vaejax.evaluate.encoding import alone
from vaejax.evaluate.stream import budget, check_hashable
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Model, Params

MAX_STATES = 4096


def num_states(seen: Seen) -> float:
    """How many states all latents have together; infinite where one is not a Bernoulli or a category."""
    found = [factors(layer) for layer in seen.layers]
    if not found or any(one is None for one in found):
        return math.inf
    return math.exp(min(sum(log_num_states(one) for one in found if one is not None), 700.0))


def exact_log_marginal(model: Model, params: Params, batch: Any, *, max_states: int = MAX_STATES) -> Array:
    """log p(x) = log Σ_z p(x, z) over all states of discrete latents, ``[*batch]`` nats, without any sampling.

    Args:
        model: all its latents Bernoullis or one-hot categories, in one layer or several.
        params: its parameters.
        batch: a `Batch` or an array ``[*batch, *event]``; masked entries drop out. For a mean over the examples pass its weights on:
            ``mean_estimate(exact_log_marginal(…), weight=batch.weight)``.
        max_states: how many joint states are summed at most.

    Raises:
        TypeError: latents without a finite support.
        ValueError: more states.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> exact_log_marginal(model, model.init(jax.random.key(0)), jax.numpy.ones((5, 4))).shape
        (5,)
    """
    checks.positive_int(max_states, "max_states")
    check_hashable(model)
    batch = checks.batch(batch, "batch", model)._replace(weight=None)
    seen = peek_posterior(model, params, jax.random.key(0), batch)
    count = num_states(seen)
    if math.isinf(count):
        raise TypeError(
            "exact_log_marginal sums over the states of Bernoulli and categorical latents, and these have others too; use "
            "vaejax.evaluate.log_marginal or vaejax.evaluate.ais"
        )
    if count > max_states + 0.5:
        raise ValueError(
            f"exact_log_marginal would sum over {count:.3g} states, more than max_states={max_states}; use "
            "vaejax.evaluate.log_marginal"
        )
    return _enumerated(model, seen.batch_ndims, round(count), params, batch)


@functools.partial(compilation.static_jit, num_static=3, compiler=jax.jit)
def _enumerated(model: Model, batch_ndims: int, count: int, params: Params, batch: Batch) -> Array:
    def one(single: Batch) -> Array:
        given = alone(single) if batch_ndims else single
        key = jax.random.key(0)  # nothing is drawn
        latents, _ = all_states(log_terms(model, params, key, given, kl="none"), key)
        terms = log_terms(by_roles(model, given=latents), together(params), key, given, num_samples=count, kl="none")
        total = jax.nn.logsumexp(terms.log_likelihood + terms.log_prior, axis=0)
        return total[0] if batch_ndims else total

    if not batch_ndims:
        return one(batch)
    entries = count * max(1, batch.x.size // len(batch.x))
    return jax.lax.map(one, batch, batch_size=max(1, min(len(batch.x), budget() // entries)))
