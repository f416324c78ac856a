"""The scikit-learn estimators: scikit-learn's own checks, equality with its estimators, precision, pipelines, refusals."""

import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import sklearn.decomposition
import sklearn.mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from vaejax.conjugate import factor_analysis, gmm, ppca
from vaejax.conjugate.gmm import Gmm
from vaejax.conjugate.scikit import FactorAnalysis, GaussianMixture, ProbabilisticPCA

RNG = np.random.default_rng(0)
SIZE = 4
LOADINGS = RNG.normal(size=(2, SIZE)) * 2
X = RNG.normal(size=(120, 2)) @ LOADINGS + RNG.normal(size=(120, SIZE)) * [0.5, 0.7, 1.0, 1.2] + 3
NEW = X[:7] + 0.1
CENTRES = np.array([[-4.0, 0.0], [4.0, 1.0], [0.0, 6.0]])
ROWS = CENTRES.repeat(40, 0) + RNG.normal(size=(120, 2)) * [1.0, 0.6]
CLOSE = ROWS - 0.5 * CENTRES.repeat(40, 0)  # components that overlap, so that EM takes its time

slow = pytest.mark.slow
# Two rows whose noise a factor explains whole, two columns, and the like, are warned of: the checks hold such data.
quiet = pytest.mark.filterwarnings(
    "ignore::vaejax.conjugate.factor_analysis.Heywood", "ignore::vaejax.conjugate.factor_analysis.Undetermined"
)


@slow
@parametrize_with_checks([ProbabilisticPCA()])
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@slow
@quiet
@parametrize_with_checks([FactorAnalysis(), GaussianMixture()])
def test_more_checks_of_scikit_learn(estimator, check):
    check(estimator)


def start_of(kind):
    eye = np.eye(2)
    covariance = {"full": np.stack([eye] * 3), "tied": eye[None], "diag": np.ones((3, 2)), "spherical": np.ones((3, 1))}
    return Gmm(np.array([0.5, 0.2, 0.3]), CENTRES / 2 + 0.5, 1.5 * covariance[kind])


@pytest.mark.parametrize(
    "kind", ["full", "diag", pytest.param("tied", marks=slow), pytest.param("spherical", marks=slow)]
)
def test_mixture_is_scikit_learns_from_the_same_start(kind):
    start = start_of(kind)
    precisions = {"full": start.covariance, "tied": start.covariance[0], "diag": start.covariance}
    precisions = np.linalg.inv(precisions[kind]) if kind in ("full", "tied") else 1 / start.covariance
    settings = {"covariance_type": kind, "max_iter": 10, "tol": 0.0}
    other = sklearn.mixture.GaussianMixture(
        3,
        weights_init=start.weight,
        means_init=start.mean,
        precisions_init=precisions[:, 0] if kind == "spherical" else precisions,
        reg_covar=0.0,
        **settings,
    )
    mine = GaussianMixture(3, init_params=start, prior_count=0, **settings)
    with pytest.warns(ConvergenceWarning, match="max_iter=10 steps"):
        mine.fit(CLOSE)
    with pytest.warns(ConvergenceWarning):
        other.fit(CLOSE)
    for name in ("weights_", "means_", "covariances_"):
        assert getattr(mine, name).shape == getattr(other, name).shape
        np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=1e-9, atol=1e-12, err_msg=name)
    for name in ("score_samples", "predict_proba", "score", "predict", "aic", "bic"):
        ours, theirs = getattr(mine, name)(CLOSE), getattr(other, name)(CLOSE)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12, err_msg=name)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype, name
    np.testing.assert_allclose(mine.lower_bound_, mine.score(CLOSE), rtol=1e-12)


def test_mixture_says_what_fit_em_says(x64):
    mine = GaussianMixture(3, random_state=0, covariance_type="tied").fit(ROWS)
    assert mine.converged_
    assert 1 <= mine.n_iter_ == mine.result_.num_steps
    np.testing.assert_allclose(sorted(mine.means_[:, 0]), [-4, 0, 4], atol=0.5)
    np.testing.assert_allclose(mine.bic(ROWS), gmm.bic(mine.params_, ROWS), rtol=1e-12)
    np.testing.assert_allclose(mine.lower_bound_ * len(ROWS), np.nanmax(mine.result_.starts), rtol=1e-12)
    assert (mine.fit_predict(ROWS) == mine.predict(ROWS)).all()
    x, component = mine.sample(3000)
    np.testing.assert_allclose(np.bincount(component) / 3000, mine.weights_, atol=0.05)
    np.testing.assert_allclose(x[component == 1].mean(0), mine.means_[1], atol=0.2)


