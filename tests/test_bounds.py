"""Importance-weighted objectives against exact values: at the number of draws that they are given, and in population."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests import exact
from tests.helpers import assert_gradient, assert_mean, tree_allclose
from vaejax import LogTerms, numerics, objectives
from vaejax.estimators import doubly_reparameterized, pathwise
from vaejax.objectives import ciwae, cubo, elbo, iwae, jackknife, miwae, renyi, tvo
from vaejax.objectives.tvo import moment_spaced

DRAWS = 6


def of_weights(log_weights):
    """Log-terms with these log-weights ``[K, *batch]``."""
    log_weights = jnp.asarray(log_weights)
    return LogTerms(log_weights, jnp.zeros_like(log_weights), jnp.zeros_like(log_weights))


@pytest.fixture(scope="module")
def log_weights():
    return np.random.default_rng(0).normal(scale=3.0, size=(8, 5)).astype(np.float32)


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.parametrize("name", exact.OBJECTIVES)
def test_value_at_this_number_of_draws(name, where, key, x64):
    p = exact.params(where)

    def draw(k):
        terms = vaejax.log_terms(exact.model(), p, k, exact.X, num_samples=DRAWS)
        return exact.OBJECTIVES[name](terms._replace(kl=None))[0]

    draws = jax.jit(jax.vmap(draw))(jax.random.split(key, 50_000))
    assert_mean(draws, exact.EXACT[name](p, DRAWS), cap=0.05)


@functools.cache
def exact_gradient(name, where):
    sign = -1.0 if objectives.as_objective(exact.OBJECTIVES[name]).maximize else 1.0
    return jax.grad(lambda p: sign * exact.EXACT[name](p, DRAWS))(exact.params(where))


@pytest.mark.slow
@pytest.mark.parametrize("name", exact.OBJECTIVES)
@pytest.mark.parametrize("estimator", [pathwise, doubly_reparameterized])
def test_gradient_at_this_number_of_draws(name, estimator, key, x64):
    """Every entry of encoder, decoder and prior; the standard error at most 5% of each part's norm."""
    made = estimator(exact.model(), exact.OBJECTIVES[name], num_samples=DRAWS)
    # Near the optimum the plain gradient of a bound of many draws is all noise: tests of that are by name, with more draws.
    for where in ("near", "far") if estimator is doubly_reparameterized else ("far",):
        measured = vaejax.estimators.variance(
            made, exact.params(where), key, exact.X, num_draws=24_000, block_size=4000
        )
        assert_gradient(measured, exact_gradient(name, where))


def test_population_values_in_order(x64):
    for where in ("near", "far"):
        p = exact.params(where)
        evidence = float(exact.log_evidence(p))
        bounds = [exact.mean_log_weight(p), *(exact.mean_log_sum(p, k) for k in (5, 50)), evidence]
        bounds.append(exact.population_log_moment(p, 2.0) / 2)
        values = [float(b) for b in bounds]
        assert values == sorted(values)
        assert values[-1] > evidence + 0.01
        assert values[2] < evidence
        np.testing.assert_allclose(exact.population_log_moment(p, 1.0), evidence, rtol=1e-12)


def test_finite_cubo_is_biased_low_and_its_exponential_is_not(key, x64):
    p = exact.params("far")
    population = exact.population_log_moment(p, 2.0)
    assert exact.EXACT["cubo"](p, 4) < population / 2 - 0.5
    near = exact.params("near")
    keys = jax.random.split(key, 100_000)
    terms = jax.vmap(lambda k: vaejax.log_terms(exact.model(), near, k, exact.X, num_samples=4).log_weights)(keys)
    squared = jnp.exp(2 * jax.vmap(lambda w: cubo(of_weights(w)))(terms))
    assert_mean(squared, np.exp(exact.population_log_moment(near, 2.0)), cap=2e-3)


def test_one_draw_is_the_elbo(log_weights):
    terms = of_weights(log_weights[:1])
    want = elbo(terms, kl="monte_carlo")
    for one in (iwae, functools.partial(renyi, alpha=0.3), cubo, functools.partial(miwae, groups=1), tvo):
        np.testing.assert_allclose(one(terms), want, rtol=1e-6)
    np.testing.assert_allclose(ciwae(terms, beta=0.4), want, rtol=1e-6)


def test_identities_per_draw(log_weights, x64):
    terms = of_weights(log_weights.astype(np.float64))
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    mean = elbo(terms, kl="monte_carlo")
    for near_one in (1.0, 1 + 1e-9, 1 - 1e-9, 1 + 1e-12):
        same(renyi(terms, alpha=near_one), mean)
    same(renyi(terms, alpha=0.0), iwae(terms))
    for n in (1.0, 2.0, 3.5):
        same(cubo(terms, n=n), renyi(terms, alpha=1 - n))
    same(renyi(terms, alpha=-jnp.inf), log_weights.max(0))
    same(renyi(terms, alpha=jnp.inf), log_weights.min(0))
    same(renyi(terms, alpha=-1e6), log_weights.max(0), rtol=1e-5)
    single = of_weights(log_weights)
    same(renyi(single, alpha=-1e39), log_weights.max(0))
    same(jax.jit(lambda a: renyi(single, alpha=lambda step: a))(-jnp.inf), log_weights.max(0))
    same(miwae(terms, groups=1), iwae(terms))
    same(miwae(terms, groups=8), mean)
    same(ciwae(terms, beta=0.0), iwae(terms))
    same(ciwae(terms, beta=1.0), mean)
    same(tvo(terms, partition=1), mean)
    same(tvo(terms, partition=np.linspace(0, 1, 20001)), iwae(terms), rtol=1e-3)


