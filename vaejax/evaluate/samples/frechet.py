"""Fréchet distance between Gaussians fitted to two sets of examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vaejax.evaluate.samples.feature_space import FeatureSet, feature_pair
from vaejax.evaluate.summary import count_in_words, jackknife

_GROUPS = 10


class FrechetDistance(NamedTuple):
    """A squared Fréchet distance in the units of the features squared.

    Attributes:
        value: of the two sets as they are: biased upwards, the more so the fewer examples and the more features.
        standard_error: by a jackknife over ten groups of either set: how the value would move with other examples (too large where the sets
            differ little); it knows nothing of the bias.
        floor: the distance between two random halves of ``a``, which differ by chance alone. Halves are smaller: where n and m are well
            above d, chance alone makes of the value some (1/n + 1/m) / (4/n) of it, half of it for n = m. A value far below that
            says that the sets share examples.
        num_examples: n and m; of sets with weights, their sums.
    """

    value: float
    standard_error: float
    floor: float
    num_examples: tuple[float, float]

    def __str__(self) -> str:
        n, m = map(count_in_words, self.num_examples)
        return f"{self.value:.4g} ± {self.standard_error:.2g} ({n} against {m} examples; two halves of the first: {self.floor:.4g})"


def frechet_distance(a: Any, b: Any, *, features: Callable | None = None) -> FrechetDistance:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^{1/2}), of the means and covariances of two sets of examples.

    It compares the first two moments only, in a feature space that decides what counts. (Inception features make it the FID; numbers from
    other features, preprocessing or numbers of examples cannot be compared with published ones.) Lower is better.

    The trace of the root is the sum of the singular values of R_a R_bᵀ, where R are the triangular factors of the centred examples:
    no covariance is formed, and singular ones (n ≤ d) are no special case.

    Args:
        a: the reference, such as held-out data, ``[n, *event]``; a `Batch` may carry weights, which enter the moments.
        b: the samples ``[m, *event]``, likewise.
        features: ``[k, *event] -> [k, d]``, called on blocks of examples, each of which it treats on its own; None flattens.

    Returns:
        `FrechetDistance`.

    Raises:
        TypeError, ValueError: no arrays of real numbers; NaN; events or features that differ; fewer than four examples.

    Source:
        Dowson & Landau 1982; Heusel et al. 2017, eq. 6.

    Examples:
        >>> import numpy as np
        >>> a = np.random.default_rng(0).normal(size=(100, 3))
        >>> round(frechet_distance(a, a + 2.0).value, 6)
        12.0
    """
    sets = feature_pair(a, b, features, minimum=4)
    # Fixed: the number must be the same each time, and not depend on the order in which classes were stored.
    orders = [np.random.default_rng(0).permutation(len(s.x)) for s in sets]
    a, b = (FeatureSet(s.x[order], s.weight[order]) for s, order in zip(sets, orders))
    fits = [_fitted(s.x, s.weight) for s in (a, b)]
    left_out = [_without_groups(a.x, fits[0], fits[1], a.weight), _without_groups(b.x, fits[1], fits[0], b.weight)]
    # Whole rows are left out, and occurrences of a row are independent examples: hence fewer of them, in the mean of the weights.
    errors = [
        jackknife(np.array(distances)) * np.sqrt(s.weight.sum() / (s.weight**2).sum())
        for distances, s in zip(left_out, (a, b))
    ]
    halves = (_fitted(a.x[first::2], a.weight[first::2]) for first in (0, 1))
    return FrechetDistance(_distance(*fits), float(np.hypot(*errors)), _distance(*halves), (a.total, b.total))


class _Gaussian(NamedTuple):
    """A mean ``[d]``, and R ``[min(n, d), d]`` with RᵀR the covariance."""

    mean: np.ndarray
    root: np.ndarray


def _fitted(x: np.ndarray, weight: np.ndarray | None = None) -> _Gaussian:
    weight = np.ones(len(x)) if weight is None else weight
    mean = weight @ x / weight.sum()
    roots = np.sqrt(weight / (weight.sum() - 1))[:, None]
    return _Gaussian(mean, np.asarray(np.linalg.qr(roots * (x - mean), mode="r")))


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    value = ((a.mean - b.mean) ** 2).sum() + (a.root**2).sum() + (b.root**2).sum() - 2 * cross
    return max(float(value), 0.0)


def _without_groups(x: np.ndarray, own: _Gaussian, other: _Gaussian, weight: np.ndarray | None = None) -> list[float]:
    """The distance of ``x`` without each of its groups in turn; one eigenvalue problem each, by differences of sums."""
    weight = np.ones(len(x)) if weight is None else weight
    groups = min(_GROUPS, len(x))
    # Rows times the roots of their weights: squares and products of these are weighted.
    roots = np.sqrt(weight)[:, None]
    centred = roots * (x - own.mean)
    norms = (centred**2).sum(1)
    # tr (Σ_x Σ)^{1/2} is the sum of the roots of the eigenvalues of R Σ_x Rᵀ.
    across = centred @ other.root.T
    total, scale = across.T @ across, (other.root**2).sum()
    found = []
    for group in range(groups):
        out = np.arange(len(x)) % groups == group
        rest = weight.sum() - weight[out].sum()
        shift, moved = (-(roots[out] * values[out]).sum(0) / rest for values in (centred, across))
        product = (total - across[out].T @ across[out] - rest * np.outer(moved, moved)) / (rest - 1)
        cross = np.sqrt(np.maximum(np.linalg.eigvalsh(product), 0.0)).sum()
        trace = (norms.sum() - norms[out].sum() - rest * (shift**2).sum()) / (rest - 1)
        found.append(float(((own.mean + shift - other.mean) ** 2).sum() + trace + scale - 2 * cross))
    return found
