"""Identities between pathwise estimators, layers of latents, and params that serve two roles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import gradient, tree_allclose
from vaejax import Model, dists
from vaejax.dists import diagonal_normal
from vaejax.estimators import (
    doubly_reparameterized,
    pathwise,
    piwae,
    sticking_the_landing,
    taylor_control_variate,
    variance,
)
from vaejax.estimators.doubly_reparameterized import derivatives
from vaejax.objectives import as_objective, cubo, elbo, iwae, miwae, renyi


def test_one_draw_of_dreg_is_sticking_the_landing(small, key):
    model, params, batch = small
    stl = gradient(sticking_the_landing(model, elbo), params, key, batch)
    for objective in (iwae, elbo, cubo, functools.partial(renyi, alpha=0.3)):
        dreg = gradient(doubly_reparameterized(model, objective), params, key, batch)
        sign = 1 if as_objective(objective).maximize else -1
        tree_allclose(dreg.grads, jax.tree.map(lambda g, s=sign: s * g, stl.grads), rtol=1e-4, atol=1e-6)
        tree_allclose(dreg.objective, stl.objective)


def test_dreg_of_the_elbo_is_sticking_the_landing_at_any_number_of_draws(small, key):
    model, params, batch = small
    a, b = (
        gradient(made(model, elbo, num_samples=4), params, key, batch)
        for made in (doubly_reparameterized, sticking_the_landing)
    )
    tree_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_encoder_of_dreg_is_the_published_sum(small, key):
    """Σ_k w̃_k² ∂log w_k/∂z_k ∂z_k/∂φ with the score stopped (Tucker et al. 2019, eq. 8); the decoder keeps w̃_k."""
    model, params, batch = small

    def surrogate(p):
        sampled = model.posterior(p, jnp.where(batch.mask, batch.x, 0.0))
        stopped = model.posterior(jax.lax.stop_gradient(p), jnp.where(batch.mask, batch.x, 0.0))
        # Training mode splits the key in four; the first part draws.
        z = sampled.sample(seed=jax.random.split(key, 4)[0], sample_shape=(5,))
        likelihood = model.likelihood(p, z).masked_log_prob(batch.x, batch.mask)
        log_weights = likelihood + model.prior(p).log_prob(z) - stopped.log_prob(z)
        share = jax.lax.stop_gradient(jax.nn.softmax(log_weights, axis=0))
        return tuple(-jnp.average(jnp.sum(share**power * log_weights, 0), weights=batch.weight) for power in (1, 2))

    made = gradient(doubly_reparameterized(model, iwae, num_samples=5), params, key, batch).grads
    tree_allclose(made["encoder"], jax.grad(lambda p: surrogate(p)[1])(params)["encoder"], rtol=1e-4, atol=1e-6)
    tree_allclose(made["decoder"], jax.grad(lambda p: surrogate(p)[0])(params)["decoder"], rtol=1e-4, atol=1e-6)


def test_second_derivatives(x64):
    """Rényi: c_k = α w̃_k + (1 − α) w̃_k², of which IWAE and CUBO are cases."""
    log_weights = jnp.asarray(np.random.default_rng(0).normal(size=(70, 3)))
    for alpha in (0.0, 0.5, -1.0, 3.0):
        objective = as_objective(functools.partial(renyi, alpha=alpha))
        first, second = derivatives(objective, log_weights)
        share = jax.nn.softmax((1 - alpha) * log_weights, axis=0)
        np.testing.assert_allclose(first, share, rtol=1e-9)
        np.testing.assert_allclose(first - second, alpha * share + (1 - alpha) * share**2, rtol=1e-7, atol=1e-12)


def test_piwae_of_one_objective_is_pathwise_and_of_two_is_each_partly(small, key):
    model, params, batch = small
    bound, groups = iwae, functools.partial(miwae, groups=2)
    options = {"num_samples": 4, "noise": "antithetic"}
    both = {"i": bound, "m": groups}
    whole = {n: gradient(pathwise(model, o, **options), params, key, batch) for n, o in both.items()}
    tree_allclose(gradient(piwae(model, bound, **options), params, key, batch), whole["i"], rtol=1e-4, atol=1e-6)
    mixed = gradient(piwae(model, encoder=groups, decoder=bound, **options), params, key, batch)
    tree_allclose(mixed.grads["encoder"], whole["m"].grads["encoder"], rtol=1e-4, atol=1e-6)
    tree_allclose(mixed.grads["decoder"], whole["i"].grads["decoder"], rtol=1e-4, atol=1e-6)
    tree_allclose(mixed.objective, whole["i"].objective)
    tree_allclose(gradient(piwae(model, bound, encoder=groups, **options), params, key, batch), mixed)


def test_no_two_estimators_are_the_same_by_accident(small, key):
    model, params, batch = small
    made = {
        "pathwise": pathwise(model, iwae, num_samples=4),
        "dreg": doubly_reparameterized(model, iwae, num_samples=4),
        "piwae": piwae(model, encoder=functools.partial(miwae, groups=2), decoder=iwae, num_samples=4),
        "elbo": pathwise(model, elbo, num_samples=4),
        "stl": sticking_the_landing(model, elbo, num_samples=4),
        "taylor": taylor_control_variate(model, elbo, num_samples=4),
        "antithetic": pathwise(model, iwae, num_samples=4, noise="antithetic"),
        "sobol": pathwise(model, iwae, num_samples=4, noise="sobol"),
    }
    encoders = {n: gradient(e, params, key, batch).grads["encoder"] for n, e in made.items()}
    flat = {n: np.concatenate([g.ravel() for g in jax.tree.leaves(tree)]) for n, tree in encoders.items()}
    names = list(flat)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert np.abs(flat[a] - flat[b]).max() > 1e-4, (a, b)


# --- latents of several layers, and params that both draw and shape the prior


class Chain:
    """z₁ ~ N(top, 1), z₂ ~ N(w z₁ + below, s²), as a tuple of layers; ``conditionals`` as the contract has them."""

    def __init__(self, top, below, weight, log_scale):
        self.conditionals = (
            lambda parents: diagonal_normal(top, log_scale=jnp.zeros_like(top)),
            lambda parents: diagonal_normal(
                weight * parents[0] + below, log_scale=jnp.broadcast_to(log_scale, parents[0].shape)
            ),
        )

    def sample_and_log_prob(self, *, seed, sample_shape=()):
        keys = jax.random.split(seed)
        first = self.conditionals[0](()).sample(seed=keys[0], sample_shape=sample_shape)
        second = self.conditionals[1]((first,)).sample(seed=keys[1])
        return (first, second), self.log_prob((first, second))

    def log_prob(self, z):
        return self.conditionals[0](()).log_prob(z[0]) + self.conditionals[1](z[:1]).log_prob(z[1])


def hierarchy():
    """A two-layer model in which the prior's weight is used by the posterior too."""
    params = {"encoder": jnp.array([0.4, -0.2]), "prior": {"weight": jnp.array(0.7), "log_scale": jnp.array(-0.3)}}
    model = Model(
        init=lambda key, batch: params,
        posterior=lambda p, x: Chain(p["encoder"][0] * x, p["encoder"][1] * x, p["prior"]["weight"], jnp.array(-0.1)),
        prior=lambda p: Chain(jnp.zeros(1), jnp.zeros(1), p["prior"]["weight"], p["prior"]["log_scale"]),
        likelihood=lambda p, z: diagonal_normal(z[1] + 0.3 * jnp.sin(z[0]), jnp.asarray(0.6)),
    )
    return model, params, jnp.array([[0.8], [-1.1]])


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["score", "reparameterized"])
@pytest.mark.parametrize("objective", [iwae, cubo])
def test_layers_whose_prior_shares_params_with_the_posterior(prior, objective, key, x64):
    """Both forms of DReG have the mean of the plain gradient, part by part."""
    model, params, x = hierarchy()
    made = (
        pathwise(model, objective, num_samples=4),
        doubly_reparameterized(model, objective, num_samples=4, prior=prior),
    )
    plain, dreg = (
        variance(e, params, k, x, num_draws=100_000, block_size=10_000) for e, k in zip(made, jax.random.split(key))
    )
    for measured in (plain, dreg):
        assert all(measured.standard_error[part] < 0.05 * measured.norm[part] for part in measured.norm)
    for path, a in jax.tree_util.tree_leaves_with_path(plain.mean):
        b, va, vb = (
            functools.reduce(lambda t, k: t[k.key], path, tree) for tree in (dreg.mean, plain.variance, dreg.variance)
        )
        assert (np.abs(a - b) < 5 * np.sqrt((va + vb) / 100_000)).all(), jax.tree_util.keystr(path)


