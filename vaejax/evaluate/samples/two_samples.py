"""Can a classifier tell two sets of examples apart."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.evaluate.randomness import generator
from vaejax.evaluate.samples.feature_space import feature_pair
from vaejax.evaluate.summary import count_in_words
from vaejax.types import Key


class ClassifierTest(NamedTuple):
    """How well a classifier tells two sets apart on examples that it was not trained on.

    Attributes:
        accuracy: held-out, the mean of those on either set, so that 1/2 is chance whatever n and m; below 1/2 by chance only.
        standard_error: binomial (by Agresti and Coull 1998: not 0 where all are right), widened for the correlation between folds, whose
            classifiers share training data: an approximation on the safe side.
        p_value: of an accuracy as large if the distributions are the same (normal approximation).
        recall: held-out accuracy on ``a`` and on ``b``.
        num_examples: n and m; of sets with weights, their sums.
    """

    accuracy: float
    standard_error: float
    p_value: float
    recall: tuple[float, float]
    num_examples: tuple[float, float]

    def __str__(self) -> str:
        n, m = map(count_in_words, self.num_examples)
        return f"accuracy {self.accuracy:.3f} ± {self.standard_error:.3f}, p = {self.p_value:.2g} ({n} against {m} examples)"


def classifier_two_sample_test(
    a: Any, b: Any, key: Key, *, features: Callable | None = None, classifier: Any = None, num_folds: int = 5
) -> ClassifierTest:
    """Trains a classifier to tell two sets apart, and tests whether it can on held-out examples: 1/2 where no difference is found.

    By stratified cross-validation, so that each example is held out once. Under the null the classifier says "a" of both sets equally
    often; the variance of the difference is that of a binomial times 1 + (k − 1)/k, for a correlation of 1/k between the k folds.
    A test finds what its classifier can see: logistic regression differences of means, no others.

    Args:
        a: examples ``[n, *event]``; a `Batch` may carry weights, which enter training (``sample_weight``) and the accuracy. All occurrences
            of an example are held out together.
        b: examples ``[m, *event]``; a much smaller set leaves most of the other one's information unused.
        key: typed key: which examples are held out together.
        features: ``[k, *event] -> [k, d]``, called on blocks of examples, each of which it treats on its own; None flattens.
        classifier: any scikit-learn classifier, cloned for each fold (with n ≠ m, one that weights classes equally); None is logistic
            regression on standardised features.
        num_folds: k, from 2 on.

    Returns:
        `ClassifierTest`.

    Raises:
        TypeError: a raw key; a classifier without fit and predict, or for weights without ``sample_weight``; no arrays of real numbers.
        ValueError: NaN; events or features that differ; fewer than ``2 num_folds`` examples.

    Source:
        Lopez-Paz & Oquab 2017, section 3; Nadeau & Bengio 2003, section 3 (the correlation).

    Examples:
        >>> import jax, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 1.0
        >>> classifier_two_sample_test(a, b, jax.random.key(0)).p_value < 1e-4
        True
    """
    from scipy import stats
    from sklearn.model_selection import StratifiedKFold

    checks.positive_int(num_folds, "num_folds")
    if num_folds < 2:
        raise ValueError("num_folds must be at least 2: what is trained on must not be tested on")
    seed = int(generator(key).integers(2**32))
    is_classifier = hasattr(classifier, "fit") and hasattr(classifier, "predict")
    if classifier is not None and (isinstance(classifier, type) or not is_classifier):
        raise TypeError(f"classifier must be a scikit-learn classifier, made and not its class, got {classifier!r}")
    sets = feature_pair(a, b, features, minimum=2 * num_folds)
    rows, (n, m) = [len(s.x) for s in sets], (s.total for s in sets)
    if min(rows) < 2 * num_folds:
        raise ValueError(
            f"each set must hold at least {2 * num_folds} examples of positive weight, got {min(rows)}; give more"
        )
    is_a, x, weight = np.repeat([1, 0], rows), *(np.concatenate(parts) for parts in zip(*sets))
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    says_a = _held_out(classifier, x, is_a, weight, folds) == 1
    of_a, of_b = (np.average(says_a[is_a == i], weights=weight[is_a == i]) for i in (1, 0))
    pooled = np.average(says_a, weights=weight)
    accuracy = (of_a + 1 - of_b) / 2
    widened = 1 + (num_folds - 1) / num_folds
    error = np.sqrt(widened * (_variance(of_a, n) + _variance(of_b, m))) / 2
    null_error = np.sqrt(widened * pooled * (1 - pooled) * (1 / n + 1 / m)) / 2
    p_value = stats.norm.sf((accuracy - 0.5) / null_error) if null_error > 0 else 1.0
    return ClassifierTest(float(accuracy), float(error), float(p_value), (float(of_a), float(1 - of_b)), (n, m))


def _held_out(classifier: Any, x: np.ndarray, is_a: np.ndarray, weight: np.ndarray, folds: Any) -> np.ndarray:
    """What classifiers that were trained on the other folds say of each example."""
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_predict

    if (weight == 1).all():
        return np.asarray(
            cross_val_predict(_logistic_regression() if classifier is None else classifier, x, is_a, cv=folds)
        )
    says = np.empty(len(x))
    for train, test in folds.split(x, is_a):
        y, w = is_a[train], weight[train]
        if classifier is None:
            # Both classes alike: "balanced" of some versions of scikit-learn counts rows.
            w = w * np.where(y == 1, w.sum() / w[y == 1].sum(), w.sum() / w[y == 0].sum()) / 2
        fitted = clone(_logistic_regression(None) if classifier is None else classifier)
        says[test] = fitted.fit(x[train], y, **_sample_weight(fitted, w)).predict(x[test])
    return says


def _sample_weight(classifier: Any, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The weights by the names under which the classifier, or each step of a pipeline, takes them."""
    from sklearn.utils.validation import has_fit_parameter

    steps = getattr(classifier, "steps", [("", classifier)])
    if not has_fit_parameter(steps[-1][1], "sample_weight"):
        raise TypeError(
            f"classifier must take sample_weight where the sets have weights, got {type(steps[-1][1]).__name__}; "
            "use another classifier, or repeat the rows"
        )
    prefix = [f"{name}__" if name else "" for name, step in steps if has_fit_parameter(step, "sample_weight")]
    return {f"{before}sample_weight": weight for before in prefix}


def _variance(share: float, count: float) -> float:
    """Of a share of ``count``, by Agresti and Coull's rule: not 0 where all agree."""
    drawn = (share * count + 2) / (count + 4)
    return drawn * (1 - drawn) / (count + 4)


def _logistic_regression(class_weight: str | None = "balanced") -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(class_weight=class_weight, max_iter=1000))
