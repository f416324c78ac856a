"""Gaussian mixtures against scikit-learn, SciPy and mclust; EM that never falls; components that collapse."""

import functools
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import vaejax
from vaejax.conjugate import gmm, half_steps
from vaejax.conjugate.gmm import Gmm, starts
from vaejax.conjugate.gmm.structures import structure

fit_module = importlib.import_module("vaejax.conjugate.gmm.fit")
IRIS = load_iris().data
FOUR = ["full", "tied", "diag", "spherical"]
ALL = [*FOUR, "equal_shape"]
SLOW = [ALL[0], *(pytest.param(name, marks=pytest.mark.slow) for name in ALL[1:])]


def dense(params, x):
    """Row by row, from whole covariance matrices."""
    count, size = params.mean.shape
    covariance = np.asarray(params.covariance)
    if covariance.ndim == 2:
        covariance = np.broadcast_to(covariance, (count, size))[:, :, None] * np.eye(size)
    covariance = np.broadcast_to(covariance, (count, size, size))
    parts = [multivariate_normal.logpdf(x, m, c) for m, c in zip(np.asarray(params.mean), covariance)]
    return logsumexp(np.log(np.asarray(params.weight)) + np.stack(parts, -1), axis=-1)


def rising(result, tolerance):
    """Whether the trace never falls from its last break on, relative to its size."""
    trace = np.asarray(result.trace)[result.restarted : int(result.num_steps) + 1]
    assert np.isfinite(trace).all()
    return bool((np.diff(trace) >= -tolerance * np.abs(trace[1:])).all())


