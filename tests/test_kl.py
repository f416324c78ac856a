"""Every listed closed-form pair against Monte Carlo and against quadrature or float64 references; finite at the extremes."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from tests.helpers import assert_mean
from vaejax import kl_divergence
from vaejax.dists import (
    Bernoulli,
    Binomial,
    Cauchy,
    Kumaraswamy,
    LogNormal,
    MultivariateNormal,
    OneHotCategorical,
    Poisson,
    closed_form,
    diagonal_normal,
    standard_normal,
)
from vaejax.dists.backend import distrax

TRIL = np.array([[1.0, 0.0], [0.4, 0.7]])


def pairs():
    """Name of the pair as in docs/kl-pairs.md -> (q, p), two members of each."""
    a = np.asarray
    return {
        "Normal || Normal": (distrax.Normal(0.3, 0.8), distrax.Normal(-0.5, 1.7)),
        "LogStddevNormal || LogStddevNormal": (distrax.LogStddevNormal(0.3, -0.2), distrax.LogStddevNormal(-0.5, 0.4)),
        "Laplace || Laplace": (distrax.Laplace(0.3, 0.8), distrax.Laplace(-0.5, 1.7)),
        "Gumbel || Gumbel": (distrax.Gumbel(0.3, 0.8), distrax.Gumbel(-0.5, 1.7)),
        "Uniform || Uniform": (distrax.Uniform(0.2, 0.7), distrax.Uniform(0.0, 1.5)),
        "Laplace || Normal": (distrax.Laplace(0.3, 0.8), distrax.Normal(-0.5, 1.7)),
        "Logistic || Normal": (distrax.Logistic(0.3, 0.8), distrax.Normal(-0.5, 1.7)),
        "Gumbel || Normal": (distrax.Gumbel(0.3, 0.8), distrax.Normal(-0.5, 1.7)),
        "Uniform || Normal": (distrax.Uniform(0.2, 0.7), distrax.Normal(-0.5, 1.7)),
        "Normal || Laplace": (distrax.Normal(0.3, 0.8), distrax.Laplace(-0.5, 1.7)),
        "LogNormal || LogNormal": (LogNormal(0.3, 0.8), LogNormal(-0.5, 1.7)),
        "Cauchy || Cauchy": (Cauchy(0.3, 0.8), Cauchy(-0.5, 1.7)),
        "Kumaraswamy || Uniform": (Kumaraswamy(2.0, 3.0), distrax.Uniform(-0.5, 1.2)),
        "Gamma || Gamma": (distrax.Gamma(2.0, 1.5), distrax.Gamma(3.0, 1.0)),
        "Beta || Beta": (distrax.Beta(2.0, 3.0), distrax.Beta(1.5, 1.2)),
        "Dirichlet || Dirichlet": (distrax.Dirichlet(a([2.0, 3.0, 1.5])), distrax.Dirichlet(a([1.0, 1.2, 2.0]))),
        "VonMises || VonMises": (distrax.VonMises(0.3, 2.0), distrax.VonMises(-0.5, 1.0)),
        "Poisson || Poisson": (Poisson(a(0.8)), Poisson(a(1.3))),
        "Bernoulli || Bernoulli": (Bernoulli(a([0.5, -1.0])), Bernoulli(a([-0.3, 0.2]))),
        "Binomial || Binomial": (Binomial(5, a([0.5, -1.0])), Binomial(5, a([-0.3, 0.2]))),
        "OneHotCategorical || OneHotCategorical": (
            OneHotCategorical(a([[0.5, -1.0, 2.0], [0.1, 0.0, -0.4]]), event_ndims=2),
            OneHotCategorical(a([[0.0, 0.3, 1.0], [-1.0, 0.2, 0.5]]), event_ndims=2),
        ),
        "distrax.Bernoulli || distrax.Bernoulli": (
            distrax.Bernoulli(0.5, dtype=float),
            distrax.Bernoulli(-0.3, dtype=float),
        ),
        "Categorical || Categorical": (
            distrax.Categorical(a([0.1, 0.5, -1.0])),
            distrax.Categorical(a([0.0, -0.4, 0.9])),
        ),
        "distrax.OneHotCategorical || distrax.OneHotCategorical": (
            distrax.OneHotCategorical(a([0.1, 0.5, -1.0]), dtype=float),
            distrax.OneHotCategorical(a([0.0, -0.4, 0.9]), dtype=float),
        ),
        "MultivariateNormal || MultivariateNormal": (
            MultivariateNormal(a([0.1, -0.4]), TRIL),
            MultivariateNormal(a([0.5, 0.2]), TRIL.T @ TRIL * np.tri(2) + np.eye(2)),
        ),
        "Independent Normal || MultivariateNormal": (
            diagonal_normal(jnp.array([0.1, -0.4]), jnp.array([0.5, 1.3])),
            MultivariateNormal(a([0.5, 0.2]), TRIL),
        ),
        "MultivariateNormal || Independent Normal": (MultivariateNormal(a([0.5, 0.2]), TRIL), standard_normal(2)),
        "Independent || Independent": (
            distrax.Independent(distrax.Laplace(jnp.array([0.1, 0.4]), 0.5), 1),
            distrax.Independent(distrax.Normal(jnp.array([0.0, 1.0]), 1.2), 1),
        ),
        "Transformed || Transformed (same bijector)": (
            distrax.Transformed(distrax.Normal(0.3, 0.8), SIGMOID),
            distrax.Transformed(distrax.Normal(-0.5, 1.7), SIGMOID),
        ),
    }


SIGMOID = distrax.Sigmoid()
NAMES = list(pairs())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_agrees_with_monte_carlo(name, key, x64):
    q, p = pairs()[name]
    exact = kl_divergence(q, p)
    draws = np.stack(
        [jax.vmap(lambda k: kl_divergence(q, p, key=k, num_samples=1000))(jax.random.split(key, 200))]
    ).reshape(200, -1)
    assert np.ndim(exact) == 0
    assert exact > 0
    assert_mean(draws, np.reshape(exact, -1), cap=0.02 * max(1.0, float(exact)))
    if type(q) is type(p) and not isinstance(q, distrax.Independent):
        assert float(kl_divergence(q, q)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in NAMES
        if n.split(" || ")[0]
        in {"Normal", "Laplace", "Logistic", "Gumbel", "Uniform", "LogNormal", "Cauchy", "Kumaraswamy", "Gamma", "Beta"}
    ],
)
def test_agrees_with_quadrature(name, x64):
    """E_q[log q − log p] in float64, integrated over the distribution function where q has a map from noise."""
    from vaejax.dists import from_noise

    q, p = pairs()[name]
    if name.startswith(("Gamma", "Beta")):
        upper = 1.0 if name.startswith("Beta") else 60.0
        value = scipy.integrate.quad(lambda z: float(q.prob(z) * (q.log_prob(z) - p.log_prob(z))), 0, upper, limit=200)[
            0
        ]
    else:

        def integrand(u):
            z = from_noise(q, jnp.asarray(u))
            return float(q.log_prob(z) - p.log_prob(z))

        value = scipy.integrate.quad(integrand, 0, 1, limit=200, epsabs=1e-9)[0]
    np.testing.assert_allclose(float(kl_divergence(q, p)), value, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name):
    single = float(kl_divergence(*jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), pairs()[name])))
    with jax.enable_x64(True):
        double = float(kl_divergence(*pairs()[name]))
    np.testing.assert_allclose(single, double, rtol=2e-5)


LOCATION_SCALE = {
    "Normal": distrax.Normal,
    "Laplace": distrax.Laplace,
    "Logistic": distrax.Logistic,
    "Gumbel": distrax.Gumbel,
    "LogNormal": LogNormal,
    "Cauchy": Cauchy,
    "LogStddevNormal": lambda loc, scale: distrax.LogStddevNormal(loc, jnp.log(scale)),
}


EXTREMES = [
    (name, q_log, p_log)
    for name in NAMES
    if set(name.split(" || ")) <= set(LOCATION_SCALE)
    for q_log in (-15.0, 0.0, 15.0)
    for p_log in (-15.0, 0.0, 15.0)
    # From a wide Gumbel to a narrow one the divergence itself, Γ(1 + e^15) or more, exceeds any float.
    if name != "Gumbel || Gumbel" or q_log <= p_log
]


@pytest.mark.parametrize(("name", "q_log_scale", "p_log_scale"), EXTREMES)
def test_finite_gradients_at_extreme_scales(name, q_log_scale, p_log_scale):
    left, right = (LOCATION_SCALE[part] for part in name.split(" || "))

    def divergence(parameters):
        q_loc, q_log, p_loc, p_log = parameters
        return kl_divergence(left(q_loc, jnp.exp(q_log)), right(p_loc, jnp.exp(p_log)))

    parameters = jnp.array([0.3, q_log_scale, -0.4, p_log_scale])
    value, grad = jax.value_and_grad(divergence)(parameters)
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(grad).all()), grad
    with jax.enable_x64(True):
        wide, wide_grad = jax.value_and_grad(divergence)(jnp.asarray(np.asarray(parameters), jnp.float64))
    np.testing.assert_allclose(value, wide, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grad, wide_grad, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(wide_grad).max()))


@pytest.mark.parametrize("q_log_scale", [-15.0, 0.0, 15.0])
@pytest.mark.parametrize("p_log_scale", [-15.0, 0.0, 15.0])
def test_finite_gradients_of_gaussian_vectors_at_extreme_scales(q_log_scale, p_log_scale):
    def divergence(q_log, p_log):
        diagonal = diagonal_normal(jnp.ones(3), log_scale=q_log)
        full = MultivariateNormal(jnp.zeros(3), jnp.diag(jnp.exp(p_log)))
        return kl_divergence(diagonal, full), kl_divergence(diagonal, diagonal_normal(jnp.zeros(3), log_scale=p_log))

    arguments = (jnp.full(3, q_log_scale), jnp.full(3, p_log_scale))
    full, diagonal = divergence(*arguments)
    np.testing.assert_allclose(full, diagonal, rtol=1e-5, atol=1e-5)
    for output in (0, 1):
        grads = jax.grad(lambda *a, i=output: divergence(*a)[i], (0, 1))(*arguments)
        assert all(bool(jnp.isfinite(g).all()) for g in grads)


def test_infinite_where_the_support_is_left():
    assert kl_divergence(distrax.Uniform(-1.0, 1.0), distrax.Uniform(0.0, 1.0)) == np.inf
    assert kl_divergence(Kumaraswamy(2.0, 2.0), distrax.Uniform(0.0, 0.5)) == np.inf


def test_unknown_pairs_are_named():
    q, p = (
        distrax.Independent(distrax.Normal(jnp.zeros(2), 1.0), 1),
        distrax.Independent(distrax.Logistic(jnp.zeros(2), 1.0), 1),
    )
    with pytest.raises(ValueError, match=r"Independent\[Normal\] \|\| Independent\[Logistic\].*key="):
        kl_divergence(q, p)
    with pytest.raises(ValueError, match="give key="):
        kl_divergence(q, p, num_samples=3)
    with pytest.raises(TypeError, match="typed key"):
        kl_divergence(q, p, key=jax.random.PRNGKey(0))
    assert kl_divergence(q, p, key=jax.random.key(0), num_samples=7).shape == ()


def test_event_shapes_must_agree():
    with pytest.raises(ValueError, match="event shapes"):
        kl_divergence(standard_normal(2), standard_normal(3))


def test_discrete_monte_carlo_gradient_is_the_score_functions(key):
    """Draws of a discrete q carry no gradient: the estimate must bring it back, not drop it."""
    p = Bernoulli(jnp.array([0.4]))
    exact = jax.grad(lambda l: kl_divergence(Bernoulli(l), p))(jnp.array([-0.7]))
    gradient = jax.grad(lambda l, k: kl_divergence(Bernoulli(l), p, key=k, num_samples=100))
    draws = jax.vmap(lambda k: gradient(jnp.array([-0.7]), k))(jax.random.split(key, 2000))
    assert_mean(draws, exact, cap=0.01)


def test_mixture_monte_carlo_gradient_has_no_pathwise_share(key):
    """distrax differentiates a mixture's draws in part: added to the score that would be biased (0.37 for 0.56)."""

    def mixture(loc):
        return distrax.MixtureSameFamily(
            distrax.Categorical(jnp.zeros(2)), distrax.Normal(jnp.stack([loc, -1.0]), jnp.ones(2))
        )

    p, grid = distrax.Normal(0.0, 1.0), jnp.linspace(-12.0, 12.0, 40_001)

    def quadrature(loc):
        log_q = mixture(loc).log_prob(grid)
        return jnp.sum(jnp.exp(log_q) * (log_q - p.log_prob(grid))) * (grid[1] - grid[0])

    gradient = jax.grad(lambda loc, k: kl_divergence(mixture(loc), p, key=k, num_samples=1000))
    draws = jax.vmap(lambda k: gradient(jnp.asarray(1.5), k))(jax.random.split(key, 1000))
    assert_mean(draws, jax.grad(quadrature)(1.5), cap=0.005)


def test_parts_sum_to_the_whole():
    total, parts = closed_form(diagonal_normal(jnp.ones((4, 3)), jnp.full((4, 3), 0.5)), standard_normal(3))
    assert total.shape == (4,)
    assert parts.shape == (4, 3)
    np.testing.assert_allclose(parts.sum(-1), total, rtol=1e-6)
    exact = 0.5 * (0.25 + 1 - 1) - math.log(0.5)
    np.testing.assert_allclose(parts, exact, rtol=1e-6)


def test_the_docs_list_these_pairs():
    text = (Path(__file__).parents[1] / "docs" / "kl-pairs.md").read_text()
    missing = [name for name in NAMES if f"| {name.replace(' || ', ' | ')} |" not in text]
    assert not missing
