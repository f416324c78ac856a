"""KL by dimension, active units, collapse and the aggregate posterior, against quadrature and enumeration of the mixture itself."""

import importlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import LinearGaussian
from vaejax import evaluate
from vaejax.dists import (
    Bernoulli,
    Binomial,
    Chain,
    MultivariateNormal,
    OneHotCategorical,
    diagonal_normal,
    standard_normal,
)
from vaejax.dists.backend import distrax
from vaejax.evaluate.latent.active_units import kl_parts
from vaejax.evaluate.latent.aggregate import _compiled, _Draws, dimension_log_probs, log_shares, log_weights

X = jnp.array([[-2.0, -1.0], [-0.7, 0.4], [0.1, -0.6], [0.9, 1.0], [2.2, 1.9]])
SCALE = jnp.array([0.7, 0.5])
LEFT = jnp.array([[0.9, 0.5], [0.2, 0.8]])


def bare(posterior, prior=None, latents=2, width=2, event_ndims=1):
    """A model of its encoder and prior for x ``[n, width]``; the likelihood is never asked for more than its shape."""
    return vaejax.Model(
        init=lambda key, batch: {},
        posterior=posterior,
        prior=prior or (lambda params: standard_normal(latents)),
        likelihood=lambda params, z: diagonal_normal(
            jnp.zeros((*jax.tree.leaves(z)[0].shape[:-event_ndims], width)), 1.0
        ),
    )


CORRELATED = bare(lambda params, x: diagonal_normal(x @ LEFT, SCALE))


def densities(means, scales, grid):
    """N(grid; mean_n, scale_n²) in float64, ``[n, *grid]``."""
    shape = (-1, *(1,) * grid.ndim)
    standard = (grid - np.reshape(means, shape)) / np.reshape(scales, shape)
    return np.exp(-0.5 * standard**2) / np.reshape(scales, shape) / math.sqrt(2 * math.pi)


def divergence(q, p, cell):
    """∫ q log q/p by the rectangle rule, which is exact for smooth densities that vanish at the ends."""
    return float(np.sum(np.where(q > 0, q * np.log(np.maximum(q, 1e-300) / np.maximum(p, 1e-300)), 0.0)) * cell)


def by_quadrature(components, prior, cell):
    """Mean KL, mutual information and KL(q(z) ‖ p(z)) of the mixture of these ``[n, *grid]``."""
    mixture = components.mean(0)
    mean_kl = np.mean([divergence(q, prior, cell) for q in components])
    information = np.mean([divergence(q, mixture, cell) for q in components])
    return mean_kl, information, divergence(mixture, prior, cell)


def plane(means, scales):
    """Of two independent dimensions: quadrature's five numbers."""
    axis = np.linspace(-9.0, 9.0, 601)
    step = axis[1] - axis[0]
    first, second = (densities(np.asarray(means)[:, d], np.broadcast_to(scales[d], len(means)), axis) for d in (0, 1))
    joint = first[:, :, None] * second[:, None, :]
    normal = densities([0.0], [1.0], axis)[0]
    whole = by_quadrature(joint, normal[:, None] * normal, step**2)
    marginals = first.mean(0), second.mean(0)
    total_correlation = divergence(joint.mean(0), marginals[0][:, None] * marginals[1], step**2)
    return (*whole, total_correlation, sum(divergence(q, normal, step) for q in marginals))


def assert_near(found, wanted, *, cap=0.02, errors=5.0):
    """Within standard errors of the draws, which are below the cap."""
    assert found.monte_carlo_error <= cap
    assert abs(found.mean - wanted) <= errors * found.monte_carlo_error + 1e-5, (found, wanted)


@pytest.fixture(scope="module")
def correlated():
    return evaluate.aggregate(CORRELATED, {}, jax.random.key(1), X, num_samples=4000)


def test_one_dimension_agrees_with_quadrature(key):
    """Five examples whose scales differ."""
    model = bare(lambda params, x: diagonal_normal(x[:, :1], log_scale=0.3 * x[:, 1:] - 0.4), latents=1)
    found = evaluate.aggregate(model, {}, key, X, num_samples=4000)
    axis = np.linspace(-14.0, 14.0, 8001)
    components = densities(X[:, 0], np.exp(0.3 * np.asarray(X[:, 1], float) - 0.4), axis)
    wanted = by_quadrature(components, densities([0.0], [1.0], axis)[0], axis[1] - axis[0])
    assert wanted[0] == pytest.approx(wanted[1] + wanted[2], abs=1e-9)
    for value, exact in zip(found, wanted):
        assert_near(value, exact)
    assert found.total_correlation.mean == pytest.approx(0, abs=1e-6)
    assert found.dimension_kl.mean == pytest.approx(found.marginal_kl.mean, abs=1e-6)
    assert found.mutual_information.mean < found.ceiling == math.log(5)


