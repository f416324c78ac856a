"""Codes beside known factors: their checks, their standardisation, and the two scores that are counts alone, MIG and modularity."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import xlogy

from vaejax import checks
from vaejax.evaluate.summary import jackknife

# Nats below which mutual information is rounding.
_NOTHING = 1e-9


class FactorScore(NamedTuple):
    """A score of a code, its uncertainty and its parts; what each of them is, the function that gave it says.

    Attributes:
        value: the score.
        standard_error: of the value.
        parts: ``[F]``, by factor; of DCI's disentanglement and of modularity ``[D]``, by latent dimension.
        parts_standard_error: of the parts.
        matrix: what the score was read from, ``[D, F]`` (β-VAE score: ``[F, F]``).
    """

    value: float
    standard_error: float
    parts: np.ndarray
    parts_standard_error: np.ndarray
    matrix: np.ndarray

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.standard_error:.3f}"


class Labelled(NamedTuple):
    """Codes and factors after their checks.

    Attributes:
        codes: ``[n, D]`` float64, each dimension with mean 0 and standard deviation 1, or 0 throughout where it is constant.
        factors: ``[n, F]`` classes 0, 1, …, each of which occurs.
        alive: ``[D]``, False for the constant dimensions.
    """

    codes: np.ndarray
    factors: np.ndarray
    alive: np.ndarray


def mig(codes: Any, factors: Any, *, num_bins: int = 20) -> FactorScore:
    """The mutual information gap: how much more a factor's best latent dimension says of it than the second best.

    (1/F) Σ_k (I(z_a; v_k) − I(z_b; v_k)) / H(v_k), a and b the two dimensions that say most of v_k. A dimension is cut into ``num_bins``
    bins of equal width between its extremes; I and H are those of the counts, so that I is too large by about
    (bins − 1)(classes − 1) / 2n for a dimension that says nothing. With a single dimension the second best says nothing.

    Args:
        codes: ``[n, D]`` real, such as posterior means.
        factors: ``[n, F]`` integer classes.
        num_bins: bins of a dimension.

    Returns:
        `FactorScore`: 0 where two dimensions say equally much, 1 where one says everything and no other anything. Parts by factor; matrix
        ``[D, F]`` of I(z_j; v_k), nats. Standard errors by the jackknife over examples, bins as they are; where the second best is
        tied with the best or the third, they are rough.

    Raises:
        TypeError, ValueError: codes or factors that do not fit; see `vaejax.evaluate.disentanglement_report`.

    Source:
        Chen, Li, Grosse & Duvenaud 2018, section 4 (there with the information in samples of q(z|x)).

    Examples:
        >>> factors = np.indices((4, 3)).reshape(2, -1).T
        >>> print(mig(factors.astype(float), factors), mig(np.zeros((12, 2)), factors))
        1.000 ± 0.000 0.000 ± 0.000
    """
    data, bins = _binned(codes, factors, num_bins, min_factors=1)
    parts, without, information = [], [], []
    for factor in data.factors.T:
        found = [_information(column, factor) for column in bins.T]
        information.append([total for total, _ in found])
        entropy, entropies = _information(factor, factor)
        parts.append(_gap(np.array(information[-1])) / entropy)
        # A factor that is constant without one example has nothing to say of then.
        gaps = _gap(np.stack([each for _, each in found], axis=1))
        without.append(np.divide(gaps, entropies, out=np.zeros_like(gaps), where=entropies > _NOTHING))
    each = np.stack(without, axis=1)
    error, errors = jackknife(each.mean(axis=1)), jackknife(each)
    return FactorScore(float(np.mean(parts)), float(error), np.array(parts), errors, np.array(information).T)


def modularity(codes: Any, factors: Any, *, num_bins: int = 20) -> FactorScore:
    """How far each latent dimension has information about one factor only.

    The mean over dimensions of 1 − Σ_{k≠a} I(z_j; v_k)² / (I(z_j; v_a)² (F − 1)), a the factor of which z_j says most; I as in `mig`.
    Dimensions that say nothing at all are left out of the mean, and have part 0; if none says anything, the score is 0.

    Args:
        codes: ``[n, D]`` real, such as posterior means.
        factors: ``[n, F]`` integer classes, F ≥ 2.
        num_bins: bins of a dimension.

    Returns:
        `FactorScore`: 0 where every dimension says equally much of all factors, 1 where each speaks of one. Parts by dimension; matrix
        ``[D, F]`` of I(z_j; v_k), nats. Standard errors by the jackknife over examples, bins as they are; too large, up to about twice in
        simulations, where dimensions say next to nothing.

    Raises:
        TypeError, ValueError: codes or factors that do not fit; see `vaejax.evaluate.disentanglement_report`.

    Source:
        Ridgeway & Mozer 2018.

    Examples:
        >>> factors = np.indices((4, 3)).reshape(2, -1).T
        >>> print(modularity(np.hstack([factors, factors]).astype(float), factors))
        1.000 ± 0.000
    """
    data, bins = _binned(codes, factors, num_bins, min_factors=2)
    found = [[_information(column, factor) for factor in data.factors.T] for column in bins.T]
    information = np.array([[total for total, _ in row] for row in found])
    without = np.stack([_modular(np.stack([each for _, each in row], axis=1)) for row in found], axis=1)
    parts, speaks = _modular(information), information.max(axis=1) > _NOTHING
    if not speaks.any():
        return FactorScore(0.0, 0.0, parts, np.zeros(len(parts)), information)
    error = jackknife(without[:, speaks].mean(axis=1))
    return FactorScore(float(parts[speaks].mean()), float(error), parts, jackknife(without), information)


def opened(codes: Any, factors: Any, *, min_factors: int = 1) -> Labelled:
    """Codes and factors on the host, checked and standardised: every score is indifferent to the scale of a dimension.

    Raises:
        TypeError: no arrays, traced ones, codes that are no real numbers, factors that are no integers.
        ValueError: shapes other than ``[n, D]`` and ``[n, F]``, NaN, fewer factors than the score compares, a factor that never varies
            or of which no two examples share a value.
    """
    for value, name in ((codes, "codes"), (factors, "factors")):
        if not (hasattr(value, "dtype") and hasattr(value, "ndim")):
            raise TypeError(f"{name} must be an array, got {type(value).__name__}; convert it with numpy.asarray")
    if not checks.is_concrete(codes, factors):
        raise TypeError(
            "codes and factors are counted on the host and cannot be traced; call this outside jit and vmap"
        )
    if not (jnp.issubdtype(codes.dtype, jnp.floating) or _whole(codes.dtype)):
        raise TypeError(f"codes must hold real numbers, got dtype {codes.dtype}; take posterior means of the latents")
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or 0 in (*codes.shape, factors.shape[1]):
        raise ValueError(
            f"codes must be [n, D] and factors [n, F], got {list(codes.shape)} and {list(factors.shape)}; flatten latents with "
            "codes.reshape(len(codes), -1), make a single factor a column with factors[:, None]"
        )
    if not _whole(factors.dtype):
        raise TypeError(
            f"factors must be classes, integers 0, 1, …, got dtype {factors.dtype}; code the values of a column with "
            "numpy.unique(column, return_inverse=True)[1], and bin a continuous factor first"
        )
    checks.finite(codes, "codes", remedy="remove them")
    if factors.shape[1] < min_factors:
        raise ValueError(
            f"this score compares factors and needs at least {min_factors}, got {factors.shape[1]}; mig and sap serve a single one"
        )
    standardised, alive = _standardised(codes)
    return Labelled(standardised, _classes(np.asarray(factors)), alive)


def folds(rng: np.random.Generator, count: int, num_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The examples to fit to and those held out, for each of ``num_folds`` parts of a random permutation.

    Raises:
        ValueError: fewer than two folds, or than two examples in each.
    """
    checks.positive_int(num_folds, "num_folds")
    if num_folds < 2 or count < 2 * num_folds:
        raise ValueError(
            f"num_folds must be at least 2 with two examples in each, got {num_folds} for {count} examples; take fewer, or more examples"
        )
    parts = np.array_split(rng.permutation(count), num_folds)
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), part) for i, part in enumerate(parts)]


