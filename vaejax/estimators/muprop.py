"""MuProp: a control variate from the mean-field network, whose own gradient is deterministic."""

from typing import Any

import jax
import jax.numpy as jnp

from vaejax.dists.factors import Factors, factors, score
from vaejax.estimators.base import Terms
from vaejax.estimators.problem import Values, by_layer, check_layers, problem, redrawn_below, stateless
from vaejax.terms import log_terms
from vaejax.types import Array, Estimator, Key, LogTerms, Model, Params


def muprop(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """[f(z) − f(z̄) − f′(z̄)ᵀ(z − z̄)] ∇log q(z) + f′(z̄)ᵀ∇z̄, with z̄ the mean of each layer given the draws above it.

    The layers below are at their means given z̄, so that f and f′ there are a deterministic pass. f is evaluated off the support.

    Args:
        model: with Bernoulli or categorical layers, and a likelihood defined between their states.
        objective: an objective that averages over draws.
        num_samples: K.
        terms: as in `pathwise`.

    Raises:
        TypeError: from ``init``, for other latents.

    Source:
        Gu, Levine, Sutskever & Mnih 2016, eqs. 4–6 and section 3.1 (layers).

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = muprop(model, vaejax.objectives.elbo)
    """
    made = problem("muprop", model, objective, num_samples, terms, averages=True)

    def init(params: Params, key: Key, batch: Any) -> None:
        check_layers("muprop", made, params, key, batch, kinds=("bernoulli", "categorical"), way_out="score_function")

    def signal(drawn: LogTerms, layer: Factors, z: Array, index: int, key: Key, values: Values) -> Array:
        # The first layer's mean is the same for every draw.
        rows = 1 if index == 0 else len(z)
        mean = jnp.broadcast_to(layer.probs, (rows, *z.shape[1:]))

        def of_mean(mean: Array) -> tuple[Array, Array]:
            found = values.at(redrawn_below(drawn, index, mean, key, _mean))
            return jnp.sum(found), found

        slope, at_mean = jax.grad(of_mean, has_aux=True)(mean)
        left = values.at_draws - at_mean - layer.sum_event(slope * (z - mean))
        of_logits = jax.vjp(
            lambda logits: layer._replace(logits=logits).probs, jnp.broadcast_to(layer.logits, mean.shape)
        )[1]
        return left[(..., *(None,) * layer.event_ndims)] * score(layer, z) + of_logits(slope)[0]

    return stateless(made, init, by_layer(made, signal))


def _mean(layer: Any, key: Key, sample_shape: tuple[int, ...]) -> Array:
    found = factors(layer)
    mean = layer.mean() if found is None else found.probs
    return jnp.broadcast_to(mean, (*sample_shape, *mean.shape))
