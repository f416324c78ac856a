"""What the figures ask of a model: posterior means, draws of the prior, and E[x|z], for bundled models and bare lambdas alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists import Binomial
from vaejax.dists.backend import distrax
from vaejax.evaluate.simulate import check_context
from vaejax.types import Array, Batch, Key, Model, Params, call, observed

_POSTERIOR_DRAWS = 256


def opened(model: Model, batch: Any, figure: str) -> Batch:
    """The batch on the device, checked as data of the model.

    Raises:
        TypeError, ValueError: from `checks.batch`, and for a batch without an axis of examples.
    """
    batch = jax.tree.map(jnp.asarray, checks.batch(batch, "batch", model))
    if batch.x.ndim < 2:
        raise ValueError(
            f"{figure} needs a batch [n, *event], got shape {list(batch.x.shape)}; add a leading axis of examples"
        )
    return batch


def table(model: Model, batch: Any, figure: str) -> Batch:
    """The batch on the device, checked as a table of the model's data.

    Raises:
        TypeError, ValueError: as `opened`, and for events of more axes than one.
    """
    batch = opened(model, batch, figure)
    if batch.x.ndim != 2:
        raise ValueError(
            f"{figure} draws tables [n, columns], got shape {list(batch.x.shape)}; for images use reconstructions or prior_samples"
        )
    return batch


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
            f"this figure needs latents in one array, got {type(z).__name__} of {len(jax.tree.leaves(z))}; "
            "draw a model of one of its layers"
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


def repeated(context: Any, count: int) -> Any:
    """A context of one row, ``count`` times.

    Raises:
        ValueError: for more rows than one.
    """
    context = check_context(context, 1, "the whole figure: it is drawn for one context")
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), context)


def centre(distribution: Any) -> tuple[np.ndarray, str]:
    """The mean ``[n, *event]`` of p(x|z) as `decode` gives it, or the mode of families without one (labels); and which it is."""
    try:
        return np.asarray(distribution.mean()[0]), "mean"
    except (AttributeError, NotImplementedError):
        return np.asarray(distribution.mode()[0]), "mode"


def expectation(distribution: Any) -> np.ndarray:
    """E[x|z] ``[n, *event]``; for labels 0, 1, … their mean as numbers, Σ k p_k.

    Raises:
        ValueError: for a family with neither.
    """
    base = base_of(distribution)
    if isinstance(base, distrax.Categorical):
        return np.asarray(jnp.sum(base.probs * jnp.arange(base.num_categories), -1)[0])
    try:
        return np.asarray(distribution.mean()[0])
    except (AttributeError, NotImplementedError):
        raise ValueError(
            f"p(x|z) is {type(base).__name__}, which knows no mean; give the distribution a mean() method"
        ) from None


def base_of(distribution: Any) -> Any:
    """The family of one entry under distrax's ``Independent``."""
    return base_of(distribution.distribution) if isinstance(distribution, distrax.Independent) else distribution


def support(distribution: Any) -> tuple[float, float] | None:
    """The smallest and largest value of x, where the family has both."""
    base = base_of(distribution)
    if isinstance(base, Binomial):
        return 0.0, float(base.total_count)
    if isinstance(base, distrax.Bernoulli):
        return 0.0, 1.0
    if isinstance(base, distrax.Categorical):
        return 0.0, float(base.num_categories - 1)
    return None
