"""Probabilistic PCA against dense Gaussians, eigenvalues and scikit-learn; EM against the closed form, with and without holes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import vaejax
from vaejax.conjugate import ppca

SIZE, LATENTS = 6, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, LATENTS)) @ RNG.normal(size=(LATENTS, SIZE)) * 2 + 0.5 * RNG.normal(size=(200, SIZE)) + 3
HOLES = vaejax.Batch(np.where(RNG.random(X.shape) < 0.3, np.nan, X), mask=None)
MASK = ~np.isnan(HOLES.x)
MASKED = vaejax.Batch(np.where(MASK, X, 0.0), mask=MASK)


def dense(params, x, mask=None):
    """log N row by row, from the covariance of its observed entries."""
    mean, weight = np.asarray(params.mean), np.asarray(params.weight)
    covariance = weight @ weight.T + float(params.variance) * np.eye(len(mean))
    mask = np.ones(x.shape, bool) if mask is None else mask
    rows = zip(x, mask)
    return np.array([multivariate_normal.logpdf(r[m], mean[m], covariance[np.ix_(m, m)]) for r, m in rows])


def test_maximum_likelihood_is_scikit_learns(x64):
    params = ppca.fit_ml(X, LATENTS)
    other = PCA(LATENTS).fit(X)
    count = len(X)
    np.testing.assert_allclose(params.variance, other.noise_variance_ * (count - 1) / count, rtol=1e-12)
    covariance = params.weight @ params.weight.T + params.variance * np.eye(SIZE)
    np.testing.assert_allclose(covariance, other.get_covariance() * (count - 1) / count, rtol=1e-10)
    np.testing.assert_allclose(ppca.log_prob(params, X), dense(params, X), rtol=1e-12)
    # No direction of the parameters gains anything.
    slope = jax.grad(lambda p: jnp.sum(ppca.log_prob(p, X)))(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in slope) < 1e-8


def test_em_reaches_the_closed_form_and_never_falls(x64, key):
    found = ppca.fit_em(key, X, LATENTS, tolerance=1e-14, max_steps=5000)
    best = ppca.fit_ml(X, LATENTS)
    assert bool(found.converged)
    np.testing.assert_allclose(found.objective, jnp.sum(ppca.log_prob(best, X)), rtol=1e-9)
    assert np.degrees(subspace_angles(found.params.weight, best.weight)).max() < 0.1
    trace = np.asarray(found.trace)[: int(found.num_steps) + 1]
    assert np.isfinite(trace).all()
    assert (np.diff(trace) > -1e-10 * np.abs(trace[1:])).all()


def test_missing_entries_drop_out(x64, key):
    found = ppca.fit_em(key, MASKED, LATENTS, tolerance=1e-15, max_steps=20_000)
    np.testing.assert_allclose(ppca.log_prob(found.params, MASKED), dense(found.params, X, MASK), rtol=1e-10)
    slope = jax.grad(lambda p: jnp.mean(ppca.log_prob(p, MASKED)))(found.params)
    assert max(float(jnp.abs(leaf).max()) for leaf in slope) < 1e-6
    whole = ppca.fit_ml(X, LATENTS)
    assert np.degrees(subspace_angles(found.params.weight, whole.weight)).max() < 10
    other = MASKED._replace(x=np.where(MASK, X, 77.0))
    np.testing.assert_array_equal(ppca.fit_em(key, other, LATENTS, max_steps=5).trace[:6],
                                  ppca.fit_em(key, MASKED, LATENTS, max_steps=5).trace[:6])  # fmt: skip


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "holes"])
def test_as_a_model_the_bound_is_the_evidence(x64, key, mask):
    """With its exact posterior every log-weight is the evidence."""
    params = ppca.fit_ml(X, LATENTS)
    model = ppca.as_model(params)
    batch = vaejax.Batch(jnp.asarray(np.where(mask, X, 0.0) if mask is not None else X), mask=mask)
    terms = vaejax.log_terms(model, model.init(key, None), key, batch, num_samples=3)
    exact = ppca.log_prob(params, batch)
    np.testing.assert_allclose(terms.log_weights, jnp.broadcast_to(exact, (3, len(X))), rtol=1e-8)
    q = ppca.posterior(params, batch)
    assert q.mean().shape == (len(X), LATENTS)


def test_float32_of_data_far_from_the_origin():
    """Residuals of large squares: the distance is no difference of them."""
    far = (X + 1000).astype(np.float32)
    params = ppca.fit_ml(far, LATENTS)
    np.testing.assert_allclose(ppca.log_prob(params, far), dense(params, far), rtol=1e-4)


def test_float32_of_many_rows_and_little_noise(key):
    """What counts as no noise does not grow with the rows, and is the same for both fits."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200_000, 3)) * [100, 1, 1]).astype(np.float32)
    np.testing.assert_allclose(ppca.fit_ml(x, 1).variance, 1.0, rtol=0.02)
    flat = x[:, :1] * np.float32([1, 2, 3]) + np.float32(100)
    for fit in (ppca.fit_ml, lambda x, q: ppca.fit_em(key, x, q)):
        with pytest.raises(ValueError, match="explains all 200000 rows and leaves no noise"):
            fit(flat, 1)
    little = (rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 10)) + 1e-3 * rng.normal(size=(3000, 10))).astype(
        np.float32
    )
    np.testing.assert_allclose(ppca.fit_ml(little, 2).variance, 1e-6, rtol=0.05)
    np.testing.assert_allclose(ppca.fit_em(key, little, 2, max_steps=300).params.variance, 1e-6, rtol=0.5)


