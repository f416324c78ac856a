"""What estimators for latents without a path share: draws, the objective of each draw, latents of one's own, and the surrogate loss.

The gradient of an expectation over discrete layers is the gradient at fixed draws, plus what the layers' log-probabilities earn. The
second part enters as a surrogate: a sum of (a stopped signal) × (a differentiable log-probability, or logits), whose value is dropped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists.chain import draw_layers, drawing_order, layers
from vaejax.dists.factors import Factors, factors
from vaejax.dists.reparameterization import is_reparameterized
from vaejax.estimators.base import Seen, Terms, check_model, evaluated, gradient, peek_posterior, refuse, trial
from vaejax.estimators.roles import Roles, by_roles, together
from vaejax.numerics import broadcasts
from vaejax.objectives import Objective, as_objective
from vaejax.types import (
    Array,
    Batch,
    EmptyState,
    Estimate,
    Estimator,
    Key,
    LogTerms,
    Model,
    Params,
    as_batch,
    observed,
)

# (a layer given its parents, key, sample shape) -> its draws
Draw = Callable[[Any, Key, tuple[int, ...]], Any]


class Problem(NamedTuple):
    """The parts of a gradient problem that do not change from step to step.

    Attributes:
        model: the model.
        objective: with its metadata.
        num_samples: K.
        terms: how draws become log-terms.
    """

    model: Model
    objective: Objective
    num_samples: int
    terms: Terms

    def draw(self, params: Params, key: Key, batch: Batch, num_samples: int | None = None) -> LogTerms:
        """Log-terms of K draws, without a closed-form KL."""
        return self._terms(self.model, params, key, batch, self.num_samples if num_samples is None else num_samples)

    def at(self, params: Params | Roles, latents: Any, key: Key, batch: Batch, *, kl: str = "none") -> LogTerms:
        """Log-terms at these latents ``[K', *batch, *event]``; with the same key, the networks' noise is that of `draw`."""
        roles = params if isinstance(params, Roles) else together(params)
        model = by_roles(self.model, given=latents)
        return self._terms(model, roles, key, batch, len(jax.tree.leaves(latents)[0]), kl)

    def at_path(self, params: Params, key: Key, batch: Batch, draw: Draw, *, kl: str = "none") -> LogTerms:
        """Log-terms at K draws of which ``draw(layer, key, sample_shape)`` makes each layer's: it chooses what keeps a path."""
        key, noise_key = jax.random.split(key)
        posterior = self.draw(params, key, batch, 1).posterior
        latents = draw_layers(posterior, noise_key, (self.num_samples,), draw)
        return self.at(params, latents, key, batch, kl=kl)

    def values(self, terms: LogTerms, step: Any) -> Array:
        """The objective of each draw alone, ``[K, *batch]``: K times the shares of an objective that averages over draws."""

        def of_one(*one: Array) -> Array:
            likelihood, prior, posterior = (part[None] for part in one)
            return self.objective(LogTerms(likelihood, prior, posterior, penalty=terms.penalty), step=step)

        return jax.vmap(of_one)(*terms[:3])

    def _terms(self, model: Model, params: Any, key: Key, batch: Batch, num_samples: int, kl: str = "none") -> LogTerms:
        drawn = evaluated(self.terms, model, params, key, batch, num_samples, kl=kl)
        if drawn.latents is None or drawn.posterior is None:
            raise ValueError(
                "this estimator needs terms that report their latents and posterior, as vaejax.log_terms does"
            )
        return drawn


def problem(
    name: str,
    model: Any,
    objective: Any,
    num_samples: int,
    terms: Terms,
    *,
    averages: bool = False,
    closed_form: bool = False,
) -> Problem:
    """Checks the arguments that these estimators share.

    ``averages``: whether the objective must be a mean over draws; ``closed_form``: whether terms may have a closed-form KL.
    """
    check_model(model)
    checked = as_objective(objective)
    checks.positive_int(num_samples, "num_samples")
    if averages and not checked.averages_draws:
        refuse(
            name,
            checked,
            "it is no mean over draws, and a draw's share of it is not known",
            "use vimco for objectives of the log-weights, or score_function",
        )
    # What fails for want of latents may do with them; what fails for want of a closed-form KL will not get one.
    if checked.of_log_weights:
        trial(name, checked, num_samples, "change that option, or num_samples")
    elif not closed_form:
        trial(
            name,
            checked,
            num_samples,
            "use kl='auto' or 'monte_carlo' with an ELBO, or score_function",
            errors=(ValueError,),
        )
    return Problem(model, checked, num_samples, terms)


def discrete_layers(terms: LogTerms) -> list[tuple[Factors | None, Any]]:
    """Each layer of the posterior given its parents' draws, as factors (None for a layer that is not discrete), with its draws."""
    return [(factors(layer), z) for layer, z in layers(terms.posterior, terms.latents)]


def replaced(latents: Any, index: int, value: Array) -> Any:
    """The latents with one layer replaced."""
    if not isinstance(latents, tuple):
        return value
    return tuple(value if i == index else z for i, z in enumerate(latents))


def sampled(layer: Any, key: Key, sample_shape: tuple[int, ...]) -> Any:
    """A draw of the layer, as `redrawn_below` makes one unless told otherwise."""
    return layer.sample_and_log_prob(seed=key, sample_shape=sample_shape)[0]


def redrawn_below(terms: LogTerms, index: int, value: Array, key: Key, draw: Draw = sampled) -> Any:
    """The latents with one layer replaced, and those drawn after it made anew from the posterior given that value.

    With one key, draws below different values are coupled by common noise. ``draw`` makes relaxed draws, or means, instead.
    """
    latents = replaced(terms.latents, index, value)
    if not isinstance(latents, tuple):
        return latents
    order = drawing_order(terms.posterior, len(latents))
    for later in range(order.index(index) + 1, len(latents)):
        layer = terms.posterior.conditionals[later](tuple(latents[i] for i in order[:later]))
        lead = () if len(layer.batch_shape) == terms.log_prior.ndim else (len(value),)
        latents = replaced(latents, order[later], draw(layer, jax.random.fold_in(key, later), lead))
    return latents


def logits_surrogate(terms: LogTerms, cotangents: list[Array | None]) -> Array:
    """The mean over draws of Σ_layers ⟨stopped gradient of E f with respect to the layer's logits, the live logits⟩, ``[*batch]``.

    The logits stay differentiable through continuous parents.
    """
    total: Any = 0.0
    for (layer, _), cotangent in zip(discrete_layers(terms), cotangents):
        if layer is not None and cotangent is not None:
            share = jax.lax.stop_gradient(cotangent)
            total = total + jnp.sum(layer.sum_event(broadcasts(jnp.multiply)(share, layer.logits)), 0) / len(share)
    return total


def check_layers(
    name: str, problem: Problem, params: Params, key: Key, batch: Any, *, kinds: tuple[str, ...], way_out: str
) -> Seen:
    """Raises TypeError unless each layer of the posterior is of one of these kinds (or reparameterises, beside one that is)."""
    checks.key(key)
    seen = peek_posterior(problem.model, params, key, as_batch(batch))
    served = 0
    for layer in seen.layers:
        found = factors(layer)
        kind = None if found is None else "categorical" if found.categorical else "bernoulli"
        if kind in kinds:
            served += 1
        elif is_reparameterized(layer) is not True:
            one_hot = "vaejax.dists.OneHotCategorical, " if type(layer).__name__ == "Categorical" else ""
            raise TypeError(
                f"{name} serves {' and '.join(kinds)} latents, got {type(layer).__name__}; use {one_hot}{way_out}"
            )
    if not served:
        raise TypeError(
            f"{name} serves {' and '.join(kinds)} latents, got {' and '.join(type(layer).__name__ for layer in seen.layers)}, which "
            "reparameterises; use pathwise"
        )
    return seen


def features(batch: Batch, batch_ndims: int) -> Array:
    """The observed data with one event axis, ``[*batch, features]``, for baselines and critics."""
    x = observed(batch)
    return x.reshape(*x.shape[:batch_ndims], -1)


def stateless(problem: Problem, init: Callable, estimate: Callable) -> Estimator:
    """An `Estimator` from ``init(params, key, batch) -> None`` and ``estimate(params, key, batch, step) -> Estimate``."""

    def begin(params: Params, key: Key, batch: Any) -> EmptyState:
        checks.key(key)
        init(params, key, batch)
        return EmptyState()

    def run(params: Params, state: Any, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, Any]:
        checks.key(key)
        return estimate(params, key, as_batch(batch), step), state

    return Estimator(begin, run, problem.model.trainable, problem.model.refresh)


class Values(NamedTuple):
    """The objective of single draws, params stopped.

    Attributes:
        at_draws: ``[K, *batch]``.
        at: latents ``[K', *batch, *event]`` -> ``[K', *batch]``.
    """

    at_draws: Array
    at: Callable[[Any], Array]


# (log-terms of the draws, a layer, its draws, its index, key, values) -> gradient with respect to its logits, [K, *batch, *event]
LayerSignal = Callable[[LogTerms, Factors, Array, int, Key, Values], Array]


def stopped_values(problem: Problem, params: Params, key: Key, batch: Batch, step: Any) -> tuple[LogTerms, Values]:
    """The draws at stopped params, and the objective as a function of latents alone."""
    stopped = jax.lax.stop_gradient(params)
    drawn = problem.draw(stopped, key, batch)

    def at(latents: Any) -> Array:
        return problem.values(problem.at(stopped, latents, key, batch), step)

    return drawn, Values(problem.values(drawn, step), at)


def by_layer(problem: Problem, signal: LayerSignal) -> Callable[[Params, Key, Batch, Any], Estimate]:
    """An estimate that gives each discrete layer's logits the gradient that ``signal`` finds."""

    def estimate(params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
        # Keys of their own: noise that repeats the draws' would be biased.
        key, signal_key = jax.random.split(key)
        drawn, values = stopped_values(problem, params, key, batch, step)
        cotangents = [
            None if layer is None else signal(drawn, layer, z, index, jax.random.fold_in(signal_key, index), values)
            for index, (layer, z) in enumerate(discrete_layers(drawn))
        ]
        return gradient(
            problem.objective,
            params,
            batch,
            step,
            lambda params: problem.draw(params, key, batch),
            lambda live: logits_surrogate(live, cotangents),
        )

    return estimate
