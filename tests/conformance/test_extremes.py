"""Densities, entropies and divergences at the ends of their range, on one grid, against 40 digits (mpmath)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from tests.conformance.tables import LIKELIHOODS
from vaejax.dists import (
    Bernoulli,
    Binomial,
    Cauchy,
    Kumaraswamy,
    LogNormal,
    MultivariateNormal,
    OneHotCategorical,
    Poisson,
    diagonal_normal,
    kl_divergence,
    likelihoods,
    masked_log_prob,
)
from vaejax.dists.backend import distrax
from vaejax.dists.factors import Factors
from vaejax.dists.relaxed import Relaxed

INF = float("inf")
DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(40):
        yield


def exact(value, dtype):
    """A number as the type holds it, to 40 digits."""
    return mp.mpf(float(np.asarray(value, dtype)))


def rounded(values, dtype):
    """Exact numbers as the type holds them: ∞ where they exceed it."""
    with np.errstate(over="ignore"):
        return np.array([float(value) for value in values]).astype(dtype).astype(float)


def times(a, b):
    return mp.mpf(0) if a == 0 else a * b


def log_poisson(x, log_rate):
    rate = mp.exp(log_rate)
    return (mp.mpf(0) if x == 0 else x * log_rate) - rate - mp.loggamma(x + 1)


def log_binomial(n, x, logit):
    outcomes = times(x, mp.log1p(mp.exp(-logit))) + times(n - x, mp.log1p(mp.exp(logit)))
    return mp.loggamma(n + 1) - mp.loggamma(x + 1) - mp.loggamma(n - x + 1) - outcomes


COUNTS = [0, 1, 2, 3, 5, 9, 30, 1e3, 1e5, 1e6, 1e7, 1e8, 1e20]
GAPS = [0.0, 1e-7, 1e-4, -1e-3, 0.05, -0.6, 1.2, -2.0, 4.0, -25.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson(dtype, request):
    """Relative error 1e-6 in float32, plus the rounding of the exponential; so far as there are digits in float64."""
    with jax.enable_x64(dtype == "float64"):
        cells = [(x, np.asarray(np.log(max(x, 1)) + gap, dtype)) for x in COUNTS for gap in GAPS]
        cells += [(0, -INF), (3, -INF), (0, -120.0), (3, -120.0), (1e8, -120.0), (0, 80.0), (1e20, 80.0)]
        x, log_rate = (np.array(column, dtype) for column in zip(*cells))
        log_prob = lambda log_rate, x: Poisson(log_rate).log_prob(x)  # noqa: E731
        value = np.asarray(log_prob(jnp.asarray(log_rate), x), float)
        wanted = [log_poisson(exact(a, dtype), exact(b, dtype)) for a, b in zip(x, log_rate)]
        relative, unit = (1e-6, 2.0**-22) if dtype == "float32" else (1e-13, 2.0**-50)
        residual = np.array([float(abs(exact(a, dtype) - mp.exp(exact(b, dtype)))) for a, b in zip(x, log_rate)])
        wanted = rounded(wanted, dtype)
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(value[~finite], wanted[~finite])
        tiny = float(np.finfo(dtype).tiny)
        error = np.abs(value[finite] - wanted[finite])
        assert (error <= (relative * np.abs(wanted) + unit * residual + tiny)[finite]).all()
        grad = jax.vmap(jax.grad(log_prob))(jnp.asarray(log_rate), x)
        np.testing.assert_allclose(grad, x.astype(float) - np.exp(log_rate.astype(float)), rtol=3e-5, atol=1e20 * 1e-6)
        np.testing.assert_allclose(jax.jit(log_prob)(log_rate, x), value, rtol=2e-6)
        np.testing.assert_allclose(jax.vmap(log_prob)(jnp.asarray(log_rate), x), value, rtol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 255, 10**8])
def test_binomial(dtype, n):
    with jax.enable_x64(dtype == "float64"):
        shares = [0.0, 1e-8, 1e-5, 1e-3, 0.1, 0.5, 0.9, 1.0]
        cells = []
        for x in sorted({float(np.float32(round(share * n))) for share in shares}):
            near = np.log((x + 0.5) / (n - x + 0.5))
            cells += [(x, logit) for logit in (near, near + 0.01, 0.0, 3.0, -20.0, 120.0, -120.0, INF, -INF)]
        x, logits = (np.array(column, dtype) for column in zip(*cells))
        value = np.asarray(Binomial(n, jnp.asarray(logits)[:, None]).log_prob(x[:, None]), float)
        pairs = [(exact(a, dtype), exact(b, dtype)) for a, b in zip(x, logits)]
        wanted = rounded([log_binomial(n, a, b) for a, b in pairs], dtype)
        residual = np.array([float(abs(a - n / (1 + mp.exp(-b)))) for a, b in pairs])
        relative, unit = (1e-6, 2.0**-22) if dtype == "float32" else (1e-13, 2.0**-50)
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(value[~finite], wanted[~finite])
        error, allowed = np.abs(value[finite] - wanted[finite]), relative * np.abs(wanted) + unit * residual
        assert (error <= (allowed + float(np.finfo(dtype).tiny))[finite]).all()
        grad = jax.grad(lambda l: Binomial(n, l).log_prob(x))(jnp.asarray(logits))
        slope = np.array([float(a - n / (1 + mp.exp(-b))) for a, b in pairs])
        np.testing.assert_allclose(grad, slope, rtol=1e-5, atol=1e-6 * n)


def normal(loc, log_scale):
    return diagonal_normal(jnp.stack([loc]), log_scale=jnp.stack([log_scale]))


def entry(family):
    return lambda *parameters: distrax.Independent(family(*(jnp.stack([p]) for p in parameters)), 1)


def bernoulli_kl(l, m):
    p, q = 1 / (1 + mp.exp(-l)), 1 / (1 + mp.exp(l))
    return times(p, softplus(-m) - softplus(-l)) + times(q, softplus(m) - softplus(l)) if l != m else mp.mpf(0)


def softplus(l):
    return mp.log1p(mp.exp(l)) if l != INF else mp.inf


def normal_kl(m, s, n, t):
    u = s - t
    return ((m - n) * mp.exp(-t)) ** 2 / 2 + (mp.expm1(2 * u) - 2 * u) / 2


def scaled_normal_kl(m, s, n, t):
    return normal_kl(m, mp.log(s), n, mp.log(t))


def laplace_kl(m, s, n, t):
    distance = abs(m - n)
    return mp.log(t / s) + (s * mp.exp(-distance / s) + distance) / t - 1


def cauchy_kl(m, s, n, t):
    return mp.log(((s + t) ** 2 + (m - n) ** 2) / (4 * s * t))


def normal_laplace_kl(m, s, n, t):
    shift = (m - n) / s
    distance = s * (mp.sqrt(2 / mp.pi) * mp.exp(-(shift**2) / 2) + shift * mp.erf(shift / mp.sqrt(2)))
    return mp.log(2 * t / s) - (1 + mp.log(2 * mp.pi)) / 2 + distance / t


def to_normal_kl(mean, variance, entropy, m, s, n, t):
    moment = variance() * s**2 + (m + mean() * s - n) ** 2
    return mp.log(t / s) + mp.log(2 * mp.pi) / 2 - entropy() + moment / (2 * t**2)


def poisson_kl(l, m):
    return times(mp.exp(l), l - m) + mp.exp(m) - mp.exp(l) if l != -INF else mp.exp(m)


def gumbel_kl(m, s, n, t):
    r = s / t
    return mp.log(t / s) + mp.euler * (r - 1) + mp.exp((n - m) / t) * mp.gamma(1 + r) - 1 + (m - n) / t


def gamma_kl(a, b, c, d):
    logs = c * mp.log(b / d) + mp.loggamma(c) - mp.loggamma(a)
    return logs + (a - c) * mp.digamma(a) + a * (d - b) / b


def beta_kl(a, b, c, d):
    logs = mp.loggamma(c) + mp.loggamma(d) - mp.loggamma(c + d) - mp.loggamma(a) - mp.loggamma(b) + mp.loggamma(a + b)
    return logs + (a - c) * mp.digamma(a) + (b - d) * mp.digamma(b) + (c + d - a - b) * mp.digamma(a + b)


SCALED = [(0.0, 1.0), (1e-7, 1 + 1e-6), (0.3, 1e-15), (0.3, 1e-20), (-2.0, 1e15), (1e20, 1e20)]
LOG_SCALED = [(0.0, 0.0), (1e-4, 1e-4), (0.0, -120.0), (0.3, -40.0), (0.0, 40.0), (1e20, 46.0), (0.0, -119.5)]
LOGITS = [(-INF,), (INF,), (0.0,), (1e-4,), (80.0,), (-80.0,), (15.0,), (2.0,)]
LOG_RATES = [(-INF,), (-80.0,), (0.0,), (1e-4,), (18.0,), (18.0001,), (60.0,)]
SHAPES = [(1.0, 1.0), (1.001, 1.0), (1e-3, 2.0), (40.0, 3e3), (1e6, 1e6), (1e8, 1.0), (1.0001e8, 1.0)]
# name -> (q, p, exact divergence of numbers, grid of parameters)
PAIRS = {
    "normal, log_scale": (normal, normal, normal_kl, LOG_SCALED),
    "normal, scale": (entry(distrax.Normal), entry(distrax.Normal), scaled_normal_kl, SCALED),
    "log-normal": (LogNormal, LogNormal, scaled_normal_kl, SCALED),
    "Laplace": (distrax.Laplace, distrax.Laplace, laplace_kl, SCALED),
    "Cauchy": (Cauchy, Cauchy, cauchy_kl, SCALED),
    "Gumbel": (distrax.Gumbel, distrax.Gumbel, gumbel_kl, [(0.0, 1.0), (1e-4, 1.0), (0.5, 20.0), (2.0, 0.3)]),
    "normal to Laplace": (distrax.Normal, distrax.Laplace, normal_laplace_kl, SCALED),
    "Laplace to normal": (
        distrax.Laplace,
        distrax.Normal,
        functools.partial(to_normal_kl, lambda: 0, lambda: 2, lambda: 1 + mp.log(2)),
        SCALED,
    ),
    "logistic to normal": (
        distrax.Logistic,
        distrax.Normal,
        functools.partial(to_normal_kl, lambda: 0, lambda: mp.pi**2 / 3, lambda: 2),
        SCALED,
    ),
    "Gumbel to normal": (
        distrax.Gumbel,
        distrax.Normal,
        functools.partial(to_normal_kl, lambda: mp.euler, lambda: mp.pi**2 / 6, lambda: 1 + mp.euler),
        SCALED,
    ),
    "Bernoulli": (lambda l: Bernoulli(l, 0), lambda l: Bernoulli(l, 0), bernoulli_kl, LOGITS),
    "distrax.Bernoulli": (distrax.Bernoulli, distrax.Bernoulli, bernoulli_kl, LOGITS),
    "Poisson": (Poisson, Poisson, poisson_kl, LOG_RATES),
    "Gamma": (distrax.Gamma, distrax.Gamma, gamma_kl, SHAPES),
    "Beta": (distrax.Beta, distrax.Beta, beta_kl, SHAPES),
    "Dirichlet": (
        lambda a, b: distrax.Dirichlet(jnp.stack([a, b])),
        lambda a, b: distrax.Dirichlet(jnp.stack([a, b])),
        beta_kl,
        SHAPES,
    ),
    "correlated normal": (
        lambda m, s: MultivariateNormal(jnp.stack([m]), jnp.reshape(s, (1, 1))),
        lambda m, s: MultivariateNormal(jnp.stack([m]), jnp.reshape(s, (1, 1))),
        scaled_normal_kl,
        SCALED,
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.wants_nan
def test_divergences(name, dtype):
    """Never negative, 0 of a distribution from itself, precise to 1e-5 of itself and to the rounding of its parameters."""
    make_q, make_p, formula, grid = PAIRS[name]
    with jax.enable_x64(dtype == "float64"):
        cells = [(*a, *b) for a, b in itertools.product(grid, grid)]
        parameters = [jnp.asarray(column, dtype) for column in zip(*cells)]
        half = len(parameters) // 2

        def divergence(*numbers):
            return kl_divergence(make_q(*numbers[:half]), make_p(*numbers[half:]))

        value = np.asarray(jax.jit(jax.vmap(divergence))(*parameters), float)
        assert (value >= 0).all()
        numbers = [[exact(n, dtype) for n in cell] for cell in zip(*map(np.asarray, parameters))]
        wanted = rounded([formula(*cell) for cell in numbers], dtype)
        relative, floor = (1e-5, 3e-6) if dtype == "float32" else (1e-11, 1e-11)
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(value[~finite], wanted[~finite])
        np.testing.assert_allclose(value[finite], wanted[finite], rtol=relative, atol=floor)
        grads = jax.jit(jax.vmap(jax.grad(divergence, range(len(parameters)))))(*parameters)
        # Where the value and its square are finite, so are the slopes.
        tame = finite & (wanted < 1e15) & np.array([abs(np.array(cell[1::2], float)).max() < 41 for cell in numbers])
        assert all(np.isfinite(np.asarray(grad)[tame]).all() for grad in grads)


@pytest.mark.wants_nan
def test_divergences_are_symmetric():
    """In the outcomes of Bernoullis, in the order of two Cauchy distributions, in mirrored locations."""
    l, m = (jnp.asarray(column) for column in zip(*itertools.product([-30.0, -2.0, 0.1, 7.0, INF], repeat=2)))
    forward, mirrored = (kl_divergence(Bernoulli(s * l, 0), Bernoulli(s * m, 0)) for s in (1, -1))
    np.testing.assert_array_equal(forward, mirrored)
    one, other = Cauchy(0.3, 1e-12), Cauchy(-4.0, 1e9)
    np.testing.assert_array_equal(kl_divergence(one, other), kl_divergence(other, one))
    for family in (distrax.Normal, distrax.Laplace, Cauchy):
        sides = [kl_divergence(family(s * 0.7, 1e-6), family(s * -1.1, 3.0)) for s in (1, -1)]
        assert sides[0] == sides[1]


def test_certain_categories():
    """A logit of −∞ is an impossible category, and one of +∞ a certain one: the limits, with finite slopes."""
    ruled_out, certain, fair = (jnp.array(l) for l in ([0.0, -INF, 1.0], [0.0, INF, 1.0], [0.0, 0.0, 0.0]))
    family, one_hot = OneHotCategorical, jnp.eye(3)
    p = float(1 / (1 + mp.e))
    np.testing.assert_allclose(family(ruled_out).log_prob(one_hot), [np.log(p), -INF, np.log(1 - p)], rtol=1e-6)
    np.testing.assert_array_equal(family(certain).log_prob(one_hot), [-INF, 0.0, -INF])
    label = likelihoods.categorical(3).distribution({}, jnp.stack([ruled_out, certain]), 0)
    np.testing.assert_array_equal(label.log_prob(jnp.array([1, 1])), [-INF, 0.0])
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    np.testing.assert_allclose([family(l).entropy() for l in (ruled_out, certain)], [entropy, 0.0], rtol=1e-6)
    table = {(0, 2): np.log(3) - entropy, (1, 2): np.log(3), (2, 0): INF, (2, 1): INF, (1, 1): 0.0, (0, 1): INF}
    logits = (ruled_out, certain, fair)
    for (q, p_index), wanted in table.items():
        np.testing.assert_allclose(kl_divergence(family(logits[q]), family(logits[p_index])), wanted, rtol=1e-6)
    mine = kl_divergence(distrax.Categorical(ruled_out), distrax.Categorical(fair))
    np.testing.assert_allclose(mine, np.log(3) - entropy, rtol=1e-6)
    for value in (
        lambda l: family(l).entropy(),
        lambda l: family(l).log_prob(one_hot[2]),
        lambda l: kl_divergence(family(l), family(fair)),
    ):
        assert bool(jnp.isfinite(jax.grad(value)(ruled_out)).all())
    np.testing.assert_array_equal(family(certain).mode(), one_hot[1])


@pytest.mark.wants_nan
def test_certain_bernoullis():
    logits = jnp.array([-INF, INF, 1e4, -1e4, 0.0])
    each = Bernoulli(logits[:, None])
    np.testing.assert_allclose(each.entropy(), [0, 0, 0, 0, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(each.log_prob(jnp.ones((5, 1))), [-INF, 0, 0, -1e4, -np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(each.mode()[:, 0], [0, 1, 1, 0, 0])
    for value in (lambda l: Bernoulli(l).entropy(), lambda l: Bernoulli(l).log_prob(jax.nn.sigmoid(logits))):
        np.testing.assert_allclose(jax.grad(value)(logits), 0, atol=1e-6)


def test_relaxations_of_certain_outcomes(key):
    for categorical, logits in itertools.product((False, True), ([0.0, -INF, 1.0], [0.0, INF, -1e20])):
        layer = Relaxed(Factors(categorical, jnp.array(logits), 1), 0.3)
        y, log_prob = layer.sample_and_log_prob(seed=key, sample_shape=(4,))
        state = layer.state(y)
        assert bool(jnp.isfinite(log_prob).all())
        np.testing.assert_allclose(state[:, 1], float(logits[1] > 0), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_scales_and_scaled_data(dtype):
    """Density and entropy of a normal at log-scales of ±120, and of scaled families for data of 1e±20."""
    with jax.enable_x64(dtype == "float64"):
        for log_scale in (-120.0, 120.0):
            q = normal(jnp.asarray(0.3, dtype), jnp.asarray(log_scale, dtype))
            constant = 0.5 * np.log(2 * np.pi)
            np.testing.assert_allclose(q.log_prob(q.mode()), -log_scale - constant, rtol=1e-6)
            np.testing.assert_allclose(q.entropy(), log_scale + constant + 0.5, rtol=1e-6)
            slope = jax.grad(lambda s, z: normal(z[0], s).log_prob(z))(jnp.asarray(log_scale, dtype), q.mode())
            assert slope == -1
        for size in (1e20, 1e-20):
            x, scale = jnp.asarray(3 * size, dtype), jnp.asarray(2 * size, dtype)
            z = mp.mpf(3) / 2
            log_size = mp.log(exact(scale, dtype))
            log_x = mp.log(exact(x, dtype))
            half = mp.log(2 * mp.pi) / 2
            wanted = {
                "normal": (distrax.Normal(0.0 * x, scale), -(z**2) / 2 - half - log_size),
                "Cauchy": (Cauchy(0.0 * x, scale), -mp.log(mp.pi) - log_size - mp.log(1 + z**2)),
                "log-normal": (LogNormal(0.0 * x, 1.0 + 0 * x), -(log_x**2) / 2 - half - log_x),
            }
            for name, (d, value) in wanted.items():
                np.testing.assert_allclose(d.log_prob(x), float(value), rtol=3e-6, err_msg=name)
        far = Cauchy(jnp.asarray(0.0, dtype), jnp.asarray(1e-20, dtype)).log_prob(jnp.asarray(1e20, dtype))
        np.testing.assert_allclose(far, float(-mp.log(mp.pi) - 60 * mp.log(10)), rtol=1e-5)
        narrow = Kumaraswamy(jnp.asarray(1.0, dtype), jnp.asarray([1.0, 1e20, 1e-20], dtype))
        x = np.array([1e-20, 1.0])
        inside = Kumaraswamy(jnp.asarray(2.0, dtype), jnp.asarray(1.0, dtype)).log_prob(jnp.asarray(x, dtype))
        np.testing.assert_allclose(inside, np.log(2) + np.log(x), rtol=1e-6)
        np.testing.assert_allclose(narrow.mean()[0], 0.5, rtol=1e-5)
        assert bool(jnp.isfinite(narrow.entropy()).all())


@pytest.mark.wants_nan
def test_draws_beyond_the_integers(key):
    """Floats, of the mean and the spread of their family, and NaN for NaN."""
    for mean, deviation, family in (
        (1e10, 1e5, Poisson(jnp.log(jnp.array([1e10])))),
        (3e4, np.sqrt(3e4), Poisson(jnp.log(jnp.array([3e4])))),
        (5e9, np.sqrt(2.5e9), Binomial(10**10, jnp.zeros(1))),
    ):
        draws = np.asarray(family.sample(seed=key, sample_shape=(4000,)), np.float64).ravel()
        unit = np.spacing(np.float32(mean))
        assert abs(draws.mean() - mean) < 5 * deviation / np.sqrt(4000) + 8 * unit
        assert abs(draws.std() / deviation - 1) < 0.06
    ends = Poisson(jnp.array([100.0, jnp.nan, -INF])).sample(seed=key)
    assert ends[0] > 1e30
    assert np.isnan(ends[1])
    assert ends[2] == 0
    np.testing.assert_array_equal(Binomial(9, jnp.array([jnp.nan, INF, -INF])).sample(seed=key), [np.nan, 9, 0])


@pytest.mark.parametrize("size", [1e20, 1e-20])
@pytest.mark.parametrize("scale", ["shared", "per_dimension", "per_example"])
def test_learned_scales_start_at_the_scale_of_the_data(size, scale):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(400, 1)) * size, jnp.float32)
    family = likelihoods.normal(scale)
    params = family.init((1,), x)
    raw = jnp.broadcast_to(family.bias(x, None), (400, 2) if scale == "per_example" else (400, 1)).reshape(
        (400, 1, 2) if scale == "per_example" else (400, 1)
    )
    p = family.distribution(params, raw, 1)
    deviation = float(p.stddev()[0, 0])
    assert abs(deviation / (size if size > 1 else 2e-3) - 1) < 0.1
    assert bool(jnp.isfinite(p.log_prob(x)).all())


EXTREME_RAW = {
    "bernoulli": [-INF, INF, 1e4],
    "bernoulli, fractional": [-INF, INF, 1e4],
    "binomial": [-INF, INF, 1e4],
    "poisson": [-INF, -120.0, 80.0],
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_masked_entries_contribute_exactly_nothing(name):
    """Even where the entry alone would be −∞ or NaN: value and slope are those of the observed entries."""
    family = LIKELIHOODS[name]
    shape = (4, 2) if family.outputs == 2 else (4, 3) if family.outputs == 3 else (4,)
    raw = np.zeros(shape, np.float32)
    raw[:3] = np.array(EXTREME_RAW.get(name, [1e20, -1e20, 1e4])).reshape(3, *(1,) * (len(shape) - 1))
    raw = jnp.asarray(raw)
    x = jnp.array([1.0, 0.0, 1.0, 1.0])
    mask = jnp.array([False, False, False, True])
    params = family.init((4,))

    def log_prob(raw, x, params):
        return masked_log_prob(family.distribution(params, raw, 1), x, mask)

    last = family.distribution(family.init((1,)), raw[3:], 1).log_prob(x[3:])
    for fill in (0.0, 1.0, np.nan):
        filled = jnp.where(mask, x, fill)
        value, grads = jax.value_and_grad(log_prob, (0, 2))(raw, filled, params)
        np.testing.assert_allclose(value, last, rtol=1e-6)
        np.testing.assert_array_equal(np.asarray(grads[0])[:3], 0)
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
        np.testing.assert_allclose(jax.jit(log_prob)(raw, filled, params), value, rtol=1e-6)
        np.testing.assert_allclose(jax.vmap(log_prob, (0, None, None))(raw[None], filled, params)[0], value, rtol=1e-6)
