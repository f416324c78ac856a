"""The scores that are held-out accuracies: SAP, and the two that tell which factor examples share, of β-VAE and FactorVAE."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import LinAlgWarning

from vaejax import checks
from vaejax.evaluate.disentanglement.factors import FactorScore, Labelled, folds, opened
from vaejax.evaluate.randomness import generator
from vaejax.types import Key

# Entries of differences held at once.
_ENTRIES = 2**22


class _Groups(NamedTuple):
    """Examples by their value of one factor, those without a companion left out: value by value in ``rows``."""

    rows: np.ndarray
    start: np.ndarray  # of its group, for each place in rows
    size: np.ndarray


def sap(codes: Any, factors: Any, key: Key, *, test_fraction: float = 0.25) -> FactorScore:
    """The separated attribute predictability: how much better a factor's best latent dimension tells it than the second best.

    (1/F) Σ_k (S_ak − S_bk), S_jk the held-out accuracy with which multinomial logistic regression (little penalised: thresholds on the
    line) tells the classes of v_k from z_j alone, a and b the best two. A constant dimension, and the second best where there is a
    single one, guess the commonest class.

    Args:
        codes: ``[n, D]`` real, such as posterior means.
        factors: ``[n, F]`` integer classes.
        key: typed key, of the split.
        test_fraction: of the examples, held out at random.

    Returns:
        `FactorScore`: 0 where two dimensions tell equally much, 1 − 1/C_k where one tells everything, the others nothing, of C_k
        even classes. Parts by factor; matrix ``[D, F]`` of S. Standard errors between the held-out examples, of the paired difference:
        given the classifiers, and given which are the best two.

    Raises:
        TypeError, ValueError: codes or factors that do not fit (see `disentanglement_report`); fewer than two examples on either side.

    Source:
        Kumar, Sattigeri & Balakrishnan 2018, section 3 (there with thresholds that are best for balanced accuracy).

    Examples:
        >>> import jax
        >>> factors = np.indices((4, 3, 4)).reshape(3, -1).T
        >>> sap(factors.astype(float), factors, jax.random.key(0)).matrix.diagonal().tolist()
        [1.0, 1.0, 1.0]
    """
    data, rng = opened(codes, factors), generator(key)
    checks.real(test_fraction, "test_fraction", minimum=0.0, maximum=1.0)
    order, held = rng.permutation(len(data.codes)), round(test_fraction * len(data.codes))
    test, train = order[:held], order[held:]
    if min(len(test), len(train)) < 2:
        raise ValueError(
            f"test_fraction={test_fraction:g} of {len(order)} examples leaves {len(train)} to fit to and {len(test)} held out, wanted two "
            "of each; give more examples or another fraction"
        )
    gaps, table = [], []
    for factor in data.factors.T:
        commonest = factor[test] == np.bincount(factor[train]).argmax()
        right = [_told(z, factor, train, test) if alive else commonest for z, alive in zip(data.codes.T, data.alive)]
        accuracy = np.mean(right, axis=1)
        first, *others = np.argsort(-accuracy, kind="stable")
        gaps.append(right[first].astype(float) - (right[others[0]] if others else commonest))
        table.append(accuracy)
    return mean_score(np.stack(gaps, axis=1), np.stack(table, axis=1))


def beta_vae_score(
    codes: Any, factors: Any, key: Key, *, num_pairs: int = 64, num_votes: int = 1000, num_folds: int = 5
) -> FactorScore:
    """How well a linear classifier tells which factor pairs of examples share.

    For a vote a factor is fixed, ``num_pairs`` pairs of different examples that share its value are drawn, and the absolute differences of
    their codes are averaged: ``[D]``. Multinomial logistic regression learns the factor from such averages; its accuracy on new votes is
    the score. Each fold of the examples is held out in turn, so that the new votes come from examples that the classifier has not seen.
    Pairs are drawn from the examples given: an example at random, its companion at random among those with its value.

    Args:
        codes: ``[n, D]`` real, such as posterior means.
        factors: ``[n, F]`` integer classes, F ≥ 2.
        key: typed key.
        num_pairs: L, pairs in a vote.
        num_votes: votes for training, and as many held out, in each fold; evenly spread over the factors.
        num_folds: folds of the examples.

    Returns:
        `FactorScore`: 1/F is chance, 1 the best. The mean over folds, with its standard error between them, sd/√folds (which share training
        examples: it is approximate). Parts by factor; matrix ``[F, F]``: of the votes of factor k, the share that was taken for l.

    Raises:
        TypeError, ValueError: codes or factors that do not fit (see `vaejax.evaluate.disentanglement_report`); a fold without two examples
            that share a value of some factor.

    Source:
        Higgins et al. 2017, section 3.

    Examples:
        >>> import jax
        >>> factors = np.indices((4, 4, 5)).reshape(3, -1).T
        >>> print(beta_vae_score(factors.astype(float), factors, jax.random.key(0), num_votes=60))
        1.000 ± 0.000
    """
    checks.positive_int(num_pairs, "num_pairs")
    data, rng = opened(codes, factors, min_factors=2), generator(key)
    step = max(1, _ENTRIES // (num_pairs * data.codes.shape[1]))

    def votes(groups: _Groups, count: int) -> np.ndarray:
        sizes = [min(step, count - done) for done in range(0, count, step)]
        return np.concatenate([_differences(rng, data.codes, groups, size, num_pairs) for size in sizes])

    confusion = []
    for train, test in _votes(data, rng, votes, num_votes, num_folds):
        truth = np.arange(len(train))
        classify = linear_classifier(np.concatenate(train), np.repeat(truth, len(train[0])), inverse_penalty=1.0)
        told = np.stack([classify(each) for each in test])
        confusion.append((told[:, :, None] == truth).mean(axis=1))
    return _score(np.diagonal(confusion, axis1=1, axis2=2), np.mean(confusion, axis=0))


def factor_vae_score(
    codes: Any, factors: Any, key: Key, *, group_size: int = 64, num_votes: int = 1000, num_folds: int = 5
) -> FactorScore:
    """How well the latent dimension that varies least among examples tells which factor they share.

    For a vote a factor is fixed at the value of a random example, ``group_size`` different examples with this value are drawn, and the
    dimension with the smallest variance among them, in units of its variance over all examples, votes. Each dimension stands for the
    factor for which it voted most often; the accuracy of that on new votes is the score. Constant dimensions have no vote. Each fold of
    the examples is held out in turn, so that the new votes come from other examples. Where a fold has only two or three examples with
    a value, they may happen to share more than that: it takes some hundreds of examples for a perfect code to get 1.

    Args:
        codes: ``[n, D]`` real, such as posterior means.
        factors: ``[n, F]`` integer classes, F ≥ 2.
        key: typed key.
        group_size: L, examples in a vote; as many as there are with the value, where these are fewer.
        num_votes: votes for training, and as many held out, in each fold; evenly spread over the factors.
        num_folds: folds of the examples.

    Returns:
        `FactorScore`: 1/F is chance, 1 the best. The mean over folds, with its standard error between them, sd/√folds (which share training
        examples: it is approximate). Parts by factor; matrix ``[D, F]``: of factor k's votes, the share that was dimension j's.

    Raises:
        TypeError, ValueError: as `beta_vae_score`.

    Source:
        Kim & Mnih 2018, section 4.

    Examples:
        >>> import jax
        >>> factors = np.indices((8, 8, 8)).reshape(3, -1).T
        >>> print(factor_vae_score(factors.astype(float), factors, jax.random.key(0), num_votes=60))
        1.000 ± 0.000
    """
    if checks.positive_int(group_size, "group_size") < 2:
        raise ValueError("group_size must be at least 2, got 1: one example has no variance; 64 is usual")
    data, rng = opened(codes, factors, min_factors=2), generator(key)

    def votes(groups: _Groups, count: int) -> np.ndarray:
        places = rng.integers(len(groups.rows), size=count)
        return np.array([_steadiest(rng, data, groups, place, group_size) for place in places])

    accuracy, shares = [], []
    for train, test in _votes(data, rng, votes, num_votes, num_folds):
        # As many votes for each factor: the largest share is the largest number.
        stands_for = _shares(train, data.codes.shape[1]).argmax(axis=1)
        shares.append(_shares(test, data.codes.shape[1]))
        accuracy.append([column[stands_for == factor].sum() for factor, column in enumerate(shares[-1].T)])
    return _score(np.array(accuracy), np.mean(shares, axis=0))


def linear_classifier(
    features: np.ndarray, classes: np.ndarray, *, inverse_penalty: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Multinomial logistic regression on standardised features ``[n, d]``, as the function from features to classes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if (classes == classes[0]).all():
        return lambda new: np.full(len(new), classes[0])
    # Newton's method takes some ten steps where the classes can be separated, L-BFGS hundreds.
    regression = LogisticRegression(C=inverse_penalty, solver="newton-cholesky")
    model = make_pipeline(StandardScaler(), regression)
    with warnings.catch_warnings():
        # A step that does not help sends it to L-BFGS; a classifier that could be a little better still classifies.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", LinAlgWarning)
        return model.fit(features, classes).predict


def mean_score(values: np.ndarray, matrix: np.ndarray) -> FactorScore:
    """Means over examples ``[n, F]``, with the standard errors between these."""
    error, errors = (v.std(axis=0, ddof=1) / np.sqrt(len(v)) for v in (values.mean(axis=1), values))
    return FactorScore(float(values.mean()), float(error), values.mean(axis=0), errors, matrix)


def _told(column: np.ndarray, factor: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Which test examples a classifier of one dimension gets right."""
    classify = linear_classifier(column[train, None], factor[train], inverse_penalty=100.0)
    return classify(column[test, None]) == factor[test]


