"""What every estimator shares: the loss that averages over the batch, and a look at the posterior before training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.objectives import Objective, divergence
from vaejax.types import Array, Batch, Key, LogTerms, Model, Params, as_batch, call, observed


def weighted_mean(values: Array, weight: Array | None) -> Array:
    """(Σ_i weight_i · value_i) / B over the examples of ``values [*batch]``: the one place that averages."""
    return jnp.mean(values if weight is None else values * weight)


def loss(
    objective: Objective, terms: LogTerms, weight: Array | None, step: Any
) -> tuple[Array, tuple[Array, dict[str, Array]]]:
    """The loss to descend, with the objective per example and the metrics as auxiliary output.

    Raises:
        ValueError: where the objective does not give one value per example.
    """
    values = objective(terms, step=step)
    batch_shape = terms.log_likelihood.shape[1:]
    if jnp.shape(values) != batch_shape:
        raise ValueError(
            f"objective {objective.name} has shape {list(jnp.shape(values))}, wanted one value per example: [*batch] = {list(batch_shape)}"
        )
    if weight is not None and weight.shape != batch_shape:
        raise ValueError(
            f"batch.weight has shape {list(weight.shape)}, wanted one weight per example: [*batch] = {list(batch_shape)}"
        )
    mean = weighted_mean(values, weight)
    metrics = {
        "objective": mean,
        "log_likelihood": weighted_mean(jnp.mean(terms.log_likelihood, axis=0), weight),
        "kl": weighted_mean(divergence(terms), weight),
    }
    return -mean if objective.maximize else mean, (values, jax.lax.stop_gradient(metrics))


def check_model(model: Any) -> None:
    """Raises unless ``model`` is a `Model`."""
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a vaejax.Model, got {type(model).__name__}; build one with vaejax.models or vaejax.Model(init, posterior, …)"
        )


def peek_posterior(model: Model, params: Params, key: Key, batch: Any) -> tuple[Any, Any]:
    """The posterior object and its draws on abstract values: types and shapes can be read, numbers cannot."""
    seen = []

    def build(params: Params, batch: Batch) -> Any:
        posterior = call(model.posterior, params, observed(batch), context=batch.context, mask=batch.mask)
        seen.append(posterior)
        return posterior.sample_and_log_prob(seed=key, sample_shape=(1,))[0]

    latents = jax.eval_shape(build, params, as_batch(batch))
    return seen[0], latents


def check_init(model: Model, params: Params, key: Key, batch: Any) -> tuple[Any, Any]:
    """The checks that begin every estimator's ``init``; returns the posterior and its draws, abstractly."""
    checks.key(key)
    return peek_posterior(model, params, key, batch)


Terms = Callable[..., LogTerms]
