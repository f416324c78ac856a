"""What the figures ask of p(x|z): its mean, its family and support, for bundled models and bare lambdas alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.dists import Binomial
from vaejax.dists.backend import distrax
from vaejax.evaluate import encoding
from vaejax.evaluate.simulate import check_context, observations
from vaejax.types import Batch, Model, default_float

# Of a likelihood that has no mean.
_DRAWS = 64


def table(model: Model, batch: Any, figure: str) -> Batch:
    """The batch on the device, checked as a table of the model's data.

    Raises:
        TypeError, ValueError: as `encoding.opened`, and for events of more axes than one.
    """
    batch = encoding.opened(model, batch, figure)
    if batch.x.ndim != 2:
        raise ValueError(
            f"{figure} draws tables [n, columns], got shape {list(batch.x.shape)}; for images use reconstructions or prior_samples"
        )
    return batch


def repeated(context: Any, count: int) -> Any:
    """A context of one row, ``count`` times.

    Raises:
        ValueError: for more rows than one.
    """
    context = check_context(context, 1, "the whole figure: it is drawn for one context")
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), context)


def centre(distribution: Any) -> tuple[np.ndarray, str]:
    """Returns a typical x ``[n, *event]`` of p(x|z) as `decode` gives it, and the name of what it is.

    That is the mean, for families without one (labels) the mode, and for distributions that can only draw the mean of draws.
    """
    for name in ("mean", "mode"):
        try:
            return np.asarray(getattr(distribution, name)()[0]), name
        except (AttributeError, NotImplementedError):
            continue
    return _mean_of_draws(distribution), f"mean of {_DRAWS} draws"


def expectation(distribution: Any) -> np.ndarray:
    """E[x|z] ``[n, *event]``; for labels 0, 1, … their mean as numbers, Σ k p_k.

    A distribution that can only draw gives the mean of its draws.
    """
    base = base_of(distribution)
    if isinstance(base, distrax.Categorical):
        return np.asarray(jnp.sum(base.probs * jnp.arange(base.num_categories), -1)[0])
    try:
        return np.asarray(distribution.mean()[0])
    except (AttributeError, NotImplementedError):
        return _mean_of_draws(distribution)


def _mean_of_draws(distribution: Any) -> np.ndarray:
    # The same draws in every figure, so that figures can be compared.
    draws = observations(distribution, jax.random.key(0), (_DRAWS,))
    return np.asarray(jnp.mean(draws.astype(default_float()), axis=0)[0])


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