def test_two_dimensions_agree_with_quadrature(correlated):
    for value, exact in zip(correlated, plane(X @ LEFT, SCALE)):
        assert_near(value, exact)
    assert correlated.total_correlation.mean > 10 * correlated.total_correlation.monte_carlo_error


def test_the_parts_add_up_on_shared_draws(correlated):
    mean_kl, information, marginal, correlation, dimensions = (value.mean for value in correlated[:5])
    assert mean_kl == pytest.approx(information + marginal, abs=1e-6)
    assert marginal == pytest.approx(correlation + dimensions, abs=1e-6)


def test_a_mixture_that_factorises_has_no_total_correlation(key):
    """Means on a 3 × 2 grid: exactly 0, draw by draw."""
    grid = jnp.array(list(itertools.product([-1.5, 0.2, 1.0], [-0.8, 0.9])))
    found = evaluate.aggregate(bare(lambda params, x: diagonal_normal(x, SCALE)), {}, key, grid, num_samples=50)
    assert found.total_correlation.mean == pytest.approx(0, abs=1e-6)
    assert found.total_correlation.standard_error < 1e-6
    assert found.dimension_kl.mean == pytest.approx(found.marginal_kl.mean, abs=1e-6)


def test_mutual_information_ends_at_log_n(key):
    """Posteriors that do not overlap: log N to the last digit, never above, though log q(z|x) is some hundreds."""
    x = 100 * jax.random.normal(key, (40, 30))
    model = bare(lambda params, x: diagonal_normal(x, 1e-3), latents=30, width=30)
    for method in ("full", "stratified"):
        found = evaluate.aggregate(model, {}, key, x, method=method, batch_size=7, num_samples=3)
        assert found.mutual_information.mean <= found.ceiling + 1e-12
        assert found.mutual_information.mean == pytest.approx(math.log(40), abs=1e-6)
        assert found.mutual_information.standard_error < 1e-6


def test_stratified_with_all_examples_is_full(correlated):
    other = evaluate.aggregate(CORRELATED, {}, jax.random.key(1), X, method="stratified", num_samples=4000)
    for left, right in zip(jax.tree.leaves(correlated), jax.tree.leaves(other)):
        assert left == pytest.approx(right, rel=1e-6)


def chen_weights(count, size):
    """Chen et al. 2018, appendix C.2, for the own component and M − 1 others, of which the last one is special."""
    others = size - 1
    return [1 / count, *[1 / others] * (others - 1), (count - others) / (count * others)]


@pytest.mark.parametrize(("count", "size"), [(5, 3), (6, 4), (4, 2), (5, 5)])
def test_stratified_weights_are_the_mean_of_chens(count, size):
    own, *others = chen_weights(count, size)
    mean = np.mean([np.roll(others, i) for i in range(len(others))], axis=0)
    weights = np.exp(log_weights(count, size))
    np.testing.assert_allclose(weights, [own, mean[0]], rtol=1e-12)
    np.testing.assert_allclose(weights[0] + (size - 1) * weights[1], 1, rtol=1e-12)


def test_stratified_density_is_unbiased():
    """Over all choices of the other components, for given draws: the mean of what is computed is q(z), and so is that of Chen's form."""
    z = jnp.array([[0.3, -0.2], [1.0, 2.0], [-2.0, 0.1], [0.0, 0.0], [3.0, 1.0]])
    full = jnp.exp(CORRELATED.posterior({}, X).log_prob(z[:, None]))
    posterior = CORRELATED.posterior({}, X)
    choices = jnp.array([(0, *rest) for rest in itertools.permutations(range(1, 5), 2)])

    def shares(index):
        draws = _Draws(z[index][:, None], posterior.log_prob(z)[index][:, None], None)
        return log_shares(CORRELATED, {}, draws, vaejax.Batch(X[index]), 5)[0][0, 0]

    found = jnp.exp(jax.jit(jax.vmap(shares))(choices)) * full[0, 0]
    np.testing.assert_allclose(found.mean(), full[0].mean(), rtol=1e-6)
    chen = np.asarray(full[0])[np.asarray(choices)] @ np.array(chen_weights(5, 3))
    np.testing.assert_allclose(chen.mean(), full[0].mean(), rtol=1e-6)
    assert np.std(found) < np.std(chen)


