"""The small parts of discrete estimators: signals, couplings, relaxed densities, draws without replacement, baselines."""

import itertools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import assert_mean
from vaejax.dists import Bernoulli, Chain, OneHotCategorical, diagonal_normal
from vaejax.dists.chain import layers
from vaejax.dists.factors import Factors, couple, factors, harden, log_prob_entries, noise, relax
from vaejax.dists.relaxed import Relaxed
from vaejax.estimators import baselines
from vaejax.estimators.signals import arm_signal, disarm_signal, leave_one_out, vimco_signal
from vaejax.estimators.unordered import draw_without_replacement, set_weights
from vaejax.objectives import elbo

LOGITS = {False: np.array([-1.5, 0.3, 2.0]), True: np.array([[0.2, -1.0, 1.3, 0.0], [2.0, 0.1, -0.4, 0.3]])}


def make(categorical, scale=1.0):
    return Factors(categorical, jnp.asarray(scale * LOGITS[categorical]), 2 if categorical else 1)


def by_hand(log_weights, mean):
    """Mnih & Rezende 2016, eqs. 8–10, in float64 from the definition, with the largest weight taken out."""
    w = log_weights.astype(np.float64)
    w = w - w.max(0)
    count = len(w)
    whole = np.logaddexp.reduce(w) - np.log(count)
    out = []
    for k in range(count):
        others = np.delete(w, k, 0)
        stand_in = others.mean(0) if mean == "geometric" else np.logaddexp.reduce(others) - np.log(count - 1)
        out.append(whole - (np.logaddexp.reduce(np.concatenate([others, stand_in[None]])) - np.log(count)))
    return np.stack(out)


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
@pytest.mark.parametrize(("count", "spread"), [(2, 1.0), (2, 500.0), (5, 1.0), (7, 500.0)])
def test_vimco_signal_against_its_formula(mean, count, spread):
    log_weights = np.random.default_rng(0).uniform(-spread, spread, (count, 40)).astype(np.float32)
    wanted = by_hand(log_weights, mean)
    found = jax.jit(lambda w: vimco_signal(w, mean=mean))(log_weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(wanted).max()))


def test_leave_one_out_is_vimco_of_the_elbo(x64):
    values = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(5 * vimco_signal(values, objective=elbo), values - leave_one_out(values), rtol=1e-12)


@pytest.mark.parametrize("categorical", [False, True])
def test_the_coupling_gives_the_marginal_and_hardens_to_the_draw(categorical, key, x64):
    """y given H(y) = b, b ~ q, is distributed as logits + noise: moments and quantiles of each entry."""
    q, count = make(categorical), 200_000
    keys = jax.random.split(key, 3)
    b = q.distribution().sample(seed=keys[0], sample_shape=(count,))
    y = couple(q, b, noise(q, keys[1], (count,)))
    np.testing.assert_array_equal(harden(q, y), b)
    normalised = q._replace(logits=jax.nn.log_softmax(q.logits)) if categorical else q
    marginal = normalised.logits + noise(q, keys[2], (count,))
    for power in (1, 2):
        assert_mean(y**power - marginal**power, jnp.zeros(q.logits.shape), cap=0.2)
    for level in (-1.0, 0.5, 2.0):
        assert_mean((y > level) * 1.0 - (marginal > level), jnp.zeros(q.logits.shape), cap=0.01)


