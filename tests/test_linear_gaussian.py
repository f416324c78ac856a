"""On a linear-Gaussian model everything has a closed form: both ELBOs, their gradients, the evidence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from tests.helpers import assert_mean, linear_gaussian
from vaejax.dists import MultivariateNormal, diagonal_normal
from vaejax.objectives import elbo

FORMS = {"A": "monte_carlo", "B": "closed_form"}


@pytest.fixture
def setting(key):
    exact = linear_gaussian()
    x = exact.bias + jax.random.normal(key, (7, 5)) * 1.2
    model = exact.model(exact=False)
    params = model.init(jax.random.key(1), None)
    return exact, model, params, x


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_samples", [1, 8])
def test_both_forms_agree_with_the_exact_elbo(setting, form, num_samples, key):
    exact, model, params, x = setting

    def value(k):
        return elbo(vaejax.log_terms(model, params, k, x, num_samples=num_samples), kl=FORMS[form])

    wanted = exact.exact_elbo(x, x @ params["loc"], jnp.exp(params["log_scale"]))
    assert_mean(jax.vmap(value)(jax.random.split(key, 40_000 // num_samples)), wanted, cap=0.1)


@pytest.mark.parametrize("form", FORMS)
def test_pathwise_gradients_agree_with_the_exact_ones(setting, form, key):
    """Encoder and decoder apart, each within 5 standard errors of at most 5% of its gradient's norm."""
    exact, _, encoder, x = setting

    def generative(decoder):
        return exact._replace(weight=decoder["weight"], bias=decoder["bias"])

    def build(params):
        return generative(params["decoder"]).model(exact=False)

    model = vaejax.Model(
        init=lambda key, batch: None,
        posterior=lambda params, x: build(params).posterior(params["encoder"], x),
        prior=lambda params: build(params).prior(params["encoder"]),
        likelihood=lambda params, z: build(params).likelihood(params["encoder"], z),
    )
    params = {"encoder": encoder, "decoder": {"weight": exact.weight, "bias": exact.bias}}

    def loss(params):
        scale = jnp.exp(params["encoder"]["log_scale"])
        return -jnp.mean(generative(params["decoder"]).exact_elbo(x, x @ params["encoder"]["loc"], scale))

    wanted = jax.grad(loss)(params)
    estimator = vaejax.estimators.pathwise(model, functools.partial(elbo, kl=FORMS[form]), num_samples=4)
    estimates = jax.jit(jax.vmap(lambda k: estimator.estimate(params, (), k, x)[0].grads))(jax.random.split(key, 4000))
    for group in ("encoder", "decoder"):
        flat = jnp.concatenate([g.reshape(4000, -1) for g in jax.tree.leaves(estimates[group])], 1)
        target = jnp.concatenate([g.ravel() for g in jax.tree.leaves(wanted[group])])
        assert_mean(flat, target, cap=0.05 * float(jnp.linalg.norm(target)))


def test_elbo_plus_kl_is_the_evidence(setting, x64):
    exact = linear_gaussian()
    x = jax.random.normal(jax.random.key(3), (7, 5))
    loc, scale = 0.3 * x[:, :2], jnp.array([0.6, 1.4])
    posterior = MultivariateNormal(exact.posterior_mean(x), jnp.broadcast_to(exact.posterior_tril, (7, 2, 2)))
    gap = vaejax.kl_divergence(diagonal_normal(loc, jnp.broadcast_to(scale, loc.shape)), posterior)
    np.testing.assert_allclose(exact.exact_elbo(x, loc, scale) + gap, exact.log_evidence(x), rtol=1e-10)


def test_elbo_plus_kl_is_the_evidence_in_float32(setting):
    exact, model, params, x = setting
    loc, scale = x @ params["loc"], jnp.exp(params["log_scale"])
    posterior = MultivariateNormal(exact.posterior_mean(x), jnp.broadcast_to(exact.posterior_tril, (7, 2, 2)))
    gap = vaejax.kl_divergence(model.posterior(params, x), posterior)
    np.testing.assert_allclose(exact.exact_elbo(x, loc, scale) + gap, exact.log_evidence(x), rtol=1e-5)


@pytest.mark.parametrize(("num_samples", "chunk_size"), [(1, None), (10, None), (10, 3), (1000, 64)])
def test_log_marginal_under_the_exact_posterior_has_no_variance(num_samples, chunk_size, key, x64):
    exact = linear_gaussian()
    x = jax.random.normal(jax.random.key(3), (7, 5))
    result = vaejax.evaluate.log_marginal(
        exact.model(exact=True), {}, key, x, num_samples=num_samples, chunk_size=chunk_size
    )
    np.testing.assert_allclose(result.estimate, exact.log_evidence(x), rtol=1e-12)
    if num_samples > 1:
        np.testing.assert_allclose(result.standard_error, 0.0, atol=1e-13)
        np.testing.assert_allclose(result.effective_sample_size, num_samples, rtol=1e-12)
    else:
        assert bool(jnp.isnan(result.standard_error).all())


def test_log_marginal_under_the_exact_posterior_in_float32(setting, key):
    exact, _, _, x = setting
    result = vaejax.evaluate.log_marginal(exact.model(exact=True), {}, key, x, num_samples=500)
    np.testing.assert_allclose(result.estimate, exact.log_evidence(x), rtol=1e-5)
    assert float(result.standard_error.max()) < 1e-6
    np.testing.assert_allclose(result.effective_sample_size, 500, rtol=1e-5)


def test_standard_errors_of_log_marginal_are_honest(setting, key):
    """Over repeats: the estimates of p(x) are unbiased, and the reported error of log p(x) matches their spread."""
    exact, model, params, x = setting
    params = {"loc": exact.weight * 0.3, "log_scale": jnp.full(2, -0.4)}
    results = jax.jit(jax.vmap(lambda k: vaejax.evaluate.log_marginal(model, params, k, x, num_samples=400)))(
        jax.random.split(key, 500)
    )
    assert_mean(jnp.exp(results.estimate - exact.log_evidence(x)), jnp.ones(7), cap=0.02)
    np.testing.assert_allclose(results.standard_error.mean(0), results.estimate.std(0), rtol=0.25)


def test_elbo_is_below_the_evidence_and_reports_its_error(setting, key):
    exact, model, params, x = setting
    result = vaejax.evaluate.elbo(model, params, key, x, num_samples=10_000, chunk_size=999)
    wanted = exact.exact_elbo(x, x @ params["loc"], jnp.exp(params["log_scale"]))
    assert bool((jnp.abs(result.estimate - wanted) < 5 * result.standard_error).all())
    assert float(result.standard_error.max()) < 0.2
    assert bool((wanted < exact.log_evidence(x)).all())
    np.testing.assert_allclose(result.log_likelihood - result.kl, result.estimate, rtol=1e-5)
