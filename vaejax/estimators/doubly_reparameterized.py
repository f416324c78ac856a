"""Doubly reparameterised gradients: the score inside an importance-weighted objective, reparameterised once more."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists import reparameterized_at
from vaejax.dists.chain import layers
from vaejax.estimators.base import (
    Terms,
    check_model,
    check_noise,
    check_reparameterized,
    check_support,
    evaluated,
    loss,
    refuse,
    trial,
)
from vaejax.estimators.chunks import bare, in_chunks
from vaejax.estimators.roles import Roles, by_roles, sticking, together
from vaejax.numerics import weighted_mean
from vaejax.objectives import Objective, as_objective
from vaejax.terms import log_terms
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
)

# Second derivatives are taken for as many draws at once as keep this many numbers per example.
_HESSIAN_BUDGET = 2**15


def doubly_reparameterized(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    prior: str = "score",
    noise: str = "independent",
    chunk_size: int | None = None,
    terms: Terms = log_terms,
) -> Estimator:
    """DReG for any objective F of the log-weights: unbiased, and zero for every draw where q is the exact posterior.

    The path through z_k has the weight c_k = ∂F/∂log w_k − ∂²F/∂(log w_k)² in place of ∂F/∂log w_k, and the score of the posterior is
    stopped; prior and likelihood keep ∂F/∂log w_k. IWAE gives c_k = w̃_k², Rényi α·w̃_k + (1−α)·w̃_k², the ELBO 1/K, which is
    `sticking_the_landing`. Params that both move the draws and shape the prior get the sum of what each role earns.

    The second derivatives cost K passes over the K log-weights of each example: little beside a decoder, but for K in the thousands
    a sum such as the TVO's takes seconds.

    Args:
        model: with a posterior whose draws are differentiable in its parameters, and whose support does not depend on them.
        objective: a smooth function of the log-weights alone (`objectives.Objective.of_log_weights`); the terms are built without
            a closed-form KL.
        num_samples: K, draws per example.
        prior: ``"score"`` leaves the gradient of log p(z) in the prior's parameters as it is; ``"reparameterized"`` writes it as a
            path through z = T(ε; prior) too (generalised DReG), which needs a location–scale prior
            (`vaejax.dists.reparameterized_at`), or layers of them (``conditionals[l](the layers before)``).
        noise: as in `pathwise`; other than independent only for means over draws, such as the ELBO.
        chunk_size: as in `pathwise`.
        terms: as in `pathwise`; must report ``latents``.

    Raises:
        ValueError: an objective that is not of the log-weights alone, or dependent draws under a logarithm.

    Source:
        Tucker et al. 2019, eqs. 6–8; Bauer & Mnih 2021, eqs. 8 and 11 (generalised).

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = doubly_reparameterized(model, vaejax.objectives.iwae, num_samples=8)
    """
    check_model(model)
    checked = as_objective(objective)
    checks.positive_int(num_samples, "num_samples")
    checks.one_of(prior, "prior", ("score", "reparameterized"))
    check_noise(noise, num_samples, chunk_size)
    if not checked.of_log_weights:
        refuse(
            "doubly_reparameterized",
            checked,
            "it is not declared a function of the log-weights alone (a closed-form KL, β ≠ 1, free bits, an adaptive partition)",
            "use pathwise, sticking_the_landing for an ELBO with β, or declare it with objectives.objective(of_log_weights=True)",
        )
    if noise != "independent" and not checked.averages_draws:
        refuse(
            "doubly_reparameterized",
            checked,
            f"its identity holds for independent draws only, and {noise} ones depend on each other",
            "use noise='independent', or pathwise",
        )
    trial("doubly_reparameterized", checked, num_samples, "use pathwise")
    parts = _Parts(model, checked, num_samples, prior, noise, chunk_size, terms)

    def init(params: Params, key: Key, batch: Any) -> EmptyState:
        check_support("doubly_reparameterized", check_reparameterized(model, params, key, batch, noise))
        if prior == "reparameterized":
            batch = as_batch(batch)
            z = jax.eval_shape(lambda p: _draw(parts, p, key, batch, 2), params)
            jax.eval_shape(functools.partial(_prior_path, parts, key=key, batch=batch), params, z, jnp.zeros(()), z)
        return EmptyState()

    def estimate(params: Params, state: Any, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, Any]:
        return _estimate(parts, params, key, as_batch(batch), step), state

    return Estimator(init, estimate, model.trainable, model.refresh)


class _Parts(NamedTuple):
    model: Model
    objective: Objective
    num_samples: int
    prior: str
    noise: str
    chunk_size: int | None
    terms: Terms


def _estimate(parts: _Parts, params: Params, key: Key, batch: Batch, step: Any) -> Estimate:
    objective = parts.objective
    drawn, pull = in_chunks(functools.partial(_linear, parts, params, batch), key, parts.num_samples, parts.chunk_size)
    cotangents, (values, metrics) = jax.grad(lambda d: loss(objective, d, batch.weight, step), has_aux=True)(drawn)
    first, second = derivatives(objective, drawn.log_weights, step)
    first, ratio = _safe_ratio(first, first - second)
    # What the loss gives each example, times the derivative in its log-weights.
    sign = -1 if objective.maximize else 1
    through = sign * first * jax.grad(lambda v: weighted_mean(v, batch.weight))(values)[None]
    # Each in its own precision: a prior without params may be wider than networks that are narrow on purpose.
    towards = [(s * through).astype(part.dtype) for s, part in zip((1, 1, -1), drawn)]
    grads = pull(LogTerms(*towards, *cotangents[3:]), ratio)
    return Estimate(values, grads, metrics, sign * metrics["objective"])


def _linear(parts: _Parts, params: Params, batch: Batch, key: Key, num_samples: int) -> Any:
    """Log-terms of some draws, and the pull of (their cotangents, c_k / ∂F/∂log w_k) back to the params."""

    def evaluate(decoder: Params, z: Any) -> LogTerms:
        kept = decoder if parts.prior == "score" else jax.lax.stop_gradient(decoder)
        roles = sticking(jax.lax.stop_gradient(params))._replace(prior=kept, likelihood=decoder)
        return bare(_log_terms(parts, by_roles(parts.model, given=z), roles, key, batch, num_samples))

    def penalty(params: Params) -> Array | None:
        model = by_roles(parts.model, noise=parts.noise)
        return _log_terms(parts, model, together(params), key, batch, num_samples).penalty

    z, pull_draw = jax.vjp(lambda p: _draw(parts, p, key, batch, num_samples), params)
    drawn, pull_terms = jax.vjp(evaluate, params, z)

    def pull(cotangents: LogTerms, ratio: Array) -> Params:
        of_penalty = cotangents.penalty
        if of_penalty is not None:
            cotangents = cotangents._replace(penalty=jnp.zeros_like(of_penalty))
        grads, through_z = pull_terms(cotangents)
        paths = [pull_draw(_scaled(ratio, through_z))[0]]
        if of_penalty is not None:
            # No part of the log-weights: its gradient is the plain one.
            paths.append(jax.vjp(penalty, params)[1](of_penalty)[0])
        if parts.prior == "reparameterized":
            rest = _scaled(1 - ratio, through_z)
            paths.append(_prior_path(parts, params, z, cotangents.log_prior, rest, key=key, batch=batch))
        return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), paths, grads)

    return drawn, pull


def _log_terms(parts: _Parts, model: Model, roles: Roles, key: Key, batch: Batch, num_samples: int) -> LogTerms:
    return evaluated(parts.terms, model, roles, key, batch, num_samples, kl="none")


def _draw(parts: _Parts, sample: Params, key: Key, batch: Batch, num_samples: int) -> Any:
    model = by_roles(parts.model, noise=parts.noise)
    latents = _log_terms(parts, model, sticking(sample), key, batch, num_samples).latents
    if latents is None:
        raise ValueError("doubly_reparameterized needs terms that report their latents, as vaejax.log_terms does")
    return latents


def derivatives(objective: Objective, log_weights: Array, step: Any = 0) -> tuple[Array, Array]:
    """∂F/∂log w_k and ∂²F/∂(log w_k)² of an objective of the log-weights, each ``[K, *batch]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from vaejax.objectives import as_objective, iwae
        >>> first, second = derivatives(as_objective(iwae), jnp.log(jnp.array([[1.0], [3.0]])))
        >>> first[:, 0].round(4).tolist(), (first - second)[:, 0].round(4).tolist()
        ([0.25, 0.75], [0.0625, 0.5625])
    """

    def total(log_weights: Array) -> Array:
        zeros = jnp.zeros_like(log_weights)
        return jnp.sum(objective(LogTerms(log_weights, zeros, zeros), step=step))

    if objective.averages_draws:
        return jax.grad(total)(log_weights), jnp.zeros_like(log_weights)
    first, second_along = jax.linearize(jax.grad(total), log_weights)
    count = log_weights.shape[0]

    def diagonal(k: Array) -> Array:
        # Examples do not mix, so one direction serves all of them.
        direction = (jnp.arange(count) == k).astype(log_weights.dtype).reshape(-1, *(1,) * (log_weights.ndim - 1))
        return second_along(jnp.broadcast_to(direction, log_weights.shape))[k]

    return first, jax.lax.map(diagonal, jnp.arange(count), batch_size=max(1, min(count, _HESSIAN_BUDGET // count)))


def _safe_ratio(first: Array, encoder: Array) -> tuple[Array, Array]:
    """The derivative, moved off 0, and what the path through z_k must be multiplied by to weigh c_k instead of it."""
    tiny = jnp.asarray(1e-30, first.dtype)
    first = jnp.where(jnp.abs(first) < tiny, tiny, first)
    return first, encoder / first


def _scaled(factor: Array, tree: Any) -> Any:
    """Each leaf ``[K, *batch, *event]`` times ``[K, *batch]``."""

    def scaled(leaf: Array) -> Array:
        return (factor.reshape(*factor.shape, *(1,) * (leaf.ndim - factor.ndim)) * leaf).astype(leaf.dtype)

    return jax.tree.map(scaled, tree)


def _distributions(parts: _Parts, params: Params, z: Any, key: Key, batch: Batch) -> tuple[list[tuple[Any, Any]], Any]:
    """Each layer of the prior given those before it, with that layer's draws; and the posterior: as the terms build them."""
    seen = {}

    def recording(name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def recorded(*args: Any, **options: Any) -> Any:
            seen[name] = function(*args, **options)
            return seen[name]

        return recorded

    model = by_roles(parts.model, given=z)
    model = model._replace(prior=recording("prior", model.prior), posterior=recording("posterior", model.posterior))
    _log_terms(parts, model, together(params), key, batch, len(jax.tree.leaves(z)[0]))
    return layers(seen["prior"], z), seen["posterior"]


def _prior_path(
    parts: _Parts, params: Params, z: Any, share: Array, through_weights: Any, *, key: Key, batch: Batch
) -> Params:
    """What the prior's params earn as a path: Σ_k [∂²F ∂log w_k/∂z + ∂F ∂(log q − log p)/∂z] ∂T(ε_k; params)."""
    z, stopped, share = jax.lax.stop_gradient((z, params, share))

    def values(params: Params) -> list[Any]:
        return [reparameterized_at(*layer) for layer in _distributions(parts, params, z, key, batch)[0]]

    seen, posterior = _distributions(parts, stopped, z, key, batch)
    of_posterior = jax.grad(lambda z: jnp.sum(share * posterior.log_prob(z)))(z)
    of_layers = [jax.grad(lambda v, p=p: jnp.sum(share * p.log_prob(v)))(value) for p, value in seen]
    # A single layer is a bare array, several are a tuple: the leaves are the layers in either case.
    path = jax.tree.leaves(jax.tree.map(jnp.add, through_weights, of_posterior))
    return jax.vjp(values, params)[1]([jnp.subtract(a, b) for a, b in zip(path, of_layers)])[0]
