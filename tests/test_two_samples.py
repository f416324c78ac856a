"""Distances between two sets of examples against definitions and closed forms, and tests that seldom fail where nothing differs."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist

from tests.helpers import assert_mean
from vaejax import evaluate
from vaejax.evaluate.samples import feature_space, frechet

# The function has the name of its module.
MMD = importlib.import_module("vaejax.evaluate.samples.mmd")


def exact_moments(rng, count, mean, covariance):
    """Examples with just this sample mean and covariance."""
    x = rng.normal(size=(count, len(mean)))
    x -= x.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_of_known_moments():
    """Against the definition by a matrix root, and where the covariances are diagonal against Σ (σ_a − σ_b)²."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, 4, 4))
    first, second = (root @ root.T + 0.1 * np.eye(4) for root in roots)
    means = rng.normal(size=(2, 4))
    a, b = exact_moments(rng, 60, means[0], first), exact_moments(rng, 45, means[1], second)
    trace = np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    found = evaluate.frechet_distance(a, b)
    np.testing.assert_allclose(found.value, ((means[0] - means[1]) ** 2).sum() + trace, rtol=1e-10)
    assert found.num_examples == (60, 45)
    a, b = exact_moments(rng, 50, [0, 0], np.diag([1.0, 4.0])), exact_moments(rng, 50, [1, 0], np.diag([9.0, 4.0]))
    np.testing.assert_allclose(evaluate.frechet_distance(a, b).value, 1 + (1 - 3) ** 2, rtol=1e-10)
    np.testing.assert_allclose(evaluate.frechet_distance(a, b).value, evaluate.frechet_distance(b, a).value, rtol=1e-10)


@pytest.mark.parametrize("shape", [(200, 3), (8, 5, 5), (6, 1)])
def test_frechet_of_equal_and_shifted_sets(shape):
    """Also with fewer examples than features, where both covariances are singular."""
    a = np.random.default_rng(1).normal(size=shape)
    same, moved = evaluate.frechet_distance(a, a.copy()), evaluate.frechet_distance(a, a + 0.5)
    assert same.value == pytest.approx(0.0, abs=1e-12 * a.size)
    assert same.floor > 0
    np.testing.assert_allclose(moved.value, 0.25 * a[0].size, rtol=1e-9)
    assert "halves of the first" in str(moved)


def test_frechet_of_constant_sets():
    assert evaluate.frechet_distance(np.zeros((5, 2)), np.ones((4, 2)))[:3] == (2.0, 0.0, 0.0)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 45, 4), (30, 20, 50), (4, 7, 1)])
def test_leaving_groups_out_is_done_by_differences(n, m, d):
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(n, d)), 1.3 * rng.normal(size=(m, d)) + 0.2
    whole = [frechet._fitted(x) for x in (a, b)]
    groups = min(10, n)
    wanted = [frechet._distance(frechet._fitted(a[np.arange(n) % groups != g]), whole[1]) for g in range(groups)]
    np.testing.assert_allclose(frechet._without_groups(a, *whole), wanted, rtol=1e-6, atol=1e-9)


def test_frechet_error_is_its_spread():
    rng = np.random.default_rng(3)
    found = [evaluate.frechet_distance(rng.normal(size=(200, 4)), rng.normal(size=(150, 4)) + 0.5) for _ in range(100)]
    spread = np.std([f.value for f in found], ddof=1)
    assert 0.8 < np.mean([f.standard_error for f in found]) / spread < 1.4
    # Halves of 100 have a bias of (2/100) / (1/200 + 1/150) times that of the sets themselves, which is above 0.
    bias = np.mean([f.value for f in found]) - 1.0
    floor = np.mean([f.floor for f in found])
    assert floor * (1 / 200 + 1 / 150) / (2 / 100) == pytest.approx(bias, abs=5 * spread / 10)


def kernels(x, y, width):
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / (2 * width**2))


def direct(a, b, width):
    """MMD² by its double sums."""
    n, m = len(a), len(b)
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernels(a, a, width), kernels(b, b, width))]
    return sum(within) - 2 * kernels(a, b, width).sum() / (n * m)