def test_probabilistic_pca_is_scikit_learns_but_for_one_row():
    mine, other = ProbabilisticPCA(2).fit(X), sklearn.decomposition.PCA(2).fit(X)
    less = (len(X) - 1) / len(X)
    np.testing.assert_allclose(mine.get_covariance(), other.get_covariance() * less, rtol=1e-10)
    np.testing.assert_allclose(mine.noise_variance_, other.noise_variance_ * less, rtol=1e-11)
    np.testing.assert_allclose(mine.explained_variance_, other.explained_variance_ * less, rtol=1e-11)
    np.testing.assert_allclose(mine.explained_variance_ratio_, other.explained_variance_ratio_, rtol=1e-11)
    # scikit-learn's with that covariance: the same density.
    other.noise_variance_, other.explained_variance_ = mine.noise_variance_, mine.explained_variance_
    np.testing.assert_allclose(mine.score_samples(NEW), other.score_samples(NEW), rtol=1e-10)
    # Posterior means are the projections, shrunk: length / (length² + σ²).
    length = np.linalg.norm(mine.components_, axis=1)
    shrunk = (NEW - mine.mean_) @ mine.components_.T / (length**2 + mine.noise_variance_)
    np.testing.assert_allclose(mine.transform(NEW), shrunk, rtol=1e-10)
    np.testing.assert_allclose(mine.inverse_transform(shrunk), shrunk @ mine.components_ + mine.mean_, rtol=1e-12)


def test_factor_analysis_is_scikit_learns():
    mine = FactorAnalysis(1, tol=1e-15, max_iter=100_000, random_state=0).fit(X)
    other = sklearn.decomposition.FactorAnalysis(1, svd_method="lapack", tol=1e-10, max_iter=100_000).fit(X)
    np.testing.assert_allclose(mine.score(X), other.score(X), rtol=1e-10)
    np.testing.assert_allclose(mine.get_covariance(), other.get_covariance(), rtol=1e-4)
    sign = np.sign(mine.components_[0, 0] * other.components_[0, 0])
    np.testing.assert_allclose(mine.components_, other.components_ * sign, rtol=1e-4)
    np.testing.assert_allclose(mine.transform(NEW), other.transform(NEW) * sign, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mine.loglike_[-1], mine.score(X) * len(X), rtol=1e-12)
    assert len(mine.loglike_) == mine.n_iter_ + 1
    assert mine.converged_


@quiet
def test_loadings_do_not_depend_on_the_seed():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(300, 6))
    first, second = (FactorAnalysis(2, tol=1e-15, max_iter=50_000, random_state=seed).fit(x) for seed in (0, 1))
    np.testing.assert_allclose(first.components_, second.components_, atol=1e-4)
    scaled = first.components_ / np.sqrt(first.noise_variance_)
    gram = scaled @ scaled.T
    np.testing.assert_allclose(gram, np.diag(np.diagonal(gram)), atol=1e-10 * gram.max())
    assert gram[0, 0] > gram[1, 1]


MODELS = {
    "mixture": (GaussianMixture(2, covariance_type="diag", random_state=0), gmm, "predict_proba"),
    "ppca": (ProbabilisticPCA(2, random_state=0), ppca, "transform"),
    "factors": (FactorAnalysis(1, random_state=0), factor_analysis, "transform"),
}


