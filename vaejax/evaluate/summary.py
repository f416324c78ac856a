"""Means over examples that say where their uncertainty comes from."""

from typing import Any, NamedTuple

import numpy as np


class MeanEstimate(NamedTuple):
    """A mean over examples with its two errors told apart.

    Weights w_i count rows, so that all of these are as if example i occurred w_i times, save the Monte Carlo error.

    Attributes:
        mean: the mean, Σ w_i v_i / Σ w_i.
        standard_error: between examples, sd/√n: how the mean would move with another test set (Monte Carlo noise included). With
            weights n = Σ w_i, and sd² = Σ w_i (v_i − mean)² / (n − 1): weights must be scaled so that their sum is the number of
            independent examples. NaN for n ≤ 1.
        monte_carlo_error: of the sampling alone, √Σ se²/n: how it would move with other random numbers on these examples; NaN where it is
            not known. With weights √Σ (w_i se_i)² / Σ w_i: an example of weight 2 has its noise twice, not two noises.
        num_examples: how many: the sum of the weights, an integer where they are.
    """

    mean: float
    standard_error: float
    monte_carlo_error: float
    num_examples: float

    def __str__(self) -> str:
        drawn = "" if np.isnan(self.monte_carlo_error) else f"; Monte Carlo ± {self.monte_carlo_error:.3f}"
        count = count_in_words(self.num_examples)
        return f"{self.mean:.3f} ± {self.standard_error:.3f} (between {count} examples{drawn})"


