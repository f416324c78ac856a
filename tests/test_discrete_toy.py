"""The toy problem of REBAR and RELAX: minimise E (b − t)², b ~ Bernoulli(σ(φ)). Its variances at φ = 0 are known exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from vaejax import estimators
from vaejax.dists import Bernoulli
from vaejax.estimators import baselines, variance

X = jnp.zeros((1, 1))


class Loss:
    """−(b − t)² in the place of a log-likelihood."""

    def __init__(self, b, t):
        self.b, self.t = b, t

    def log_prob(self, x):
        return -((self.b[..., 0] - self.t) ** 2)


@vaejax.objectives.objective(averages_draws=True)
def reward(terms, *, step=0):
    return terms.log_likelihood.mean(0)


def toy(t):
    def logits(p, x):
        return jnp.broadcast_to(p, x.shape)

    return vaejax.Model(
        lambda key, batch: jnp.zeros(()),
        lambda p, x: Bernoulli(logits(p, x)),
        lambda p: Bernoulli(jnp.zeros(1)),
        lambda p, z: Loss(z, t),
    )


def measured(constructor, t, key, num_draws=400_000, **options):
    estimator = constructor(toy(t), reward, **options)
    return variance(estimator, jnp.zeros(()), key, X, num_draws=num_draws, block_size=20_000)


@pytest.mark.parametrize(
    ("t", "reinforce", "arm"), [(0.45, -4.1390, -8.4764), (0.49, -4.1581, -11.6952), (0.499, -4.1589, -16.3004)]
)
def test_exact_variances(t, reinforce, arm, key, x64):
    plain, pair = (measured(made, t, key) for made in (estimators.score_function, estimators.arm))
    np.testing.assert_allclose(plain.total_variance["params"], np.exp(reinforce), rtol=0.01)
    np.testing.assert_allclose(pair.total_variance["params"], np.exp(arm), rtol=0.01)
    for found in (plain, pair):
        error = np.sqrt(found.variance / found.num_draws)
        assert abs(found.mean - (1 - 2 * t) / 4) < 5 * error


@pytest.mark.parametrize(
    "constructor",
    [
        estimators.disarm,
        estimators.measure_valued,
        estimators.enumerate_latents,
        functools.partial(estimators.unordered_set, num_samples=2),
    ],
)
def test_no_variance_at_all(constructor, key, x64):
    found = measured(constructor, 0.45, key, num_draws=1000)
    assert float(found.variance) < 1e-25
    np.testing.assert_allclose(found.mean, 0.025, rtol=1e-9)


def test_leave_one_out(key, x64):
    made = functools.partial(estimators.score_function, num_samples=2, baseline=baselines.leave_one_out())
    np.testing.assert_allclose(measured(made, 0.45, key).variance, (1 - 2 * 0.45) ** 2 / 16, rtol=0.01)


class Nowhere:
    """A log-likelihood that is NaN off {0, 1}."""

    def __init__(self, z):
        self.z = z

    def log_prob(self, x):
        value = jnp.sum(self.z * jnp.arange(1.0, 4.0), -1)
        inside = jnp.all((self.z == 0) | (self.z == 1), -1)
        return jnp.where(inside, value, jnp.nan)


@pytest.mark.parametrize(
    "constructor",
    [
        estimators.score_function,
        estimators.nvil,
        functools.partial(estimators.vimco, num_samples=3),
        estimators.arm,
        estimators.disarm,
        estimators.measure_valued,
        functools.partial(estimators.unordered_set, num_samples=3),
        estimators.straight_through,
        estimators.gumbel_straight_through,
        estimators.enumerate_latents,
    ],
)
@pytest.mark.slow
def test_no_look_off_the_support(constructor, key):
    model = vaejax.Model(
        lambda key, batch: jnp.zeros(3),
        lambda p, x: Bernoulli(p + 0 * x),
        lambda p: Bernoulli(jnp.zeros(3)),
        lambda p, z: Nowhere(z),
    )
    made = constructor(model, vaejax.objectives.elbo)
    params, x = jnp.array([0.3, -1.0, 2.0]), jnp.ones((4, 3))
    found, _ = made.estimate(params, made.init(params, key, x), key, x)
    assert jnp.isfinite(found.objective).all()
    assert jnp.isfinite(found.grads).all()
    assert float(jnp.abs(found.grads).max()) > 0


def train(constructor, steps, seeds=20, t=0.499):
    """Adam 0.01 from φ = 0, one draw a step, for each seed: the gap of the loss to t² at the end, and the estimator's states on the way."""
    estimator, optimizer = constructor(toy(t), reward), optax.adam(0.01)

    def run(key):
        params = jnp.zeros(())
        start = (params, optimizer.init(params), estimator.init(params, key, X))

        def one(carry, k):
            params, opt_state, state = carry
            found, state = estimator.estimate(params, state, k, X)
            updates, opt_state = optimizer.update(found.grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state, state), getattr(state, "tuned", None)

        end, tuned = jax.lax.scan(one, start, jax.random.split(key, steps))
        return end[0], tuned

    phi, tuned = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(7), seeds))
    p = jax.nn.sigmoid(phi)
    # Towards 0 the loss falls to t², towards 1 to (1 − t)².
    return p * (1 - t) ** 2 + (1 - p) * t**2 - t**2, tuned


@pytest.mark.slow
@pytest.mark.parametrize("constructor", [estimators.arm, estimators.disarm])
def test_antithetic_pairs_solve_the_toy(constructor, x64):
    assert np.median(train(constructor, 5000)[0]) < 1e-4


@pytest.mark.slow
def test_reinforce_does_not(x64):
    assert np.median(train(estimators.score_function, 5000)[0]) > 5e-4


@pytest.mark.slow
def test_relax_gets_there_later(x64):
    relax = functools.partial(estimators.relax, critic=(10,), optimizer=optax.adam(0.01))
    assert np.median(train(relax, 5000)[0]) < 5e-4
    assert np.median(train(relax, 20_000)[0]) < 1e-4


@pytest.mark.slow
def test_rebar_gives_its_control_variate_up(x64):
    """η goes from 1 to 0, and what is left is hardly better than the plain score function: no seed arrives."""
    gap, (layer,) = train(estimators.rebar, 5000)
    eta = jnp.median(jnp.abs(layer.eta), axis=0)
    assert eta[0] > 0.9
    assert 0.4 < eta[100] < 0.8
    assert jnp.max(eta[1000:]) < 0.2
    assert (gap > 1e-4).all()