@pytest.mark.parametrize("covariance", SLOW[:-1])
def test_each_iteration_is_scikit_learns(x64, key, covariance):
    """From the same start, without regularisation, log-likelihood by log-likelihood."""
    start = gmm.fit_em(key, IRIS, 3, covariance=covariance, num_starts=1, max_steps=1).params
    found = gmm.fit_em(key, IRIS, 3, covariance=covariance, start=start, max_steps=30, tolerance=0.0)
    shape = {"full": start.covariance, "tied": start.covariance[0], "diag": start.covariance}
    inverse = {"full": np.linalg.inv, "tied": np.linalg.inv}.get(covariance, lambda c: 1 / np.asarray(c))
    other = GaussianMixture(
        3, covariance_type=covariance, reg_covar=0, tol=0, max_iter=30, weights_init=np.asarray(start.weight),
        means_init=np.asarray(start.mean), precisions_init=inverse(shape.get(covariance, start.covariance[:, 0])),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other.fit(IRIS)
    theirs = np.array(other.lower_bounds_) * len(IRIS)
    np.testing.assert_allclose(found.trace[: len(theirs)], theirs, rtol=1e-8)
    np.testing.assert_allclose(found.objective, other.score(IRIS) * len(IRIS), rtol=1e-8)
    np.testing.assert_allclose(gmm.bic(found.params, IRIS), other.bic(IRIS), rtol=1e-8)
    np.testing.assert_allclose(gmm.aic(found.params, IRIS), other.aic(IRIS), rtol=1e-8)
    np.testing.assert_allclose(gmm.posterior(found.params, IRIS).probs, other.predict_proba(IRIS), atol=1e-6)


@pytest.mark.slow
def test_mclusts_value_for_iris(x64, key):
    """VEV-3: log-likelihood −186.1 with 38 parameters."""
    found = gmm.fit_em(key, IRIS, 3, covariance="equal_shape", num_starts=50, start="random", tolerance=1e-10)
    assert abs(float(found.objective) + 186.1) < 0.05
    assert gmm.num_parameters(found.params, "equal_shape") == 38
    values = np.linalg.eigvalsh(found.params.covariance)
    shape = values / np.prod(values, -1, keepdims=True) ** 0.25
    np.testing.assert_allclose(shape, np.broadcast_to(shape[:1], shape.shape), rtol=1e-6)


@pytest.mark.parametrize("covariance", SLOW)
def test_densities_are_exact(x64, key, covariance):
    params = gmm.fit_em(key, IRIS, 3, covariance=covariance, num_starts=2, max_steps=20).params
    np.testing.assert_allclose(gmm.log_prob(params, IRIS), dense(params, IRIS), rtol=1e-9)
    batched = IRIS.reshape(3, 50, 4)
    np.testing.assert_allclose(gmm.log_prob(params, batched).ravel(), dense(params, IRIS), rtol=1e-9)
    model = gmm.as_model(params)
    np.testing.assert_allclose(
        vaejax.evaluate.exact_log_marginal(model, params, IRIS[:5]), dense(params, IRIS[:5]), rtol=1e-8
    )
    terms = vaejax.log_terms(model, model.init(key), key, jnp.asarray(IRIS[:5]), num_samples=3)
    np.testing.assert_allclose(terms.log_weights, np.broadcast_to(dense(params, IRIS[:5]), (3, 5)), rtol=1e-8)
    slope = jax.grad(lambda p: jnp.sum(gmm.log_prob(p, IRIS)))(params)
    assert all(np.isfinite(leaf).all() for leaf in slope)


def many(count, dtype):
    """Random problems: mixtures of several sizes, correlated, some far apart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 60, 3)) @ rng.normal(size=(count, 3, 3))
    return (
        x + rng.normal(size=(count, 1, 3)) * 3 + rng.integers(0, 3, (count, 60, 1)) * rng.uniform(0, 4, (count, 1, 3))
    ).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("covariance", SLOW)
def test_em_never_falls(covariance, dtype):
    """A hundred random problems for each structure, no regularisation, no re-seeding."""
    with jax.enable_x64(dtype == np.float64):
        options = {"covariance": covariance, "num_starts": 1, "max_steps": 60, "tolerance": 0.0, "max_reseeds": 0}
        fit = functools.partial(gmm.fit_em, num_components=3, **options)
        found = jax.vmap(fit)(jax.random.split(jax.random.key(1), 100), jnp.asarray(many(100, dtype)))
        steps, trace = np.asarray(found.num_steps), np.asarray(found.trace)
    assert (steps > 3).mean() > 0.9
    assert (np.asarray(found.collapsed) == 0).mean() > 0.8
    assert found.objective.shape == (100,)
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    gain = np.where(np.arange(60) < steps[:, None], np.diff(trace, axis=1) / np.abs(trace[:, 1:]), 0.0).min(1)
    borne = np.ones(100, bool)
    if covariance == "equal_shape":
        # Their smallest variance is not the component's own, and as an entry of a matrix it has the rounding of the largest: a first-order
        # effect, where that of a covariance of the component's own is of the second.
        values = np.linalg.eigvalsh(np.asarray(found.params.covariance, np.float64))
        borne = (values[..., 0] / values[..., -1]).min(1) > 1000 * np.finfo(dtype).eps
    assert borne.sum() >= 99
    assert (gain[borne] >= -tolerance).all()
    assert (gain >= -100 * tolerance).all()


@pytest.mark.slow
@pytest.mark.parametrize("covariance", ALL)
def test_the_penalised_objective_never_falls(x64, key, covariance):
    """Also where the likelihood alone has no maximum: more parameters than rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4))
    found = gmm.fit_em(
        key,
        x,
        4,
        covariance=covariance,
        prior_count=2.0,
        prior_variance=0.3,
        num_starts=5,
        tolerance=1e-12,
        max_steps=300,
    )
    assert rising(found, 1e-10)
    assert int(found.reseeded.sum()) == 0
    params = found.params
    covariances = np.broadcast_to(
        params.covariance[..., None] * np.eye(4) if params.covariance.ndim == 2 else params.covariance, (4, 4, 4)
    )
    penalty = -sum(np.linalg.slogdet(c)[1] + 0.3 * np.trace(np.linalg.inv(c)) for c in covariances)
    np.testing.assert_allclose(found.objective, dense(params, x).sum() + penalty, rtol=1e-10)
    near = jax.tree.map(lambda leaf: leaf * (1 + 1e-3 * jnp.asarray(rng.normal(size=leaf.shape))), params.mean)
    assert gmm.log_prob(params._replace(mean=near), x).sum() + penalty < found.objective


