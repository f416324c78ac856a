"""Pairs of objective, estimator and posterior that are undefined."""

import functools

import jax
import jax.numpy as jnp
import pytest

import vaejax
from vaejax.dists.backend import distrax
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    piwae,
    sticking_the_landing,
    taylor_control_variate,
    variance,
)
from vaejax.objectives import elbo, iwae, jackknife, miwae, renyi, tvo


def test_a_support_that_moves_is_refused_where_the_score_is_left_out(small, key):
    model, params, batch = small

    def posterior(p, x):
        edge = jnp.exp(p["output_bias"][:3]) * jnp.ones((len(x), 3))
        return distrax.Independent(distrax.Uniform(-edge, edge), 1)

    moving = model._replace(posterior=posterior)
    pathwise(moving, elbo).init(params, key, batch)
    for maker in (sticking_the_landing, doubly_reparameterized):
        with pytest.raises(TypeError, match="support depends on its parameters; use pathwise"):
            maker(moving, elbo).init(params, key, batch)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda m: sticking_the_landing(m, iwae, num_samples=5), "mean over draws.*doubly_reparameterized"),
        (
            lambda m: sticking_the_landing(m, functools.partial(elbo, kl="closed_form")),
            "kl='closed_form'.*use pathwise",
        ),
        (lambda m: sticking_the_landing(m, functools.partial(elbo, free_bits=0.5)), "mean over draws.*pathwise"),
        (lambda m: sticking_the_landing(m, functools.partial(elbo, capacity=2.0)), "mean over draws"),
        (
            lambda m: doubly_reparameterized(m, functools.partial(elbo, beta=2.0)),
            "log-weights alone.*sticking_the_landing",
        ),
        (
            lambda m: doubly_reparameterized(m, functools.partial(tvo, partition="adaptive")),
            "log-weights alone.*pathwise",
        ),
        (lambda m: doubly_reparameterized(m, lambda terms: terms.log_weights.mean(0)), "log-weights alone"),
        (lambda m: doubly_reparameterized(m, iwae, num_samples=4, noise="sobol"), "independent draws only.*pathwise"),
        (lambda m: doubly_reparameterized(m, functools.partial(miwae, groups=3), num_samples=4), "does not divide"),
        (lambda m: doubly_reparameterized(m, jackknife), "needs K > 1, got K=1"),
        (
            lambda m: doubly_reparameterized(m, functools.partial(renyi, alpha=-jnp.inf), num_samples=4),
            "log-weights alone",
        ),
        (lambda m: pathwise(m, functools.partial(tvo, partition=5, num_intervals=9)), "use partition=9"),
        (lambda m: pathwise(m, jackknife), "pathwise cannot serve.*got K=1"),
        (
            lambda m: piwae(m, encoder=functools.partial(miwae, groups=3), decoder=iwae, num_samples=4),
            "does not divide",
        ),
        (lambda m: doubly_reparameterized(m, iwae, prior="reparametrised"), "did you mean 'reparameterized'"),
        (lambda m: taylor_control_variate(m, iwae, num_samples=2), "mean over draws.*doubly_reparameterized"),
        (lambda m: taylor_control_variate(m, elbo, scale="hutchinson"), "unknown scale"),
        (lambda m: pathwise(m, elbo, noise="antithetic"), "pairs.*even, got num_samples=1"),
        (
            lambda m: pathwise(m, elbo, num_samples=4, chunk_size=3, noise="antithetic"),
            "even, got num_samples=4, and chunk_size=3",
        ),
        (lambda m: pathwise(m, elbo, noise="halton"), "unknown noise"),
        (lambda m: pathwise(m, elbo, chunk_size=0), "chunk_size must be at least 1"),
        (
            lambda m: variance(pathwise(m, elbo), None, jax.random.key(0), jnp.zeros((1, 6)), num_draws=1),
            "at least 2 draws",
        ),
    ],
)
def test_pairs_without_meaning_are_refused_when_built(build, words, small):
    with pytest.raises(ValueError, match=words):
        build(small[0])


def test_posteriors_that_do_not_suit_are_refused_by_init(small, key):
    model, params, batch = small
    full = model._replace(posterior=lambda p, x: vaejax.dists.MultivariateNormal(jnp.zeros((5, 3)), jnp.eye(3)))
    with pytest.raises(TypeError, match=r"diagonal Gaussian.*sticking_the_landing"):
        taylor_control_variate(full, elbo).init(params, key, batch)
    flat = distrax.Independent(distrax.Uniform(jnp.full(3, -9.0), 9.0), 1)
    odd = model._replace(prior=lambda p: flat)
    with pytest.raises(TypeError, match="location–scale"):
        doubly_reparameterized(odd, iwae, num_samples=2, prior="reparameterized").init(params, key, batch)
    with pytest.raises(TypeError, match="encoder and decoder has none"):
        piwae(model, num_samples=2)
    with pytest.raises(TypeError, match="count for nothing"):
        piwae(model, iwae, encoder=elbo, decoder=iwae)
    for alpha in ("0.5", None):
        with pytest.raises(TypeError, match="alpha must be a number"):
            pathwise(model, functools.partial(renyi, alpha=alpha))
    with pytest.raises(TypeError, match="must be an Estimator"):
        variance(pathwise, params, key, batch)
    with pytest.raises(TypeError, match="groups must be a function"):
        variance(pathwise(model, elbo), params, key, batch, groups=["encoder"])