def test_stratified_errs_to_the_side_that_it_names(key):
    """Too much mutual information, too little KL(q(z) ‖ p(z)), less so with larger parts; the mean KL is the same."""
    x = jax.random.normal(key, (200, 2))
    full, *others = (
        evaluate.aggregate(CORRELATED, {}, key, x, method="stratified", batch_size=m, num_samples=4)
        for m in (200, 60, 10)
    )
    gaps = [other.mutual_information.mean - full.mutual_information.mean for other in others]
    assert 0 < gaps[0] < gaps[1] < 0.3
    for other, gap in zip(others, gaps):
        assert other.mean_kl == full.mean_kl
        assert other.marginal_kl.mean - full.marginal_kl.mean == pytest.approx(-gap, abs=1e-9)
    assert [v.num_components for v in (full, *others)] == [200, 60, 10]


def test_parts_that_do_not_divide_the_data(key):
    """Seven examples in parts of three: the third part is filled up from the second, and every example is counted once, in its place."""
    x = jax.random.normal(key, (7, 2))
    terms = _compiled(CORRELATED, 2, 3, {}, key, vaejax.Batch(x))
    order = np.asarray(jax.random.permutation(jax.random.split(key)[1], 7))
    posterior = CORRELATED.posterior({}, x)
    keys = jax.random.split(jax.random.split(key)[0], 7)
    draws = [CORRELATED.posterior({}, x[n : n + 1]).sample(seed=keys[n], sample_shape=(2,)) for n in range(7)]
    density = np.asarray(jnp.exp(posterior.log_prob(jnp.stack(draws))))  # [example, draw, component]
    for first, counted in ((0, (0, 1, 2)), (3, (3, 4, 5)), (4, (6,))):
        part = order[first : first + 3]
        for n in order[list(counted)]:
            others = [m for m in part if m != n]
            mixture = density[n][:, n] / 7 + density[n][:, others].sum(-1) * 6 / (7 * 2)
            np.testing.assert_allclose(terms.joint[n], np.log(mixture / density[n][:, n]), atol=1e-5)


@pytest.mark.slow
def test_standard_errors_are_those_between_data_sets():
    """The sd over 100 data sets against the mean standard error, of all five."""
    means, errors = [], []
    for seed in range(100):
        data_key, key = jax.random.split(jax.random.key(seed))
        found = evaluate.aggregate(CORRELATED, {}, key, jax.random.normal(data_key, (300, 2)))
        means.append([v.mean for v in found[:5]])
        errors.append([v.standard_error for v in found[:5]])
    # An sd of 100 has a standard error of 7%.
    np.testing.assert_allclose(np.std(means, axis=0, ddof=1) / np.mean(errors, axis=0), 1, atol=0.3)


def test_dependent_dimensions_have_the_first_three(key):
    """One Gaussian with a full covariance, as one vector and as a chain of two layers, against quadrature."""
    tril = jnp.linalg.cholesky(jnp.array([[0.25, 0.2], [0.2, 0.52]]))
    full = bare(lambda params, x: MultivariateNormal(x[:, :1] * jnp.array([1.0, 0.8]), tril))
    chain = bare(
        lambda params, x: Chain(
            (lambda _: diagonal_normal(x[:, :1], 0.5), lambda above: diagonal_normal(0.8 * above[0], 0.6))
        ),
        lambda params: Chain((lambda _: standard_normal(1), lambda above: diagonal_normal(0 * above[0], 1.0))),
    )
    axis = np.linspace(-8.0, 8.0, 501)
    first = densities(X[:, 0], np.full(5, 0.5), axis)
    second = densities(0.8 * axis, np.full(501, 0.6), axis)
    normal = densities([0.0], [1.0], axis)[0]
    wanted = by_quadrature(first[:, :, None] * second, normal[:, None] * normal, (axis[1] - axis[0]) ** 2)
    for model in (full, chain):
        report = evaluate.latent_report(model, {}, key, X, num_samples=3000)
        found = report.aggregate
        assert found.total_correlation is found.dimension_kl is None
        for value, exact in zip(found[:3], wanted):
            assert_near(value, exact, cap=0.03)
        assert report.kl is report.collapse is None
        assert report.verdict == "healthy"
        if model is full:
            assert "KL(q(z_d|x) ‖ p(z_d)) has no closed form for single dimensions" in str(report)
            assert "by the variance of their means" in report.reason
        else:
            assert report.active is report.unused is None
            assert "active units are not defined for latents in several arrays" in str(report)