def _whole(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def _classes(factors: np.ndarray) -> np.ndarray:
    """Each column coded 0, 1, … in the order of its values."""
    coded = np.empty(factors.shape, np.int64)
    for k, column in enumerate(factors.T):
        values, coded[:, k] = np.unique(column, return_inverse=True)
        if len(values) < 2:
            raise ValueError(
                f"factor {k} never varies (it is always {values[0]}); leave it out: numpy.delete(factors, {k}, axis=1)"
            )
        if len(values) == len(column):
            raise ValueError(
                f"factor {k} has another value in each of the {len(column)} examples; bin it into classes that examples share"
            )
    return coded


def _standardised(codes: Any) -> tuple[np.ndarray, np.ndarray]:
    rounding = 4 * float(jnp.finfo(codes.dtype).eps) if jnp.issubdtype(codes.dtype, jnp.floating) else 0.0
    values = np.asarray(codes).astype(np.float64)
    # By the largest first: squares of anything that float64 holds then neither overflow nor vanish.
    largest = np.abs(values).max(axis=0)
    values = values / np.where(largest > 0, largest, 1)
    alive = np.ptp(values, axis=0) > rounding
    values = np.where(alive, values - values.mean(axis=0), 0.0)
    return values / np.where(alive, values.std(axis=0), 1), alive


def _binned(codes: Any, factors: Any, num_bins: int, min_factors: int) -> tuple[Labelled, np.ndarray]:
    """The bin ``[n, D]`` of each entry."""
    if checks.positive_int(num_bins, "num_bins") < 2:
        raise ValueError("num_bins must be at least 2, got 1: a single bin says nothing; 20 is usual")
    data = opened(codes, factors, min_factors=min_factors)
    low, width = data.codes.min(axis=0), np.ptp(data.codes, axis=0)
    place = (data.codes - low) / np.where(data.alive, width, 1)
    return data, np.minimum((place * num_bins).astype(np.int64), num_bins - 1)


def _information(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Mutual information of two columns of classes, nats: of all examples, and ``[n]`` without each of them."""
    count = len(a)
    joint = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1)).reshape(a.max() + 1, -1)
    tables = (joint, joint.sum(axis=1), joint.sum(axis=0))
    # count · I − count · log count, and what an example's own cells have to do with it.
    total = xlogy(joint, joint).sum() - sum(xlogy(table, table).sum() for table in tables[1:])
    drops = [xlogy(table, table) - xlogy(table - 1, np.maximum(table - 1, 1)) for table in tables]
    without = (total - drops[0][a, b] + drops[1][a] + drops[2][b]) / (count - 1) + np.log(count - 1)
    return max(float(total / count + np.log(count)), 0.0), np.maximum(without, 0.0)


def _gap(information: np.ndarray) -> np.ndarray:
    """The largest along the last axis less the second largest, which is 0 where there is none."""
    if information.shape[-1] == 1:
        return information[..., 0]
    best = np.partition(information, -2, axis=-1)
    return best[..., -1] - best[..., -2]


def _modular(information: np.ndarray) -> np.ndarray:
    """1 − Σ of the squares of all but the largest along the last axis, over F − 1 times its square."""
    squares = np.square(information)
    largest = squares.max(axis=-1)
    share = (squares.sum(axis=-1) - largest) / np.where(largest > _NOTHING**2, largest, 1) / (squares.shape[-1] - 1)
    return np.where(largest > _NOTHING**2, 1 - share, 0.0)
