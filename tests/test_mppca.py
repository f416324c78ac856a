"""Mixtures of probabilistic PCA: one component is probabilistic PCA, full rank a Gaussian mixture; exact as a Model."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_iris

import vaejax
from vaejax.conjugate import gmm, half_steps, mppca, ppca

IRIS = load_iris().data


def test_one_component_is_probabilistic_pca(x64, key):
    found = mppca.fit_em(key, IRIS, 1, 2, num_starts=1)
    one = ppca.fit_ml(IRIS, 2)
    np.testing.assert_allclose(found.objective, ppca.log_prob(one, IRIS).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.params.variance[0], one.variance, rtol=1e-10)
    np.testing.assert_allclose(np.abs(found.params.loading[0]), np.abs(one.weight), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_all_but_one_dimension_is_nearly_a_full_mixture_and_em_never_falls(x64, key):
    found = mppca.fit_em(key, IRIS, 3, 2, num_starts=10, tolerance=1e-10)
    trace = np.asarray(found.trace)[found.restarted : int(found.num_steps) + 1]
    assert (np.diff(trace) > -1e-10 * np.abs(trace[1:])).all()
    spherical, full = (gmm.fit_em(key, IRIS, 3, covariance=c).objective for c in ("spherical", "full"))
    assert spherical < found.objective < full
    np.testing.assert_allclose(mppca.log_prob(found.params, IRIS).sum(), found.objective, rtol=1e-10)
    steps = half_steps(gmm, mppca.to_gmm(found.params), IRIS, num_steps=2, covariance=gmm.low_rank(2))
    np.testing.assert_allclose(steps.bound + steps.kl, steps.log_likelihood, rtol=1e-6)


def test_as_a_model_every_weight_is_the_evidence(x64, key):
    params = mppca.fit_em(key, IRIS, 2, 1, num_starts=2).params
    terms = vaejax.log_terms(mppca.as_model(params), params, key, jnp.asarray(IRIS[:6]), num_samples=4)
    np.testing.assert_allclose(terms.log_weights, np.broadcast_to(mppca.log_prob(params, IRIS[:6]), (4, 6)), rtol=1e-8)
    x, component = mppca.sample(params, key, 100)
    assert x.shape == (100, 4)
    assert set(np.unique(component)) <= {0, 1}


def test_columns_that_never_vary_are_borne(key):
    x = np.c_[IRIS, np.zeros(len(IRIS))].astype(np.float32)
    assert np.isfinite(float(mppca.fit_em(key, x, 2, 1, num_starts=2, max_steps=20).objective))


def test_refusals(key):
    params = mppca.fit_em(key, IRIS, 1, 1, num_starts=1, max_steps=2).params
    with pytest.raises(ValueError, match="complete rows"):
        mppca.as_model(params).posterior(params, jnp.asarray(IRIS), mask=jnp.asarray(IRIS < 7))
    with pytest.raises(ValueError, match="below the 4 columns"):
        mppca.fit_em(key, IRIS, 2, 4)
    with pytest.raises(TypeError, match="its own covariance"):
        mppca.fit_em(key, IRIS, 2, 1, covariance="full")