@pytest.mark.parametrize("covariance", SLOW)
def test_bound_and_kl_add_up_at_every_half_step(x64, key, covariance):
    start = gmm.fit_em(key, IRIS, 3, covariance=covariance, num_starts=1, max_steps=1).params
    found = half_steps(gmm, start, IRIS, num_steps=4, covariance=covariance)
    np.testing.assert_allclose(found.bound + found.kl, found.log_likelihood, rtol=1e-6)
    assert (np.diff(found.bound) > -1e-10 * np.abs(found.bound[1:])).all()
    np.testing.assert_allclose(found.kl[1::2], 0.0, atol=1e-9)
    assert (np.asarray(found.kl[2::2]) > 0).all()


def test_a_collapsing_component_begins_anew_and_says_so(x64, key):
    """One component tight about one row: its variance goes to 0."""
    x = np.random.default_rng(0).normal(size=(60, 2))
    start = Gmm(np.array([0.9, 0.1]), np.stack([x.mean(0), x[0]]), np.stack([np.eye(2), 1e-4 * np.eye(2)]))
    with pytest.warns(gmm.Starved, match=r"1 component collapsed and began anew, at step \d"):
        found = gmm.fit_em(key, x, 2, start=start, tolerance=1e-10)
    assert int(found.reseeded.sum()) == 1
    assert found.restarted == int(np.flatnonzero(found.reseeded)[0]) + 1
    assert rising(found, 1e-10)
    assert np.linalg.eigvalsh(found.params.covariance).min() > 1e-4
    with pytest.warns(gmm.Starved, match="the fit ended before it"):
        ended = gmm.fit_em(key, x, 2, start=start, max_reseeds=0)
    assert int(ended.collapsed) == 1
    assert np.isfinite(float(ended.objective))
    quiet = gmm.fit_em(key, x, 2, start=start, prior_count=1.0)
    assert int(quiet.reseeded.sum()) == 0


@pytest.mark.parametrize("copies", [1, 12])
def test_collapse_is_told_in_float32(key, copies):
    """On one row, or on as many equal ones as no component of few rows has."""
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    x[:copies] = x[0]
    start = Gmm(np.array([0.9, 0.1]), np.stack([x.mean(0), x[0]]), np.stack([np.eye(2), 1e-4 * np.eye(2)]))
    with pytest.warns(gmm.Starved, match="1 component collapsed and began anew"):
        found = gmm.fit_em(key, x, 2, start=start, max_steps=50)
    assert rising(found, 1e-5)
    assert np.linalg.eigvalsh(found.params.covariance).min() > 1e-4


def test_weights_count_rows(x64, key):
    start = gmm.fit_em(key, IRIS, 2, num_starts=1, max_steps=1).params
    weight = np.random.default_rng(1).integers(0, 3, len(IRIS)).astype(float)
    weighted = gmm.fit_em(key, vaejax.Batch(IRIS, weight=weight), 2, start=start, max_steps=20, tolerance=0.0)
    repeated = gmm.fit_em(key, np.repeat(IRIS, weight.astype(int), axis=0), 2, start=start, max_steps=20, tolerance=0.0)
    np.testing.assert_allclose(weighted.trace[:4], repeated.trace[:4], rtol=1e-9)
    np.testing.assert_allclose(
        gmm.bic(weighted.params, vaejax.Batch(IRIS, weight=weight)),
        gmm.bic(repeated.params, np.repeat(IRIS, weight.astype(int), axis=0)), rtol=1e-9,
    )  # fmt: skip


def test_many_starts_keep_the_best(x64, key):
    found = gmm.fit_em(key, IRIS, 3, num_starts=20)
    assert found.starts.shape == (20,)
    np.testing.assert_allclose(found.objective, np.max(found.starts), rtol=1e-12)
    np.testing.assert_allclose(found.objective, dense(found.params, IRIS).sum(), rtol=1e-9)
    assert float(found.objective) == pytest.approx(-180.185, abs=0.01)