@pytest.mark.parametrize("model", MODELS)
def test_precision_is_that_of_the_data_whatever_the_flag(model):
    estimator, module, of_rows = MODELS[model]
    for dtype, flag in ((np.float32, True), (np.float64, False)):
        with jax.enable_x64(flag):
            fitted = clone(estimator).fit(X.astype(dtype))
            scores = fitted.score_samples(X.astype(dtype))
            outputs = [*fitted.params_, scores, getattr(fitted, of_rows)(X.astype(dtype)), fitted.sample(3)[0]]
        assert all(type(out) is np.ndarray and out.dtype == dtype for out in outputs)
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(module.log_prob)(fitted.params_, X))
    np.testing.assert_allclose(scores, exact, rtol=1e-13)
    # Rows of less precision than the fit's: computed in the higher, returned in theirs.
    low = fitted.score_samples(X.astype(np.float32))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, exact, rtol=1e-5)
    assert fitted.score_samples(X.round().astype(int)).dtype == np.float64


@pytest.mark.parametrize("model", MODELS)
def test_a_weight_of_two_is_a_row_twice(model):
    rng = np.random.default_rng(13)
    estimator = MODELS[model][0]
    if model == "mixture":
        start = Gmm(np.array([0.5, 0.5]), X[:2], np.stack([X.var(0)] * 2))
        estimator = clone(estimator).set_params(init_params=start, prior_count=0)
    weight = rng.integers(0, 3, len(X))
    weighted = clone(estimator).fit(X, sample_weight=weight)
    repeated = clone(estimator).fit(X.repeat(weight, 0))
    np.testing.assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=1e-8)
    if model == "mixture":
        np.testing.assert_allclose(weighted.lower_bound_, repeated.lower_bound_, rtol=1e-10)


def test_a_prior_serves_what_has_no_maximum_of_its_likelihood():
    rng = np.random.default_rng(15)
    x = np.c_[rng.normal(size=(6, 7)), np.full(6, 0.1)]
    fitted = GaussianMixture(2, random_state=0).fit(x)
    assert np.isfinite(fitted.score_samples(x + 0.1)).all()
    with pytest.raises(ValueError, match="all rows are equal"):
        GaussianMixture(2).fit(np.ones((5, 2)))


@slow
def test_weights_count_in_the_default_prior():
    rng = np.random.default_rng(17)
    weight = rng.integers(0, 3, len(ROWS))
    start = start_of("diag")
    estimator = GaussianMixture(3, covariance_type="diag", init_params=start, prior_count=50, max_iter=1000, tol=1e-12)
    weighted, repeated = clone(estimator).fit(ROWS, sample_weight=weight), estimator.fit(ROWS.repeat(weight, 0))
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-6)


def test_pipelines_and_grid_searches():
    rng = np.random.default_rng(18)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 5)) * 2 + 0.5 * rng.normal(size=(300, 5))
    pipeline = make_pipeline(StandardScaler(with_std=False), ProbabilisticPCA())
    search = GridSearchCV(pipeline, {"probabilisticpca__n_components": [1, 2]}, cv=2).fit(x)
    assert search.best_params_ == {"probabilisticpca__n_components": 2}
    assert list(search.best_estimator_.get_feature_names_out()) == ["probabilisticpca0", "probabilisticpca1"]
    assert search.transform(x).shape == (300, 2)
    mixture = GaussianMixture(3, covariance_type="diag", random_state=0)
    search = GridSearchCV(mixture, {"prior_count": [1.0, 1e4]}, cv=2, refit=False).fit(rng.permutation(ROWS))
    assert search.best_params_ == {"prior_count": 1.0}


@pytest.mark.parametrize("model", MODELS)
def test_pickles_clones_and_seeds(model):
    estimator, _, of_rows = MODELS[model]
    fitted = clone(estimator).fit(X)
    for copy in (pickle.loads(pickle.dumps(fitted)), clone(fitted).fit(X)):
        np.testing.assert_array_equal(getattr(copy, of_rows)(X), getattr(fitted, of_rows)(X))
    np.testing.assert_array_equal(fitted.sample(4)[0], fitted.sample(4)[0])
    fitted.random_state = np.random.RandomState(0)
    assert (fitted.sample(4)[0] != fitted.sample(4)[0]).all()
    with pytest.raises(NotFittedError):
        clone(fitted).sample()
    if model == "mixture":
        again = clone(fitted).set_params(init_params=fitted.params_)
        assert again.fit(X).n_iter_ < fitted.n_iter_
        pickle.loads(pickle.dumps(again))