def test_a_prior_drawn_the_other_way_round(key, x64):
    """A top-down prior over latents that are encoded bottom-up gives what the same model with its latents renamed gives."""
    params = {"encoder": jnp.array([0.4, -0.2]), "prior": {"top": jnp.array([0.3]), "weight": jnp.array(0.7)}}
    x = jnp.array([[0.8], [-1.1]])

    def build(encoded, generated):
        def posterior(p, x):
            return dists.Chain(
                [lambda _: unit(p["encoder"][0] * x), lambda low: unit(p["encoder"][1] * x + low[0])], encoded
            )

        def prior(p):
            return dists.Chain(
                [lambda _: unit(p["prior"]["top"]), lambda top: unit(p["prior"]["weight"] * top[0])], generated
            )

        def likelihood(p, z):
            return diagonal_normal(z[encoded[0]], jnp.asarray(0.6))

        return Model(init=lambda key, batch: params, posterior=posterior, prior=prior, likelihood=likelihood)

    def unit(loc):
        return diagonal_normal(loc, log_scale=jnp.zeros_like(loc))

    a, b = (
        gradient(
            doubly_reparameterized(model, iwae, num_samples=3, prior="reparameterized"), params, jax.random.key(1), x
        ).grads
        for model in (build((0, 1), (1, 0)), build((1, 0), (0, 1)))
    )
    assert float(jnp.abs(a["prior"]["weight"])) > 1e-3
    tree_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_penalty_keeps_its_plain_gradient(small, key):
    """It is no part of the log-weights: under DReG the encoder earns from it what it earns under the pathwise gradient."""
    model, params, batch = small

    def penalised(model, params, key, batch, *, num_samples, strength=10.0, **options):
        drawn = vaejax.log_terms(model, params, key, batch, num_samples=num_samples, **options)
        return drawn._replace(
            penalty=strength * (jnp.mean(drawn.latents**2, (0, -1)) + drawn.posterior.mean()[..., 0] ** 2)
        )

    for maker in (pathwise, doubly_reparameterized):
        with_penalty, without = (
            gradient(
                maker(model, iwae, num_samples=4, terms=functools.partial(penalised, strength=s)), params, key, batch
            ).grads
            for s in (10.0, 0.0)
        )
        earned = jax.tree.map(jnp.subtract, with_penalty, without)
        if maker is pathwise:
            plain = earned
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(plain["encoder"])) > 0.1
    tree_allclose(earned, plain, rtol=1e-3, atol=1e-4)