def test_float32_far_from_the_origin(key):
    """No difference of large squares: the scatter of clusters 1000 away is as good as near 0."""
    x = IRIS - IRIS.mean(0)
    near, far = (
        gmm.fit_em(key, (x + shift).astype(np.float32), 3, num_starts=3, tolerance=0.0, max_steps=40)
        for shift in (0, 1000)
    )
    assert rising(near, 1e-5)
    assert rising(far, 1e-5)
    np.testing.assert_allclose(near.objective, far.objective, rtol=2e-2)


def test_draws_have_the_moments(key):
    params = Gmm(
        jnp.array([0.3, 0.7]),
        jnp.array([[-2.0, 0.0], [1.0, 3.0]]),
        jnp.array([[[1.0, 0.5], [0.5, 2.0]], [[0.2, 0.0], [0.0, 0.1]]]),
    )
    x, component = gmm.sample(params, key, 20_000)
    assert abs(float(component.mean()) - 0.7) < 5 * np.sqrt(0.21 / 20_000)
    mean = params.weight @ params.mean
    error = np.asarray(x).std(0) / np.sqrt(len(x))
    assert (np.abs(x.mean(0) - mean) < 5 * error).all()
    np.testing.assert_allclose(np.cov(x[component == 0].T), params.covariance[0], atol=0.12)


def test_refusals(key):
    with pytest.raises(ValueError, match="needs at least 5 rows, got 3"):
        gmm.fit_em(key, IRIS[:3], 5)
    with pytest.raises(ValueError, match="num_components must be at least 1"):
        gmm.fit_em(key, IRIS, 0)
    with pytest.raises(ValueError, match="NaN"):
        gmm.fit_em(key, np.where(IRIS > 7, np.nan, IRIS), 2)
    with pytest.raises(ValueError, match="column 4 is constant"):
        gmm.fit_em(key, np.c_[IRIS, np.ones(150)], 2)
    with pytest.raises(ValueError, match="5 columns span 4 dimensions"):
        gmm.fit_em(key, np.c_[IRIS, IRIS.sum(1)], 2)
    with pytest.raises(ValueError, match="needs complete rows"):
        gmm.fit_em(key, vaejax.Batch(IRIS, mask=IRIS < 7), 2)
    with pytest.raises(ValueError, match="did you mean 'spherical'"):
        gmm.fit_em(key, IRIS, 2, covariance="sphericl")
    with pytest.raises(ValueError, match=r"start.covariance must have shape \[2, 4, 4\]"):
        gmm.fit_em(key, IRIS, 2, start=Gmm(np.ones(2) / 2, IRIS[:2], np.ones((2, 4))))
    with pytest.raises(TypeError, match="typed key"):
        gmm.fit_em(jnp.zeros(2, jnp.uint32), IRIS, 2)


GOOD = Gmm(np.ones(2) / 2, IRIS[:2], np.stack([np.eye(4)] * 2))


@pytest.mark.parametrize(
    ("covariance", "field", "value", "message"),
    [
        ("full", "weight", np.ones(2), r"start.weight must sum to 1, got a sum of 2"),
        ("full", "weight", np.array([1.5, -0.5]), "start.weight must hold no negative numbers"),
        ("full", "weight", np.array([np.nan, 1.0]), "start.weight must hold finite numbers"),
        ("full", "mean", np.full((2, 4), np.inf), "start.mean must hold finite numbers"),
        (
            "full",
            "covariance",
            np.stack([np.eye(4), np.ones((4, 4))]),
            r"positive definite in float32 \(number 1 of 2 is not\)",
        ),
        ("full", "covariance", np.stack([np.eye(4) + np.eye(4, k=1)] * 2), "start.covariance must be symmetric"),
        ("diag", "covariance", np.zeros((2, 4)), "start.covariance must hold positive variances"),
    ],
)
@pytest.mark.wants_nan
def test_starts_that_are_no_mixtures_are_refused(key, covariance, field, value, message):
    with pytest.raises(ValueError, match=message):
        gmm.fit_em(key, IRIS, 2, covariance=covariance, start=GOOD._replace(**{field: value}))