HOLES = np.where(X > 4, np.nan, X)
ONES = np.ones(len(X))
CONSTANT = np.c_[X, ONES]


@pytest.mark.parametrize(
    ("estimator", "x", "weight", "message"),
    [
        (GaussianMixture(), HOLES, None, "contains NaN"),
        (ProbabilisticPCA(), HOLES, None, r"contains NaN\. vaejax.conjugate.ppca.fit_em\(key, Batch\(X, mask="),
        (FactorAnalysis(), HOLES, None, r"contains NaN\. vaejax.conjugate.factor_analysis.fit_em"),
        (GaussianMixture(0), X, None, "n_components must be at least 1, got 0"),
        (ProbabilisticPCA(0), X, None, "n_components must be at least 1, got 0"),
        (FactorAnalysis(-1), X, None, "n_components must be at least 1, got -1"),
        (GaussianMixture(5), X[:4], None, "needs at least 5 rows, got 4"),
        (ProbabilisticPCA(2), X[:3], None, "explain all 3 rows and leave no noise"),
        (ProbabilisticPCA(4), X, None, "below the n_features = 4 of X.* got 4"),
        (FactorAnalysis(5), X, None, "below the n_features = 4 of X.* got 5"),
        (FactorAnalysis(), X[:, :1], None, r"1 feature\(s\)"),
        (FactorAnalysis(), CONSTANT, None, "column 4 is constant"),
        (FactorAnalysis(), np.c_[X, ONES - np.eye(120)[0]], ONES - np.eye(120)[0], "column 4 is constant"),
        (GaussianMixture(prior_count=0), CONSTANT, None, "column 4 is constant"),
        (GaussianMixture(prior_count=-1), X, None, "prior_count must be finite, at least 0"),
        (GaussianMixture(covariance_type="dig"), X, None, "unknown covariance_type 'dig'; did you mean 'diag'"),
        (GaussianMixture(init_params="kmeans"), X, None, "unknown init_params 'kmeans'; did you mean 'k-means"),
        (GaussianMixture(init_params=np.ones(3)), X, None, "unknown init_params"),
        (GaussianMixture(init_params=start_of("diag")), X, None, "start.weight must have shape"),
        (GaussianMixture(max_iter=0), X, None, "max_iter must be at least 1"),
        (GaussianMixture(n_init=0), X, None, "n_init must be at least 1"),
        (FactorAnalysis(tol=-1.0), X, None, "tol must be finite, at least 0"),
        (GaussianMixture(), X, -ONES, "must not be negative, got a minimum of -1"),
        (GaussianMixture(), X, ONES[:, None], r"sample_weight must be \[120\].* got shape \[120, 1\]"),
        (GaussianMixture(), X, [1.0, 2.0], r"sample_weight must be \[120\].* got shape \[2\]"),
        (ProbabilisticPCA(), X, np.eye(120)[0], "at least 2 rows need a positive sample_weight, got 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(estimator, x, weight, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(x, sample_weight=weight)


@pytest.mark.wants_nan
def test_refuses_to_end_without_a_likelihood():
    x, estimator = X.astype(np.float32), FactorAnalysis()
    with pytest.raises(ValueError, match="squares overflow"):
        estimator.fit(x, sample_weight=np.full(len(x), 1e37, np.float32))
    with pytest.raises(ValueError, match=r"column 0 has a range of .* whose square float32 does not hold"):
        estimator.fit((1e25 * X).astype(np.float32))
    with pytest.raises(NotFittedError):
        estimator.transform(X)


def test_other_refusals():
    fitted = ProbabilisticPCA(2).fit(X)
    with pytest.raises(ValueError, match=r"must be \[n, 2\], latents as transform returns them, got \[7, 4\]"):
        fitted.inverse_transform(NEW)
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        fitted.sample(0)
    with pytest.raises(TypeError, match="n_components must be an integer"):
        GaussianMixture(1.5).fit(X)


def test_warns_where_em_was_cut_short():
    with pytest.warns(ConvergenceWarning, match="max_iter=2 steps"):
        assert not FactorAnalysis(max_iter=2).fit(X).converged_


def test_the_room_itself_loads_no_scikit_learn():
    program = "import sys, vaejax.conjugate; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
