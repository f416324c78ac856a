"""Real-valued data brought to mean 0 and standard deviation 1, and the Jacobian that brings log densities back."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.arrays import rounded_entries
from vaejax.data.datasets import Dataset
from vaejax.data.describe import constant_entries, counted_entries, describe, entry_moments
from vaejax.data.precision import entry_names, warn_of_rounding
from vaejax.types import Array, Batch, as_batch, default_float


class Scaling(NamedTuple):
    """x = x_standardised · scale + mean, for each entry of an example.

    Attributes:
        mean: ``[*event]`` float64: in float32 the mean of numbers far from 0 may be off by several standard deviations.
        scale: ``[*event]`` float64, positive.
    """

    mean: np.ndarray
    scale: np.ndarray


def standardize(dataset: Dataset) -> tuple[Dataset, Scaling]:
    """(x − mean) / sd of every entry, by the mean and standard deviation of its observed training values.

    Computes in float64 and returns float32. The mean and standard deviation are weighted. Examples
    of weight 0 are scaled too, but not checked. Missing entries stay 0 and masked. A log density of the standardised data is one
    of the original data after subtracting `log_scale_sum`.

    Raises:
        ValueError: data that are binary or grey levels; entries that never vary in train, by name: a density of a constant
            is infinite; values too far from the mean for float32.

    Warns:
        UserWarning: entries that lose more than 1 % of their distinct values in float32 even when standardized, such as two
            distant groups of values close to each other.

    Examples:
        >>> x = np.array([[1.0], [3.0]], np.float32)
        >>> standardised, scaling = standardize(Dataset(Batch(x), Batch(x), Batch(x + 1), None, None, "two"))
        >>> standardised.test.x.tolist(), scaling.mean.tolist(), scaling.scale.tolist()
        ([[0.0], [2.0]], [2.0], [1.0])
    """
    if dataset.levels is not None or describe(dataset).kind == "binary":
        kind = "grey levels" if dataset.levels is not None else "binary"
        raise ValueError(
            f"{dataset.name} is {kind}, and standardize is for real values; model it with likelihoods.bernoulli or binomial"
        )
    mean, deviation = entry_moments(dataset.train)
    scaling = Scaling(mean, deviation)
    constant = constant_entries(dataset.train) | (deviation.astype(np.float32) <= 0)
    if constant.any():
        raise ValueError(
            f"{dataset.name}: entries never vary in train: {entry_names(dataset.columns, constant)}; remove them: the density of a "
            "constant is infinite"
        )
    precise = [_scaled(part, scaling, dataset.name) for part in dataset[:3]]
    rounded = rounded_entries(precise[0].x, counted_entries(dataset.train), dtype=np.float32)
    remedy = (
        "replace values that stand for missing ones (missing=), or cut the column into groups of values near each other"
    )
    warn_of_rounding(f"{dataset.name}, standardized", dataset.columns, rounded, remedy)
    with np.errstate(over="ignore"):  # only examples of weight 0 may lie beyond float32
        train, validation, test = (part._replace(x=part.x.astype(np.float32)) for part in precise)
    return dataset._replace(train=train, validation=validation, test=test), scaling


def _scaled(batch: Batch, scaling: Scaling, name: str) -> Batch:
    with np.errstate(over="ignore"):  # checked below, unless the example has weight 0
        x = (np.asarray(batch.x, np.float64) - scaling.mean) / scaling.scale
    if batch.mask is not None:
        x = np.where(np.asarray(batch.mask), x, 0)
    counted = counted_entries(batch)
    if np.abs(x if counted is None else x[counted]).max(initial=0.0) > np.finfo(np.float32).max:
        raise ValueError(f"{name} holds values too many standard deviations from the mean for float32; remove them")
    return batch._replace(x=x)


def log_scale_sum(scaling: Scaling, batch: Any) -> Array:
    """``[*batch]``: Σ log scale over the observed entries of each example, in nats.

    log p(x in its own units) = log p(x standardised) − this sum.

    Args:
        scaling: of `standardize`.
        batch: ``[*batch, *event]``, an array or a `Batch`; only its shape and mask matter.

    Raises:
        ValueError: x does not end in the shape of the scaling.

    Examples:
        >>> log_scale_sum(Scaling(jnp.zeros(2), jnp.array([1.0, jnp.e])), jnp.zeros((3, 2)))
        Array([1., 1., 1.], dtype=float32)
    """
    batch = as_batch(batch)
    log_scale = jnp.log(jnp.asarray(scaling.scale, default_float()))
    checks.event_shape(batch.x, log_scale.shape)
    event_axes = tuple(range(batch.x.ndim - log_scale.ndim, batch.x.ndim))
    observed = jnp.ones(batch.x.shape, bool) if batch.mask is None else batch.mask
    return jnp.sum(jnp.where(observed, log_scale, 0), axis=event_axes)
