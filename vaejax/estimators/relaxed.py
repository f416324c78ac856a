"""Gradients through relaxed latents: Concrete, and the straight-through estimators. All biased for the discrete model."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.chain import layers
from vaejax.dists.factors import Factors, factors, harden, noise, relax
from vaejax.dists.relaxed import RelaxedLayers, states_of
from vaejax.estimators.abstract import without_tracers
from vaejax.estimators.base import Seen, Terms, gradient, refuse
from vaejax.estimators.problem import Problem, check_layers, problem, sampled, stateless
from vaejax.numerics import broadcasts
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Estimate, Estimator, Key, LogTerms, Model, Params, as_batch, call, declares


def concrete(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    temperature: Any = 0.5,
    prior_temperature: Any = None,
    kl: str = "relaxed",
    terms: Terms = log_terms,
) -> Estimator:
    """The pathwise gradient of the relaxed objective: relaxed latents, with the densities of the relaxed posterior and prior.

    Biased for the discrete model. At equal temperatures the relaxed KL does not depend on the temperature (for Bernoullis it is that of two
    logistics), so only the likelihood's bias vanishes as it falls.

    Args:
        model: with Bernoulli or categorical layers in posterior and prior, and a likelihood defined between their states.
        objective: any function of log-terms.
        num_samples: K.
        temperature: of the posterior: a number, a schedule ``step -> T``, or a function of ``params`` (learned). Start at or below
            1/(n−1) for n states.
        prior_temperature: of the prior; None is the posterior's.
        kl: ``"relaxed"``, or ``"discrete"``: relaxed draws in the likelihood with the closed-form KL of the discrete distributions, whose
            objective is no bound of anything, but whose bias vanishes as the temperature falls. One layer only, and an objective of
            the closed form, as the bare ELBO is.
        terms: as in `pathwise`.

    Raises:
        ValueError: ``kl="discrete"`` with an objective that does not read the closed-form KL, or with a temperature of the prior.
        TypeError: from ``init``, for other latents; for a prior that cannot be relaxed; for a chain with ``kl="discrete"``.

    Source:
        Maddison, Mnih & Teh 2017, section 3.4 and appendix C; Jang, Gu & Poole 2017.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = concrete(model, vaejax.objectives.elbo, temperature=0.5)
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> state = estimator.init(params, jax.random.key(1), x)
        >>> estimate, state = estimator.estimate(params, state, jax.random.key(2), x)
        >>> estimate.objective.shape
        (5,)
    """
    checks.one_of(kl, "kl", ("relaxed", "discrete"))
    made = problem("concrete", model, objective, num_samples, terms, closed_form=kl == "discrete")
    _check_temperature(temperature)
    if prior_temperature is not None:
        _check_temperature(prior_temperature)
    if kl == "discrete":
        _check_discrete(made, prior_temperature)

    def terms_of(params: Params, key: Key, batch: Batch, step: Any) -> LogTerms:
        t = _temperature(temperature, params, step)
        if kl == "discrete":
            return _at_path(made, functools.partial(_soft, t), params, key, batch, kl="closed_form")
        of_prior = t if prior_temperature is None else _temperature(prior_temperature, params, step)
        return made._replace(model=relaxed_model(model, t, of_prior)).draw(params, key, batch)

    def check(params: Params, key: Key, batch: Any, seen: Seen) -> None:
        if kl == "relaxed":
            _check_prior(made, params, batch, seen)
        elif len(seen.layers) > 1:
            raise TypeError(
                f"kl='discrete' needs the closed-form KL of one layer, got a chain of {len(seen.layers)}; use kl='relaxed', rebar or disarm"
            )

    return _estimator("concrete", made, terms_of, check)


def straight_through(model: Model, objective: Any, *, num_samples: int = 1, terms: Terms = log_terms) -> Estimator:
    """Hard draws forwards, the gradient of the probabilities backwards: ∂z := ∂p. Biased.

    Args:
        model: with Bernoulli or categorical layers.
        objective: any function of log-terms; the KL is the discrete one, in closed form where there is one.
        num_samples: K.
        terms: as in `pathwise`.

    Source:
        Bengio, Léonard & Courville 2013, section 4.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = straight_through(model, vaejax.objectives.elbo)
    """
    made = problem("straight_through", model, objective, num_samples, terms, closed_form=True)

    def draw(q: Factors, key: Key, sample_shape: tuple[int, ...]) -> Array:
        hard = q.distribution().sample(seed=key, sample_shape=sample_shape)
        return _passed(hard, jnp.broadcast_to(q.probs, hard.shape))

    return _estimator(
        "straight_through", made, lambda params, key, batch, step: _at_path(made, draw, params, key, batch)
    )


def gumbel_straight_through(
    model: Model, objective: Any, *, num_samples: int = 1, temperature: Any = 1.0, terms: Terms = log_terms
) -> Estimator:
    """Hard draws forwards, the gradient of the relaxed draw with the same noise backwards. Biased.

    Args:
        model: as in `straight_through`.
        objective: as in `straight_through`.
        num_samples: K.
        temperature: as in `concrete`.
        terms: as in `pathwise`.

    Source:
        Jang, Gu & Poole 2017, section 2.2.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = gumbel_straight_through(model, vaejax.objectives.elbo, temperature=0.5)
    """
    made = problem("gumbel_straight_through", model, objective, num_samples, terms, closed_form=True)
    _check_temperature(temperature)

    def draw(t: Any, q: Factors, key: Key, sample_shape: tuple[int, ...]) -> Array:
        y = broadcasts(jnp.add)(q.logits, noise(q, key, sample_shape))
        return _passed(harden(q, y), relax(q, y, t))

    def terms_of(params: Params, key: Key, batch: Batch, step: Any) -> LogTerms:
        at_temperature = functools.partial(draw, _temperature(temperature, params, step))
        return _at_path(made, at_temperature, params, key, batch)

    return _estimator("gumbel_straight_through", made, terms_of)


def relaxed_model(model: Model, temperature: Any, prior_temperature: Any) -> Model:
    """The model with every discrete layer of posterior and prior relaxed; the likelihood sees the relaxed states."""

    def relaxed(function: Callable, t: Any) -> Callable:
        @functools.wraps(function)
        def build(*args: Any, **options: Any) -> RelaxedLayers:
            return RelaxedLayers(function(*args, **options), t)

        return build

    @functools.wraps(model.likelihood)
    def likelihood(params: Params, z: Any, *args: Any, **options: Any) -> Any:
        return model.likelihood(params, states_of(z), *args, **options)

    return model._replace(
        posterior=relaxed(model.posterior, temperature),
        prior=relaxed(model.prior, prior_temperature),
        likelihood=likelihood,
    )


def _soft(t: Any, q: Factors, key: Key, sample_shape: tuple[int, ...]) -> Array:
    return relax(q, q.logits + noise(q, key, sample_shape), t)


def _passed(hard: Array, soft: Array) -> Array:
    """The value of ``hard``, exactly, with the gradient of ``soft``."""
    return jax.lax.stop_gradient(hard) + (soft - jax.lax.stop_gradient(soft))


def _at_path(made: Problem, draw: Callable, params: Params, key: Key, batch: Batch, kl: str = "auto") -> LogTerms:
    """Log-terms of the discrete model at draws that ``draw(factors, key, sample_shape)`` makes differentiable."""

    def of_layer(layer: Any, layer_key: Key, sample_shape: tuple[int, ...]) -> Any:
        found = factors(layer)
        return sampled(layer, layer_key, sample_shape) if found is None else draw(found, layer_key, sample_shape)

    return made.at_path(params, key, batch, of_layer, kl=kl)


def _check_temperature(temperature: Any) -> None:
    if not callable(temperature):
        checks.real(temperature, "temperature", minimum=0.0, open_minimum=True)


def _temperature(temperature: Any, params: Params, step: Any) -> Any:
    if not callable(temperature):
        return temperature
    return temperature(params) if declares(temperature, "params") else temperature(step)


def _check_discrete(made: Problem, prior_temperature: Any) -> None:
    """Refuses what the discrete KL has no place for."""
    if prior_temperature is not None:
        raise ValueError(
            "kl='discrete' relaxes no prior, so that prior_temperature would count for nothing; leave it out"
        )
    with jax.ensure_compile_time_eval():
        zeros = jnp.zeros((made.num_samples, 1))
        terms = LogTerms(zeros, zeros, zeros, kl=jnp.zeros(1), kl_parts=jnp.zeros((1, 1)))
        with_more = terms._replace(kl=jnp.ones(1), kl_parts=jnp.ones((1, 1)))
        reads = bool(jnp.any(made.objective(terms) != made.objective(with_more)))
    if not reads:
        refuse(
            "concrete(kl='discrete')",
            made.objective,
            "it does not read the closed-form KL",
            "use kl='relaxed', or the bare elbo",
        )


def _check_prior(made: Problem, params: Params, batch: Any, seen: Seen) -> None:
    """Refuses a prior without a relaxation of the posterior's kind: its density would be evaluated at relaxed draws."""
    found: list[Any] = []

    def build(params: Params, latents: Any, batch: Batch) -> Array:
        prior = call(made.model.prior, params, context=batch.context, mask=batch.mask)
        found.extend(without_tracers([layer for layer, _ in layers(prior, latents)]))
        return jnp.zeros(())

    jax.eval_shape(build, params, seen.latents, as_batch(batch))
    for own, other in zip(seen.layers, found):
        q, p = factors(own), factors(other)
        if q is not None and (p is None or p.categorical != q.categorical or p.event_ndims != q.event_ndims):
            raise TypeError(
                f"concrete relaxes the prior beside the posterior, and {type(other).__name__} has no relaxation like that of "
                f"{type(own).__name__}; use kl='discrete', straight_through, rebar or score_function"
            )


def _estimator(name: str, made: Problem, terms_of: Callable, check: Callable | None = None) -> Estimator:
    def init(params: Params, key: Key, batch: Any) -> None:
        kinds = ("bernoulli", "categorical")
        seen = check_layers(name, made, params, key, batch, kinds=kinds, way_out="score_function")
        if check is not None:
            check(params, key, batch, seen)

    def estimate(params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
        return gradient(made.objective, params, batch, step, lambda params: terms_of(params, key, batch, step))

    return stateless(made, init, estimate)