def test_a_dependent_prior_leaves_the_total_correlation(key, correlated):
    prior = MultivariateNormal(jnp.zeros(2), jnp.linalg.cholesky(jnp.array([[1.0, 0.5], [0.5, 1.0]])))
    model = CORRELATED._replace(prior=lambda params: prior)
    found = evaluate.aggregate(model, {}, jax.random.key(1), X, num_samples=4000)
    assert found.total_correlation == correlated.total_correlation
    assert found.dimension_kl is None


def test_discrete_latents_agree_with_enumeration(key):
    """Two bits of five examples; and the same as one of four categories, which has one dimension."""
    logits, prior_logits = np.asarray(1.3 * X, float), np.array([0.4, -0.3])
    states = np.array(list(itertools.product([0.0, 1.0], repeat=2)))

    def mass(logits):
        p = 1 / (1 + np.exp(-logits))
        return np.prod(np.where(states, p[..., None, :], 1 - p[..., None, :]), -1)

    components, prior = mass(logits), mass(prior_logits)
    whole = by_quadrature(components, prior, 1.0)
    marginals = components.mean(0) @ states
    product = np.prod(np.where(states, marginals, 1 - marginals), -1)
    bits = bare(lambda params, x: Bernoulli(1.3 * x), lambda params: Bernoulli(jnp.asarray(prior_logits)))
    found = evaluate.aggregate(bits, {}, key, X, num_samples=4000)
    correlation = divergence(components.mean(0), product, 1.0)
    for value, exact in zip(found, (*whole, correlation, divergence(product, prior, 1.0))):
        assert_near(value, exact)
    table = jnp.log(jnp.asarray(components))
    one_hot = bare(
        lambda params, x: OneHotCategorical(table[x[:, 0].astype(int)]),
        lambda params: OneHotCategorical(jnp.log(jnp.asarray(prior))),
    )
    found = evaluate.aggregate(one_hot, {}, key, jnp.arange(5)[:, None].repeat(2, 1), num_samples=4000)
    for value, exact in zip(found, (*whole, 0.0, whole[2])):
        assert_near(value, exact)


@pytest.mark.parametrize(
    ("distribution", "size"),
    [
        (diagonal_normal(jnp.ones((3, 2, 2)), 1.0, event_ndims=2), 4),
        (distrax.Normal(jnp.ones(3), 1.0), 1),
        (MultivariateNormal(jnp.ones((3, 1)), jnp.eye(1)), 1),
        (Binomial(5, jnp.ones((3, 4))), 4),
        (OneHotCategorical(jnp.ones((3, 2, 4)), 2), 2),
        (distrax.OneHotCategorical(jnp.ones((3, 4))), 1),
        (distrax.Independent(distrax.Bernoulli(jnp.ones((3, 4))), 1), 4),
        (distrax.Independent(MultivariateNormal(jnp.ones((3, 2, 2)), jnp.eye(2)), 1), None),
        (MultivariateNormal(jnp.ones((3, 2)), jnp.eye(2)), None),
    ],
)
def test_dimensions_of_a_density(distribution, size):
    """Their log-densities add up to the whole; KL has the same dimensions."""
    z = jnp.ones((5, 3, *distribution.event_shape))

    @jax.jit
    def found(z):
        return (
            dimension_log_probs(distribution, z),
            kl_parts(distribution, distribution),
            distribution.log_prob(z),
        )

    parts, kl, log_prob = found(z)
    if size is None:
        assert parts is kl is None
    else:
        assert kl.shape == (3, size)
        assert parts.shape == (5, 3, size)
        np.testing.assert_allclose(parts.sum(-1), log_prob, rtol=1e-5)


@pytest.mark.wants_nan
def test_contexts_and_masks_travel_with_their_examples(key):
    """An encoder that shifts by its context and reads its mask, against the same numbers in x."""
    model = bare(lambda params, x, context, mask=None: diagonal_normal((x + context["c"]) * mask, SCALE))
    shift = jax.random.normal(key, X.shape)
    mask = jnp.ones_like(X, bool).at[1, 0].set(False)
    batch = vaejax.Batch(X.at[1, 0].set(jnp.nan), {"c": shift}, mask)
    plain = bare(lambda params, x: diagonal_normal(x, SCALE))
    encoded = (X + shift) * mask
    options = {"method": "stratified", "batch_size": 3, "num_samples": 20}
    found = evaluate.aggregate(model, {}, key, batch, **options)
    wanted = evaluate.aggregate(plain, {}, key, encoded, **options)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert left == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(evaluate.active_units(model, {}, batch).variance, encoded.var(0, ddof=1), rtol=1e-5)


