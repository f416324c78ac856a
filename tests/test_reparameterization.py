"""The record of what reparameterises, and the maps from uniform noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.helpers import assert_mean
from vaejax.dists import (
    Bernoulli,
    Cauchy,
    Kumaraswamy,
    LogNormal,
    MultivariateNormal,
    Poisson,
    diagonal_normal,
    from_noise,
    is_reparameterized,
)
from vaejax.dists.backend import distrax

FAMILIES = {
    "Normal": (lambda a, b: distrax.Normal(a, b), scipy.stats.norm(0.7, 1.3)),
    "Laplace": (lambda a, b: distrax.Laplace(a, b), scipy.stats.laplace(0.7, 1.3)),
    "Logistic": (lambda a, b: distrax.Logistic(a, b), scipy.stats.logistic(0.7, 1.3)),
    "Gumbel": (lambda a, b: distrax.Gumbel(a, b), scipy.stats.gumbel_r(0.7, 1.3)),
    "Uniform": (lambda a, b: distrax.Uniform(a, b), scipy.stats.uniform(0.7, 0.6)),
    "Cauchy": (lambda a, b: Cauchy(a, b), scipy.stats.cauchy(0.7, 1.3)),
    "LogNormal": (lambda a, b: LogNormal(a, b), scipy.stats.lognorm(s=1.3, scale=np.exp(0.7))),
    "Kumaraswamy": (lambda a, b: Kumaraswamy(a, b), None),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_noise_maps_are_inverse_distribution_functions(name, x64):
    make, exact = FAMILIES[name]
    q, u = make(0.7, 1.3), jnp.array([0.001, 0.1, 0.5, 0.9, 0.999])
    expected = exact.ppf(u) if exact else (1 - (1 - np.asarray(u)) ** (1 / 1.3)) ** (1 / 0.7)
    z = from_noise(q, u)
    np.testing.assert_allclose(z, expected, rtol=1e-9)
    log_density = exact.logpdf(expected) if exact else np.log(0.7 * 1.3) - 0.3 * np.log(z) + 0.3 * np.log1p(-(z**0.7))
    np.testing.assert_allclose(q.log_prob(z), log_density, rtol=1e-8)
    assert is_reparameterized(q) is True


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_follow_the_distribution_and_are_differentiable(name, key):
    """Kolmogorov–Smirnov on fixed draws, and the pathwise gradient of a bounded statistic against its exact derivative."""
    make, exact = FAMILIES[name]
    draws = np.asarray(make(0.7, 1.3).sample(seed=key, sample_shape=5000))
    cdf = exact.cdf if exact else (lambda z: 1 - (1 - z**0.7) ** 1.3)
    assert scipy.stats.kstest(draws, cdf).pvalue > 1e-3

    def statistic(a, b, k):
        return jnp.mean(jnp.tanh(make(a, b).sample(seed=k, sample_shape=100)))

    u = (np.arange(200_000) + 0.5) / 200_000
    quadrature = jax.grad(lambda a, b: jnp.mean(jnp.tanh(from_noise(make(a, b), jnp.asarray(u, jnp.float32)))), (0, 1))(
        0.7, 1.3
    )
    gradients = jax.vmap(jax.grad(statistic, (0, 1)), (None, None, 0))(0.7, 1.3, jax.random.split(key, 1000))
    for drawn, wanted in zip(gradients, quadrature):
        assert_mean(drawn, wanted, cap=0.05, rounding=2e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_stay_finite_at_the_ends_of_the_noise(name):
    u = jnp.array([np.finfo(np.float32).tiny, 1 - 2**-24], jnp.float32)
    z = from_noise(FAMILIES[name][0](0.7, 1.3), u)
    assert bool(jnp.isfinite(z).all())
    assert bool(jnp.isfinite(FAMILIES[name][0](0.7, 1.3).log_prob(z)).all())


@pytest.mark.parametrize(
    ("name", "make", "exact"),
    [
        ("LogNormal", LogNormal, scipy.stats.lognorm(s=0.5, scale=np.exp(0.7))),
        ("Cauchy", Cauchy, scipy.stats.cauchy(0.7, 0.5)),
    ],
)
def test_entropies(name, make, exact):
    np.testing.assert_allclose(make(0.7, 0.5).entropy(), exact.entropy(), rtol=1e-5)


def test_kumaraswamy_moments(key):
    q = Kumaraswamy(2.0, 3.0)
    z, log_q = q.sample_and_log_prob(seed=key, sample_shape=(50_000,))
    assert_mean(z, q.mean(), cap=0.002)
    assert_mean(-log_q, q.entropy(), cap=0.01)


def test_poisson_is_scipys(key):
    p = Poisson(jnp.log(jnp.array([0.5, 4.0])))
    np.testing.assert_allclose(
        p.log_prob(jnp.array([2, 3], jnp.uint8)), scipy.stats.poisson([0.5, 4.0]).logpmf([2, 3]), rtol=1e-5
    )
    assert_mean(p.sample(seed=key, sample_shape=20_000), p.mean(), cap=0.03)
    np.testing.assert_allclose(p.variance(), [0.5, 4.0], rtol=1e-6)


IMPLICIT = {
    "Gamma": (lambda a: distrax.Gamma(a, 2.0), lambda a: a / 2.0),
    "Beta": (lambda a: distrax.Beta(a, 2.0), lambda a: a / (a + 2.0)),
    "Dirichlet": (
        lambda a: distrax.Dirichlet(jnp.stack([a, jnp.asarray(2.0), jnp.asarray(1.0)])),
        lambda a: jnp.stack([a, 2.0, 1.0]) / (a + 3.0),
    ),
}


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicitly_differentiated_samplers(name, key):
    """The derivative of the mean: these samplers reject, so a finite difference at a fixed key would not do."""
    make, mean = IMPLICIT[name]
    assert is_reparameterized(make(jnp.asarray(1.5))) is True
    gradients = jax.vmap(
        lambda k: jax.jacobian(lambda a: make(a).sample(seed=k, sample_shape=50).mean(0))(jnp.asarray(1.5))
    )(jax.random.split(key, 1000))
    assert_mean(gradients.reshape(1000, -1), np.reshape(jax.jacobian(mean)(1.5), -1), cap=0.01)


@pytest.mark.parametrize(
    "q",
    [
        Bernoulli(jnp.zeros(2)),
        Poisson(jnp.zeros(2)),
        distrax.Categorical(jnp.zeros(3)),
        distrax.OneHotCategorical(jnp.zeros(3)),
        distrax.Independent(distrax.Bernoulli(jnp.zeros(2)), 1),
    ],
)
def test_discrete_families_do_not(q):
    assert is_reparameterized(q) is False


def test_composites_answer_for_their_parts():
    normal, coin = distrax.Normal(0.0, 1.0), distrax.Bernoulli(0.0)
    assert is_reparameterized(distrax.Joint((normal, coin))) is False
    assert is_reparameterized(distrax.Joint((normal, normal))) is True
    assert is_reparameterized(distrax.Transformed(normal, distrax.Sigmoid())) is True
    assert (
        is_reparameterized(
            distrax.MixtureSameFamily(distrax.Categorical(jnp.zeros(2)), distrax.Normal(jnp.zeros(2), 1.0))
        )
        is False
    )
    assert is_reparameterized(object()) is None

    class Own:
        reparameterized = False

    assert is_reparameterized(Own()) is False


def test_tfp_keeps_a_record_that_is_believed():
    from tensorflow_probability.substrates import jax as tfp

    for make in (lambda d: d, lambda d: distrax.Independent(d, 1)):
        assert is_reparameterized(make(tfp.distributions.Normal(jnp.zeros(2), 1.0))) is True
        assert is_reparameterized(make(tfp.distributions.Bernoulli(logits=jnp.zeros(2)))) is False


def test_vectors_from_noise():
    tril = jnp.array([[1.0, 0.0], [0.5, 0.3]])
    np.testing.assert_allclose(from_noise(MultivariateNormal(jnp.ones(2), tril), jnp.full(2, 0.5)), 1.0)
    np.testing.assert_allclose(from_noise(diagonal_normal(jnp.ones(2), jnp.ones(2)), jnp.full((7, 2), 0.5)), 1.0)
    with pytest.raises(TypeError, match=r"Poisson has no map from uniform noise"):
        from_noise(Poisson(jnp.zeros(2)), jnp.full(2, 0.5))