class Moments(NamedTuple):
    """Moments over the examples of ``[n, ...]``, weighted.

    Attributes:
        mean: ``[...]``.
        standard_error: ``[...]`` of the mean, between examples; NaN where the weights sum to 1 or less.
        total: the sum of the weights.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    total: float


def moments(values: Any, weight: Any = None) -> Moments:
    """Returns the mean over the leading axis and its standard error, as if example i occurred ``weight[i]`` times.

    Examples of weight 0 are not read.

    Examples:
        >>> import numpy as np
        >>> moments(np.array([1.0, 4.0, np.nan]), np.array([2, 1, 0])).mean == moments(np.array([1.0, 1.0, 4.0])).mean
        np.True_
    """
    values = np.asarray(values, np.float64)
    if weight is None:
        weight = np.ones(len(values))
    weight = np.asarray(weight, np.float64)
    values, weight = values[weight > 0], weight[weight > 0]
    total = float(weight.sum())
    share = weight.reshape(-1, *(1,) * (values.ndim - 1)) / (total or np.nan)
    mean = (share * values).sum(0)
    variance = (share * (values - mean) ** 2).sum(0) / (total - 1 if total > 1 else np.nan)
    return Moments(mean, np.sqrt(variance), whole(total))


def whole(total: float) -> float:
    """A sum of weights, as an integer where it is one."""
    return int(total) if float(total).is_integer() else float(total)


def count_in_words(total: float) -> str:
    """A sum of weights for print: all digits of an integer, one decimal otherwise."""
    return str(total) if isinstance(total, int) else f"{total:.1f}"


def representative_rows(num_examples: int, count: int, weight: Any = None) -> np.ndarray:
    """Returns ``count`` row numbers in which each example has its share: in turn, or with weights at even steps of their sum.

    Examples:
        >>> representative_rows(3, 4).tolist(), representative_rows(3, 4, [3, 0, 1]).tolist()
        ([0, 1, 2, 0], [0, 0, 0, 2])
    """
    if weight is None:
        return np.arange(count) % num_examples
    total = np.cumsum(np.asarray(weight, np.float64))
    return np.searchsorted(total, (np.arange(count) + 0.5) / count * total[-1], side="right")


def check_weight(weight: Any, count: int) -> np.ndarray | None:
    """Returns ``weight`` as ``[n]`` of float64, or None.

    Raises:
        ValueError: another shape; negative or non-finite weights; no positive one.
    """
    if weight is None:
        return None
    weight = np.asarray(weight, np.float64)
    if weight.shape != (count,):
        raise ValueError(f"weight must be [n], one number an example, got {list(weight.shape)} for n={count}")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and weight.any()):
        raise ValueError("weight must be finite and not negative, with at least one number above 0")
    return weight


def mean_estimate(estimate: Any, standard_error: Any = None, *, weight: Any = None) -> MeanEstimate:
    """The mean of per-example estimates and both its errors, weighted by the weights of the examples.

    Args:
        estimate: ``[n]``, or a result that carries its own standard errors and weights, such as `LogMarginal`.
        standard_error: ``[n]``, the Monte Carlo standard errors of the estimates; None where they are not known.
        weight: ``[n]`` as in `vaejax.Batch`; None takes those of the result. Functions that return an array, such as
            `exact_log_marginal`, leave the weights of the batch to be passed here.

    Raises:
        ValueError: where the three differ in shape, hold no examples, or have more than one axis (an ensemble's seeds are no examples).

    Examples:
        >>> import numpy as np
        >>> print(mean_estimate(np.array([-1.0, -3.0]), np.array([0.1, 0.1])))
        -2.000 ± 1.000 (between 2 examples; Monte Carlo ± 0.071)
        >>> print(mean_estimate(np.array([-1.0, -3.0]), weight=np.array([3, 1])))
        -1.500 ± 0.500 (between 4 examples)
    """
    values, errors, own_weight = _parts_of(estimate)
    if standard_error is not None:
        errors = np.asarray(standard_error, np.float64)
    if values.shape != errors.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            f"estimate and standard_error must both be [n], one number an example, got {list(values.shape)} and {list(errors.shape)}; "
            "summarise an ensemble seed by seed"
        )
    counts = check_weight(own_weight if weight is None else weight, values.size)
    found = moments(values, counts)
    counts = np.ones(values.size) if counts is None else counts
    error = np.sqrt(((counts * errors)[counts > 0] ** 2).sum()) / counts.sum()
    return MeanEstimate(float(found.mean), float(found.standard_error), float(error), found.total)


def paired(first: Any, second: Any, *, weight: Any = None) -> MeanEstimate:
    """The mean of first − second over the same examples: what tells two models or estimates apart, whatever the spread between examples.

    Args:
        first: ``[n]``, or a result that carries its own standard errors and weights, such as `LogMarginal`.
        second: of the same examples.
        weight: ``[n]`` as in `mean_estimate`; None takes those of the results.

    Raises:
        ValueError: of other examples, or of other weights.

    Examples:
        >>> import numpy as np
        >>> print(paired(np.array([-1.0, -3.0, -9.0]), np.array([-2.0, -4.5, -10.5])))
        1.333 ± 0.167 (between 3 examples)
    """
    (a, a_error, a_weight), (b, b_error, b_weight) = (_parts_of(result) for result in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"paired results must be of the same examples, got shapes {list(a.shape)} and {list(b.shape)}")
    weights = [w for w in (a_weight, b_weight) if w is not None]
    if weight is None and len(weights) == 2 and not np.array_equal(*weights):
        raise ValueError("paired results must be of examples of the same weights; pass weight= to choose")
    weight = weights[0] if weight is None and weights else weight
    return mean_estimate(a - b, np.hypot(a_error, b_error), weight=weight)


def jackknife(without: np.ndarray, weight: np.ndarray | None = None) -> Any:
    """Standard errors of statistics from their values without each example, or each of several equal groups, along the first axis.

    With weights, ``without[i]`` is the statistic without one of the ``weight[i]`` occurrences of example i.

    Examples:
        >>> import numpy as np
        >>> x = np.array([1.0, 2.0, 6.0])
        >>> float(jackknife((x.sum() - x) / 2) - x.std(ddof=1) / 3**0.5)
        0.0
    """
    if weight is None:
        count = len(without)
        return np.sqrt((count - 1) * np.mean((without - without.mean(axis=0)) ** 2, axis=0))
    share = weight / weight.sum()
    mean = np.tensordot(share, without, 1)
    return np.sqrt((weight.sum() - 1) * np.tensordot(share, (without - mean) ** 2, 1))


def _parts_of(result: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """The estimates of a result, their Monte Carlo errors, and the weights of its examples, or None."""
    if hasattr(result, "estimate"):
        weight = getattr(result, "weight", None)
        return np.asarray(result.estimate, np.float64), np.asarray(result.standard_error, np.float64), weight
    values = np.asarray(result, np.float64)
    return values, np.full(values.shape, np.nan), None