def test_terms_that_do_not_know_kl_change_nothing(small, key):
    model, params, batch = small

    def ignorant(model, params, key, batch, *, num_samples):
        return vaejax.log_terms(model, params, key, batch, num_samples=num_samples)

    def informed(model, params, key, batch, *, num_samples, kl):
        return vaejax.log_terms(model, params, key, batch, num_samples=num_samples, kl=kl)

    for maker in (sticking_the_landing, doubly_reparameterized):
        a, b = (gradient(maker(model, elbo, num_samples=2, terms=t), params, key, batch) for t in (ignorant, informed))
        tree_allclose(a, b, rtol=0, atol=0)


def test_the_reparameterised_prior_sees_the_same_dropout(key, x64):
    """Both forms of the prior's gradient have one mean, in training mode too."""

    def keep(key, shape):
        return 1.0 if key is None else 2.0 * jax.random.bernoulli(key, 0.5, shape)

    params = {"encoder": jnp.array([0.3, -0.4]), "prior": jnp.array([0.2, -0.6])}
    model = Model(
        init=lambda key, batch: params,
        posterior=lambda p, x, *, key=None: diagonal_normal(p["encoder"] * keep(key, (2,)) + 0 * x, jnp.full(2, 0.8)),
        prior=lambda p, *, key=None: diagonal_normal(p["prior"] * keep(key, (2,)), jnp.full(2, 1.1)),
        likelihood=lambda p, z: diagonal_normal(z, jnp.full(2, 0.7)),
    )
    x = jnp.array([[0.5, -1.0]])
    forms = [doubly_reparameterized(model, iwae, num_samples=4, prior=form) for form in ("score", "reparameterized")]
    a, b = (variance(e, params, k, x, num_draws=20_000, block_size=5000) for e, k in zip(forms, jax.random.split(key)))
    error = jnp.sqrt((a.variance["prior"] + b.variance["prior"]) / 20_000)
    assert (error < 0.02).all()
    assert (jnp.abs(a.mean["prior"] - b.mean["prior"]) < 5 * error).all()