def test_mmd_against_its_definition(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(17, 3)) + 100.0, 1.5 * rng.normal(size=(12, 3)) + 100.0
    found = evaluate.mmd(a, b)
    assert found.bandwidth == pytest.approx(np.median(pdist(np.concatenate([a, b]))))
    np.testing.assert_allclose(found.value, direct(a, b, found.bandwidth), rtol=1e-9)
    assert np.isnan(found.p_value)
    assert found.num_permutations == 0
    left = np.array([direct(np.delete(a, i, 0), b, found.bandwidth) for i in range(17)])
    right = np.array([direct(a, np.delete(b, i, 0), found.bandwidth) for i in range(12)])
    np.testing.assert_allclose(found.standard_error**2, 16 * left.var() + 11 * right.var(), rtol=1e-9)
    # A few rows at a time, the last block shorter.
    monkeypatch.setattr(MMD, "_ENTRIES", 29 * 4)
    np.testing.assert_allclose(evaluate.mmd(a, b)[:2], found[:2], rtol=1e-9)


def test_permutations_are_those_of_all_examples(key):
    """Each division's value against the double sums; no value above the given one has a p-value of one in R + 1."""
    rng = np.random.default_rng(1)
    both = rng.normal(size=(12, 2))
    members = np.zeros((12, 4))
    members[:5] = 1.0
    members[:, 1:] = rng.permuted(members[:, 1:], axis=0)
    values = MMD._values(*MMD._row_sums(both, 1.0, members), members, np.ones(12), members.sum(0), 12)
    wanted = [direct(both[column == 1], both[column == 0], 1.0) for column in members.T]
    np.testing.assert_allclose(values, wanted, atol=1e-12)
    found = evaluate.mmd(both, both + 5.0, key=key, num_permutations=99)
    assert (found.p_value, found.num_permutations) == (0.01, 99)
    assert "p = 0.01, 99 permutations" in str(found)
    assert found == evaluate.mmd(both, both + 5.0, key=key, num_permutations=99)


def test_mmd_of_two_gaussians():
    """E k of N(μ, S) and N(ν, T) is |I + (S + T)/h²|^{-1/2} exp(−½ (μ − ν)ᵀ (h² I + S + T)^{-1} (μ − ν))."""
    rng, width, scale, shift = np.random.default_rng(2), 1.2, 1.7, np.array([0.4, -0.2])

    def expected(variance, gap):
        return (1 + variance / width**2) ** -1 * np.exp(-0.5 * (gap**2).sum() / (width**2 + variance))

    truth = expected(2.0, np.zeros(2)) + expected(2 * scale**2, np.zeros(2)) - 2 * expected(1 + scale**2, shift)
    one = evaluate.mmd(rng.normal(size=(2000, 2)), scale * rng.normal(size=(1500, 2)) + shift, bandwidth=width)
    assert one.standard_error < 0.1 * truth
    assert abs(one.value - truth) < 5 * one.standard_error
    found = [
        evaluate.mmd(rng.normal(size=(60, 2)), scale * rng.normal(size=(40, 2)) + shift, bandwidth=width)
        for _ in range(300)
    ]
    assert_mean([f.value for f in found], truth, cap=0.1 * truth)
    errors = np.sqrt(np.mean([f.standard_error**2 for f in found]))
    assert 0.9 < errors / np.std([f.value for f in found], ddof=1) < 1.4


def test_a_permutation_test_fails_as_often_as_it_says(key):
    rng, repeats = np.random.default_rng(3), 300
    p_values = [
        evaluate.mmd(*rng.normal(size=(2, 15, 2)), key=jax.random.fold_in(key, i), num_permutations=19).p_value
        for i in range(repeats)
    ]
    rate = np.mean(np.array(p_values) <= 0.1 + 1e-9)
    assert abs(rate - 0.1) < 5 * np.sqrt(0.09 / repeats)


def test_classifier_on_equal_sets(key):
    """Accuracy 1/2 in the mean, whatever the numbers of examples, and a test that seldom fails."""
    rng, found = np.random.default_rng(0), []
    for i in range(60):
        a, b = rng.normal(size=(60, 3)), rng.normal(size=(90, 3))
        found.append(evaluate.classifier_two_sample_test(a, b, jax.random.fold_in(key, i)))
    assert_mean([f.accuracy for f in found], 0.5, cap=0.01)
    # Of 60 about three are expected below 0.05; nine or more have a probability below 0.005.
    assert np.sum([f.p_value < 0.05 for f in found]) < 9
    assert np.median([f.p_value for f in found]) > 0.2
    errors = [f.standard_error for f in found]
    assert 0.8 < np.mean(errors) / np.std([f.accuracy for f in found], ddof=1) < 1.6


