"""Antithetic and quasi-Monte Carlo noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests import exact
from tests.helpers import gradient
from vaejax.dists import standard_normal, uniform_noise
from vaejax.dists.backend import distrax
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    variance,
)
from vaejax.objectives import elbo


@pytest.mark.parametrize("kind", ["independent", "antithetic", "sobol"])
def test_every_point_is_uniform(kind, key):
    u = jax.jit(jax.vmap(lambda k: uniform_noise(kind, k, 8, (3,), (2,))))(jax.random.split(key, 4000))
    assert u.shape == (4000, 8, 3, 2)
    assert 0 < float(u.min()) < 1e-4
    assert 1 - 1e-4 < float(u.max()) < 1
    tails = np.asarray(u).reshape(4000, -1)
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        share = (tails < q).mean(0)
        assert np.abs(share - q).max() < 5 * np.sqrt(q * (1 - q) / 4000)
    assert jnp.isfinite(jax.scipy.special.ndtri(u)).all()


def test_sobol_points_are_a_net(key):
    """Of 64 points, each dyadic interval of length 1/64 of each axis holds one, and each square of side 1/8 of the first two."""
    u = np.asarray(uniform_noise("sobol", key, 64, (4,), (3,)))
    for example in range(4):
        for axis in range(3):
            assert sorted((64 * u[:, example, axis]).astype(int)) == list(range(64))
        cells = (8 * u[:, example, :2]).astype(int)
        assert len({tuple(cell) for cell in cells}) == 64
    assert not np.array_equal(u[:, 0], u[:, 1])


def test_noise_lowers_the_variance_of_the_elbo_gradient(key, x64):
    """The gradient of the location is odd about the mean: antithetic pairs leave it no variance at all here."""
    p, spread = exact.params("near"), {}
    for noise in ("independent", "antithetic", "sobol"):
        made = pathwise(exact.model(), elbo, num_samples=16, noise=noise)
        spread[noise] = variance(made, p, key, exact.X, num_draws=2000).variance["encoder"]
    assert spread["antithetic"]["loc"] < 1e-20 < spread["independent"]["loc"]
    for part in ("loc", "log_scale"):
        assert spread["sobol"][part] < 0.2 * spread["independent"][part]


@pytest.mark.parametrize("noise", ["antithetic", "sobol"])
def test_noise_reaches_correlated_posteriors(noise, key, x64):
    tril = jnp.array([[1.0, 0.0], [0.8, 0.5]])
    q = vaejax.dists.MultivariateNormal(jnp.array([[1.0, -2.0]]), tril)
    z = jax.vmap(lambda k: vaejax.dists.SplitPosterior(q, q, noise).sample_and_log_prob(seed=k, sample_shape=(16,))[0])(
        jax.random.split(key, 4000)
    ).reshape(-1, 2)
    np.testing.assert_allclose(z.mean(0), [1.0, -2.0], atol=0.01)
    np.testing.assert_allclose(np.cov(z.T), tril @ tril.T, atol=0.02)


def test_noise_without_a_map_is_refused_by_init(small, key):
    model, params, batch = small
    gamma = distrax.Independent(distrax.Gamma(jnp.ones((5, 3)), jnp.ones((5, 3))), 1)
    for posterior, words in ((Opaque(), "batch_shape"), (gamma, "no map from uniform noise")):
        with pytest.raises(TypeError, match=words):
            pathwise(model._replace(posterior=lambda p, x, q=posterior: q), elbo, num_samples=2, noise="sobol").init(
                params, key, batch
            )
    for call, words in (
        (lambda: uniform_noise("sobol", jax.random.PRNGKey(0), 4, (), (2,)), "typed key"),
        (lambda: uniform_noise("sobol", key, 0, (), (2,)), "num_samples must be at least 1"),
        (lambda: uniform_noise("sobol", key, 4, (), (30_000,)), "at most 21201 dimensions"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            call()


def test_antithetic_noise_and_a_reparameterised_prior_go_together(small, key):
    model, params, batch = small
    made = doubly_reparameterized(model, elbo, num_samples=4, noise="antithetic", prior="reparameterized")
    assert gradient(made, params, key, batch).objective.shape == (5,)


class Opaque:
    """A posterior that samples, and says nothing else."""

    reparameterized = True

    def sample_and_log_prob(self, *, seed, sample_shape=()):
        z = jax.random.normal(seed, (*sample_shape, 5, 3))
        return z, self.log_prob(z)

    def log_prob(self, z):
        return standard_normal(3).log_prob(z)