def test_renyi_falls_with_alpha_and_tvo_encloses_iwae(log_weights):
    terms = of_weights(log_weights)
    values = [
        renyi(terms, alpha=a) for a in (-jnp.inf, -20.0, -2.0, -1e-3, 0.0, 1e-3, 0.5, 0.999, 1.0, 1.001, 3.0, jnp.inf)
    ]
    for higher, lower in itertools.pairwise(values):
        assert (higher >= lower - 1e-5).all()
    for partition in (1, 3, 10, "adaptive"):
        assert (tvo(terms, partition=partition) <= iwae(terms) + 1e-5).all()
        assert (tvo(terms, partition=partition, side="right") >= iwae(terms) - 1e-5).all()


def test_adaptive_partition_rises_by_equal_amounts_of_log_weight(log_weights, x64):
    w = jnp.asarray(3 * log_weights, jnp.float64)
    points = moment_spaced(w, 5)
    assert points.shape == (6, 5)
    means = jnp.stack([numerics.tempered_mean(w, beta) for beta in points])
    np.testing.assert_allclose(jnp.diff(means, axis=0), jnp.broadcast_to((means[-1] - means[0]) / 5, (5, 5)), rtol=1e-6)
    # By hand, from that partition.
    left = jnp.sum(jnp.diff(points, axis=0) * means[:-1], axis=0)
    np.testing.assert_allclose(tvo(of_weights(w), partition="adaptive", num_intervals=5), left, rtol=1e-9)


def test_leaving_out_against_brute_force(log_weights, x64):
    w = np.exp(log_weights.astype(np.float64))
    without = np.stack([np.log(np.delete(w, k, 0).mean(0)) for k in range(8)])
    np.testing.assert_allclose(numerics.leave_one_out_log_mean_exp(jnp.log(w)), without, rtol=1e-10)
    np.testing.assert_allclose(numerics.leave_one_out_log_mean_exp(jnp.log(w).T, axis=1), without.T, rtol=1e-10)
    pairs = np.mean([np.log(np.delete(w, pair, 0).mean(0)) for pair in itertools.combinations(range(8), 2)], axis=0)
    whole = np.log(w.mean(0))
    terms = of_weights(jnp.log(w))
    np.testing.assert_allclose(jackknife(terms), 8 * whole - 7 * without.mean(0), rtol=1e-10)
    np.testing.assert_allclose(jackknife(terms, order=2), 32 * whole - 49 * without.mean(0) + 18 * pairs, rtol=1e-10)


EXTREME = {
    "elbo": functools.partial(elbo, kl="monte_carlo"),
    "iwae": iwae,
    **{f"renyi {a}": functools.partial(renyi, alpha=a) for a in (-jnp.inf, -3.0, 0.5, 1.0, 1 + 1e-6, 2.0)},
    "cubo": cubo,
    "miwae": functools.partial(miwae, groups=2),
    "ciwae": functools.partial(ciwae, beta=0.1),
    "jackknife": jackknife,
    "jackknife 2": functools.partial(jackknife, order=2),
    "tvo": tvo,
    "tvo right": functools.partial(tvo, side="right"),
    "tvo adaptive": functools.partial(tvo, partition="adaptive"),
}


@pytest.mark.parametrize("name", EXTREME)
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1000.0])
def test_float32_over_any_spread(name, spread):
    """Values to 1e-5 of the largest log-weight and finite gradients, which sum to 1, between −1000 and 1000."""
    log_weights = np.random.default_rng(1).uniform(-1, 1, (8, 6)) * spread
    log_weights[0] = spread
    f = EXTREME[name]
    with jax.enable_x64(True):
        want = np.asarray(f(of_weights(log_weights.astype(np.float64))))
    single = jnp.asarray(log_weights, jnp.float32)
    # The jackknife's coefficients magnify what float32 keeps of a log-weight: (K−1)² for the second order.
    magnified = 100 if name.startswith("jackknife") else 1
    np.testing.assert_allclose(f(of_weights(single)), want, atol=1e-6 * max(spread, 1.0) * magnified, rtol=1e-5)
    gradient = jax.grad(lambda w: f(of_weights(w)).sum())(single)
    assert jnp.isfinite(gradient).all()
    # Every one of them moves by c when all log-weights do.
    np.testing.assert_allclose(gradient.sum(0), 1.0, atol=1e-4 + 1e-6 * spread)


