"""Factor analysis against scikit-learn and dense Gaussians; halves of EM steps; Heywood cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis

import vaejax
from vaejax.conjugate import factor_analysis, half_steps, ppca

RNG = np.random.default_rng(0)
SIZE, FACTORS = 8, 2
SCALES = RNG.uniform(0.3, 1.5, SIZE)
X = RNG.normal(size=(400, FACTORS)) @ RNG.normal(size=(FACTORS, SIZE)) + RNG.normal(size=(400, SIZE)) * SCALES + 2
MASK = RNG.random(X.shape) < 0.8
HOLES = vaejax.Batch(np.where(MASK, X, np.nan), mask=MASK)


def dense(params, x, mask):
    covariance = np.asarray(params.weight @ params.weight.T) + np.diag(params.noise)
    mean = np.asarray(params.mean)
    return np.array([multivariate_normal.logpdf(r[m], mean[m], covariance[np.ix_(m, m)]) for r, m in zip(x, mask)])


def rising(result):
    trace = np.asarray(result.trace)[: int(result.num_steps) + 1]
    return (np.diff(trace) > -1e-10 * np.abs(trace[1:])).all()


def test_maximum_likelihood_is_scikit_learns(x64, key):
    found = factor_analysis.fit_em(key, X, FACTORS, tolerance=1e-13)
    other = FactorAnalysis(FACTORS, svd_method="lapack", tol=1e-10, max_iter=10_000).fit(X)
    assert bool(found.converged)
    assert rising(found)
    np.testing.assert_allclose(found.objective, other.score(X) * len(X), rtol=1e-6)
    np.testing.assert_allclose(found.params.noise, other.noise_variance_, rtol=1e-3)
    np.testing.assert_allclose(
        factor_analysis.log_prob(found.params, X), dense(found.params, X, np.ones_like(MASK)), rtol=1e-10
    )
    slope = jax.grad(lambda p: jnp.mean(factor_analysis.log_prob(p, X)))(found.params)
    assert max(float(jnp.abs(leaf).max()) for leaf in slope) < 1e-5


def test_missing_entries_drop_out(x64, key):
    found = factor_analysis.fit_em(key, HOLES, FACTORS, tolerance=1e-11, max_steps=3000)
    assert rising(found)
    np.testing.assert_allclose(factor_analysis.log_prob(found.params, HOLES), dense(found.params, X, MASK), rtol=1e-10)
    np.testing.assert_allclose(found.objective, dense(found.params, X, MASK).sum(), rtol=1e-10)
    # A mask that is True everywhere takes the other path: the same steps.
    some = np.ones_like(MASK)
    some[0, 0] = False
    near = vaejax.Batch(X, mask=some, weight=np.where(np.arange(len(X)) == 0, 1e-12, 1.0))
    rows = factor_analysis.fit_em(key, near, FACTORS, max_steps=5, tolerance=0.0)
    alone = factor_analysis.fit_em(key, X[1:], FACTORS, max_steps=5, tolerance=0.0)
    np.testing.assert_allclose(rows.trace, alone.trace, rtol=1e-9)


@pytest.mark.parametrize("data", [X, HOLES], ids=["whole", "holes"])
@pytest.mark.parametrize("module", [ppca, factor_analysis])
def test_bound_and_kl_add_up_at_every_half_step(x64, key, module, data):
    start = module.fit_em(key, data, FACTORS, max_steps=1).params
    start = start._replace(mean=start.mean + 0.3)
    found = half_steps(module, start, data, num_steps=3)
    np.testing.assert_allclose(found.bound + found.kl, found.log_likelihood, rtol=1e-6)
    assert (np.diff(found.bound) > -1e-10 * np.abs(found.bound[1:])).all()
    np.testing.assert_allclose(found.kl[1::2], 0.0, atol=1e-8)
    assert (np.asarray(found.kl[2::2]) > 0).all()


def test_as_a_model_the_bound_is_the_evidence(x64, key):
    params = factor_analysis.fit_em(key, X, FACTORS).params
    terms = vaejax.log_terms(factor_analysis.as_model(params), params, key, jnp.asarray(X[:9]), num_samples=3)
    np.testing.assert_allclose(
        terms.log_weights, np.broadcast_to(factor_analysis.log_prob(params, X[:9]), (3, 9)), rtol=1e-8
    )


def test_a_heywood_case_is_told_and_never_falls(x64, key):
    """Three columns of which one is the factor itself."""
    z = RNG.normal(size=(200, 1))
    x = np.concatenate([z, z + RNG.normal(size=(200, 1)), z + RNG.normal(size=(200, 1))], 1)
    with pytest.warns(factor_analysis.Heywood, match="columns 0 whole"):
        found = factor_analysis.fit_em(key, x, 1, min_noise=1e-3, tolerance=1e-12)
    assert rising(found)
    np.testing.assert_allclose(found.params.noise[0], 1e-3 * x[:, 0].var(), rtol=1e-6)


def test_draws_and_refusals(key):
    params = factor_analysis.FactorAnalysis(jnp.zeros(3), jnp.ones((3, 1)), jnp.array([0.1, 1.0, 2.0]))
    x, z = factor_analysis.sample(params, key, 20_000)
    assert z.shape == (20_000, 1)
    np.testing.assert_allclose(np.cov(x.T), np.ones((3, 3)) + np.diag([0.1, 1.0, 2.0]), atol=0.12)
    with pytest.raises(ValueError, match="column 0 is constant"):
        factor_analysis.fit_em(key, np.where(np.arange(SIZE) == 0, 1.0, X), 2)
    with pytest.raises(ValueError, match="below the 8 columns"):
        factor_analysis.fit_em(key, X, 8)


@pytest.mark.parametrize("module", [ppca, factor_analysis])
@pytest.mark.parametrize("scale", [0.1, 0.03])
def test_float32_with_little_noise(key, module, scale):
    """Sums of squares: the trace falls by no more than rounding, and densities are those of float64."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 10)) + scale * rng.normal(size=(2000, 10))).astype(np.float32)
    found = module.fit_em(key, x, 2, tolerance=1e-7)
    trace = np.asarray(found.trace)[: int(found.num_steps) + 1]
    assert (np.diff(trace) > -1e-5 * np.abs(trace[1:])).all()
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found.params)
        exact = module.log_prob(params, x.astype(np.float64))
    np.testing.assert_allclose(module.log_prob(found.params, x), exact, rtol=1e-3, atol=1e-2)


def test_no_noise_is_refused(key):
    x = np.random.default_rng(0).normal(size=(50, 2)) @ np.random.default_rng(1).normal(size=(2, 5))
    with pytest.raises(ValueError, match="leave no noise"):
        ppca.fit_em(key, x, 2)
    with pytest.raises(ValueError, match="leave no noise"):
        ppca.fit_ml(x[:3], 2)
    wide = np.random.default_rng(2).normal(size=(500, 5)) * np.array([1e4, 1, 1, 1, 1])
    np.testing.assert_allclose(
        ppca.fit_ml(wide.astype(np.float32), 1).variance, np.linalg.eigvalsh(np.cov(wide.T))[:-1].mean(), rtol=0.05
    )