@pytest.mark.wants_nan
def test_an_end_without_a_likelihood_is_refused(key, recwarn):
    heavy = vaejax.Batch(IRIS.astype(np.float32), weight=np.full(len(IRIS), 1e37, np.float32))  # their sum overflows
    with pytest.raises(ValueError, match="squares overflow float32"):
        gmm.fit_em(key, heavy, 2, num_starts=1, max_steps=5)
    assert not [one for one in recwarn if one.category is gmm.Starved]


def correlated(count, size, seed=0):
    """Columns 0 and 1 correlated at 0.9998."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, size))
    x[:, 1] = x[:, 0] + 0.02 * x[:, 1]
    return x.astype(np.float32)


def test_correlation_is_no_collapse(key):
    """One Gaussian of few rows in float32: its maximum likelihood in closed form."""
    x = correlated(50, 10)
    found = gmm.fit_em(key, x, 1)
    assert int(found.reseeded.sum()) == 0
    log_det = np.linalg.slogdet(np.cov(x.T.astype(float), ddof=0))[1]
    np.testing.assert_allclose(found.objective, -25 * (10 * np.log(2 * np.pi) + log_det + 10), rtol=1e-4)


def test_a_small_cluster_keeps_the_covariance_that_all_share(key):
    x = correlated(500, 2)
    x[:10] += [8, -8]
    shape = np.array([[1.0, 1.0], [1.0, 1.0004]])
    start = Gmm(np.array([0.02, 0.98]), np.array([[8.0, -8.0], [0.0, 0.0]]), shape[None])
    found = gmm.fit_em(key, x, 2, covariance="tied", start=start)
    assert int(found.reseeded.sum()) == 0
    np.testing.assert_allclose(found.params.weight, [0.02, 0.98], rtol=1e-5)
    np.testing.assert_allclose(found.objective, dense(found.params, x).sum(), rtol=1e-3)


def test_a_lost_component_leaves_the_covariance_that_all_share(key):
    """The first of them has no rows near: it begins anew, and only its mean and weight do."""
    x = IRIS.astype(np.float32)
    start = Gmm(np.array([0.5, 0.5]), np.stack([x.mean(0) + 1e4, x.mean(0)]), 0.5 * np.eye(4)[None])
    parts = starts.spare(jnp.asarray(x), jnp.ones(150), 2, structure("tied"))
    found = starts.reseed(key, start, jnp.array([True, False]), parts)
    np.testing.assert_array_equal(found.covariance, start.covariance)
    assert (np.abs(np.asarray(found.mean[0]) - x) < 1e-6).all(-1).any()


def test_under_a_prior_no_component_is_taken_for_collapsed(key, recwarn):
    """Components of a few correlated rows each, where the prior keeps the maximum."""
    x = correlated(60, 8)
    found = gmm.fit_em(key, x, 8, prior_count=1e-3, num_starts=2, max_steps=30)
    assert int(found.reseeded.sum()) == 0
    assert rising(found, 1e-5)
    assert not [one for one in recwarn if one.category is gmm.Starved]


def test_warnings_point_to_the_caller(x64, key):
    x = np.random.default_rng(0).normal(size=(60, 2))
    start = Gmm(np.array([0.9, 0.1]), np.stack([x.mean(0), x[0]]), np.stack([np.eye(2), 1e-4 * np.eye(2)]))
    with pytest.warns(gmm.Starved, match="or prior_count=1") as caught:
        gmm.fit_em(key, x, 2, start=start, max_steps=5)
    assert caught[0].filename == __file__
    with pytest.warns(gmm.Starved, match="fewer components or a simpler covariance$") as caught:
        gmm.fit_chunked(key, x, 2, start=start, max_steps=5, chunk_size=60)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("covariance", ["full", "tied", "diag"])
def test_moments_far_apart_are_those_of_float64(covariance):
    """Three clusters 1000 apart, of conditional standard deviation 0.01: what float32 rows hold, float32 finds."""
    rng, places = np.random.default_rng(0), np.array([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]])
    z = rng.normal(size=(3000, 2))
    x = (np.c_[z[:, 0], z[:, 0] + 0.01 * z[:, 1]] + places.repeat(1000, 0)).astype(np.float32)
    wide = np.array([[1.0, 1.0], [1.0, 1.0001]])
    shape = {"full": np.stack([wide] * 3), "tied": wide[None], "diag": np.ones((3, 2))}[covariance]
    found = gmm.em_step(Gmm(np.ones(3) / 3, places, shape), x)
    groups = x.astype(np.float64).reshape(3, 1000, 2)
    exact = np.stack([np.cov(group.T, ddof=0) for group in groups])
    np.testing.assert_allclose(found.mean, groups.mean(1), rtol=1e-6, atol=1e-4)
    exact = {"full": exact, "tied": exact.mean(0)[None], "diag": np.diagonal(exact, axis1=1, axis2=2)}[covariance]
    if covariance == "diag":
        np.testing.assert_allclose(found.covariance, exact, rtol=1e-5)
    else:
        conditional = (
            np.linalg.det(np.asarray(c, np.float64))[:] / np.asarray(c)[:, 0, 0] for c in (found.covariance, exact)
        )
        np.testing.assert_allclose(*conditional, rtol=1e-2)
        np.testing.assert_allclose(found.covariance, exact, rtol=1e-5)


def test_scores_far_apart_are_those_of_float64():
    z = np.random.default_rng(0).normal(size=(500, 2))
    x = (np.c_[z[:, 0], z[:, 0] + 0.01 * z[:, 1]] + [1000, 0]).astype(np.float32)
    wide = np.array([[1.0, 1.0], [1.0, 1.0001]], np.float32)
    params = Gmm(np.ones(2, np.float32) / 2, np.array([[1000, 0], [0, 1000]], np.float32), np.stack([wide] * 2))
    exact = dense(jax.tree.map(lambda leaf: leaf.astype(np.float64), params), x.astype(np.float64))
    np.testing.assert_allclose(gmm.log_prob(params, x), exact, atol=2e-3)


def test_a_step_far_from_the_origin(key):
    far = (IRIS + 10_000).astype(np.float32)
    near = far.astype(np.float64) - 10_000
    start = gmm.fit_em(key, near, 3, num_starts=1, max_steps=2).params
    there = gmm.em_step(start._replace(mean=start.mean + 10_000), far)
    with jax.enable_x64(True):
        begin = start._replace(mean=np.float64(np.float32(start.mean + 10_000)) - 10_000)
        here = gmm.em_step(jax.tree.map(np.float64, begin), near)
    np.testing.assert_allclose(there.covariance, here.covariance, atol=1e-5)
    np.testing.assert_allclose(np.asarray(there.mean, np.float64) - 10_000, here.mean, atol=1e-3)


def test_k_means_plus_plus_is_greedy():
    """Among rows of mass alone, and of smaller potential than plain draws reach."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(300, 2)) + 6 * rng.integers(0, 4, (300, 2)), jnp.float32)
    weight = jnp.asarray(rng.integers(0, 2, 300), jnp.float32)

    def potential(mean):
        return np.sum(weight * np.min(np.sum((np.asarray(x)[:, None] - mean) ** 2, -1), 1))

    draw = jax.jit(lambda key: starts.k_means_plus_plus(key, x, weight, 8, jnp.ones(2)))
    drawn = [draw(jax.random.key(i)) for i in range(40)]
    rows = np.asarray(x)[np.asarray(weight) > 0]
    for mean, nearest in drawn:
        assert all((rows == one).all(-1).any() for one in np.asarray(mean))
        assert len(np.unique(np.asarray(mean), axis=0)) == 8
        wanted = np.argmin(np.sum((np.asarray(x)[:, None] - np.asarray(mean)) ** 2, -1), 1)
        np.testing.assert_array_equal(nearest, wanted)

    def plain():
        mean = rows[rng.integers(len(rows))][None]
        while len(mean) < 8:
            mass = np.min(np.sum((rows[:, None] - mean) ** 2, -1), 1, initial=np.inf).astype(float)
            mean = np.r_[mean, rows[rng.choice(len(rows), p=mass / mass.sum())][None]]
        return potential(mean)

    greedy, one_draw = ([potential(np.asarray(mean)) for mean, _ in drawn], [plain() for _ in range(40)])
    error = np.sqrt(np.var(greedy) / 40 + np.var(one_draw) / 40)
    assert np.mean(one_draw) - np.mean(greedy) > 3 * error


