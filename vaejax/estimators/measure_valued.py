"""Measure-valued (weak) derivatives: the gradient of a mean as a difference of two means, one pair for each parameter."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax.dists.backend import distrax
from vaejax.dists.chain import layers
from vaejax.dists.factors import Factors, factors
from vaejax.dists.reparameterization import is_reparameterized
from vaejax.dists.univariate import Poisson
from vaejax.estimators.base import Terms, gradient, peek_posterior
from vaejax.estimators.problem import Values, problem, redrawn_below, stateless, stopped_values
from vaejax.numerics import broadcasts
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Estimate, Estimator, Key, LogTerms, Model, Params, as_batch

# Evaluations of the model side by side.
_BLOCK = 8


def measure_valued(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """c·(E f(z⁺) − E f(z⁻)) for each parameter of the posterior, with the other latents as drawn.

    Bernoulli: p(1−p)(f(1) − f(0)) for a logit; categories: p_c (f(c) − Σ_j p_j f(j)); Poisson: λ (f(z+1) − f(z)) for log λ; Normal: a pair
    of Weibulls for the mean, and a double-sided Maxwell against the normal itself for the scale. One to n evaluations for each latent.

    Args:
        model: with layers of these families.
        objective: an objective that averages over draws.
        num_samples: K.
        terms: as in `pathwise`.

    Raises:
        TypeError: from ``init``, for another family.

    Source:
        Mohamed, Rosca, Figurnov & Mnih 2020, section 6 and table 1; Pflug 1989.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = measure_valued(model, vaejax.objectives.elbo)
    """
    made = problem("measure_valued", model, objective, num_samples, terms, averages=True)

    def init(params: Params, key: Key, batch: Any) -> None:
        for layer in peek_posterior(model, params, key, as_batch(batch)).layers:
            _parameters(layer)

    def estimate(params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
        key, noise_key = jax.random.split(key)
        drawn, values = stopped_values(made, params, key, batch, step)
        found = []
        for index, (layer, z) in enumerate(layers(drawn.posterior, drawn.latents)):
            keys = jax.random.split(jax.random.fold_in(noise_key, index))
            found.append(_derivatives(layer, _Place(drawn, values, z, index, *keys)))

        def surrogate(live: LogTerms) -> Array:
            total: Any = 0.0
            for (layer, _), cotangents in zip(layers(live.posterior, live.latents), found):
                for parameter, cotangent in zip(_parameters(layer), cotangents):
                    share = jnp.mean(broadcasts(jnp.multiply)(cotangent, parameter), 0)
                    total = total + jnp.sum(share, tuple(range(live.log_prior.ndim - 1, share.ndim)))
            return total

        def draw(params: Params) -> LogTerms:
            return made.at(params, drawn.latents, key, batch)

        return gradient(made.objective, params, batch, step, draw, surrogate)

    return stateless(made, init, estimate)


class _Place(NamedTuple):
    """One layer of the draws."""

    drawn: LogTerms
    values: Values
    z: Array
    layer: int
    noise_key: Key
    below_key: Key

    @property
    def lead(self) -> int:
        """How many axes stand before the event."""
        return self.drawn.log_prior.ndim

    @property
    def at_draws(self) -> Array:
        """f at the draws, ``[K, *batch, 1…]``."""
        return self.values.at_draws.reshape(*self.values.at_draws.shape, *(1,) * (self.z.ndim - self.lead))


def _replaced(place: _Place, replacements: Array, *, whole_groups: bool = False) -> Array:
    """f with each entry in turn taken from ``replacements [K, *batch, *event]``: ``[K, *batch, *entries]``.

    With ``whole_groups`` an entry is the last axis as a whole.
    """
    entries = place.z.shape[place.lead : place.z.ndim - whole_groups]
    size = math.prod(entries)

    def one(i: Array) -> Array:
        here = (jnp.arange(size) == i).reshape(entries)
        value = jnp.where(here[..., None] if whole_groups else here, replacements, place.z)
        return place.values.at(redrawn_below(place.drawn, place.layer, value, place.below_key))

    found = jax.lax.map(one, jnp.arange(size), batch_size=min(size, _BLOCK))
    return jnp.moveaxis(found, 0, -1).reshape(*found.shape[1:], *entries)


def _parameters(layer: Any) -> tuple[Array, ...]:
    """The natural parameters that are differentiated."""
    found = factors(layer)
    if found is not None:
        return (found.logits,)
    if isinstance(layer, Poisson):
        return (layer.log_rate,)
    if isinstance(layer, distrax.Normal):
        return (layer.loc, layer.scale)
    if isinstance(layer, distrax.Independent):
        return _parameters(layer.distribution)
    raise TypeError(
        f"measure_valued serves Bernoulli, categorical, Poisson and Normal latents, got {type(layer).__name__}; use "
        + ("pathwise" if is_reparameterized(layer) else "score_function")
    )


def _derivatives(layer: Any, place: _Place) -> tuple[Array, ...]:
    """For each parameter, the derivative of E f, ``[K, *batch, *event]``."""
    found = factors(layer)
    if found is not None:
        return (_categorical(found, place) if found.categorical else _bernoulli(found, place),)
    while isinstance(layer, distrax.Independent):
        layer = layer.distribution
    if isinstance(layer, Poisson):
        return (broadcasts(jnp.multiply)(jnp.exp(layer.log_rate), _replaced(place, place.z + 1) - place.at_draws),)
    return _normal(layer, place)


def _bernoulli(q: Factors, place: _Place) -> Array:
    flipped = _replaced(place, 1 - place.z)
    return broadcasts(jnp.multiply)(q.probs * (1 - q.probs), (2 * place.z - 1) * (place.at_draws - flipped))


def _categorical(q: Factors, place: _Place) -> Array:
    n = place.z.shape[-1]

    def category(c: Array) -> Array:
        one_hot = (jnp.arange(n) == c).astype(place.z.dtype)
        return _replaced(place, jnp.broadcast_to(one_hot, place.z.shape), whole_groups=True)

    table = jnp.moveaxis(jax.lax.map(category, jnp.arange(n)), 0, -1)
    return _softmax_derivative(q.probs, table)


@broadcasts
def _softmax_derivative(probs: Array, table: Array) -> Array:
    return probs * (table - jnp.sum(probs * table, -1, keepdims=True))


@broadcasts
def _location_scale(q: Any, noise: Array) -> Array:
    return q.loc + q.scale * noise


def _normal(q: Any, place: _Place) -> tuple[Array, Array]:
    keys = jax.random.split(place.noise_key, 4)
    shape, dtype = place.z.shape, place.z.dtype
    # Both sides from the same draw: coupled, and a variance of zero where f is even about the mean.
    weibull = jnp.sqrt(2 * jax.random.exponential(keys[0], shape, dtype))
    above, below = (_replaced(place, _location_scale(q, sign * weibull)) for sign in (1, -1))
    maxwell = jnp.sqrt(2 * jax.random.gamma(keys[1], 1.5, shape, dtype)) * jax.random.rademacher(keys[2], shape, dtype)
    # A double-sided Maxwell times a uniform is normal: the pair shares its draw.
    normal = maxwell * jax.random.uniform(keys[3], shape, dtype)
    wide, narrow = (_replaced(place, _location_scale(q, noise)) for noise in (maxwell, normal))
    divided = broadcasts(jnp.divide)
    return divided(above - below, q.scale * math.sqrt(2 * math.pi)), divided(wide - narrow, q.scale)