def test_chunks_and_further_axes_do_not_change_it(key, monkeypatch):
    x = jax.random.normal(key, (3, 4, 2))
    whole = evaluate.aggregate(CORRELATED, {}, key, x, num_samples=2)
    # As attributes of the package these are functions.
    modules = [importlib.import_module(f"vaejax.evaluate.latent.{name}") for name in ("aggregate", "active_units")]
    monkeypatch.setattr(modules[0], "_COMPONENTS", 5)
    monkeypatch.setattr(modules[0], "budget", lambda: 30)
    monkeypatch.setattr(modules[1], "budget", lambda: 6)
    same = bare(lambda params, x: diagonal_normal(x @ LEFT, SCALE))
    pieces = evaluate.aggregate(same, {}, key, x.reshape(12, 2), num_samples=2)
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces)):
        assert left == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(
        evaluate.kl_per_dimension(same, {}, x.reshape(12, 2)).values,
        evaluate.kl_per_dimension(CORRELATED, {}, x).values,
        rtol=1e-6,
    )


def test_other_parameters_are_not_compiled_anew(key):
    model = bare(lambda params, x: diagonal_normal(x @ params, SCALE))
    first = evaluate.latent_report(model, LEFT, key, X)
    programs = [
        getattr(importlib.import_module("vaejax.evaluate.latent.active_units"), name) for name in ("_parts", "_means")
    ]
    compiled = [program._cache_size() for program in (_compiled, *programs)]
    second = evaluate.latent_report(model, 2 * LEFT, jax.random.key(9), X + 1)
    assert [program._cache_size() for program in (_compiled, *programs)] == compiled
    assert first.aggregate.mean_kl != second.aggregate.mean_kl


def test_double_precision(x64):
    x, scale = jnp.asarray(X, jnp.float64), jnp.asarray([0.7, 0.5], jnp.float64)
    model = bare(lambda params, x: diagonal_normal(x @ LEFT, scale))
    found = evaluate.aggregate(model, {}, jax.random.key(4), x, num_samples=2000)
    for value, exact in zip(found, plane(x @ LEFT, scale)):
        assert_near(value, exact, cap=0.03)
    kl = evaluate.kl_per_dimension(model, {}, x)
    exact = 0.5 * (np.asarray(x @ LEFT) ** 2 + np.asarray(scale) ** 2 - 1) - np.log(np.asarray(scale))
    np.testing.assert_allclose(kl.values, exact, rtol=1e-12)


# Active units and collapse


def test_kl_per_dimension(key):
    x = jax.random.normal(key, (30, 2))
    found = evaluate.kl_per_dimension(CORRELATED, {}, x)
    parts = 0.5 * (np.asarray(x @ LEFT, float) ** 2 + np.asarray(SCALE) ** 2 - 1) - np.log(SCALE)
    np.testing.assert_allclose(found.values, parts, rtol=1e-5)
    np.testing.assert_allclose(found.mean, parts.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, parts.std(0, ddof=1) / 30**0.5, rtol=1e-5)
    assert found.total.mean == pytest.approx(parts.sum(1).mean(), rel=1e-5)
    assert np.isnan(evaluate.kl_per_dimension(CORRELATED, {}, x[:1]).standard_error).all()