@pytest.mark.slow
def test_starts_one_by_one_or_together_are_the_same(x64, key, monkeypatch):
    """How many share a pass is a matter of speed alone."""
    options = {"num_starts": 5, "max_steps": 12, "tolerance": 0.0, "start": "random"}
    found = {}
    for group in (1, 2, 5):
        monkeypatch.setattr(fit_module, "at_once", lambda *_, group=group: group)
        fit_module._from_params.clear_cache()
        found[group] = gmm.fit_em(key, IRIS, 2, **options)
    fit_module._from_params.clear_cache()
    for group in (2, 5):
        np.testing.assert_allclose(found[group].starts, found[1].starts, rtol=1e-9)
        # Of starts that reach the same, rounding chooses: the same components in another order.
        means = (np.sort(np.asarray(found[one].params.mean), axis=0) for one in (group, 1))
        np.testing.assert_allclose(*means, rtol=1e-6)


def test_each_start_tells_its_steps(x64, key):
    found = gmm.fit_em(key, IRIS, 3, num_starts=4)
    assert found.start_steps.shape == found.start_reseeds.shape == (4,)
    best = int(np.argmax(found.starts))
    assert int(found.start_steps[best]) == int(found.num_steps)
    assert int(found.start_reseeds[best]) == int(found.reseeded.sum())
    assert len(np.unique(found.start_steps)) > 1


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_small_components_far_apart_are_none_that_collapse(key, covariance):
    """Two blobs of 100 rows, 1500 standard deviations apart, in float32."""
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    x[100:, 0] += 1500
    found = gmm.fit_em(key, x, 2, covariance=covariance)
    assert int(found.reseeded.sum()) == 0
    np.testing.assert_allclose(found.params.weight, 0.5, atol=1e-6)
    np.testing.assert_allclose(
        found.objective, dense(jax.tree.map(lambda a: np.asarray(a, np.float64), found.params), x).sum(), rtol=1e-3
    )


