"""Pareto k̂: known tails, its buffer, what it says of importance sampling that cannot be trusted."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vaejax
from tests.helpers import linear_gaussian
from vaejax import evaluate
from vaejax.dists import Bernoulli, diagonal_normal, standard_normal
from vaejax.evaluate.evidence.pareto import largest, tail_size


def profile_estimate(x):
    """Zhang and Stephens 2009 by quadrature over θ = −k/σ: their estimator, written from the posterior that it approximates."""
    n, x = len(x), np.sort(x)
    m = 20 + int(np.sqrt(n))
    theta = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    k = -np.log1p(-theta[:, None] * x).mean(1)
    likelihood = n * (np.log(theta / k) + k - 1)
    weight = np.exp(likelihood - likelihood.max())
    return np.log1p(-(weight @ theta / weight.sum()) * x).mean()


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.5, 0.7, 1.2])
def test_k_of_generalised_pareto_tails(k, x64):
    """40 samples of 2000: the mean estimate is that of the authors' estimator, and near the truth."""
    x = scipy.stats.genpareto.rvs(k, size=(2001, 40), random_state=0)
    log_weights = jnp.log(jnp.asarray(x))
    found = np.asarray(evaluate.pareto_k(largest(log_weights, 2001)))
    threshold = x.min(0)
    own = np.array([profile_estimate(np.delete(c, c.argmin()) - t) for c, t in zip(x.T, threshold)])
    np.testing.assert_allclose(found, (2000 * own + 10 * 0.5) / 2010, atol=2e-3)
    assert abs(found.mean() - k) < 0.03


def test_scale_does_not_matter():
    log_weights = jnp.asarray(np.random.default_rng(0).standard_t(3, size=(200, 5)) * 2, jnp.float32)
    tail = largest(log_weights, tail_size(200) + 1)
    near, far = evaluate.pareto_k(tail), evaluate.pareto_k(tail - 3000.0)
    np.testing.assert_allclose(near, far, atol=0.02)


def test_tails_that_cannot_be_fitted():
    def k(log_weights):
        return float(evaluate.pareto_k(largest(jnp.asarray(log_weights), tail_size(len(log_weights)) + 1)))

    assert k(np.full(1000, -500.0, np.float32)) == -np.inf
    assert k(-500 + 1e-5 * np.random.default_rng(0).normal(size=1000).astype(np.float32)) == -np.inf
    assert k(np.full(1000, -np.inf, np.float32)) == np.inf
    assert k(np.array([np.inf] + [0.0] * 999, np.float32)) == np.inf
    assert k(np.linspace(-5000, 0, 1000, dtype=np.float32)) == np.inf
    assert k(np.array([0.0] + [-200.0] * 999, np.float32)) == np.inf
    # A quartile that just vanishes, and spreads of an encoder that knows nothing: large, never NaN.
    rng = np.random.default_rng(0)
    assert k(np.concatenate([rng.exponential(size=15), np.full(85, -50.0)]).astype(np.float32)) > 0.7
    wide = largest(
        jnp.asarray(rng.normal(size=(100, 500)) * rng.uniform(40, 100, 500), jnp.float32), tail_size(100) + 1
    )
    assert float(jnp.min(evaluate.pareto_k(wide))) > 0.7
    assert np.isnan(k(rng.normal(size=20)))
    assert np.isnan(k(np.array([np.nan] * 100)))


def test_the_buffer_keeps_the_largest_in_any_order():
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(500, 3)), jnp.float32)
    kept = largest(log_weights[:10], 41)
    assert kept.shape == (41, 3)
    assert bool(jnp.all(jnp.isneginf(kept[10:])))
    for start, stop in ((10, 11), (11, 300), (300, 500)):
        kept = largest(jnp.concatenate([kept, log_weights[start:stop]]), 41)
    np.testing.assert_array_equal(kept, np.sort(log_weights, 0)[::-1][:41])


def gaussian_proposal(scale, size=10):
    """The exact posterior's scale times this."""
    exact = linear_gaussian(size=2 * size, latents=size)
    tril = scale * exact.posterior_tril

    def posterior(params, x):
        loc = exact.posterior_mean(x)
        return vaejax.dists.MultivariateNormal(loc, jnp.broadcast_to(tril, (*loc.shape[:-1], size, size)))

    return exact, exact.model(exact=True)._replace(posterior=posterior)


def test_a_poor_posterior_is_flagged_and_a_good_one_is_not(key):
    exact, model = gaussian_proposal(0.5)
    x = jax.random.normal(jax.random.key(1), (10, 20))
    with pytest.warns(
        evaluate.UntrustworthyEstimate, match=r"for \d+ of 10 examples.*k̂ above 0.67.*vaejax.evaluate.ais"
    ):
        poor = evaluate.log_marginal(model, {}, key, x, num_samples=1000)
    assert float(jnp.mean(poor.pareto_k > evaluate.pareto_threshold(1000))) >= 0.9
    assert float(jnp.mean(poor.estimate - exact.log_evidence(x))) < -0.3
    _, model = gaussian_proposal(1.3)
    good = evaluate.log_marginal(model, {}, key, x, num_samples=1000)
    assert float(good.pareto_k.max()) < 0.5
    _, model = gaussian_proposal(1.0)
    same = evaluate.log_marginal(model, {}, key, x, num_samples=1000)
    assert float(same.pareto_k.max()) < 0.7


def test_chunks_do_not_change_it(small, key):
    model, params, batch = small
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        found = evaluate.log_marginal(model, params, key, batch, num_samples=60, chunk_size=13)
    drawn = []
    for n, k in enumerate(jax.random.split(key, 5)):
        alone = jax.tree.map(lambda leaf: leaf[n : n + 1], batch)  # noqa: B023
        sizes = enumerate([13] * 4 + [8])
        drawn += [vaejax.log_terms(model, params, jax.random.fold_in(k, i), alone, num_samples=s) for i, s in sizes]
    log_weights = jnp.concatenate([t.log_weights for t in drawn]).reshape(5, 60).T
    np.testing.assert_allclose(found.pareto_k, evaluate.pareto_k(largest(log_weights, tail_size(60) + 1)), atol=1e-3)


def test_further_batch_axes(key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: diagonal_normal(0.1 * x, 0.8),
        prior=lambda params: standard_normal(3),
        likelihood=lambda params, z: diagonal_normal(z, 1.0),
    )
    x = jax.random.normal(key, (4, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        found = evaluate.log_marginal(model, {}, key, x, num_samples=200)
        alone = evaluate.log_marginal(model, {}, key, x[0, 0], num_samples=200)
    assert found.pareto_k.shape == found.estimate.shape == (4, 2)
    assert alone.pareto_k.shape == ()


def test_discrete_latents_have_none(key):
    model = vaejax.Model(
        init=lambda key, batch: {},
        posterior=lambda params, x: Bernoulli(0.5 * x),
        prior=lambda params: Bernoulli(jnp.zeros(3)),
        likelihood=lambda params, z: Bernoulli(z),
    )
    found = evaluate.log_marginal(model, {}, key, jnp.ones((4, 3)), num_samples=1000)
    assert bool(jnp.all(jnp.isnan(found.pareto_k)))


def test_bad_counts_are_refused():
    with pytest.raises(ValueError, match="num_samples"):
        evaluate.pareto_threshold(0)