def test_active_units_by_both_definitions(key):
    """A dimension that moves, one that only leaves the prior, one that does neither; the error of a normal's variance is v √(2/n)."""
    weight, scale = jnp.array([0.8, 0.0, 0.05]), jnp.array([0.6, 0.5, 1.0])
    model = bare(lambda params, x: diagonal_normal(x[:, :1] * weight, scale), latents=3)
    x = jax.random.normal(key, (4000, 2))
    found = evaluate.active_units(model, {}, x)
    means = np.asarray(x[:, :1] * weight, np.float64)
    np.testing.assert_allclose(found.variance, means.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(found.variance_standard_error, found.variance * (2 / 4000) ** 0.5, rtol=0.1)
    assert found.by_variance.tolist() == [True, False, False]
    assert found.by_kl.tolist() == [True, True, False]
    assert (found.num_by_variance, found.num_by_kl) == (1, 2)
    np.testing.assert_allclose(found.kl, evaluate.kl_per_dimension(model, {}, x).mean)
    low = evaluate.active_units(model, {}, x, variance_threshold=0.002, kl_threshold=1.0)
    assert low.by_variance.tolist() == [True, False, True]
    assert low.num_by_kl == 0


def test_active_units_without_a_closed_form_or_a_mean(key):
    x = jax.random.normal(key, (200, 2))
    full = bare(lambda params, x: MultivariateNormal(x, jnp.eye(2)))
    found = evaluate.active_units(full, {}, x)
    assert found.kl is found.kl_standard_error is found.by_kl is found.num_by_kl is None
    np.testing.assert_allclose(found.variance, np.asarray(x).var(0, ddof=1), rtol=1e-5)
    halves = jnp.array([0.5, 0.5])

    def mixture(params, x):
        both = x[..., None] + jnp.array([-0.5, 0.5])
        parts = distrax.MixtureSameFamily(
            distrax.Categorical(probs=jnp.broadcast_to(halves, both.shape)), distrax.Normal(both, 0.5)
        )
        return distrax.Independent(parts, 1)

    unknown = bare(mixture)
    unknown = unknown._replace(posterior=lambda params, x: _NoMean(mixture(params, x)))
    with pytest.raises(ValueError, match=r"knows no mean; give key="):
        evaluate.active_units(unknown, {}, x)
    found = evaluate.active_units(unknown, {}, x, key=key)
    assert np.all(np.abs(found.variance - np.asarray(x).var(0, ddof=1)) < 0.05)
    assert found.by_kl is None


class _NoMean:
    """Draws and log-densities only."""

    def __init__(self, inner):
        self.sample_and_log_prob, self.log_prob = inner.sample_and_log_prob, inner.log_prob


def test_active_units_of_discrete_latents(key):
    """Groups count as one dimension: their variance is the sum over categories."""
    logits = jax.random.normal(key, (50, 3, 4))
    groups = bare(
        lambda params, x: OneHotCategorical(logits[x[:, 0].astype(int)], 2),
        lambda params: OneHotCategorical(jnp.zeros((3, 4)), 2),
        event_ndims=2,
    )
    index = jnp.arange(50)[:, None].repeat(2, 1)
    found = evaluate.active_units(groups, {}, index)
    probs = np.asarray(jax.nn.softmax(logits), np.float64)
    np.testing.assert_allclose(found.variance, probs.var(0, ddof=1).sum(-1), rtol=1e-5)
    assert found.kl.shape == found.variance.shape == (3,)
    np.testing.assert_allclose(found.kl, (probs * np.log(4 * probs)).sum(-1).mean(0), rtol=1e-4)
    single = bare(
        lambda params, x: distrax.OneHotCategorical(logits[x[:, 0].astype(int), 0]),
        lambda params: distrax.OneHotCategorical(jnp.zeros(4)),
    )
    alone = evaluate.active_units(single, {}, index)
    np.testing.assert_allclose(alone.variance, found.variance[:1], rtol=1e-5)
    np.testing.assert_allclose(alone.kl, found.kl[:1], rtol=1e-5)


def test_collapse_is_lucas_definition():
    values = np.full((100, 4), 0.001)
    values[0, 1] = values[:2, 2] = 0.5
    values[:, 3] = 0.01
    found = evaluate.collapse(values)
    np.testing.assert_allclose(found.share, [1, 0.99, 0.98, 0])
    assert found.collapsed.tolist() == [True, True, False, False]
    np.testing.assert_allclose(found.standard_error, np.sqrt(found.share * (1 - found.share) / 100))
    assert evaluate.collapse(values, epsilon=0.02, delta=0.0).collapsed.tolist() == [True, False, False, True]
    for bad, wanted in (({"epsilon": 0.0}, "epsilon"), ({"delta": 1.5}, "delta")):
        with pytest.raises(ValueError, match=wanted):
            evaluate.collapse(values, **bad)
    for bad in (values[0], values[:0], np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"kl must be \[n, D\] nats without NaN"):
            evaluate.collapse(bad)


# The report


def orthogonal(params_scale):
    """A linear-Gaussian model whose exact posterior is diagonal, with an encoder that is it, times a scale for each dimension."""
    weight = jnp.linalg.qr(jax.random.normal(jax.random.key(5), (6, 3)))[0] * jnp.array([1.5, 1.0, 0.8])
    exact = LinearGaussian(weight, jnp.zeros(6), 0.7)
    precision = 1 + jnp.sum(weight**2, 0) / 0.49
    scale = jnp.asarray(params_scale, float)
    params = {"loc": scale * weight / 0.49 / precision, "log_scale": -0.5 * scale * jnp.log(precision)}
    return exact, exact.model(exact=False), params


def test_a_healthy_model_and_a_collapsed_one(key):
    """With the exact posterior q(z) is the prior, and I(x; z) = ½ log det (I + WᵀW/σ²); with the prior for an encoder nothing is left."""
    exact, model, params = orthogonal([1, 1, 1])
    x = evaluate.simulate(model, params, key, 600)[1].x
    healthy = evaluate.latent_report(model, params, key, x)
    information = 0.5 * float(jnp.sum(jnp.log(1 + jnp.sum(exact.weight**2, 0) / 0.49)))
    found = healthy.aggregate.mutual_information
    assert found.standard_error < 0.06
    assert abs(found.mean - information) < 5 * found.standard_error
    assert abs(healthy.kl.total.mean - information) < 5 * healthy.kl.total.standard_error
    # Of a sample's mixture it is of the order of 1/N.
    assert abs(healthy.aggregate.marginal_kl.mean) < 0.05
    assert healthy.verdict == "healthy"
    assert healthy.active.num_by_variance == healthy.active.num_by_kl == 3
    assert not healthy.collapse.collapsed.any()

    collapsed = evaluate.latent_report(model, jax.tree.map(jnp.zeros_like, params), key, x)
    assert collapsed.verdict == "collapsed"
    assert collapsed.aggregate.mutual_information.mean == pytest.approx(0, abs=1e-6)
    assert collapsed.aggregate.mean_kl.mean == pytest.approx(0, abs=1e-6)
    assert collapsed.collapse.collapsed.all()
    assert collapsed.active.num_by_variance == collapsed.active.num_by_kl == 0
    assert collapsed.unused.all()

    partly = evaluate.latent_report(model, orthogonal([1, 0, 1])[2], key, x)
    assert partly.verdict == "partly"
    assert partly.unused.tolist() == [False, True, False]
    assert "1 of 3 dimensions carry nothing" in partly.reason


def test_an_encoder_that_ignores_x_has_collapsed(key):
    """Away from the prior, so that KL and active units by KL see nothing amiss."""
    model = bare(lambda params, x: diagonal_normal(jnp.ones_like(x), 0.5))
    found = evaluate.latent_report(model, {}, key, X)
    assert found.active.num_by_kl == 2
    assert found.active.num_by_variance == 0
    assert not found.collapse.collapsed.any()
    assert found.verdict == "collapsed"
    assert "cannot be told from 0" in found.reason


def test_noise_is_no_collapse(key):
    """One draw of each of four examples says nothing on the mutual information; their means do."""
    model = bare(lambda params, x: diagonal_normal(0.5 * x, 1.0))
    found = evaluate.latent_report(model, {}, jax.random.key(3), X[1:], num_samples=1)
    assert "cannot be told from 0" in found.reason
    assert found.verdict == "undecided"


def test_the_report_reads(correlated, key):
    text = str(evaluate.latent_report(CORRELATED, {}, key, X, num_samples=30))
    for wanted in (
        "5 examples; nats, mean ± standard error between examples (± of the draws alone)",
        "mean KL(q(z|x) ‖ p(z))",
        "at most log N = 1.61",
        "total correlation of q(z)",
        "Σ_d KL(q(z_d) ‖ p(z_d))",
        "I(x; z) is near log N",
        "active units, Var E[z_d|x] > 0.01: 2 of 2",
        "active units, mean KL > 0.01 nats: 2 of 2",
        "(ε, δ)-collapsed, KL < 0.01 nats for at least 99% of the examples: 0 of 2",
        "verdict: healthy",
    ):
        assert wanted in text
    assert "nan" not in text
    one = str(evaluate.latent_report(CORRELATED, {}, key, X, num_samples=1, method="stratified", batch_size=3))
    assert "nan" not in one
    assert "Each draw saw 3 components of q(z): I(x; z) is too high in the mean" in one


def test_the_report_of_many_dimensions(key):
    x = jax.random.normal(key, (20, 30))
    many = bare(lambda params, x: diagonal_normal(x * (jnp.arange(30) < 28), jnp.ones(30)), latents=30, width=30)
    text = str(evaluate.latent_report(many, {}, key, x, num_samples=2))
    assert "and 10 that carry less, 2 of them unused" in text


def test_a_prior_that_depends_on_the_context(key):
    model = CORRELATED._replace(prior=lambda params, context: diagonal_normal(context, 1.0))
    batch = vaejax.Batch(X, 0.3 * X)
    with pytest.raises(ValueError, match=r"p\(z\) has batch shape \[5\].*examples of one context c.*kl_per_dimension"):
        evaluate.aggregate(model, {}, key, batch)
    kl = evaluate.kl_per_dimension(model, {}, batch)
    exact = 0.5 * ((X @ LEFT - 0.3 * X) ** 2 + SCALE**2 - 1) - jnp.log(SCALE)
    np.testing.assert_allclose(kl.values, exact, rtol=1e-5)
    assert evaluate.active_units(model, {}, batch).num_by_kl == 2


CALLS = {
    "kl_per_dimension": lambda model, key, batch, **options: evaluate.kl_per_dimension(model, {}, batch, **options),
    "active_units": lambda model, key, batch, **options: evaluate.active_units(model, {}, batch, **options),
    "aggregate": lambda model, key, batch, **options: evaluate.aggregate(model, {}, key, batch, **options),
    "latent_report": lambda model, key, batch, **options: evaluate.latent_report(model, {}, key, batch, **options),
}


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("aggregate", {"method": "ful"}, "unknown method 'ful'; did you mean 'full'"),
        ("aggregate", {"num_samples": 0}, "num_samples must be at least 1"),
        ("aggregate", {"batch_size": 1}, "batch_size must be at least 2"),
        ("active_units", {"variance_threshold": -1.0}, "variance_threshold"),
        ("active_units", {"kl_threshold": math.nan}, "kl_threshold"),
        ("latent_report", {"epsilon": 0.0}, "epsilon"),
        ("latent_report", {"delta": 2.0}, "delta"),
        ("latent_report", {"kl_threshold": -1.0}, "kl_threshold"),
    ],
)
def test_bad_options_are_refused(name, options, wanted, key):
    with pytest.raises(ValueError, match=wanted):
        CALLS[name](CORRELATED, key, X, **options)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.wants_nan
