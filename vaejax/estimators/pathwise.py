"""The pathwise (reparameterisation) gradient, with or without the score of the posterior."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from vaejax import checks
from vaejax.estimators.base import (
    Terms,
    check_model,
    check_noise,
    check_reparameterized,
    check_support,
    evaluated,
    gradient,
    loss,
    refuse,
    trial,
    trial_of_weights,
)
from vaejax.estimators.chunks import bare, in_chunks, mean_over_chunks
from vaejax.estimators.roles import by_roles, sticking, together
from vaejax.objectives import Objective, as_objective
from vaejax.terms import log_terms
from vaejax.types import Batch, EmptyState, Estimate, Estimator, Key, LogTerms, Model, Params, as_batch


def pathwise(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    noise: str = "independent",
    chunk_size: int | None = None,
    terms: Terms = log_terms,
) -> Estimator:
    """Differentiates the objective through reparameterised draws z = g(ε; params, x): unbiased for the objective at K draws.

    Args:
        model: with a posterior whose draws are differentiable in its parameters.
        objective: a function of log-terms, such as `vaejax.objectives.elbo` (which, given bare, uses the closed-form KL where
            there is one); options by `functools.partial`.
        num_samples: K, draws per example.
        noise: ``"independent"``, ``"antithetic"`` or ``"sobol"`` (`vaejax.dists.uniform_noise`): unbiased for an average over
            draws such as the ELBO, with less variance; an importance-weighted objective stays a bound, but another one.
        chunk_size: draws held in memory at once; None means all. The gradient is that of all K draws together. Needs an
            objective of the log-terms alone (not of the latents). Dropout is drawn anew for each chunk, and so is the noise: antithetic
            and Sobol points hang together within a chunk only.
        terms: ``(model, params, key, batch, *, num_samples) -> LogTerms``. Its params are for handing on to the model's functions;
            with noise, and in other estimators, they are the same params by role (`vaejax.estimators.roles`).

    Returns:
        An `Estimator` without state. Its ``init`` raises TypeError for a posterior that does not reparameterise.

    Raises:
        TypeError: what is no model, objective or integer.
        ValueError: K, chunk or noise out of range.

    Source:
        Kingma & Welling 2014, section 2.3; Rezende, Mohamed & Wierstra 2014.

    Examples:
        >>> import jax, jax.numpy as jnp, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = pathwise(model, vaejax.objectives.iwae, num_samples=50, chunk_size=10)
        >>> params = model.init(jax.random.key(0), None)
        >>> x = jnp.ones((5, 4))
        >>> estimate, _ = estimator.estimate(params, estimator.init(params, jax.random.key(1), x), jax.random.key(2), x)
        >>> estimate.objective.shape
        (5,)
    """
    check_model(model)
    options = _Options(as_objective(objective), checks.positive_int(num_samples, "num_samples"), chunk_size)
    check_noise(noise, num_samples, chunk_size)
    trial_of_weights("pathwise", options.objective, num_samples)
    init = functools.partial(check_reparameterized, model, noise=noise)
    if noise == "independent":
        return _estimator(model, options, functools.partial(evaluated, terms, model), init)
    split = by_roles(model, noise=noise)
    return _estimator(model, options, lambda params, *rest: evaluated(terms, split, together(params), *rest), init)


def sticking_the_landing(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    noise: str = "independent",
    chunk_size: int | None = None,
    terms: Terms = log_terms,
) -> Estimator:
    """The pathwise gradient of the ELBO without the score of the posterior, whose mean is zero.

    ∇_φ Ê[log p(x, z) − log q_φ(z|x)] with φ stopped inside log q: unbiased for the ELBO, and exactly zero for every draw where q is
    the exact posterior. For K > 1 draws under a logarithm the score does not average out: such objectives are refused.

    Args:
        model: with a posterior whose draws are differentiable in its parameters.
        objective: the ELBO in its Monte Carlo form (terms are built without the closed-form KL), β and schedules included.
        num_samples: K, draws per example.
        noise: as in `pathwise`.
        chunk_size: as in `pathwise`.
        terms: as in `pathwise`.

    Raises:
        ValueError: an objective that is no mean over draws, or that needs the closed-form KL.

    Source:
        Roeder, Wu & Duvenaud 2017, section 3, algorithm 2.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = sticking_the_landing(model, vaejax.objectives.elbo, num_samples=2)
    """
    check_model(model)
    options = _Options(as_objective(objective), checks.positive_int(num_samples, "num_samples"), chunk_size)
    check_noise(noise, num_samples, chunk_size)
    if not options.objective.averages_draws:
        refuse(
            "sticking_the_landing",
            options.objective,
            "it is not declared a mean over draws, and under anything else the score that is left out does not average to zero",
            "use doubly_reparameterized"
            if options.objective.of_log_weights
            else "use pathwise, or decorate it with objectives.objective(averages_draws=True) if it is one",
        )
    trial(
        "sticking_the_landing",
        options.objective,
        num_samples,
        "this estimator leaves a closed-form KL out; use pathwise",
    )
    split = by_roles(model, noise=noise)

    def init(params: Params, key: Key, batch: Any) -> None:
        check_support("sticking_the_landing", check_reparameterized(model, params, key, batch, noise))

    def without_score(params: Params, *rest: Any) -> LogTerms:
        return evaluated(terms, split, sticking(params), *rest, kl="none")

    return _estimator(model, options, without_score, init)


class _Options(NamedTuple):
    objective: Objective
    num_samples: int
    chunk_size: int | None


def _estimator(
    model: Model, options: _Options, terms_of: Callable[..., LogTerms], check: Callable[[Params, Key, Any], Any]
) -> Estimator:
    """An estimator that differentiates the loss of ``terms_of(params, key, batch, num_samples)`` as it stands."""

    def init(params: Params, key: Key, batch: Any) -> EmptyState:
        check(params, key, batch)
        return EmptyState()

    def estimate(params: Params, state: Any, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, Any]:
        batch = as_batch(batch)
        return _gradient(options, terms_of, params, key, batch, step), state

    return Estimator(init, estimate, model.trainable, model.refresh)


def _gradient(
    options: _Options, terms_of: Callable[..., LogTerms], params: Params, key: Key, batch: Batch, step: Any
) -> Estimate:
    objective, num_samples, chunk_size = options

    def all_at_once(key: Key, num_samples: int, keep: Callable = lambda terms: terms) -> Estimate:
        return gradient(objective, params, batch, step, lambda p: keep(terms_of(p, key, batch, num_samples)))

    if chunk_size is None:
        return all_at_once(key, num_samples)
    if objective.averages_draws:
        return mean_over_chunks(lambda k, n: all_at_once(k, n, bare), key, num_samples, chunk_size)

    def linear(key: Key, num_samples: int) -> Any:
        drawn, pull = jax.vjp(lambda p: bare(terms_of(p, key, batch, num_samples)), params)
        return drawn, lambda cotangents: pull(cotangents)[0]

    drawn, pull = in_chunks(linear, key, num_samples, chunk_size)
    (value, (values, metrics)), cotangents = jax.value_and_grad(
        lambda drawn: loss(objective, drawn, batch.weight, step), has_aux=True
    )(drawn)
    return Estimate(values, pull(cotangents), metrics, value)
