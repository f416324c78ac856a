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


@pytest.mark.parametrize(
    ("size", "latents", "most"), [(4, 2, "at most 1"), (6, 4, "at most 3"), (2, 1, "more columns")]
)
def test_more_factors_than_the_covariance_tells_are_warned_of(size, latents, most, key):
    x = np.random.default_rng(size).normal(size=(200, size))
    with pytest.warns(factor_analysis.Undetermined, match=f"^{latents} factors? and .* take {most}") as told:
        factor_analysis.fit_em(key, x, latents, max_steps=5)
    assert told[0].filename == __file__
    # The bound itself counts: W up to a rotation and ψ, against a symmetric matrix.
    for q in range(1, 9):
        for d in range(q + 1, 14):
            free = d * q - q * (q - 1) // 2 + d
            assert (q <= factor_analysis.max_factors(d)) == (free <= d * (d + 1) // 2)


@pytest.mark.filterwarnings("ignore::vaejax.conjugate.factor_analysis.Heywood")
def test_the_best_of_several_starts_is_kept(x64, key):
    """Two of the columns may share a factor of their own, or another two."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 9)) + rng.normal(size=(80, 9))
    found = factor_analysis.fit_em(key, x, 4, num_starts=6, max_steps=3000)
    assert found.starts.shape == (6,)
    assert float(np.ptp(found.starts)) > 0.1
    assert float(found.objective) == pytest.approx(float(found.starts.max()), rel=1e-12)
    assert float(factor_analysis.log_prob(found.params, x).sum()) == pytest.approx(float(found.objective), rel=1e-9)
    one = factor_analysis.fit_em(key, x, 4, max_steps=3000)
    assert float(one.objective) == pytest.approx(float(found.starts[0]), rel=1e-12)
    with pytest.raises(ValueError, match="num_starts must be at least 1"):
        factor_analysis.fit_em(key, x, 2, num_starts=0)


def test_a_heywood_case_is_told_and_never_falls(x64, key):
    """Three columns of which one is the factor itself."""
    z = RNG.normal(size=(200, 1))
    x = np.concatenate([z, z + RNG.normal(size=(200, 1)), z + RNG.normal(size=(200, 1))], 1)
    with pytest.warns(factor_analysis.Heywood, match="column 0 whole"):
        found = factor_analysis.fit_em(key, x, 1, min_noise=1e-3, tolerance=1e-12)
    assert rising(found)
    np.testing.assert_allclose(found.params.noise[0], 1e-3 * x[:, 0].var(), rtol=1e-6)


def rows_of_correlation(matrix, count=200):
    """Rows whose correlations are exactly these."""
    x = np.random.default_rng(0).normal(size=(count, len(matrix)))
    orthogonal = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(count)
    return orthogonal @ np.linalg.cholesky(matrix).T


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_heywood_case_is_told_at_the_defaults(key, dtype):
    """r₁₂ r₁₃ / r₂₃ > 1: no noise of column 0 is small enough, and EM goes there as 1/t."""
    x = rows_of_correlation([[1, 0.8, 0.8], [0.8, 1, 0.5], [0.8, 0.5, 1]])
    with jax.enable_x64(dtype == np.float64), pytest.warns(factor_analysis.Heywood, match="column 0 whole") as told:
        found = factor_analysis.fit_em(key, x.astype(dtype), 1)
    assert [warning.message.columns for warning in told] == [(0,)]
    assert 10 * np.finfo(dtype).eps ** 0.75 < float(found.params.noise[0]) < 1e-3


@pytest.mark.parametrize("noise", [[5e-4, 0.5, 0.6, 0.7], [2e-3, 3e-3, 0.6, 0.7]], ids=["on its way", "converged"])
def test_a_little_noise_is_no_heywood_case(x64, key, noise):
    """The maximum is inside: one such column is neared as 1/√t, two at once."""
    loadings = np.sqrt(1 - np.array(noise))
    x = rows_of_correlation(np.outer(loadings, loadings) + np.diag(noise))
    found = factor_analysis.fit_em(key, x, 1, tolerance=0.0, max_steps=20_000)
    assert noise[0] * (1 - 1e-6) < float(found.params.noise[0]) < factor_analysis.WHOLE


def test_draws_and_refusals(key):
    loadings, noise = np.array([[1.0], [-1.0], [0.5]]), np.array([0.1, 1.0, 2.0])
    params = factor_analysis.FactorAnalysis(jnp.array([1.0, 2.0, 3.0]), jnp.asarray(loadings), jnp.asarray(noise))
    x, z = factor_analysis.sample(params, key, 20_000)
    assert z.shape == (20_000, 1)
    np.testing.assert_allclose(np.cov(z.T), 1.0, atol=0.05)
    np.testing.assert_allclose(np.mean(x, 0), [1, 2, 3], atol=0.06)
    np.testing.assert_allclose(np.cov((x - z @ loadings.T).T), np.diag(noise), atol=0.1)
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


@pytest.mark.parametrize(("module", "holes"), [(ppca, True), (factor_analysis, True), (ppca, False)])
def test_float32_far_from_the_origin(key, module, holes):
    """EM about the centre of what is observed rises, and ends where float64 does on the same rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(400, 6))
    x, mask = (x + 1e5).astype(np.float32), rng.random(x.shape) < 0.8
    rows = vaejax.Batch(x, mask=mask if holes else None)
    found = module.fit_em(key, rows, 2)
    trace = np.asarray(found.trace)[: int(found.num_steps) + 1]
    assert (np.diff(trace) > -1e-6 * np.abs(trace[1:])).all()
    with jax.enable_x64(True):
        exact = module.fit_em(key, rows._replace(x=x.astype(np.float64)), 2)
    np.testing.assert_allclose(found.objective, exact.objective, rtol=1e-5)
    np.testing.assert_allclose(found.params.mean, exact.params.mean, atol=0.01)


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