def test_bad_data_are_refused(name, key):
    call = CALLS[name]
    with pytest.raises(ValueError, match=r"batch\.weight"):
        call(CORRELATED, key, vaejax.Batch(X, weight=jnp.ones(4)))
    with pytest.raises(ValueError, match="NaN"):
        call(CORRELATED, key, X.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="empty"):
        call(CORRELATED, key, X[:0])
    with pytest.raises(TypeError, match="must be an array"):
        call(CORRELATED, key, "text")
    with pytest.raises(TypeError, match="call it outside jit"):
        jax.jit(lambda x: call(CORRELATED, key, x))(X)
    if name != "kl_per_dimension":
        with pytest.raises(ValueError, match=r"needs at least 2, got batch shape \[1\]"):
            call(CORRELATED, key, X[:1])
    if name in ("aggregate", "latent_report"):
        with pytest.raises(TypeError, match="typed key"):
            call(CORRELATED, jax.random.PRNGKey(0), X)


@pytest.mark.parametrize("name", ["active_units", "aggregate"])
@pytest.mark.wants_nan
def test_parameters_that_diverged_are_told(name, key):
    model = CORRELATED._replace(posterior=lambda params, x: diagonal_normal(jnp.log(x - 5), SCALE))
    with pytest.raises(ValueError, match=r"the model gives NaN for .*diverged in training; look at model.posterior"):
        CALLS[name](model, key, X)


