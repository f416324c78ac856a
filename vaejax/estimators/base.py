"""What every estimator shares: the loss that averages over the batch, and a look at the posterior before training."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from vaejax import checks
from vaejax.dists import has_fixed_support, is_reparameterized
from vaejax.dists.chain import layers
from vaejax.dists.noise import KINDS as NOISE_KINDS
from vaejax.estimators.abstract import without_tracers
from vaejax.estimators.roles import by_roles, together
from vaejax.numerics import weighted_mean
from vaejax.objectives import Objective, divergence
from vaejax.types import Array, Batch, Estimate, Key, LogTerms, Model, Params, as_batch, call, observed

Terms = Callable[..., LogTerms]


def loss(
    objective: Objective, terms: LogTerms, weight: Array | None, step: Any
) -> tuple[Array, tuple[Array, dict[str, Array]]]:
    """The loss to descend, with the objective per example and the metrics as auxiliary output.

    Raises:
        ValueError: where the objective does not give one value per example.
    """
    batch_shape = terms.log_likelihood.shape[1:]
    check_weight(weight, batch_shape)
    values = objective(terms._replace(weight=weight), step=step)
    if jnp.shape(values) != batch_shape:
        raise ValueError(
            f"objective {objective.name} has shape {list(jnp.shape(values))}, wanted one value per example: [*batch] = {list(batch_shape)}"
        )
    metrics = batch_metrics(values, jnp.mean(terms.log_likelihood, axis=0), divergence(terms), weight)
    mean = metrics["objective"]
    return -mean if objective.maximize else mean, (values, jax.lax.stop_gradient(metrics))


def batch_metrics(objective: Array, log_likelihood: Array, kl: Array, weight: Array | None) -> dict[str, Array]:
    """The means of per-example values ``[*batch]``, weighted as the loss is, and the sum of the weights where there are any."""
    each = {"objective": objective, "log_likelihood": log_likelihood, "kl": kl}
    means = {name: weighted_mean(values, weight) for name, values in each.items()}
    return means if weight is None else means | {"weight": jnp.sum(weight.astype(objective.dtype))}


def gradient(
    objective: Objective,
    params: Params,
    batch: Batch,
    step: Any,
    draw: Callable[[Params], LogTerms],
    surrogate: Callable[[LogTerms], Array] | None = None,
) -> Estimate:
    """The gradient of the objective at the draws that ``draw(params)`` gives, plus that of ``surrogate(terms) -> [*batch]``.

    The surrogate is in the direction of the objective; its value does not count.
    """
    sign = -1 if objective.maximize else 1

    def loss_of(params: Params) -> Any:
        terms = draw(params)
        value, auxiliary = loss(objective, terms, batch.weight, step)
        if surrogate is not None:
            value = value + sign * weighted_mean(surrogate(terms), batch.weight)
        return value, auxiliary

    (_, (values, metrics)), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return Estimate(values, grads, metrics, sign * metrics["objective"])


def evaluated(
    terms: Terms, model: Model, params: Any, key: Key, batch: Batch, num_samples: int, *, kl: str | None = None
) -> LogTerms:
    """What ``terms`` gives in training mode; ``kl="none"`` holds for terms of one's own that know no such option too."""
    options = {} if kl is None else {"kl": kl}
    drawn = call(terms, model, params, key, batch, num_samples=num_samples, training=True, **options)
    # The loss adds the weights again: here the terms are differentiated, and weights may be integers.
    drawn = drawn._replace(weight=None)
    return drawn._replace(kl=None, kl_parts=None) if kl == "none" else drawn


def check_weight(weight: Array | None, batch_shape: tuple[int, ...]) -> None:
    """Raises for weights that are not one for each example."""
    if weight is not None and weight.shape != batch_shape:
        raise ValueError(
            f"batch.weight has shape {list(weight.shape)}, wanted one weight per example: [*batch] = {list(batch_shape)}"
        )


def check_model(model: Any) -> None:
    """Raises unless ``model`` is a `Model`."""
    if not isinstance(model, Model):
        raise TypeError(
            f"model must be a vaejax.Model, got {type(model).__name__}; build one with vaejax.models or vaejax.Model(init, posterior, …)"
        )


class Seen(NamedTuple):
    """A posterior on abstract values: types and shapes can be read, numbers cannot.

    Arrays are stand-ins of the right shape and type (`without_tracers`), so that no tracer outlives its trace.

    Attributes:
        posterior: itself, without its functions of traced arrays.
        latents: its draws.
        layers: in the order of the latents; one, where it is no chain.
        batch_ndims: how many axes the batch has.
    """

    posterior: Any
    latents: Any
    layers: list[Any]
    batch_ndims: int


