"""A model of standardised data as a model of the data in their own units."""

import functools
from typing import Any

import jax.numpy as jnp

from vaejax.dists import diagonal_normal
from vaejax.dists.backend import Distribution
from vaejax.types import Array, Batch, Model, Params, as_batch, call, default_float, observed


def in_own_units(model: Model, mean: Any, scale: Any) -> Model:
    """p(x) of x = mean + scale · y from a model of y with a normal likelihood: N(mean + scale·μ(z), (scale·σ(z))²).

    Log-densities are those of x, Jacobian included; posteriors take x as it is; params are the model's own.

    Args:
        model: of y, its likelihood normal with independent entries.
        mean: ``[*event]``.
        scale: ``[*event]``, positive.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=2, latent_size=1, likelihood="normal")
        >>> grades = in_own_units(model, jnp.array([70.0, 5.0]), jnp.array([10.0, 0.5]))
        >>> params = grades.init(jax.random.key(0), jnp.array([[60.0, 5.0], [80.0, 5.5]]))
        >>> grades.likelihood(params, jnp.zeros((1, 1, 1))).mean().shape
        (1, 1, 2)
    """
    mean, scale = jnp.asarray(mean, default_float()), jnp.asarray(scale, default_float())

    def standardized(batch: Any) -> Batch:
        batch = as_batch(batch)
        # A missing entry must stay the 0 that the model takes for "missing".
        return batch._replace(x=observed(batch._replace(x=(observed(batch) - mean) / scale)))

    def init(key: Any, batch: Any = None) -> Params:
        return model.init(key, None if batch is None else standardized(batch))

    def posterior(params: Params, x: Array, context: Any = None, *, mask: Any = None, key: Any = None) -> Any:
        return call(model.posterior, params, standardized(Batch(x, mask=mask)).x, context=context, mask=mask, key=key)

    def likelihood(params: Params, z: Any, context: Any = None, *, key: Any = None) -> Distribution:
        inner = call(model.likelihood, params, z, context=context, key=key)
        loc, deviation = inner.mean(), jnp.sqrt(inner.variance())
        return diagonal_normal(mean + scale * loc, scale * deviation, event_ndims=mean.ndim)

    check = None if model.check is None else functools.partial(_check, model, standardized)
    return model._replace(init=init, posterior=posterior, likelihood=likelihood, check=check)


def _check(model: Model, standardized: Any, batch: Any) -> None:
    if model.check is not None:
        model.check(standardized(batch))