@pytest.mark.parametrize("categorical", [False, True])
@pytest.mark.slow
def test_the_derivative_of_the_coupling(categorical, key, x64):
    """Against finite differences at fixed noise, everywhere the draw is held."""
    q = make(categorical)
    b = q.distribution().sample(seed=key)
    eps = noise(q, jax.random.fold_in(key, 1), ())
    f = lambda logits: couple(q._replace(logits=logits), b, eps)  # noqa: E731
    jax.test_util.check_grads(f, (q.logits,), order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_binary_concrete_is_a_logistic(x64):
    y, temperature = jnp.linspace(-400.0, 400.0, 40_001), 0.1
    density = jnp.exp(
        jax.vmap(lambda v: Relaxed(Factors(False, jnp.array([1.2]), 1), temperature).log_prob(v[None]))(y)
    )
    np.testing.assert_allclose(jnp.trapezoid(density, y), 1.0, rtol=1e-8)
    np.testing.assert_allclose(
        density, jax.scipy.stats.logistic.pdf(y, 1.2 / temperature, 1 / temperature), rtol=1e-8, atol=1e-300
    )


def test_concrete_density_integrates_to_one(x64):
    """Two categories: along the logit of s the density is that of a logistic (Maddison et al. 2017, eq. 10)."""
    q, temperature = Factors(True, jnp.array([0.4, -0.3]), 1), 0.7
    logit = jnp.linspace(-60.0, 60.0, 40_001)
    y = jnp.stack([jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)], -1)
    log_prob = jax.vmap(Relaxed(q, temperature).log_prob)(y)
    np.testing.assert_allclose(jnp.trapezoid(jnp.exp(log_prob), logit), 1.0, rtol=1e-8)
    logistic = jax.scipy.stats.logistic.logpdf(logit, 0.7 / temperature, 1 / temperature)
    np.testing.assert_allclose(log_prob, logistic, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_the_relaxed_kl_is_that_of_two_logistics_at_every_temperature(temperature, x64):
    """By quadrature, to 1e-6: why the bias of the relaxed objective does not vanish with the temperature."""
    ends = 60.0 / temperature
    y = jnp.linspace(-ends, ends, 200_001)
    log_q, log_p = (
        jax.vmap(lambda v, a=a: Relaxed(Factors(False, jnp.array([a]), 1), temperature).log_prob(v[None]))(y)
        for a in (1.5, -0.4)
    )
    kl = jnp.trapezoid(jnp.exp(log_q) * (log_q - log_p), y)
    z = jnp.linspace(-60.0, 60.0, 200_001)
    log_q, log_p = (jax.scipy.stats.logistic.logpdf(z, a) for a in (1.5, -0.4))
    np.testing.assert_allclose(kl, jnp.trapezoid(jnp.exp(log_q) * (log_q - log_p), z), rtol=1e-6)


@pytest.mark.slow
def test_set_weights_against_every_order_of_drawing(x64):
    """P(S) as a sum over permutations, for sets of 2, 3 and 4 of 6 states."""
    p = np.array([0.35, 0.25, 0.2, 0.1, 0.07, 0.03])

    def probability(chosen, rest):
        total = 0.0
        for order in itertools.permutations(chosen):
            left, term = rest + p[list(chosen)].sum(), 1.0
            for s in order:
                term, left = term * p[s] / left, left - p[s]
            total += term
        return total

    f = np.random.default_rng(0).normal(size=6)
    for chosen in ((0, 1), (1, 4, 5), (0, 2, 3, 5)):
        rest = 1 - p[list(chosen)].sum()
        weight, baseline = set_weights(jnp.log(p[list(chosen)]), jnp.asarray(f[list(chosen)]))
        whole = probability(chosen, rest)
        for i, s in enumerate(chosen):
            without = [t for t in chosen if t != s]
            assert weight[i] == pytest.approx(p[s] * probability(without, rest) / whole, rel=1e-9)
            second = [
                probability([u for u in without if u != t], rest) / probability(without, rest) if t != s else 1.0
                for t in chosen
            ]
            assert baseline[i] == pytest.approx(sum(p[t] * r * f[t] for t, r in zip(chosen, second)), rel=1e-8)
    every, _ = set_weights(jnp.log(p), jnp.asarray(f))
    np.testing.assert_allclose(every, p, rtol=1e-9)


@pytest.mark.parametrize("categorical", [False, True])
def test_draws_without_replacement(categorical, key, x64):
    """All different; the first has the probabilities of one draw, and pairs those of drawing twice."""
    q = make(categorical)
    draws = jax.jit(jax.vmap(lambda k: draw_without_replacement(q, k, 3)))(jax.random.split(key, 50_000))
    flat = np.asarray(draws).reshape(50_000, 3, -1)
    for i, j in itertools.combinations(range(3), 2):
        assert (flat[:, i] != flat[:, j]).any(-1).all()
    assert_mean(flat[:, 0], q.probs.ravel(), cap=0.01)
    first, second = (np.exp(np.asarray(q.distribution().log_prob(draws[:, i]))) for i in (0, 1))
    # E 1/(p(z₁)) over distinct states counts them; drawing twice: E[(1 − p₁)/(p₁ p₂)] = number of ordered pairs.
    states = 2**3 if not categorical else 4**2
    assert_mean(1 / first, states, cap=0.05 * states)
    assert_mean((1 - first) / (first * second), states * (states - 1), cap=0.05 * states**2)


def test_arm_is_disarm_averaged_over_the_noise(x64):
    """Given the pair (z, z̃), the mean of (u − ½)(f̃ − f) is DisARM's signal, by quadrature."""
    logit, f = 0.8, np.array([1.0, 3.0])
    p = 1 / (1 + np.exp(-logit))
    u = (np.arange(400_000) + 0.5) / 400_000
    z, other = (u < p).astype(int), (u > 1 - p).astype(int)
    arm = arm_signal(f[z], f[other], u)
    for pair in ((1, 1), (1, 0), (0, 1)):
        inside = (z == pair[0]) & (other == pair[1])
        wanted = disarm_signal(f[pair[0]], f[pair[1]], pair[0], pair[1], logit)
        np.testing.assert_allclose(arm[inside].mean(), wanted, atol=1e-5)


def test_baselines_learn_from_earlier_steps_only(key):
    x, signals = jnp.ones((4, 3)), jnp.full((2, 4), 7.0)
    network = baselines.network((5,), optimizer=optax.adam(0.05))
    for made in (
        baselines.moving_average(),
        network,
        baselines.normalized(baselines.added(network, baselines.moving_average())),
    ):
        state = made.init(key, x)
        before = made.value(state, x, signals)
        np.testing.assert_array_equal(before, made.value(state, x, 0 * signals))
        for _ in range(400):
            state = jax.jit(made.update)(state, x, signals)
        np.testing.assert_allclose(jnp.broadcast_to(made.value(state, x, signals), (2, 4)), 7.0, rtol=0.1)


def test_normalisation_divides_by_the_running_deviation_and_never_multiplies(key):
    made = baselines.normalized(baselines.constant(), decay=0.5)
    state = made.init(key, jnp.ones((4, 3)))
    assert made.scale(state) == 1.0
    for spread, wanted in ((10.0, 0.1), (0.1, 1.0)):
        for _ in range(60):
            state = made.update(state, None, spread * jnp.array([[1.0, -1.0]]))
        assert float(made.scale(state)) == pytest.approx(wanted, rel=1e-3)


def test_chains_draw_and_score_in_their_order(key):
    top = Bernoulli(jnp.zeros(2))
    chain = Chain([lambda _: top, lambda above: Bernoulli(above[0] @ jnp.array([[1.0], [2.0]]))], order=(1, 0))
    (first, second), log_prob = chain.sample_and_log_prob(seed=key, sample_shape=(5,))
    assert first.shape == (5, 1)
    assert second.shape == (5, 2)
    parts = chain.log_prob_parts((first, second))
    np.testing.assert_allclose(sum(parts), log_prob, rtol=1e-6)
    np.testing.assert_allclose(parts[1], top.log_prob(second), rtol=1e-6)
    with pytest.raises(ValueError, match="takes a tuple of as many latents"):
        chain.log_prob(first)
    with pytest.raises(ValueError, match="order must name each of the 2 layers once"):
        Chain([lambda _: top, lambda _: top], order=(0, 2))
    assert layers(top, first)[0][0] is top


def test_factors_of_every_discrete_family():
    from vaejax.dists.backend import distrax

    logits = jnp.zeros((5, 3))
    for made, categorical, event_ndims in (
        (Bernoulli(logits), False, 1),
        (OneHotCategorical(logits), True, 1),
        (distrax.Independent(distrax.Bernoulli(logits=logits), 1), False, 1),
        (distrax.OneHotCategorical(logits=logits), True, 1),
        (distrax.Independent(distrax.OneHotCategorical(logits=jnp.zeros((5, 2, 3))), 1), True, 2),
    ):
        found = factors(made)
        assert (found.categorical, found.event_ndims) == (categorical, event_ndims)
    assert factors(diagonal_normal(logits, jnp.ones(3))) is None
    assert factors(vaejax.dists.Binomial(4, logits)) is None
    with pytest.raises(ValueError, match="trailing axes"):
        OneHotCategorical(jnp.zeros(3), event_ndims=2)


@pytest.mark.parametrize("temperature", [0.05, 5.0])
@pytest.mark.parametrize("categorical", [False, True])
def test_extreme_logits_and_temperatures_in_float32(temperature, categorical, key):
    logits = jnp.asarray([-50.0, 0.0, 50.0, 20.0], jnp.float32)
    q = Factors(categorical, logits, 1)

    def everything(logits):
        q = Factors(categorical, logits, 1)
        b = jax.lax.stop_gradient(q.distribution().sample(seed=key))
        y = couple(q, b, noise(q, key, ()))
        relaxed = Relaxed(q, temperature)
        z = relaxed.sample(seed=key)
        parts = (relax(q, y, temperature), relaxed.log_prob(z), log_prob_entries(q, b), q.distribution().entropy())
        return sum(jnp.sum(part) for part in parts)

    assert jnp.isfinite(everything(q.logits))
    assert jnp.isfinite(jax.grad(everything)(q.logits)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_antithetic_draws_are_those_of_the_noise(dtype):
    """As a threshold of v they are 1[u > σ(−l)] of the very u that is returned, at any logit; and 1[u < σ(l)] = z."""
    behind = sys.modules["vaejax.estimators.arm"]._behind
    with jax.enable_x64(dtype == jnp.float64):
        v = jnp.linspace(0, 1, 4001, dtype=dtype)[:-1]
        for logit in (-math.inf, -200.0, -20.0, -1.0, 0.0, 1.0, 20.0, 200.0, math.inf):
            p = 1 / (1 + np.exp(-logit))
            for z in (0.0, 1.0):
                if p == 1 - z:  # never drawn
                    continue
                u, antithetic = behind(jnp.full_like(v, z), v, jnp.full_like(v, logit))
                apart = np.abs(np.asarray(u, float) - (1 - p)) > 8 * jnp.finfo(dtype).eps
                np.testing.assert_array_equal(antithetic[apart], np.asarray(u, float)[apart] > 1 - p)
                np.testing.assert_allclose(u, p * v if z else p + (1 - p) * v, rtol=1e-5)


@pytest.mark.parametrize("name", ["arm", "disarm"])
def test_narrow_logits_leave_pairs_without_bias(name):
    model = vaejax.Model(
        init=lambda key, batch: jnp.array([2.0, -1.5]),
        posterior=lambda p, x: Bernoulli(jnp.broadcast_to(p, (len(x), 2)).astype(jnp.bfloat16)),
        prior=lambda p: Bernoulli(jnp.zeros(2)),
        likelihood=lambda p, z: Bernoulli(2 * z.astype(jnp.float32) - 1),
    )
    params, x = model.init(None, None), jnp.array([[0.0, 1.0]])

    def gradient(name, key):
        estimator = getattr(vaejax.estimators, name)(model, vaejax.objectives.elbo)
        return estimator.estimate(params, estimator.init(params, key, x), key, x)[0].grads

    exact = gradient("enumerate_latents", jax.random.key(0))
    found = jax.vmap(lambda key: gradient(name, key))(jax.random.split(jax.random.key(1), 40_000))
    assert_mean(found, exact, cap=0.05 * float(jnp.linalg.norm(exact)))
