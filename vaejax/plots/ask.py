"""What the figures ask of p(x|z): its mean, its family and support, for bundled models and bare lambdas alike."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax.dists import Binomial
from vaejax.dists.backend import distrax
from vaejax.evaluate import encoding
from vaejax.evaluate.simulate import check_context
from vaejax.types import Batch, Model


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