def test_weights_count_rows_with_holes(x64, key):
    weight = np.random.default_rng(1).integers(0, 3, len(X))
    start = ppca.fit_ml(X, LATENTS)
    weighted = ppca.em_step(start, MASKED._replace(weight=weight.astype(float)))
    repeated = ppca.em_step(start, vaejax.Batch(MASKED.x.repeat(weight, 0), mask=MASK.repeat(weight, 0)))
    for one, other in zip(weighted, repeated):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_criteria_count_every_row_of_a_batch(x64):
    params = ppca.fit_ml(X, LATENTS)
    total = ppca.log_prob(params, X).sum()
    free = SIZE + SIZE * LATENTS - 1 + 1
    for x in (X, X.reshape(4, 50, SIZE), vaejax.Batch(X.reshape(4, 50, SIZE), weight=np.ones((4, 50)))):
        np.testing.assert_allclose(ppca.aic(params, x), 2 * free - 2 * total, rtol=1e-12)
        np.testing.assert_allclose(ppca.bic(params, x), free * np.log(200) - 2 * total, rtol=1e-12)


def test_refusals(key):
    with pytest.raises(ValueError, match="below the 6 columns of x, got 6"):
        ppca.fit_ml(X, 6)
    with pytest.raises(ValueError, match="leave no noise"):
        ppca.fit_ml(X[:3], 2)
    with pytest.raises(ValueError, match="use fit_em"):
        ppca.fit_ml(MASKED, 2)
    with pytest.raises(ValueError, match="NaN"):
        ppca.fit_em(key, HOLES.x, 2)
    with pytest.raises(ValueError, match="row 0 has no observed entry"):
        ppca.fit_em(key, MASKED._replace(mask=MASK & (np.arange(len(X)) > 0)[:, None]), 2)
    with pytest.raises(ValueError, match="latent_size must be at least 1"):
        ppca.fit_ml(X, 0)


def test_digits_with_a_third_of_the_entries_missing(x64, key):
    """The observed-data likelihood row by row, a stationary point, and the subspace of the whole data."""
    x = load_digits().data
    mask = np.random.default_rng(0).random(x.shape) < 0.7
    holes = vaejax.Batch(np.where(mask, x, np.nan), mask=mask)
    found = ppca.fit_em(key, holes, 5, tolerance=0.0)
    np.testing.assert_allclose(ppca.log_prob(found.params, holes), dense(found.params, x, mask), rtol=1e-10)
    slope = jax.jit(jax.grad(lambda p: jnp.mean(ppca.log_prob(p, holes))))(found.params)
    assert max(float(jnp.abs(leaf).max()) for leaf in slope) < 1e-6
    assert np.degrees(subspace_angles(found.params.weight, ppca.fit_ml(x, 5).weight)).max() < 10