def peek_posterior(model: Model, params: Params, key: Key, batch: Any, num_samples: int = 1) -> Seen:
    """The posterior as the model builds it for this batch, without computing anything."""
    seen: list[Any] = []

    def build(params: Params, batch: Batch) -> Any:
        posterior = call(model.posterior, params, observed(batch), context=batch.context, mask=batch.mask)
        latents, log_prob = posterior.sample_and_log_prob(seed=key, sample_shape=(num_samples,))
        seen.extend(without_tracers((posterior, [layer for layer, _ in layers(posterior, latents)])))
        return latents, log_prob

    latents, log_prob = jax.eval_shape(build, params, as_batch(batch))
    return Seen(seen[0], latents, seen[1], log_prob.ndim - 1)


def check_reparameterized(model: Model, params: Params, key: Key, batch: Any, noise: str = "independent") -> Any:
    """The checks that begin the ``init`` of a pathwise estimator; returns the posterior, abstractly.

    Raises:
        TypeError: for a raw key, and for a posterior whose draws are not differentiable or have no map from the noise wanted.
    """
    checks.key(key)
    posterior, latents, seen, _ = peek_posterior(model, params, key, batch)
    jumps = [layer for layer in seen if is_reparameterized(layer) is False]
    if jumps or not all(jnp.issubdtype(z.dtype, jnp.floating) for z in jax.tree.leaves(latents)):
        raise TypeError(
            f"posterior is {type((jumps or [posterior])[0]).__name__}, whose draws are not differentiable in its parameters, so "
            "pathwise gradients would be silently wrong; use a reparameterised posterior (vaejax.dists.diagonal_normal), or an "
            "estimator for discrete latents: enumerate_latents, disarm, rebar, vimco, … (vaejax.estimators.catalogue())"
        )
    unknown = [layer for layer in seen if is_reparameterized(layer) is None]
    if unknown:
        warnings.warn(
            f"whether draws of {type(unknown[0]).__name__} are differentiable in its parameters is not on record: if they are "
            "not, pathwise gradients are wrong. Set its attribute reparameterized to True or False",
            stacklevel=checks.outside(),
        )
    if noise != "independent":
        peek_posterior(by_roles(model, noise=noise), together(params), key, batch, num_samples=2)
    return posterior


def check_support(estimator: str, posterior: Any) -> None:
    """Raises for a posterior without log_prob, and for one whose score cannot be left out.

    The mean of the score is not zero where the support moves with the parameters.
    """
    checks.log_prob(posterior, estimator)
    if not has_fixed_support(posterior):
        raise TypeError(
            f"{estimator} leaves out the score, whose mean is not zero for {type(posterior).__name__}: its support depends on its "
            "parameters; use pathwise"
        )


def check_noise(noise: str, num_samples: int, chunk_size: int | None) -> None:
    """Raises for an unknown noise, a chunk size below 1, and antithetic draws that do not come in pairs."""
    checks.one_of(noise, "noise", NOISE_KINDS)
    if chunk_size is not None:
        checks.positive_int(chunk_size, "chunk_size")
    if noise == "antithetic" and (num_samples % 2 or (chunk_size or 2) % 2):
        chunks = "" if chunk_size is None else f", and chunk_size={chunk_size}"
        raise ValueError(
            f"antithetic draws come in pairs, so their number must be even, got num_samples={num_samples}{chunks}"
        )


def trial(
    estimator: str,
    objective: Objective,
    num_samples: int,
    way_out: str,
    errors: tuple[type[Exception], ...] = (ValueError, AttributeError, TypeError),
) -> None:
    """Refuses an objective that cannot be evaluated on K log-weights alone, by trying it on abstract ones."""
    shape = jax.ShapeDtypeStruct((num_samples, 1), jnp.float32)
    try:
        jax.eval_shape(lambda *terms: objective(LogTerms(*terms)), shape, shape, shape)
    except errors as error:
        refuse(estimator, objective, f"on K={num_samples} log-weights alone, {error}", way_out)


def trial_of_weights(estimator: str, objective: Objective, num_samples: int) -> None:
    """`trial` for an estimator that serves every objective: where the log-weights are all that it reads."""
    if objective.of_log_weights:
        trial(estimator, objective, num_samples, "change that option, or num_samples")


def refuse(estimator: str, objective: Objective, reason: str, way_out: str) -> NoReturn:
    """The error for a pair that is undefined or biased."""
    raise ValueError(f"{estimator} cannot serve the objective {objective.name}: {reason}; {way_out}")