def test_an_encoder_without_an_axis_of_examples_is_refused(key):
    model = CORRELATED._replace(
        posterior=lambda params, x: standard_normal(2),
        likelihood=lambda params, z: diagonal_normal(z[:, None] + 0 * X, 1.0, event_ndims=2),
    )
    with pytest.raises(ValueError, match=r"got batch shape \[\] of q\(z\|x\) for x of shape \[5, 2\]"):
        evaluate.aggregate(model, {}, key, X)


def test_kl_per_dimension_needs_a_closed_form(key):
    with pytest.raises(ValueError, match=r"KL\(MultivariateNormal ‖ prior\) has no closed form.*evaluate.aggregate"):
        evaluate.kl_per_dimension(bare(lambda params, x: MultivariateNormal(x, jnp.eye(2))), {}, X)


def test_latents_in_several_arrays_have_no_active_units(key):
    chain = bare(
        lambda params, x: Chain((lambda _: diagonal_normal(x, 0.5), lambda above: diagonal_normal(above[0], 1.0))),
        lambda params: Chain((lambda _: standard_normal(2), lambda above: diagonal_normal(above[0], 1.0))),
    )
    with pytest.raises(ValueError, match=r"latents in one array, got tuple of 2"):
        evaluate.active_units(chain, {}, X, key=key)
