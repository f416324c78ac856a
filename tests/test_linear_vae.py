"""The linear VAE: its bound in closed form, and what training by the ELBO alone arrives at."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import subspace_angles

import vaejax
from vaejax.conjugate import linear_vae, ppca

RNG = np.random.default_rng(0)
SCALES = np.array([4.0, 2.5, 1.6, 0.5, 0.5, 0.5, 0.5, 0.5])
X = (RNG.normal(size=(2000, 8)) * SCALES @ np.linalg.qr(RNG.normal(size=(8, 8)))[0].T + 1).astype(np.float32)


def test_the_bound_in_closed_form_is_the_mean_of_draws(key):
    model = linear_vae.as_model(2)
    params = model.init(key, X)
    params["encoder"]["weight"] *= 0.8
    drawn = vaejax.evaluate.elbo(model, params, key, X[:20], num_samples=2000)
    exact = linear_vae.bound(params, X[:20])
    assert (drawn.standard_error < 0.01 * np.abs(exact)).all()
    assert (np.abs(drawn.estimate - exact) < 5 * drawn.standard_error).all()
    assert (exact <= ppca.log_prob(linear_vae.as_ppca(params), X[:20])).all()


def test_the_bound_leaves_missing_entries_out(key):
    """Whatever stands in them, and as training sees them."""
    model = linear_vae.as_model(2)
    mask = np.random.default_rng(1).random((20, 8)) < 0.7
    holes = vaejax.Batch(np.where(mask, X[:20], 1e3), mask=mask)
    params = model.init(key, holes)
    np.testing.assert_allclose(params["decoder"].mean, np.nanmean(np.where(mask, X[:20], np.nan), 0), rtol=1e-5)
    params["encoder"]["weight"] *= 0.8
    exact = linear_vae.bound(params, holes)
    np.testing.assert_array_equal(exact, linear_vae.bound(params, holes._replace(x=np.where(mask, X[:20], np.nan))))
    assert (exact <= ppca.log_prob(linear_vae.as_ppca(params), holes)).all()
    drawn = vaejax.evaluate.elbo(model, params, key, holes, num_samples=2000)
    assert (np.abs(drawn.estimate - exact) < 5 * drawn.standard_error).all()
    assert (drawn.standard_error < 0.02 * np.abs(exact)).all()


@pytest.mark.slow
def test_training_reaches_maximum_likelihood_and_the_principal_directions(key):
    """Lucas et al. 2019: unlike maximum likelihood, the ELBO of a diagonal posterior also finds the rotation."""
    values = np.linalg.eigvalsh(np.cov(X.T))
    assert values[-3] / values[-4] >= 3
    model = linear_vae.as_model(3)
    schedule = optax.cosine_decay_schedule(0.02, 400 * 40)
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    result = vaejax.train.fit(
        key,
        model,
        X,
        estimator=estimator,
        optimizer=optax.adam(schedule),
        num_epochs=400,
        batch_size=50,
        progress=False,
    )
    found, best = linear_vae.as_ppca(result.state.params), ppca.fit_ml(X, 3)
    gap = jnp.mean(ppca.log_prob(best, X) - ppca.log_prob(found, X))
    assert -1e-4 < float(gap) < 1e-3
    assert float(jnp.mean(ppca.log_prob(best, X) - linear_vae.bound(result.state.params, X))) < 1e-3
    weight = np.asarray(found.weight, np.float64)
    assert np.degrees(subspace_angles(weight, best.weight)).max() < 1
    directions = np.linalg.eigh(np.cov(X.T))[1][:, -3:]
    cosines = np.abs(directions.T @ (weight / np.linalg.norm(weight, axis=0)))
    assert sorted(cosines.argmax(1)) == [0, 1, 2]
    assert np.degrees(np.arccos(np.minimum(cosines.max(1), 1))).max() < 2


def test_refusals(key):
    with pytest.raises(ValueError, match="d above latent_size=8"):
        linear_vae.as_model(8).init(key, X)
    with pytest.raises(ValueError, match="latent_size must be at least 1"):
        linear_vae.as_model(0)
    assert jax.tree.structure(linear_vae.as_model(1).init(key, X)).num_leaves == 5
