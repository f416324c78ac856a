"""Data from the model itself: latents from the prior, and observations from the likelihood."""

from typing import Any

import jax
import numpy as np

from vaejax import checks
from vaejax.types import Array, Batch, Key, Model, Params, call, on_device


def check_context(context: Any, count: int, what: str) -> Any:
    """The context on the device, if each of its arrays leads with ``count`` rows.

    Raises:
        ValueError: where one does not.
    """
    for leaf in jax.tree.leaves(context):
        if np.ndim(leaf) < 1 or np.shape(leaf)[0] != count:
            raise ValueError(f"context must have {count} rows, one for {what}, got shape {list(np.shape(leaf))}")
    return on_device(context)


def prior_draws(model: Model, params: Params, key: Key, count: int, context: Any = None) -> Any:
    """``count`` draws z ~ p(z), or with a prior that depends on the context one for each of its ``count`` rows.

    Raises:
        ValueError: for a prior with a batch axis of another length.
    """
    checks.key(key)
    prior = call(model.prior, params, context=context)
    own = batch_shape_of(prior)
    if own not in ((), (count,)):
        wanted = f"a context of {count} rows" if context is not None else "context= of that many rows"
        raise ValueError(f"p(z) has batch shape {list(own)} where {count} draws are wanted; give {wanted}")
    return prior.sample_and_log_prob(seed=key, sample_shape=() if own else (count,))[0]


def simulate(model: Model, params: Params, key: Key, count: int, context: Any = None) -> tuple[Any, Batch]:
    """``count`` pairs z ~ p(z), x ~ p(x|z): each z is an exact draw from the posterior of its x.

    Args:
        model: the model; its encoder is not asked.
        params: its parameters.
        key: typed key.
        count: how many.
        context: leaves leading with ``count`` rows, for models that take one.

    Returns:
        The latents ``[count, *latent]`` and the data as a `Batch`.

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> z, batch = simulate(model, model.init(jax.random.key(0), None), jax.random.key(1), 5)
        >>> z.shape, batch.x.shape
        ((5, 2), (5, 4))
    """
    checks.positive_int(count, "count")
    context = check_context(context, count, "each pair")
    prior_key, likelihood_key = jax.random.split(key)
    z = prior_draws(model, params, prior_key, count, context)
    likelihood = call(model.likelihood, params, jax.tree.map(lambda leaf: leaf[None], z), context=context)
    return z, Batch(observations(likelihood, likelihood_key)[0], context)


def observations(likelihood: Any, key: Key, sample_shape: tuple[int, ...] = ()) -> Array:
    """Draws x ~ p(x|z), ``[*sample, 1, n, *event]``.

    Raises:
        TypeError: for a distribution that cannot draw.
    """
    if hasattr(likelihood, "sample"):
        return likelihood.sample(seed=key, sample_shape=sample_shape)
    if hasattr(likelihood, "sample_and_log_prob"):
        return likelihood.sample_and_log_prob(seed=key, sample_shape=sample_shape)[0]
    raise TypeError(
        f"the likelihood p(x|z) must be able to draw x, got {type(likelihood).__name__} without sample. "
        "Give it a method sample(seed=, sample_shape=)"
    )


def batch_shape_of(distribution: Any) -> tuple[int, ...]:
    """The batch axes of one draw, without drawing."""

    def log_prob(key: Key) -> Array:
        return distribution.sample_and_log_prob(seed=key, sample_shape=())[1]

    return jax.eval_shape(log_prob, jax.random.key(0)).shape