def test_classifier_on_shifted_sets(key):
    """Logistic regression finds the best accuracy Φ(δ/2) of two Gaussians at a distance of δ."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(1000, 2)), rng.normal(size=(600, 2)) + np.array([1.0, 0.0])
    found = evaluate.classifier_two_sample_test(a, b, key)
    assert found.p_value < 1e-20
    assert found.standard_error < 0.02
    assert abs(found.accuracy - 0.6915) < 4 * found.standard_error
    assert found.accuracy == pytest.approx(np.mean(found.recall))
    assert found == evaluate.classifier_two_sample_test(a, b, key)
    assert str(found).startswith("accuracy 0.")
    assert "1000 against 600 examples" in str(found)


def test_classifier_sees_what_it_can(key):
    from sklearn.dummy import DummyClassifier
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(300, 2)), 2 * rng.normal(size=(300, 2))
    blind = evaluate.classifier_two_sample_test(a, b, key)
    seeing = evaluate.classifier_two_sample_test(a, b, key, classifier=KNeighborsClassifier(15))
    by_features = evaluate.classifier_two_sample_test(a, b, key, features=lambda x: x**2)
    assert blind.p_value > 0.01 > 1e-4 > max(seeing.p_value, by_features.p_value)
    never = evaluate.classifier_two_sample_test(a, b, key, classifier=DummyClassifier(strategy="constant", constant=1))
    assert (never.accuracy, never.p_value, never.recall) == (0.5, 1.0, (1.0, 0.0))
    assert 0 < never.standard_error < 0.01


def measures(key):
    return {
        "frechet": evaluate.frechet_distance,
        "mmd": evaluate.mmd,
        "classifier": lambda a, b, **options: evaluate.classifier_two_sample_test(a, b, key, **options),
    }


@pytest.mark.parametrize("name", ["frechet", "mmd", "classifier"])
def test_bad_input_is_refused(name, key):
    measure, a = measures(key)[name], np.random.default_rng(0).normal(size=(20, 3))
    few = {"frechet": 4, "mmd": 3, "classifier": 10}[name]
    for wrong, error, wanted in (
        ((a, a[:, :2]), ValueError, r"examples of a have shape \[3\], those of b \[2\]"),
        ((a, np.where(a > 2, a, np.nan)), ValueError, "b holds .* NaN"),
        ((a[: few - 1], a), ValueError, f"a holds {few - 1} examples; give at least {few}"),
        ((a, tuple(a)), TypeError, "must be an array"),
        ((a, a.astype(str)), TypeError, "real numbers"),
    ):
        with pytest.raises(error, match=wanted):
            measure(*wrong)
    for features, error, wanted in (
        ("pixels", TypeError, "features must be a function"),
        (lambda x: x[:, 0], ValueError, r"features gave shape \[20\] for 20 examples of a, wanted \[20, d\]"),
        (lambda x: x[:5], ValueError, r"features gave shape \[5, 3\] for 20"),
        (lambda x: x * np.nan, ValueError, "features of a holds 60 NaN"),
        (lambda x: x.astype(str), TypeError, "features gave dtype <U32"),
    ):
        with pytest.raises(error, match=wanted):
            measure(a, a + 1, features=features)
    widths = iter([2, 3])
    with pytest.raises(ValueError, match="features gave 2 columns for a and 3 for b"):
        measure(a, a, features=lambda x: np.ones((len(x), next(widths))))


def test_options_are_checked(key):
    a = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match="bandwidth must be finite, greater than 0"):
        evaluate.mmd(a, a, bandwidth=0.0)
    with pytest.raises(ValueError, match="the median distance between examples is 0"):
        evaluate.mmd(np.zeros((20, 3)), np.zeros((10, 3)))
    with pytest.raises(ValueError, match="num_permutations must be at least 1"):
        evaluate.mmd(a, a, key=key, num_permutations=0)
    with pytest.raises(TypeError, match="typed key"):
        evaluate.mmd(a, a, key=jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match="num_folds must be at least 2"):
        evaluate.classifier_two_sample_test(a, a, key, num_folds=1)
    for wrong in ("logistic", dict):
        with pytest.raises(TypeError, match="classifier must be a scikit-learn classifier"):
            evaluate.classifier_two_sample_test(a, a, key, classifier=wrong)


def test_features_are_taken_block_by_block():
    sizes = []

    def features(x):
        sizes.append(len(x))
        return jnp.stack([x.sum((1, 2)), x[:, 0, 0]], axis=1)

    images = jax.random.bernoulli(jax.random.key(0), 0.5, (2500, 2, 2))
    first, second = feature_space.feature_pair(images, np.asarray(images[:10], np.uint8), features)
    assert sizes == [1000, 1000, 500, 10]
    assert first.x.dtype == second.x.dtype == np.float64
    np.testing.assert_array_equal(first.x[:10], second.x)
    with pytest.raises(ValueError, match="blocks of different width"):
        feature_space.feature_pair(images, images, lambda x: np.ones((len(x), len(x))))
