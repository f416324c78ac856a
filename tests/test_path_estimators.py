"""Low-variance pathwise gradients: exact where they must be exact, unbiased everywhere, refused where they are undefined."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests import exact
from tests.helpers import assert_gradient, linear_gaussian, slow_unless, tree_allclose
from vaejax.dists import MultivariateNormal, diagonal_normal, standard_normal
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    sticking_the_landing,
    taylor_control_variate,
    variance,
)
from vaejax.objectives import cubo, elbo, iwae, jackknife, tvo

MONTE_CARLO = functools.partial(elbo, kl="monte_carlo")


@pytest.fixture(scope="module")
def x():
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)


def digits_like():
    """A small nonlinear VAE with every part, its parameters and binary data."""
    model = vaejax.models.vae(x_shape=6, latent_size=3, hidden_sizes=(7,))
    data = jnp.asarray(np.random.default_rng(1).integers(0, 2, (5, 6)), jnp.float32)
    return model, model.init(jax.random.key(3), data), data


def grads_of(estimator, params, key, batch, **options):
    return estimator.estimate(params, estimator.init(params, key, batch), key, batch, **options)[0].grads


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


# --- at the exact posterior


def exact_encoder(dtype):
    """A linear-Gaussian model whose encoder is exact at params "encoder": every weight is p(x), whatever is drawn."""
    known = linear_gaussian()
    tril = known.posterior_tril
    gain = known.weight @ (tril @ tril.T) / known.noise**2
    params = {"encoder": {"gain": gain, "tril": tril}, "decoder": {"weight": known.weight, "bias": known.bias}}

    def posterior(p, x):
        mean = (x - known.bias) @ p["encoder"]["gain"]
        return MultivariateNormal(mean, jnp.broadcast_to(p["encoder"]["tril"], (*mean.shape, mean.shape[-1])))

    model = vaejax.Model(
        init=lambda key, batch: params,
        posterior=posterior,
        prior=lambda p: standard_normal(2),
        likelihood=lambda p, z: diagonal_normal(
            z @ p["decoder"]["weight"].T + p["decoder"]["bias"], jnp.asarray(known.noise, dtype)
        ),
    )
    return model, jax.tree.map(lambda a: a.astype(dtype), params)


@pytest.mark.parametrize(
    ("made", "num_samples"),
    [
        (functools.partial(sticking_the_landing, objective=elbo), 1),
        (functools.partial(sticking_the_landing, objective=elbo), 4),
    ]
    + [(functools.partial(doubly_reparameterized, objective=iwae), k) for k in (1, 5, 50)]
    + [(functools.partial(doubly_reparameterized, objective=o), 6) for o in (cubo, tvo, jackknife)],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    slow_unless(lambda dtype, _: dtype == jnp.float64, [(jnp.float32, 1e-5), (jnp.float64, 1e-12)]),
)
def test_no_noise_at_the_exact_posterior(made, num_samples, dtype, tolerance, key, x):
    with jax.enable_x64(dtype == jnp.float64):
        model, params = exact_encoder(dtype)
        data = x.astype(dtype)
        estimator = made(model, num_samples=num_samples)
        plain = pathwise(model, made.keywords["objective"] if num_samples > 1 else MONTE_CARLO, num_samples=num_samples)
        for k in jax.random.split(jax.random.key(7), 3):
            assert largest(grads_of(estimator, params, k, data)["encoder"]) <= tolerance
            assert largest(grads_of(plain, params, k, data)["encoder"]) > 1e-2
            assert largest(grads_of(estimator, params, k, data)["decoder"]) > 1e-2


@pytest.mark.parametrize("objective", [elbo, MONTE_CARLO])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_taylor_has_no_variance_where_the_integrand_is_quadratic(objective, num_samples, key, x, x64):
    """Mean and scale of the encoder, every draw: the exact gradient of the closed-form ELBO."""
    known = linear_gaussian()
    model, data = known.model(exact=False), x.astype(jnp.float64)
    params = model.init(key, None)

    def closed(p):
        return -jnp.mean(known.exact_elbo(data, data @ p["loc"], jnp.exp(jnp.broadcast_to(p["log_scale"], (4, 2)))))

    made = taylor_control_variate(model, objective, num_samples=num_samples)
    for k in jax.random.split(key, 3):
        tree_allclose(grads_of(made, params, k, data), jax.grad(closed)(params), rtol=1e-10, atol=1e-12)
    mean_only = taylor_control_variate(model, objective, num_samples=num_samples, scale="none")
    drawn = grads_of(mean_only, params, key, data)
    tree_allclose(drawn["loc"], jax.grad(closed)(params)["loc"], rtol=1e-10, atol=1e-12)
    assert largest(jax.tree.map(jnp.subtract, drawn["log_scale"], jax.grad(closed)(params)["log_scale"])) > 1e-3


# --- unbiased


ELBOS = {
    "pathwise": functools.partial(pathwise, objective=elbo),
    "pathwise, Monte Carlo": functools.partial(pathwise, objective=MONTE_CARLO),
    "sticking_the_landing": functools.partial(sticking_the_landing, objective=elbo),
    "doubly_reparameterized": functools.partial(doubly_reparameterized, objective=elbo),
    "doubly_reparameterized, prior": functools.partial(doubly_reparameterized, objective=elbo, prior="reparameterized"),
    "taylor_control_variate": functools.partial(taylor_control_variate, objective=elbo),
    "taylor_control_variate, mean": functools.partial(taylor_control_variate, objective=elbo, scale="none"),
    "antithetic": functools.partial(pathwise, objective=elbo, noise="antithetic"),
    "sobol": functools.partial(sticking_the_landing, objective=elbo, noise="sobol"),
}


@functools.cache
def exact_gradient(kind, where, num_samples):
    return jax.grad(lambda p: -exact.EXACT[kind](p, num_samples))(exact.params(where))


@pytest.mark.slow
@pytest.mark.parametrize("name", ELBOS)
def test_elbo_gradients_are_unbiased_near_and_far(name, key, x64):
    made = ELBOS[name](exact.model(), num_samples=2)
    for where in ("near", "far"):
        measured = variance(made, exact.params(where), key, exact.X, num_draws=20_000, block_size=4000)
        assert_gradient(measured, exact_gradient("elbo", where, 2))


IWAES = {
    "pathwise": (functools.partial(pathwise, objective=iwae), 100_000),
    "prior": (functools.partial(doubly_reparameterized, objective=iwae, prior="reparameterized"), 20_000),
    "prior, cubo": (functools.partial(doubly_reparameterized, objective=cubo, prior="reparameterized"), 20_000),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", IWAES)
def test_iwae_gradients_are_unbiased_near_and_far(name, key, x64):
    """DReG itself: tests/test_bounds.py, with every objective."""
    maker, num_draws = IWAES[name]
    kind, sign = ("cubo", -1.0) if "cubo" in name else ("iwae", 1.0)
    made = maker(exact.model(), num_samples=5)
    for where in ("near", "far"):
        measured = variance(made, exact.params(where), key, exact.X, num_draws=num_draws, block_size=5000)
        assert_gradient(measured, jax.tree.map(lambda g: sign * g, exact_gradient(kind, where, 5)))


def test_sticking_the_landing_on_iwae_would_be_biased(key, x64):
    """Why it is refused: the same construction, forced on IWAE, misses the exact gradient by many standard errors."""
    declared = vaejax.objectives.objective(averages_draws=True)(lambda terms, *, step=0: iwae(terms))
    made = sticking_the_landing(exact.model(), declared, num_samples=5, chunk_size=None)
    p = exact.params("far")
    measured = variance(made, p, key, exact.X, num_draws=20_000, block_size=4000)
    wanted = exact_gradient("iwae", "far", 5)["encoder"]["loc"]
    error = jnp.sqrt(measured.variance["encoder"]["loc"] / measured.num_draws)
    assert abs(measured.mean["encoder"]["loc"] - wanted) > 20 * error
