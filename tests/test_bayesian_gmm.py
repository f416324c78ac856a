"""Bayesian Gaussian mixtures against scikit-learn and against sums by Monte Carlo; an ELBO that never falls; components that empty."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import dirichlet, multivariate_normal, wishart
from sklearn.datasets import load_iris
from sklearn.mixture import BayesianGaussianMixture

import vaejax
from vaejax.conjugate import bayesian_gmm, gmm

IRIS = load_iris().data


class FromResponsibilities(BayesianGaussianMixture):
    """scikit-learn's, beginning at given responsibilities."""

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.begin)


def theirs(concentration, start, steps):
    other = FromResponsibilities(
        n_components=4, weight_concentration_prior_type="dirichlet_distribution", weight_concentration_prior=concentration,
        reg_covar=0, tol=0, max_iter=steps, covariance_prior=np.cov(IRIS.T, ddof=0),
    )  # fmt: skip
    other.begin = np.asarray(gmm.posterior(start, IRIS).probs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return other.fit(IRIS)


@pytest.mark.parametrize("concentration", [1.0, pytest.param(0.01, marks=pytest.mark.slow)])
def test_elbo_is_scikit_learns_to_a_constant(x64, key, concentration):
    """Theirs is taken after the update of q(π, μ, Λ), with the q(z) before it."""
    start = gmm.fit_em(key, IRIS, 4, num_starts=1, max_steps=3).params
    gaps = []
    for steps in (3, 8):
        options = {"concentration": concentration, "start": start, "tolerance": 0.0}
        before = bayesian_gmm.fit_cavi(key, IRIS, 4, max_steps=steps - 1, **options).params
        after = bayesian_gmm.em_step(before, IRIS)
        other = theirs(concentration, start, steps)
        gaps.append(bayesian_gmm.elbo(after, IRIS, bayesian_gmm.posterior(before, IRIS)) - other.lower_bound_)
        np.testing.assert_allclose(after.mean, other.means_, rtol=1e-8)
        np.testing.assert_allclose(bayesian_gmm.point(after).covariance, other.covariances_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-9)


def test_the_elbo_never_falls_and_empties_components(x64, key):
    found = bayesian_gmm.fit_cavi(key, IRIS, 8, concentration=1e-3, tolerance=1e-10, num_starts=40)
    trace = np.asarray(found.trace)[: int(found.num_steps) + 1]
    assert (np.diff(trace) > -1e-10 * np.abs(trace[1:])).all()
    assert bool(found.converged)
    counts = np.asarray(bayesian_gmm.counts(found.params))
    assert (counts > 1).sum() == 3
    assert counts[counts < 1].max() < 1e-2
    np.testing.assert_allclose(counts.sum(), len(IRIS), rtol=1e-9)
    np.testing.assert_allclose(bayesian_gmm.elbo(found.params, IRIS), found.objective, rtol=1e-12)


@pytest.mark.slow
def test_the_two_halves_of_a_step(x64, key):
    """A new q(z) raises the ELBO, and so does a new q(π, μ, Λ)."""
    params = bayesian_gmm.fit_cavi(key, IRIS, 3, max_steps=2, num_starts=1).params
    q = bayesian_gmm.posterior(params, IRIS)
    seen = []
    for _ in range(4):
        seen.append(bayesian_gmm.elbo(params, IRIS, q))
        q = bayesian_gmm.posterior(params, IRIS)
        seen.append(bayesian_gmm.elbo(params, IRIS, q))
        params = bayesian_gmm.em_step(params, IRIS)
    assert (np.diff(seen) > -1e-9).all()


@pytest.mark.slow
def test_kl_to_the_prior_is_that_of_draws(x64, key):
    """E_q[log q − log p] of the weights, means and precisions by SciPy's densities."""
    params = bayesian_gmm.fit_cavi(key, IRIS[:, :2], 2, num_starts=1, strength=0.5, degrees=4.0).params
    prior, rng, gaps = params.prior, np.random.default_rng(0), []
    alpha, alpha0 = np.asarray(params.concentration), np.full(2, float(prior.concentration))
    scale = np.linalg.inv(params.scatter)
    scale0 = np.linalg.inv(prior.scatter)
    for _ in range(4000):
        weights = rng.dirichlet(alpha)
        gap = dirichlet.logpdf(weights, alpha) - dirichlet.logpdf(weights, alpha0)
        for k in range(2):
            precision = wishart.rvs(float(params.degrees[k]), scale[k], random_state=rng)
            gap += wishart.logpdf(precision, float(params.degrees[k]), scale[k])
            gap -= wishart.logpdf(precision, float(prior.degrees), scale0)
            inverse = np.linalg.inv(precision)
            mean = rng.multivariate_normal(params.mean[k], inverse / float(params.strength[k]))
            gap += multivariate_normal.logpdf(mean, params.mean[k], inverse / float(params.strength[k]))
            gap -= multivariate_normal.logpdf(mean, prior.mean, inverse / float(prior.strength))
        gaps.append(gap)
    error = np.std(gaps) / np.sqrt(len(gaps))
    assert error < 0.1
    assert abs(np.mean(gaps) - float(bayesian_gmm.kl_to_prior(params))) < 5 * error


@pytest.mark.slow
def test_the_predictive_density_integrates_and_beats_the_plug_in_tails(x64, key):
    x = IRIS[:, :1]
    params = bayesian_gmm.fit_cavi(key, x[::10], 2, num_starts=2).params
    grid = np.linspace(-60, 70, 40_001)[:, None]
    mass = np.trapezoid(np.exp(bayesian_gmm.log_prob(params, grid)), grid[:, 0])
    assert abs(mass - 1) < 2e-3
    far = np.array([[20.0]])
    assert float(bayesian_gmm.log_prob(params, far)[0]) > float(gmm.log_prob(bayesian_gmm.point(params), far)[0])


def test_weights_count_rows(x64, key):
    weight = np.random.default_rng(0).integers(0, 3, len(IRIS))
    start = gmm.fit_em(key, IRIS, 2, num_starts=1, max_steps=1).params
    rows = np.repeat(IRIS, weight, axis=0)
    options = {"start": start, "max_steps": 2, "tolerance": 0.0, "mean": IRIS.mean(0), "scatter": np.eye(4)}
    weighted = bayesian_gmm.fit_cavi(key, vaejax.Batch(IRIS, weight=weight.astype(float)), 2, **options)
    np.testing.assert_allclose(weighted.trace, bayesian_gmm.fit_cavi(key, rows, 2, **options).trace, rtol=1e-9)


@pytest.mark.wants_nan
def test_refusals(key):
    with pytest.raises(ValueError, match="degrees must be finite, greater than 3"):
        bayesian_gmm.fit_cavi(key, IRIS, 2, degrees=3.0)
    with pytest.raises(ValueError, match=r"column 4 is constant, .* give scatter="):
        bayesian_gmm.fit_cavi(key, np.c_[IRIS, np.full(150, 37.7)], 2)
    with pytest.raises(ValueError, match="scatter must be positive definite"):
        bayesian_gmm.fit_cavi(key, IRIS, 2, scatter=np.ones((4, 4)))
    with pytest.raises(ValueError, match="scatter must be symmetric, got 1 at"):
        bayesian_gmm.fit_cavi(key, IRIS, 2, scatter=2 * np.eye(4) + np.eye(4, k=1))
    heavy = vaejax.Batch(IRIS.astype(np.float32), weight=np.full(len(IRIS), 1e37, np.float32))  # their sum overflows
    with pytest.raises(ValueError, match="squares overflow float32"):
        bayesian_gmm.fit_cavi(key, heavy, 2, num_starts=1, scatter=np.eye(4), max_steps=5)
    with pytest.raises(ValueError, match="for 5 components"):
        bayesian_gmm.fit_cavi(key, IRIS, 5, start=gmm.Gmm(np.ones(3) / 3, IRIS[:3], np.stack([np.eye(4)] * 3)))
    with pytest.raises(ValueError, match="concentration must be finite, greater than 0"):
        bayesian_gmm.fit_cavi(key, IRIS, 2, concentration=0.0)
    with pytest.raises(ValueError, match="200 components need as many rows"):
        bayesian_gmm.fit_cavi(key, IRIS, 200)


def test_a_mask_must_hide_nothing(x64, key):
    params = bayesian_gmm.fit_cavi(key, IRIS, 2, num_starts=1, max_steps=3).params
    holes, whole = (vaejax.Batch(jnp.asarray(IRIS), mask=jnp.asarray(seen)) for seen in (IRIS < 7, IRIS < 100))
    for function in (bayesian_gmm.posterior, bayesian_gmm.log_prob, bayesian_gmm.elbo):
        with pytest.raises(ValueError, match="complete rows"):
            function(params, holes)
    np.testing.assert_array_equal(bayesian_gmm.elbo(params, whole), bayesian_gmm.elbo(params, IRIS))


def test_a_step_far_from_the_origin(key):
    far = (IRIS + 10_000).astype(np.float32)
    near = far.astype(np.float64) - 10_000
    start = bayesian_gmm.fit_cavi(key, near, 2, num_starts=1, max_steps=2).params
    begin = start._replace(mean=np.round(start.mean), prior=start.prior._replace(mean=np.round(start.prior.mean)))
    moved = begin._replace(mean=begin.mean + 10_000, prior=begin.prior._replace(mean=begin.prior.mean + 10_000))
    there = bayesian_gmm.em_step(moved, far)
    with jax.enable_x64(True):
        here = bayesian_gmm.em_step(jax.tree.map(np.float64, begin), near)
    np.testing.assert_allclose(there.scatter, here.scatter, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.asarray(there.mean, np.float64) - 10_000, here.mean, atol=1e-3)


def test_each_start_tells_its_steps(key):
    found = bayesian_gmm.fit_cavi(key, IRIS, 2, num_starts=3, max_steps=40)
    assert found.start_steps.shape == (3,)
    assert int(found.start_steps[int(np.argmax(found.starts))]) == int(found.num_steps)
    assert found.start_reseeds is None
