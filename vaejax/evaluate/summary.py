"""Means over examples that say where their uncertainty comes from."""

from typing import Any, NamedTuple

import numpy as np


class MeanEstimate(NamedTuple):
    """A mean over examples with its two errors told apart.

    Attributes:
        mean: the mean.
        standard_error: between examples, sd/√n: how the mean would move with another test set (Monte Carlo noise included).
        monte_carlo_error: of the sampling alone, √Σ se²/n: how it would move with other random numbers on these examples; NaN where it is
            not known.
        num_examples: how many.
    """

    mean: float
    standard_error: float
    monte_carlo_error: float
    num_examples: int

    def __str__(self) -> str:
        drawn = "" if np.isnan(self.monte_carlo_error) else f"; Monte Carlo ± {self.monte_carlo_error:.3f}"
        return f"{self.mean:.3f} ± {self.standard_error:.3f} (between {self.num_examples} examples{drawn})"


def mean_estimate(estimate: Any, standard_error: Any = None) -> MeanEstimate:
    """The mean of per-example estimates and both its errors.

    Args:
        estimate: ``[n]``, or a result that carries its own standard errors, such as `LogMarginal`.
        standard_error: ``[n]``, the Monte Carlo standard errors of the estimates.

    Raises:
        ValueError: where the two differ in shape, hold no examples, or have more than one axis (an ensemble's seeds are no examples).

    Examples:
        >>> import numpy as np
        >>> print(mean_estimate(np.array([-1.0, -3.0]), np.array([0.1, 0.1])))
        -2.000 ± 1.000 (between 2 examples; Monte Carlo ± 0.071)
    """
    if standard_error is None:
        estimate, standard_error = estimate.estimate, estimate.standard_error
    values, errors = np.asarray(estimate, np.float64), np.asarray(standard_error, np.float64)
    if values.shape != errors.shape or values.ndim != 1 or not values.size:
        raise ValueError(
            f"estimate and standard_error must both be [n], one number an example, got {list(values.shape)} and {list(errors.shape)}; "
            "summarise an ensemble seed by seed"
        )
    between = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")
    return MeanEstimate(float(values.mean()), between, float(np.sqrt((errors**2).sum()) / values.size), values.size)


def paired(first: Any, second: Any) -> MeanEstimate:
    """The mean of first − second over the same examples: what tells two models or estimates apart, whatever the spread between examples.

    Args:
        first: ``[n]``, or a result that carries its own standard errors, such as `LogMarginal`.
        second: of the same examples.

    Raises:
        ValueError: of other examples.

    Examples:
        >>> import numpy as np
        >>> print(paired(np.array([-1.0, -3.0, -9.0]), np.array([-2.0, -4.5, -10.5])))
        1.333 ± 0.167 (between 3 examples)
    """
    (a, a_error), (b, b_error) = (_with_error(result) for result in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"paired results must be of the same examples, got shapes {list(a.shape)} and {list(b.shape)}")
    return mean_estimate(a - b, np.hypot(a_error, b_error))


def jackknife(without: np.ndarray) -> Any:
    """Standard errors of statistics from their values without each example, or each of several equal groups, along the first axis.

    Examples:
        >>> import numpy as np
        >>> x = np.array([1.0, 2.0, 6.0])
        >>> float(jackknife((x.sum() - x) / 2) - x.std(ddof=1) / 3**0.5)
        0.0
    """
    count = len(without)
    return np.sqrt((count - 1) * np.mean((without - without.mean(axis=0)) ** 2, axis=0))


def _with_error(result: Any) -> tuple[np.ndarray, np.ndarray]:
    if hasattr(result, "estimate"):
        return np.asarray(result.estimate, np.float64), np.asarray(result.standard_error, np.float64)
    values = np.asarray(result, np.float64)
    return values, np.full(values.shape, np.nan)