def _votes(
    data: Labelled,
    rng: np.random.Generator,
    votes: Callable[[_Groups, int], np.ndarray],
    num_votes: int,
    num_folds: int,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Training and held-out votes of each fold, factor by factor, as many for each."""
    num_factors = data.factors.shape[1]
    count = -(-checks.positive_int(num_votes, "num_votes") // num_factors)
    for parts in folds(rng, len(data.codes), num_folds):
        train, test = (
            [votes(_groups(rows, data.factors[rows, k], k), count) for k in range(num_factors)] for rows in parts
        )
        yield train, test


def _score(accuracy: np.ndarray, matrix: np.ndarray) -> FactorScore:
    """From each fold's accuracies by factor, ``[folds, F]``."""
    by_fold = accuracy.mean(axis=1)
    error, errors = (each.std(axis=0, ddof=1) / np.sqrt(len(each)) for each in (by_fold, accuracy))
    return FactorScore(float(by_fold.mean()), float(error), accuracy.mean(axis=0), errors, matrix)


def _groups(rows: np.ndarray, values: np.ndarray, factor: int) -> _Groups:
    order = np.argsort(values, kind="stable")
    _, place, size = np.unique(values[order], return_inverse=True, return_counts=True)
    kept = size[place] > 1
    if not kept.any():
        raise ValueError(
            f"no two of a fold's {len(rows)} examples share a value of factor {factor}; give more examples, fewer folds or coarser classes"
        )
    sizes = np.where(size > 1, size, 0)
    starts = np.cumsum(sizes) - sizes
    return _Groups(rows[order[kept]], starts[place[kept]], size[place[kept]])


def _differences(
    rng: np.random.Generator, codes: np.ndarray, groups: _Groups, count: int, num_pairs: int
) -> np.ndarray:
    """``[count, D]`` mean absolute differences of pairs from one group each."""
    first = rng.integers(len(groups.rows), size=count * num_pairs)
    start, size = groups.start[first], groups.size[first]
    # A step of 1 to size − 1 around the group: any companion, never oneself.
    second = start + (first - start + rng.integers(1, size)) % size
    apart = np.abs(codes[groups.rows[first]] - codes[groups.rows[second]])
    return apart.reshape(count, num_pairs, -1).mean(axis=1)


def _steadiest(rng: np.random.Generator, data: Labelled, groups: _Groups, place: int, group_size: int) -> int:
    """The live dimension that varies least within a draw from the group at ``place``; 0 if none is alive."""
    start, size = groups.start[place], groups.size[place]
    drawn = start + rng.choice(size, min(group_size, size), replace=False, shuffle=False)
    return int(np.where(data.alive, data.codes[groups.rows[drawn]].var(axis=0), np.inf).argmin())


def _shares(votes: list[np.ndarray], size: int) -> np.ndarray:
    """``[D, F]``: each dimension's share of each factor's votes."""
    return np.stack([np.bincount(row, minlength=size) / len(row) for row in votes], axis=1)