@pytest.mark.parametrize("name", [name for name in EXTREME if "jackknife" not in name])
@pytest.mark.wants_nan
def test_a_weight_of_zero_is_no_nan(name):
    """Where a plain mean of log-weights counts, −∞; everywhere else a number, with a finite gradient in the other weights."""
    log_weights = jnp.array([[0.0, -1.0], [-jnp.inf, 2.0], [1.0, 0.5], [0.3, 0.1]])
    value, gradient = (
        EXTREME[name](of_weights(log_weights)),
        jax.grad(lambda w: EXTREME[name](of_weights(w))[1])(log_weights),
    )
    infinite = name in ("elbo", "ciwae", "renyi 1.0", "renyi 1.000001", "renyi 2.0", "tvo", "tvo adaptive")
    assert (value[0] == -jnp.inf) if infinite else jnp.isfinite(value[0])
    assert jnp.isfinite(value[1])
    assert jnp.isfinite(gradient[:, 1]).all()


def test_schedules(log_weights):
    terms = of_weights(log_weights)
    ramp = lambda step: step / 10  # noqa: E731
    at_half = jax.jit(lambda step: renyi(terms, alpha=ramp, step=step))(5)
    np.testing.assert_allclose(at_half, renyi(terms, alpha=0.5), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda s: renyi(terms, alpha=ramp, step=s))(10), log_weights.mean(0), rtol=1e-5)
    np.testing.assert_allclose(ciwae(terms, beta=ramp, step=5), ciwae(terms, beta=0.5), rtol=1e-6)
    np.testing.assert_allclose(cubo(terms, n=lambda s: 1 + s, step=1), cubo(terms), rtol=1e-6)


def test_capacity():
    terms = LogTerms(jnp.array([[-3.0, -3.0]]), jnp.zeros((1, 2)), jnp.zeros((1, 2)), kl=jnp.array([0.5, 6.0]))
    np.testing.assert_allclose(elbo(terms, beta=10.0, capacity=2.0), [-3 - 15, -3 - 40])
    grown = functools.partial(elbo, beta=10.0, capacity=lambda step: 0.1 * step)
    np.testing.assert_allclose(grown(terms, step=20), elbo(terms, beta=10.0, capacity=2.0), rtol=1e-6)
    with pytest.raises(ValueError, match="give one of them"):
        elbo(terms, free_bits=0.1, capacity=1.0)
    with pytest.raises(ValueError, match="capacity"):
        elbo(terms, capacity=-1.0)


def test_penalties_count_against(log_weights):
    terms = of_weights(log_weights)._replace(penalty=jnp.full(5, 2.0))
    for f in EXTREME.values():
        adapted = objectives.as_objective(f)
        change = f(terms) - f(terms._replace(penalty=None))
        np.testing.assert_allclose(change, -2.0 if adapted.maximize else 2.0, rtol=1e-4)


def test_directions_and_kinds():
    read = objectives.as_objective
    assert not read(cubo).maximize
    assert not read(functools.partial(tvo, side="right")).maximize
    assert read(tvo).maximize
    assert read(tvo).of_log_weights
    assert not read(functools.partial(tvo, partition="adaptive")).of_log_weights
    assert not read(functools.partial(renyi, alpha=-jnp.inf)).of_log_weights
    assert read(functools.partial(read(cubo), n=3)).maximize is False
    assert read(elbo).averages_draws
    assert not read(functools.partial(elbo, free_bits=0.1)).averages_draws
    assert not read(functools.partial(elbo, capacity=3.0)).averages_draws
    assert not read(iwae).averages_draws


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda t: miwae(t, groups=3), "does not divide the K=8"),
        (lambda t: miwae(t, groups=0), "at least 1"),
        (lambda t: jackknife(t, order=3), "order must be 1 or 2"),
        (lambda t: jackknife(t, order=True), "order must be 1 or 2"),
        (lambda t: cubo(t, n=lambda step: 0.2), "n must be finite, at least 1"),
        (lambda t: tvo(t, num_intervals=-3), "num_intervals must be at least 1"),
        (lambda t: jackknife(of_weights(jnp.zeros((2, 1))), order=2), "needs K > 2, got K=2"),
        (lambda t: renyi(t, alpha=float("nan")), "alpha must be a number"),
        (lambda t: cubo(t, n=0.5), "n must be finite, at least 1"),
        (lambda t: ciwae(t, beta=1.5), "beta must be finite"),
        (lambda t: tvo(t, partition=[0.0, 0.5]), "increase from 0 to 1"),
        (lambda t: tvo(t, partition=[0.0, 0.6, 0.5, 1.0]), "increase from 0 to 1"),
        (lambda t: tvo(t, partition="adaptiv"), "did you mean 'adaptive'"),
        (lambda t: tvo(t, side="top"), "unknown side"),
        (lambda t: tvo(t, partition=0), "at least 1"),
        (lambda t: objectives.log_uniform_partition(3, smallest=0.0), "greater than 0"),
    ],
)
def test_bad_options(call, match, log_weights):
    with pytest.raises(ValueError, match=match):
        call(of_weights(log_weights))


def test_eager_equals_compiled(log_weights):
    terms = of_weights(log_weights)
    for f in EXTREME.values():
        tree_allclose(jax.jit(f)(terms), f(terms), rtol=1e-5)