def test_half_steps_take_weights(x64, key):
    weight = np.random.default_rng(2).integers(1, 4, len(IRIS))
    start = gmm.fit_em(key, IRIS, 2, num_starts=1, max_steps=1).params
    found = half_steps(gmm, start, vaejax.Batch(IRIS, weight=weight.astype(float)), num_steps=2)
    np.testing.assert_allclose(found.log_likelihood[0], weight @ gmm.log_prob(start, IRIS), rtol=1e-12)
    np.testing.assert_allclose(found.bound + found.kl, found.log_likelihood, rtol=1e-10)
    assert (np.diff(found.bound) > -1e-9).all()
    repeated = half_steps(gmm, start, np.repeat(IRIS, weight, axis=0), num_steps=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, repeated)


def test_a_mask_is_refused_as_a_model(key):
    params = gmm.fit_em(key, IRIS, 2, num_starts=1, max_steps=2).params
    batch = vaejax.Batch(jnp.asarray(IRIS), mask=jnp.asarray(IRIS < 7))
    with pytest.raises(ValueError, match="complete rows"):
        vaejax.log_terms(gmm.as_model(params), params, key, batch)
    whole = batch._replace(mask=jnp.ones_like(batch.mask))
    np.testing.assert_array_equal(gmm.log_prob(params, whole), gmm.log_prob(params, IRIS))
