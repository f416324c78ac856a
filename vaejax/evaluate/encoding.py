"""What evaluation and figures ask of a model at given data or latents, for bundled models and bare lambdas alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.types import Array, Batch, Key, Model, Params, call, observed, on_device

_POSTERIOR_DRAWS = 256


def opened(model: Model, batch: Any, what: str) -> Batch:
    """The batch on the device, checked as data of the model.

    Raises:
        TypeError, ValueError: from `checks.batch`, and for a batch without an axis of examples.
    """
    batch = on_device(checks.batch(batch, "batch", model))
    if batch.x.ndim < 2:
        raise ValueError(
            f"{what} needs a batch [n, *event], got shape {list(batch.x.shape)}; add a leading axis of examples"
        )
    return batch


def alone(example: Any) -> Any:
    """An example, a `Batch` or any pytree, as a batch of one."""
    return jax.tree.map(lambda leaf: leaf[None], example)


def encode(model: Model, params: Params, batch: Batch) -> Any:
    """q(z|x) for every example."""
    return call(model.posterior, params, observed(batch), context=batch.context, mask=batch.mask)


def posterior_mean(posterior: Any, key: Key | None) -> Array:
    """E[z|x] ``[n, *latent]``, over 256 draws where the family knows no mean.

    Raises:
        ValueError: for latents in more than one array; no mean and no key.
    """
    try:
        mean = posterior.mean()
    except (AttributeError, NotImplementedError):
        if key is None:
            raise ValueError(
                f"{type(posterior).__name__} knows no mean; give key=jax.random.key(seed) to average "
                f"{_POSTERIOR_DRAWS} draws of z"
            ) from None
        checks.key(key)
        draws = posterior.sample_and_log_prob(seed=key, sample_shape=(_POSTERIOR_DRAWS,))[0]
        mean = jax.tree.map(lambda z: jnp.mean(jnp.asarray(z, float), axis=0), draws)
    return one_array(mean)


def one_array(z: Any) -> Array:
    """``z``, if the latents are one array.

    Raises:
        ValueError: for a tuple, a dict, … of them.
    """
    if not hasattr(z, "shape"):
        raise ValueError(
            f"this needs latents in one array, got {type(z).__name__} of {len(jax.tree.leaves(z))}; "
            "ask for a model of one of its layers"
        )
    return z


def latent_shape(model: Model, params: Params, context: Any) -> tuple[int, ...]:
    """The event shape of z."""
    prior = call(model.prior, params, context=context)
    draw = jax.eval_shape(lambda k: prior.sample_and_log_prob(seed=k, sample_shape=()), jax.random.key(0))
    return one_array(draw[0]).shape[len(draw[1].shape) :]


def decode(model: Model, params: Params, z: Any, *, context: Any = None, mask: Any = None) -> Any:
    """p(x|z) for z ``[n, *latent]``, its own leading axis a single sample: ``[1, n]``."""
    return call(model.likelihood, params, jax.tree.map(lambda leaf: leaf[None], z), context=context, mask=mask)


def refuse_nan(values: np.ndarray, name: str) -> None:
    """Raises where the model itself gives NaN."""
    bad = np.isnan(values)
    if bad.any():
        raise ValueError(
            f"the model gives NaN for {int(bad.sum())} of {bad.size} values of {name}: a scale of 0, or parameters that diverged in "
            "training; look at model.posterior(params, x)"
        )
