"""Antithetic pairs for Bernoulli latents (ARM, DisARM), and swapped categories for categorical ones (ARSM)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import random
from vaejax.dists.factors import Factors
from vaejax.estimators.base import Terms
from vaejax.estimators.problem import Values, by_layer, check_layers, problem, redrawn_below, stateless
from vaejax.estimators.signals import arm_signal, disarm_signal
from vaejax.numerics import broadcasts
from vaejax.terms import log_terms
from vaejax.types import Array, Estimator, Key, LogTerms, Model, Params


def arm(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """Augment–REINFORCE–merge: (f(1[u > σ(−l)]) − f(1[u < σ(l)])) · (u − ½) for the logits l of each layer.

    Args:
        model: with Bernoulli layers (and layers that reparameterise beside them).
        objective: an objective that averages over draws.
        num_samples: K pairs per example; the second of each pair is the draw at which everything else is evaluated.
        terms: as in `pathwise`.

    Raises:
        TypeError: from ``init``, for latents that are not binary.

    Source:
        Yin & Zhou 2019, eq. 5 and proposition 5 (layers).

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = arm(model, vaejax.objectives.elbo)
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> state = estimator.init(params, jax.random.key(1), x)
        >>> estimate, state = estimator.estimate(params, state, jax.random.key(2), x)
        >>> estimate.objective.shape
        (5,)
    """
    return _antithetic("arm", model, objective, num_samples, terms, lambda f, g, z, w, u, logits: arm_signal(f, g, u))


def disarm(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """ARM with the uniform noise integrated out given the pair: ½ (f(z) − f(z̃)) (−1)^z̃ 1[z ≠ z̃] σ(|l|). Never more variance.

    Args:
        model: as in `arm`.
        objective: as in `arm`.
        num_samples: as in `arm`.
        terms: as in `pathwise`.

    Source:
        Dong, Mnih & Tucker 2020, eq. 6; the same as U2G of Yin, Ho, Yan, Qian & Zhou 2020.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = disarm(model, vaejax.objectives.elbo, num_samples=2)
    """
    return _antithetic(
        "disarm", model, objective, num_samples, terms, lambda f, g, z, w, u, logits: disarm_signal(f, g, z, w, logits)
    )


def _antithetic(
    name: str, model: Model, objective: Any, num_samples: int, terms: Terms, signal: Callable[..., Array]
) -> Estimator:
    made = problem(name, model, objective, num_samples, terms, averages=True)

    def init(params: Params, key: Key, batch: Any) -> None:
        way_out = "arsm, rebar or unordered_set for categories, score_function for anything else"
        check_layers(name, made, params, key, batch, kinds=("bernoulli",), way_out=way_out)

    def pair(drawn: LogTerms, layer: Factors, z: Array, index: int, key: Key, values: Values) -> Array:
        noise_key, below_key = jax.random.split(key)
        logits = layer.logits.astype(jnp.promote_types(layer.logits.dtype, jnp.float32))
        u, antithetic = _behind(z, random.uniform(noise_key, z.shape, logits.dtype), logits)
        other = values.at(redrawn_below(drawn, index, antithetic, below_key))
        lead = (..., *(None,) * layer.event_ndims)
        return signal(values.at_draws[lead], other[lead], z, antithetic, u, layer.logits)

    return stateless(made, init, by_layer(made, pair))


@broadcasts
def _behind(z: Array, v: Array, logits: Array) -> tuple[Array, Array]:
    """The uniform noise u that draws 1[u < σ(l)] = z came from, made of uniform v, and the antithetic draws 1[u > σ(−l)]."""
    p = jax.nn.sigmoid(logits)
    u = jnp.where(z > 0.5, p * v, p + (1 - p) * v)
    # u > σ(−l) as a threshold of v, e^{−l} or 1 − e^l, kept between 0 and 1.
    threshold = jnp.where(z > 0.5, jnp.exp(-jnp.maximum(logits, 0)), -jnp.expm1(jnp.minimum(logits, 0)))
    return u, 1 - random.below(v, threshold).astype(z.dtype)


def arsm(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """Augment–REINFORCE–swap–merge: the categorical relative of ARM, with n(n−1)/2 + 1 more evaluations a draw for n categories.

    With ϖ ~ Dirichlet(1) and z^{m⇌j} the category that wins when ϖ_m and ϖ_j are swapped (in all groups at once), logit c gets
    the mean over j of (f(z^{c⇌j}) − mean_m f(z^{m⇌j})) (1 − n ϖ_j).

    Args:
        model: with layers of categories, all groups of a layer with the same number.
        objective: an objective that averages over draws.
        num_samples: K, draws of ϖ per example.
        terms: as in `pathwise`.

    Source:
        Yin, Yue & Zhou 2019, theorem 1 and eqs. 7–8.

    Examples:
        >>> import jax.numpy as jnp, vaejax
        >>> from vaejax.dists import Bernoulli, OneHotCategorical
        >>> model = vaejax.Model(
        ...     init=lambda key, batch: jnp.zeros(3),
        ...     posterior=lambda p, x: OneHotCategorical(p + x),
        ...     prior=lambda p: OneHotCategorical(jnp.zeros(3)),
        ...     likelihood=lambda p, z: Bernoulli(2 * z - 1),
        ... )
        >>> estimator = arsm(model, vaejax.objectives.elbo)
    """
    made = problem("arsm", model, objective, num_samples, terms, averages=True)

    def init(params: Params, key: Key, batch: Any) -> None:
        check_layers(
            "arsm",
            made,
            params,
            key,
            batch,
            kinds=("categorical",),
            way_out="disarm for Bernoullis, score_function else",
        )

    def swapped(drawn: LogTerms, layer: Factors, z: Array, index: int, key: Key, values: Values) -> Array:
        noise_key, below_key = jax.random.split(key)
        n = z.shape[-1]
        noise = jax.random.exponential(noise_key, z.shape, layer.logits.dtype)
        varpi = noise / jnp.sum(noise, -1, keepdims=True)
        log_varpi = jnp.log(noise)
        # Swapping m with itself changes nothing: those n cases are one, the first pair.
        firsts, seconds = (jnp.concatenate([jnp.zeros(1, int), of]) for of in jnp.triu_indices(n, 1))

        def at_swap(pair: tuple[Array, Array]) -> Array:
            m, j = pair
            order = jnp.arange(n).at[m].set(j).at[j].set(m)
            winner = jnp.argmin(log_varpi[..., order] - layer.logits[None], -1)
            chosen = jax.nn.one_hot(winner, n, dtype=z.dtype)
            return values.at(redrawn_below(drawn, index, chosen, below_key))

        found = jax.lax.map(at_swap, (firsts, seconds))
        table = jnp.broadcast_to(found[0], (n, n, *found.shape[1:])).at[firsts, seconds].set(found)
        table = table.at[seconds, firsts].set(found)
        centred = table - jnp.mean(table, 0, keepdims=True)
        lead = (..., *(None,) * (layer.event_ndims - 1))
        # Over the reference category j: Σ_j centred[c, j] (1 − n ϖ_j) / n.
        shares = jnp.moveaxis(1 - n * varpi, -1, 0)
        return jnp.moveaxis(jnp.einsum("cj...,j...->c...", centred[lead], shares) / n, 0, -1)

    return stateless(made, init, by_layer(made, swapped))
