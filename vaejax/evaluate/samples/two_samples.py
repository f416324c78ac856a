"""Can a classifier tell two sets of examples apart."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vaejax import checks
from vaejax.evaluate.randomness import generator
from vaejax.evaluate.samples.feature_space import feature_pair
from vaejax.types import Key


class ClassifierTest(NamedTuple):
    """How well a classifier tells two sets apart on examples that it was not trained on.

    Attributes:
        accuracy: held-out, the mean of those on either set, so that 1/2 is chance whatever n and m; below 1/2 by chance only.
        standard_error: binomial (by Agresti and Coull 1998: not 0 where all are right), widened for the correlation between folds, whose
            classifiers share training data: an approximation on the safe side.
        p_value: of an accuracy as large if the distributions are the same (normal approximation).
        recall: held-out accuracy on ``a`` and on ``b``.
        num_examples: n and m.
    """

    accuracy: float
    standard_error: float
    p_value: float
    recall: tuple[float, float]
    num_examples: tuple[int, int]

    def __str__(self) -> str:
        n, m = self.num_examples
        return f"accuracy {self.accuracy:.3f} ± {self.standard_error:.3f}, p = {self.p_value:.2g} ({n} against {m} examples)"


def classifier_two_sample_test(
    a: Any, b: Any, key: Key, *, features: Callable | None = None, classifier: Any = None, num_folds: int = 5
) -> ClassifierTest:
    """Trains a classifier to tell two sets apart, and tests whether it can on held-out examples: 1/2 where no difference is found.

    By stratified cross-validation, so that each example is held out once. Under the null the classifier says "a" of both sets equally
    often; the variance of the difference is that of a binomial times 1 + (k − 1)/k, for a correlation of 1/k between the k folds.
    A test finds what its classifier can see: logistic regression differences of means, no others.

    Args:
        a: examples ``[n, *event]``.
        b: examples ``[m, *event]``; a much smaller set leaves most of the other one's information unused.
        key: typed key: which examples are held out together.
        features: ``[k, *event] -> [k, d]``, called on blocks of examples, each of which it treats on its own; None flattens.
        classifier: any scikit-learn classifier, cloned for each fold (with n ≠ m, one that weights classes equally); None is logistic
            regression on standardised features.
        num_folds: k, from 2 on.

    Returns:
        `ClassifierTest`.

    Raises:
        TypeError: a raw key; a classifier without fit and predict; no arrays of real numbers.
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
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    checks.positive_int(num_folds, "num_folds")
    if num_folds < 2:
        raise ValueError("num_folds must be at least 2: what is trained on must not be tested on")
    seed = int(generator(key).integers(2**32))
    classifier = _logistic_regression() if classifier is None else classifier
    if isinstance(classifier, type) or not (hasattr(classifier, "fit") and hasattr(classifier, "predict")):
        raise TypeError(f"classifier must be a scikit-learn classifier, made and not its class, got {classifier!r}")
    a, b = feature_pair(a, b, features, minimum=2 * num_folds)
    n, m = len(a), len(b)
    is_a = np.repeat([1, 0], [n, m])
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    says_a = np.asarray(cross_val_predict(classifier, np.concatenate([a, b]), is_a, cv=folds)) == 1
    of_a, of_b, pooled = says_a[:n].mean(), says_a[n:].mean(), says_a.mean()
    accuracy = (of_a + 1 - of_b) / 2
    widened = 1 + (num_folds - 1) / num_folds
    error = np.sqrt(widened * (_variance(of_a, n) + _variance(of_b, m))) / 2
    null_error = np.sqrt(widened * pooled * (1 - pooled) * (1 / n + 1 / m)) / 2
    p_value = stats.norm.sf((accuracy - 0.5) / null_error) if null_error > 0 else 1.0
    return ClassifierTest(float(accuracy), float(error), float(p_value), (float(of_a), float(1 - of_b)), (n, m))


def _variance(share: float, count: int) -> float:
    """Of a share of ``count``, by Agresti and Coull's rule: not 0 where all agree."""
    drawn = (share * count + 2) / (count + 4)
    return drawn * (1 - drawn) / (count + 4)


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
