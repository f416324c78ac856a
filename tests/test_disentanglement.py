"""Disentanglement scores: their extremes on constructed codes, the same from scikit-learn and SciPy, honest errors, bad input."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import cross_val_score, train_test_split

from vaejax import evaluate
from vaejax.evaluate.summary import jackknife

KEY = jax.random.key(7)
GRID = np.indices((8, 6, 8)).reshape(3, -1).T
FEW = {"num_votes": 150, "num_trees": 10}


def rotated(factors):
    """The first two factors turned by 45°."""
    a, b = factors[:, 0].astype(float), factors[:, 1].astype(float)
    return np.stack([a + b, a - b], axis=1) / 2**0.5


def noisy(seed, count, noise=0.5, angle=0.3, extra=2):
    """Independent factors of 3, 5 and 8 classes; codes that mix the last two, with noise, beside dimensions of nothing but noise."""
    rng = np.random.default_rng(seed)
    sizes = np.array([3, 5, 8])
    factors = rng.integers(0, sizes, (count, 3))
    z = (factors - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)
    cos, sin = np.cos(angle), np.sin(angle)
    z[:, 1:] = z[:, 1:] @ np.array([[cos, sin], [-sin, cos]])
    return np.hstack([z + noise * rng.normal(size=z.shape), rng.normal(size=(count, extra))]), factors


def assert_plain(report):
    for score in report.scores().values():
        assert isinstance(score.value, float)
        assert isinstance(score.standard_error, float)
        for part in score:
            assert np.isfinite(part).all()
        assert score.parts.shape == score.parts_standard_error.shape


@pytest.fixture(scope="module")
def perfect():
    return evaluate.disentanglement_report(GRID.astype(np.float32), GRID, KEY, **FEW)


def test_one_dimension_a_factor_is_perfect(perfect):
    assert_plain(perfect)
    for name in ("disentanglement", "completeness", "informativeness", "beta_vae", "factor_vae"):
        score = getattr(perfect, name)
        assert (score.value, score.standard_error) == (1.0, 0.0), name
        np.testing.assert_array_equal(score.parts, 1.0)
    for score in (perfect.mig, perfect.modularity):
        np.testing.assert_allclose([score.value, *score.parts], 1.0, atol=1e-12)
        assert score.standard_error < 0.01
    np.testing.assert_array_equal(perfect.disentanglement.matrix, np.eye(3))
    np.testing.assert_allclose(perfect.mig.matrix, np.diag(np.log([8, 6, 8])), atol=1e-12)
    np.testing.assert_array_equal(np.diagonal(perfect.sap.matrix), 1.0)
    # The largest that SAP can be: the other dimensions guess one of 8 or 6 classes.
    best = 1 - np.array([1 / 8, 1 / 6, 1 / 8])
    assert (np.abs(perfect.sap.parts - best) < 5 * perfect.sap.parts_standard_error + 0.02).all()
    assert perfect.sap.standard_error < 0.02


def test_two_dimensions_turned_by_45_degrees():
    """Each says as much of one factor as of the other: together they tell everything, apart nothing can be told between them."""
    factors = np.tile(np.indices((8, 8)).reshape(2, -1).T, (8, 1))
    report = evaluate.disentanglement_report(rotated(factors), factors, KEY, **FEW)
    assert_plain(report)
    np.testing.assert_allclose([report.mig.value, report.modularity.value], 0.0, atol=1e-12)
    np.testing.assert_allclose(report.mig.matrix, mutual_info_score(factors.sum(1), factors[:, 0]), atol=1e-12)
    assert abs(report.sap.value) < 5 * report.sap.standard_error
    for score in (report.disentanglement, report.completeness):
        assert score.value < 0.01
    for score in (report.beta_vae, report.factor_vae):
        assert abs(score.value - 0.5) < 5 * score.standard_error + 0.05
        assert score.standard_error < 0.1
    assert report.informativeness.value > 0.9


def test_constant_codes_say_nothing():
    report = evaluate.disentanglement_report(np.full((len(GRID), 4), 0.3), GRID, KEY, **FEW)
    assert_plain(report)
    assert report.num_constant == 4
    for name in ("mig", "sap", "disentanglement", "completeness", "modularity"):
        score = getattr(report, name)
        assert (score.value, score.standard_error) == (0.0, 0.0), name
        np.testing.assert_array_equal(score.parts, 0.0)
    for score in (report.beta_vae, report.factor_vae):
        assert score.value == pytest.approx(1 / 3, abs=1e-12)
        assert score.standard_error == pytest.approx(0, abs=1e-12)
    # The commonest class where it was fitted is rarer where it was held out: below chance, never far above.
    assert 0 <= report.informativeness.value < report.chance["informativeness"] + 0.02
    assert report.chance["informativeness"] == pytest.approx((1 / 8 + 1 / 6 + 1 / 8) / 3)


def test_every_factor_twice():
    report = evaluate.disentanglement_report(np.hstack([GRID, GRID]).astype(float), GRID, KEY, num_votes=150)
    assert_plain(report)
    for score in (report.mig, report.sap):
        assert (score.value, score.standard_error) == (0.0, 0.0)
    for name in ("disentanglement", "informativeness", "beta_vae", "factor_vae"):
        assert getattr(report, name).value == pytest.approx(1.0, abs=1e-12), name
    assert report.modularity.value == pytest.approx(1.0, abs=1e-12)
    # Two halves of the importance among six dimensions; the forests take turns at random.
    np.testing.assert_allclose(report.completeness.parts, 1 - np.log(2) / np.log(6), atol=0.02)


def test_a_single_dimension(perfect):
    """What one perfect dimension is worth: one factor in three."""
    codes = GRID[:, :1].astype(float)
    report = evaluate.disentanglement_report(codes, GRID, KEY, **FEW)
    assert_plain(report)
    np.testing.assert_allclose(report.mig.parts, [1, 0, 0], atol=1e-12)
    assert report.modularity.value == pytest.approx(1.0)
    assert report.completeness.value == 1.0
    assert report.disentanglement.value == pytest.approx(0.0, abs=1e-12)
    assert report.factor_vae.value == pytest.approx(1 / 3)
    assert report.beta_vae.parts[0] == 1.0
    assert abs(report.sap.parts[0] - 7 / 8) < 5 * report.sap.parts_standard_error[0] + 0.02


def test_dead_dimensions_change_nothing(perfect):
    codes, factors = noisy(0, 300)
    padded = np.hstack([codes, np.zeros((300, 1)), np.full((300, 1), 1e6) + 1e-12 * codes[:, :1]]).astype(np.float32)
    plain = codes.astype(np.float32)
    for score in (evaluate.mig, evaluate.modularity):
        assert score(padded, factors)[:2] == score(plain, factors)[:2]
    assert evaluate.sap(padded, factors, KEY)[:2] == evaluate.sap(plain, factors, KEY)[:2]
    for score in (evaluate.beta_vae_score, evaluate.factor_vae_score):
        few = {"num_votes": 60}
        assert score(padded, factors, KEY, **few)[0] == pytest.approx(score(plain, factors, KEY, **few)[0], abs=0.02)
    assert evaluate.factor_vae_score(padded, factors, KEY, num_votes=60).matrix[-2:].sum() == 0


def test_scale_offset_order_and_names_of_classes_do_not_matter():
    codes, factors = noisy(1, 400)
    moved = (codes * [1e-3, 8.0, 1e150, 1e-200, 1.0] + [5.0, -1.0, 0.0, 0.0, 2.0])[:, ::-1]
    renamed = 10 - 3 * factors
    for plain, other in (
        (evaluate.mig(codes, factors), evaluate.mig(moved, renamed)),
        (evaluate.modularity(codes, factors), evaluate.modularity(moved, renamed)),
    ):
        np.testing.assert_allclose(other.matrix[::-1], plain.matrix, rtol=0.02)
        assert other.value == pytest.approx(plain.value, abs=0.01)
    plain, other = evaluate.sap(codes, factors, KEY), evaluate.sap(moved, factors, KEY)
    np.testing.assert_allclose(other.matrix[::-1], plain.matrix, atol=0.01)
    first, second = (evaluate.dci(c, factors, KEY, num_trees=5) for c in (codes, moved[:, ::-1]))
    np.testing.assert_allclose(first.importance, second.importance, atol=0.01)


def binned(codes, num_bins):
    edges = [np.linspace(c.min(), c.max(), num_bins + 1)[1:-1] for c in codes.T]
    return np.stack([np.digitize(c, e) for c, e in zip(codes.T, edges)], axis=1)


def information(codes, factors, num_bins=20):
    return np.array([[mutual_info_score(b, f) for f in factors.T] for b in binned(codes, num_bins).T])


@pytest.mark.parametrize("num_bins", [2, 7, 20])
def test_information_and_entropy_are_those_of_scikit_learn_and_scipy(num_bins):
    codes, factors = noisy(2, 500)
    wanted = information(codes, factors, num_bins)
    gap, modular = (score(codes, factors, num_bins=num_bins) for score in (evaluate.mig, evaluate.modularity))
    np.testing.assert_allclose(gap.matrix, wanted, atol=1e-12)
    np.testing.assert_allclose(modular.matrix, wanted, atol=1e-12)
    entropy = [scipy.stats.entropy(np.bincount(f)) for f in factors.T]
    best = np.sort(wanted, axis=0)
    np.testing.assert_allclose(gap.parts, (best[-1] - best[-2]) / entropy, atol=1e-12)
    assert gap.value == pytest.approx(gap.parts.mean())
    deviations = [sum(m**2 for m in row if m != max(row)) / (2 * max(row) ** 2) for row in wanted]
    np.testing.assert_allclose(modular.parts, 1 - np.array(deviations), atol=1e-12)
    assert modular.value == pytest.approx(modular.parts.mean())


def test_the_jackknife_leaves_each_example_out():
    """Against brute force: bins of all the examples, counts without one of them."""
    codes, factors = noisy(3, 40, extra=0)
    bins = binned(codes, 4)
    gaps, modular = [], []
    for i in range(40):
        b, f = np.delete(bins, i, 0), np.delete(factors, i, 0)
        table = np.array([[mutual_info_score(x, y) for y in f.T] for x in b.T])
        best = np.sort(table, axis=0)
        gaps.append((best[-1] - best[-2]) / [scipy.stats.entropy(np.bincount(y)) for y in f.T])
        squares = np.sort(table**2, axis=1)
        modular.append(1 - squares[:, :-1].sum(1) / (2 * squares[:, -1]))
    for found, without in (
        (evaluate.mig(codes, factors, num_bins=4), np.array(gaps)),
        (evaluate.modularity(codes, factors, num_bins=4), np.array(modular)),
    ):
        assert found.standard_error == pytest.approx(float(jackknife(without.mean(1))), rel=1e-9)
        np.testing.assert_allclose(found.parts_standard_error, jackknife(without), rtol=1e-9)


@pytest.mark.slow
def test_dci_is_entropies_of_what_forests_need():
    codes, factors = noisy(4, 800)
    found = evaluate.dci(codes, factors, KEY)
    importance = found.importance
    np.testing.assert_allclose(importance.sum(0), 1)
    by_dimension = 1 - scipy.stats.entropy(importance, base=3, axis=1)
    np.testing.assert_allclose(found.disentanglement.parts, by_dimension)
    np.testing.assert_allclose(found.disentanglement.value, np.average(by_dimension, weights=importance.sum(1)))
    np.testing.assert_allclose(found.completeness.parts, 1 - scipy.stats.entropy(importance, base=5, axis=0))
    assert found.completeness.value == pytest.approx(found.completeness.parts.mean())
    # The same forests put together anew, with other folds and seeds.
    for k, factor in enumerate(factors.T):
        leaf = 640 // (10 * (factor.max() + 1))
        forest = RandomForestClassifier(100, max_features=None, min_samples_leaf=leaf, random_state=5)
        accuracy = cross_val_score(forest, codes, factor, cv=5).mean()
        assert abs(found.informativeness.parts[k] - accuracy) < 2.5 * found.informativeness.parts_standard_error[k]
        np.testing.assert_allclose(importance[:, k], forest.fit(codes, factor).feature_importances_, atol=0.03)
    p = found.informativeness.parts
    np.testing.assert_allclose(found.informativeness.parts_standard_error, np.sqrt(p * (1 - p) / 799), rtol=1e-9)


def test_sap_is_that_of_another_classifier_and_another_split():
    codes, factors = noisy(5, 2000)
    found = evaluate.sap(codes, factors, KEY, test_fraction=0.5)
    for k, factor in enumerate(factors.T):
        train_x, test_x, train_y, test_y = train_test_split(codes, factor, test_size=0.5, random_state=3)
        wanted = [
            LogisticRegression(C=100.0, max_iter=500).fit(train_x[:, [j]], train_y).score(test_x[:, [j]], test_y)
            for j in range(codes.shape[1])
        ]
        np.testing.assert_allclose(found.matrix[:, k], wanted, atol=5 * np.sqrt(2 * 0.25 / 1000))
        best = np.sort(found.matrix[:, k])
        assert found.parts[k] == pytest.approx(best[-1] - best[-2])
    assert found.value == pytest.approx(found.parts.mean())


def differences_by_hand(rng, codes, factors, count, num_pairs=64):
    """Votes of the β-VAE score, pair by pair."""
    features, labels = [], []
    for vote in range(count):
        k, apart = vote % factors.shape[1], []
        while len(apart) < num_pairs:
            i, j = rng.integers(len(codes), size=2)
            if i != j and factors[i, k] == factors[j, k]:
                apart.append(np.abs(codes[i] - codes[j]))
        features.append(np.mean(apart, axis=0))
        labels.append(k)
    return np.array(features), np.array(labels)


def test_votes_are_those_made_by_hand():
    """Both vote scores against slow ones put together from scikit-learn and loops, with other draws."""
    codes, factors = noisy(6, 1000, noise=2.5)
    rng = np.random.default_rng(0)
    found = evaluate.beta_vae_score(codes, factors, KEY)
    train = differences_by_hand(rng, codes[:800], factors[:800], 450)
    test = differences_by_hand(rng, codes[800:], factors[800:], 300)
    wanted = LogisticRegression(max_iter=1000).fit(*train).score(*test)
    assert abs(found.value - wanted) < 5 * np.hypot(found.standard_error, 0.05)
    assert 0.4 < found.value < 0.95
    np.testing.assert_allclose(np.diagonal(found.matrix), found.parts)
    np.testing.assert_allclose(found.matrix.sum(1), 1)

    found = evaluate.factor_vae_score(codes, factors, KEY)
    votes = np.zeros((2, codes.shape[1], 3))
    for part, rows in enumerate((slice(0, 800), slice(800, None))):
        z, f = codes[rows], factors[rows]
        for vote in range(600):
            same = np.flatnonzero(f[:, vote % 3] == f[rng.integers(len(f)), vote % 3])
            chosen = rng.permutation(same)[:64]
            votes[part, (z[chosen].var(0) / codes.var(0)).argmin(), vote % 3] += 1
    wanted = votes[1][np.arange(codes.shape[1]), votes[0].argmax(1)].sum() / 600
    assert abs(found.value - wanted) < 5 * np.hypot(found.standard_error, 0.05)
    assert 0.4 < found.value < 0.95
    np.testing.assert_allclose(found.matrix.sum(0), 1)


def test_codes_of_nothing_are_at_chance():
    """In the mean over data sets, small ones: votes on the examples that were learnt from would be well above chance."""
    rng = np.random.default_rng(0)
    beta, factor = [], []
    for seed in range(12):
        codes, factors = rng.normal(size=(150, 10)), rng.integers(0, [3, 4, 5], (150, 3))
        for found, score in ((beta, evaluate.beta_vae_score), (factor, evaluate.factor_vae_score)):
            found.append(score(codes, factors, jax.random.key(seed), num_votes=60).value)
    for found in (beta, factor):
        assert abs(np.mean(found) - 1 / 3) < 5 * np.std(found, ddof=1) / 12**0.5
        assert np.std(found, ddof=1) / 12**0.5 < 0.02


def test_errors_of_the_gap_are_the_spread_between_data_sets():
    found = [evaluate.mig(*noisy(seed, 400)) for seed in range(150)]
    spread = np.std([score.value for score in found], ddof=1)
    assert 0.8 < np.mean([score.standard_error for score in found]) / spread < 1.3
    spreads = np.std([score.parts for score in found], axis=0, ddof=1)
    ratios = np.mean([score.parts_standard_error for score in found], axis=0) / spreads
    assert (ratios > 0.8).all()
    assert (ratios < 1.4).all()


@pytest.mark.slow
def test_errors_are_about_the_spread_between_data_sets():
    found = [
        evaluate.disentanglement_report(*noisy(seed, 300, noise=2.0), jax.random.key(seed), num_votes=90, num_trees=10)
        for seed in range(12)
    ]
    for name in evaluate.SCORE_MEANINGS:
        values, errors = np.array([(s.value, s.standard_error) for s in (getattr(r, name) for r in found)]).T
        # Twelve data sets know their spread to a fifth; the jackknife over folds is on the safe side.
        assert 0.5 < errors.mean() / values.std(ddof=1) < 4, name


def test_a_report_is_reproducible_readable_and_plain():
    codes, factors = noisy(8, 200)
    names = ("form", "size", "hue")
    first, again, other = (
        evaluate.disentanglement_report(jnp.asarray(codes), jnp.asarray(factors), key, factor_names=names, **FEW)
        for key in (KEY, KEY, jax.random.key(8))
    )
    jax.tree.map(np.testing.assert_array_equal, first.scores(), again.scores())
    assert first.mig.value == other.mig.value
    assert first.factor_vae.value != other.factor_vae.value
    kept = json.loads(json.dumps(first.as_dict(), allow_nan=False))
    assert kept["mig"]["value"] == first.mig.value
    assert kept["factor_names"] == list(names)
    assert np.shape(kept["disentanglement"]["matrix"]) == (5, 3)
    text = str(first)
    assert text.startswith("5 latent dimensions, 3 factors, 200 examples\n")
    assert str(first.mig) == f"{first.mig.value:.3f} ± {first.mig.standard_error:.3f}"
    assert all(name in text for name in (*names, *evaluate.SCORE_MEANINGS, str(first.beta_vae)))
    assert set(first.chance) == set(first.scores()) == set(evaluate.SCORE_MEANINGS)


def test_small_and_lopsided_data():
    """Classes of one example, whole-number codes, half precision: numbers, and no warnings."""
    rng = np.random.default_rng(0)
    factors = np.stack([np.arange(30) == 3, rng.integers(0, 3, 30), np.arange(30) // 10], axis=1)
    for codes in (
        rng.integers(-2, 3, (30, 2)),
        rng.random((30, 2)) < 0.5,
        jnp.asarray(rng.normal(size=(30, 2)), jnp.bfloat16),
    ):
        assert_plain(evaluate.disentanglement_report(codes, factors, KEY, num_trees=3, num_votes=30))


def test_half_precision_rounding_is_constant(x64):
    codes = np.stack([np.full(12, 0.1), np.arange(12.0)], axis=1)
    codes[:, 0] += 1e-9 * np.arange(12)
    factors = np.indices((4, 3)).reshape(2, -1).T
    assert (evaluate.mig(codes, factors).matrix[0] > 1).all()
    assert (evaluate.mig(jnp.asarray(codes, jnp.float32), factors).matrix[0] == 0).all()


X, Y = np.random.default_rng(0).normal(size=(40, 3)), np.indices((4, 10)).reshape(2, -1).T
CASES = {
    "list": (lambda: evaluate.mig(X.tolist(), Y), TypeError, "codes must be an array, got list"),
    "text": (lambda: evaluate.mig(X.astype(str), Y), TypeError, "codes must hold real numbers, got dtype <U"),
    "complex": (lambda: evaluate.mig(X + 1j, Y), TypeError, "codes must hold real numbers, got dtype complex128"),
    "keys": (lambda: evaluate.mig(jax.random.split(KEY, (40, 3)), Y), TypeError, "codes must hold real numbers"),
    "nan": (lambda: evaluate.mig(np.where(X > 2, np.nan, X), Y), ValueError, "codes holds .* NaN or infinite values?, .*; remove them$"),
    "infinity": (lambda: evaluate.sap(np.where(X > 2, np.inf, X), Y, KEY), ValueError, "codes holds . NaN or infinite"),
    "images of latents": (lambda: evaluate.mig(X[:, None], Y), ValueError, r"\[n, D\].*got \[40, 1, 3\] .*reshape"),
    "labels": (lambda: evaluate.mig(X, Y[:, 0]), ValueError, r"got \[40, 3\] and \[40\].*factors\[:, None\]"),
    "other rows": (lambda: evaluate.mig(X, Y[:30]), ValueError, r"got \[40, 3\] and \[30, 2\]"),
    "no rows": (lambda: evaluate.mig(X[:0], Y[:0]), ValueError, r"got \[0, 3\]"),
    "no latents": (lambda: evaluate.mig(X[:, :0], Y), ValueError, r"got \[40, 0\]"),
    "real factors": (lambda: evaluate.mig(X, Y / 2), TypeError, "factors must be classes.*got dtype float64.*numpy.unique"),
    "constant": (lambda: evaluate.mig(X, 0 * Y + [0, 5] + [1, 0] * Y), ValueError, r"factor 1 never varies .it is always 5"),
    "all unlike": (lambda: evaluate.mig(X[:10], Y[:10, ::-1]), ValueError, "factor 0 has another value in each of the 10"),
    "one factor": (lambda: evaluate.modularity(X, Y[:, :1]), ValueError, "needs at least 2, got 1; mig and sap"),
    "one bin": (lambda: evaluate.mig(X, Y, num_bins=1), ValueError, "num_bins must be at least 2"),
    "raw key": (lambda: evaluate.sap(X, Y, jax.random.key_data(KEY)), TypeError, "key must be a typed key"),
    "traced": (lambda: jax.jit(evaluate.mig)(X, Y), TypeError, "call this outside jit and vmap"),
    "nothing held out": (lambda: evaluate.sap(X, Y, KEY, test_fraction=0.0), ValueError, "leaves 40 to fit to and 0 held out"),
    "a fraction of two": (lambda: evaluate.sap(X, Y, KEY, test_fraction=2), ValueError, "test_fraction must be finite.*at most 1"),
    "one fold": (lambda: evaluate.dci(X, Y, KEY, num_folds=1), ValueError, "num_folds must be at least 2"),
    "many folds": (lambda: evaluate.beta_vae_score(X, Y, KEY, num_folds=30), ValueError, "got 30 for 40 examples"),
    "no companions": (lambda: evaluate.beta_vae_score(X, Y, KEY, num_folds=20), ValueError, "share a value of factor"),
    "no trees": (lambda: evaluate.dci(X, Y, KEY, num_trees=0), ValueError, "num_trees must be at least 1"),
    "no votes": (lambda: evaluate.beta_vae_score(X, Y, KEY, num_votes=0), ValueError, "num_votes must be at least 1"),
    "no pairs": (lambda: evaluate.beta_vae_score(X, Y, KEY, num_pairs=0), ValueError, "num_pairs must be at least 1"),
    "groups of one": (lambda: evaluate.factor_vae_score(X, Y, KEY, group_size=1), ValueError, "group_size must be at least 2"),
    "names": (
        lambda: evaluate.disentanglement_report(X, Y, KEY, factor_names=("a",)), ValueError, "holds 1 names for 2 factors"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_scored_is_refused(name):
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call()
