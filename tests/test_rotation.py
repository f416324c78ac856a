"""Varimax against its own definition: the criterion's maximum over plane rotations, scikit-learn's, known structures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import FactorAnalysis

from vaejax.conjugate import factor_analysis, varimax
from vaejax.conjugate.rotation import correlations


def criterion(weight, normalize):
    if normalize:
        weight = weight / np.sqrt(np.sum(weight**2, 1, keepdims=True))
    return np.sum(np.var(weight**2, axis=0))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_no_plane_rotation_does_better(seed, normalize):
    weight = np.random.default_rng(seed).normal(size=(9, 3)) * np.random.default_rng(seed).gamma(2.0, size=(9, 1))
    with jax.enable_x64(True):
        found = np.asarray(varimax(weight, normalize=normalize))
    np.testing.assert_allclose(found @ found.T, weight @ weight.T, atol=1e-12)
    best = criterion(found, normalize)
    assert best >= criterion(weight, normalize)
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        for angle in [1e-3, -1e-3, 0.02, -0.02]:
            turned = found.copy()
            turned[:, i] = np.cos(angle) * found[:, i] - np.sin(angle) * found[:, j]
            turned[:, j] = np.sin(angle) * found[:, i] + np.cos(angle) * found[:, j]
            assert criterion(turned, normalize) < best
    seen = found / np.sqrt(np.sum(found**2, 1, keepdims=True)) if normalize else found
    assert (np.diff(np.sum(seen**2, 0)) <= 0).all()
    assert (seen.max(0) == np.abs(seen).max(0)).all()
    if normalize:
        # Whatever the units of the columns.
        with jax.enable_x64(True):
            scale = np.geomspace(1e-3, 1e3, 9)[:, None]
            np.testing.assert_allclose(varimax(weight * scale), found * scale, rtol=1e-6)


def test_it_is_scikit_learns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 8)) + rng.normal(size=(400, 8))
    theirs = FactorAnalysis(3, rotation="varimax", svd_method="lapack", tol=1e-8).fit(x)
    plain = FactorAnalysis(3, svd_method="lapack", tol=1e-8).fit(x)
    with jax.enable_x64(True):
        ours = np.asarray(varimax(plain.components_.T, normalize=False))
    wanted = theirs.components_.T
    wanted = wanted[:, np.argsort(-np.sum(wanted**2, 0))]
    wanted = wanted * np.sign(wanted[np.argmax(np.abs(wanted), 0), np.arange(3)])
    # Theirs ends at a relative gain of 1e-6.
    np.testing.assert_allclose(ours, wanted, atol=2e-3)


def test_a_simple_structure_is_found_whatever_its_scale_and_the_likelihood_stays():
    simple = np.repeat(np.eye(2), [3, 5], axis=0) * np.linspace(2.0, 0.3, 8)[:, None]
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    with jax.enable_x64(True):
        found = np.asarray(varimax(simple @ turn))
        np.testing.assert_allclose(np.abs(found), simple[:, ::-1], atol=1e-5)
        params = factor_analysis.FactorAnalysis(jnp.zeros(8), jnp.asarray(simple @ turn), jnp.ones(8))
        x = np.random.default_rng(0).normal(size=(5, 8))
        same = factor_analysis.log_prob(params._replace(weight=found), x)
        np.testing.assert_allclose(same, factor_analysis.log_prob(params, x), rtol=1e-12)


@pytest.mark.wants_nan
def test_one_factor_rows_of_zero_and_bad_input():
    weight = jnp.array([[-2.0], [0.0], [1.0]])
    np.testing.assert_allclose(varimax(weight), -weight, atol=1e-6)
    assert np.isfinite(varimax(jnp.array([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]]))).all()
    with pytest.raises(ValueError, match=r"weight must be \[d, q\], got \[3\]"):
        varimax(jnp.ones(3))
    with pytest.raises(ValueError, match=r"weight holds 1 NaN or infinite value, .*; give the loadings of a fit"):
        varimax(jnp.array([[1.0, jnp.nan]]))
    with pytest.raises(ValueError, match=r"weight must be \[d, q\], got \[0, 2\]"):
        varimax(np.zeros((0, 2)))
    with pytest.raises(TypeError, match=r"must be an array \[d, q\], got FactorAnalysis; give params.weight"):
        varimax(factor_analysis.FactorAnalysis(jnp.zeros(3), weight, jnp.ones(3)))
    with pytest.raises(TypeError, match="real numbers, got complex64"):
        varimax(weight.astype(complex))
    whole = np.array([[1, 2], [3, 4], [0, 1]])
    np.testing.assert_array_equal(varimax(whole), varimax(whole.astype(np.float32)))
    with pytest.raises(ValueError, match="max_sweeps must be at least 1"):
        varimax(weight, max_sweeps=0)


def test_correlations_are_those_of_draws():
    params = factor_analysis.FactorAnalysis(
        jnp.zeros(3), jnp.array([[2.0, 0.0], [1.0, -1.0], [0.0, 3.0]]), jnp.array([1.0, 0.5, 2.0])
    )
    x, z = factor_analysis.sample(params, jax.random.key(0), 200_000)
    drawn = np.corrcoef(np.asarray(x).T, np.asarray(z).T)[:3, 3:]
    np.testing.assert_allclose(correlations(params.weight, params.noise), drawn, atol=0.01)
