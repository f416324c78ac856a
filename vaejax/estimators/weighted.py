"""Sums over latent states with weights: all states (enumeration), or some drawn without replacement (unordered sets)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.chain import drawing_order
from vaejax.dists.factors import Factors, factors
from vaejax.estimators.base import Terms, batch_metrics, check_weight, peek_posterior
from vaejax.estimators.problem import Problem, check_layers, problem, sampled, stateless
from vaejax.numerics import broadcasts, weighted_mean
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Estimate, Estimator, Key, LogTerms, Model, Params


def enumerate_latents(
    model: Model, objective: Any, *, num_samples: int = 1, max_states: int = 4096, terms: Terms = log_terms
) -> Estimator:
    """Σ_z q(z|x) f(z) over all states of the discrete layers: exact; continuous layers are drawn K times, given each state.

    Args:
        model: with Bernoulli and categorical layers, and layers that reparameterise beside them (marginalised discreteness).
        objective: an objective that averages over draws.
        num_samples: K, draws of the continuous layers; without such layers it changes nothing.
        max_states: how many joint states are summed at most.
        terms: as in `pathwise`.

    Raises:
        ValueError: from ``init``, for more states.
        TypeError: from ``init``, for layers that have no finite support and do not reparameterise.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = enumerate_latents(model, vaejax.objectives.elbo)
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> state = estimator.init(params, jax.random.key(1), x)
        >>> estimate, state = estimator.estimate(params, state, jax.random.key(2), x)
        >>> estimate.objective.shape
        (5,)
    """
    made = problem("enumerate_latents", model, objective, num_samples, terms, averages=True)
    checks.positive_int(max_states, "max_states")

    def init(params: Params, key: Key, batch: Any) -> None:
        seen = check_layers(
            "enumerate_latents",
            made,
            params,
            key,
            batch,
            kinds=("bernoulli", "categorical"),
            way_out="score_function",
        )
        digits = sum(
            log_num_states(found) for layer in seen.layers if (found := factors(layer)) is not None
        ) / math.log(10)
        if digits > math.log10(max_states) + 1e-9:
            raise ValueError(
                f"enumerate_latents would sum over 10^{digits:.1f} states, more than max_states={max_states}; use rebar, disarm, vimco or "
                "score_function"
            )

    def estimate(params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
        seen = peek_posterior(model, params, key, batch)
        rows = num_samples if any(factors(layer) is None for layer in seen.layers) else 1

        terms_key, noise_key = jax.random.split(key)

        def weigh(params: Params) -> tuple[LogTerms, Array, Array]:
            drawn = made.draw(params, terms_key, batch, rows)
            latents, log_weight = all_states(drawn, noise_key)
            return (
                made.at(params, latents, terms_key, batch),
                jnp.exp(log_weight) / rows,
                jnp.zeros(log_weight.shape[1:]),
            )

        return weighted_estimate(made, params, batch, step, weigh)

    return stateless(made, init, estimate)


def weighted_estimate(made: Problem, params: Params, batch: Batch, step: Any, weigh: Callable) -> Estimate:
    """The gradient of Σ_s weight_s f(z_s), with ``weigh(params) -> (log-terms of the states, weights [S, *batch], surrogate [*batch])``.

    The surrogate adds its gradient, not its value.
    """
    sign = -1 if made.objective.maximize else 1

    def loss_of(params: Params) -> Any:
        drawn, weight, surrogate = weigh(params)
        values = jnp.sum(weight * made.values(drawn, step), 0)
        check_weight(batch.weight, values.shape)
        kl = jnp.sum(weight * (drawn.log_posterior - drawn.log_prior), 0)
        metrics = batch_metrics(values, jnp.sum(weight * drawn.log_likelihood, 0), kl, batch.weight)
        value = metrics["objective"] + weighted_mean(surrogate, batch.weight)
        return sign * value, (values, jax.lax.stop_gradient(metrics))

    (_, (values, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return Estimate(values, grads, metrics, sign * metrics["objective"])


def log_num_states(q: Factors) -> float:
    """The logarithm of how many values one draw of the layer can take."""
    event = q.event_shape
    return math.prod(event[:-1]) * math.log(event[-1]) if q.categorical else math.prod(event) * math.log(2)


@broadcasts
def states(q: Factors) -> Array:
    """Every value of one draw, ``[S, *event]``.

    Examples:
        >>> states(Factors(False, jnp.zeros((5, 2)), 1)).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    event = q.event_shape
    base, size = (event[-1], math.prod(event[:-1])) if q.categorical else (2, math.prod(event))
    digits = (jnp.arange(base**size)[:, None] // base ** jnp.arange(size)[::-1]) % base
    if q.categorical:
        return jax.nn.one_hot(digits, base, dtype=q.logits.dtype).reshape(-1, *event)
    return digits.astype(q.logits.dtype).reshape(-1, *event)


def all_states(drawn: LogTerms, key: Key) -> tuple[Any, Array]:
    """Every joint state of the discrete layers, with the log-probability that those layers give it; continuous layers drawn given it."""
    is_chain = hasattr(drawn.posterior, "conditionals")
    rows, batch = drawn.log_prior.shape[0], drawn.log_prior.shape[1:]
    chosen: tuple = ()
    log_weight = jnp.zeros((rows, *batch))
    conditionals = drawn.posterior.conditionals if is_chain else (lambda _: drawn.posterior,)
    for step, conditional in enumerate(conditionals):
        layer = conditional(chosen)
        found = factors(layer)
        if found is None:
            lead = () if len(layer.batch_shape) > len(batch) else (rows,)
            chosen = (*chosen, sampled(layer, jax.random.fold_in(key, step), lead))
            continue
        support = states(found)
        count, rows = len(support), rows * len(support)
        chosen = jax.tree.map(lambda z, n=count: jnp.repeat(z, n, axis=0), chosen)
        log_weight = jnp.repeat(log_weight, count, axis=0)
        shape = (rows // count, count, *batch, *support.shape[1:])
        spread = support.reshape(1, count, *(1,) * len(batch), *support.shape[1:])
        value = jnp.broadcast_to(spread, shape).reshape(rows, *shape[2:])
        log_weight = log_weight + conditional(chosen).log_prob(value)
        chosen = (*chosen, value)
    if not is_chain:
        return chosen[0], log_weight
    order = drawing_order(drawn.posterior, len(chosen))
    return tuple(chosen[order.index(place)] for place in range(len(chosen))), log_weight
