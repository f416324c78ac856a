"""log_terms: shapes, optional inputs, masks, and errors that say what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax.dists import Bernoulli, Cauchy, Kumaraswamy, LogNormal, Poisson, diagonal_normal, standard_normal
from vaejax.dists.backend import distrax


def tiny(**changes):
    parts = {
        "init": lambda key, batch: {"w": jnp.asarray(0.5)},
        "posterior": lambda params, x: diagonal_normal(params["w"] * x, jnp.ones_like(x)),
        "prior": lambda params: standard_normal(3),
        "likelihood": lambda params, z: diagonal_normal(z, jnp.asarray(0.8)),
    }
    return vaejax.Model(**{**parts, **changes})


PARAMS = {"w": jnp.asarray(0.5)}


def test_values_are_the_densities(key):
    x = jax.random.normal(key, (5, 3))
    terms = vaejax.log_terms(tiny(), PARAMS, key, x, num_samples=4)
    z, model = terms.latents, tiny()
    assert z.shape == (4, 5, 3)
    np.testing.assert_allclose(terms.log_posterior, model.posterior(PARAMS, x).log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(terms.log_prior, standard_normal(3).log_prob(z), rtol=1e-5)
    np.testing.assert_allclose(terms.log_likelihood, model.likelihood(PARAMS, z).log_prob(x), rtol=1e-5)
    np.testing.assert_allclose(
        terms.kl, vaejax.kl_divergence(model.posterior(PARAMS, x), standard_normal(3)), rtol=1e-5
    )
    np.testing.assert_allclose(terms.kl_parts.sum(-1), terms.kl, rtol=1e-5)


@pytest.mark.parametrize("batch_shape", [(), (5,), (2, 4)])
def test_any_batch_shape(batch_shape, key):
    terms = vaejax.log_terms(tiny(), PARAMS, key, jnp.ones((*batch_shape, 3)), num_samples=2)
    assert terms.log_weights.shape == (2, *batch_shape)
    assert terms.kl.shape == batch_shape


def test_kl_choices(key):
    x = jnp.ones((5, 3))
    assert vaejax.log_terms(tiny(), PARAMS, key, x, kl="none").kl is None
    logistic = tiny(prior=lambda params: distrax.Independent(distrax.Logistic(jnp.zeros(3), 1.0), 1))
    assert vaejax.log_terms(logistic, PARAMS, key, x).kl is None
    with pytest.raises(ValueError, match="no closed-form KL"):
        vaejax.log_terms(logistic, PARAMS, key, x, kl="closed_form")


def test_optional_inputs_go_where_they_are_declared(key):
    seen = {}

    def posterior(params, x, context=None, *, mask=None, key=None):
        seen["posterior"] = (context is not None, mask is not None, key is not None)
        return diagonal_normal(x, jnp.ones_like(x))

    def likelihood(params, z, c):  # context by position, under any name
        seen["likelihood"] = c.shape
        return diagonal_normal(z + vaejax.broadcast_context(c, z), jnp.asarray(1.0))

    model = tiny(posterior=posterior, likelihood=likelihood)
    batch = vaejax.Batch(jnp.ones((5, 3)), jnp.ones((5, 3)), jnp.ones((5, 3), bool))
    vaejax.log_terms(model, PARAMS, key, batch, num_samples=2)
    assert seen == {"posterior": (True, True, False), "likelihood": (5, 3)}
    vaejax.log_terms(model, PARAMS, key, batch, training=True)
    assert seen["posterior"] == (True, True, True)


@pytest.mark.parametrize("hidden", [0.0, 7.0, np.nan, np.inf])
def test_masked_entries_are_never_seen(hidden, key):
    """Neither value nor gradient depends on what stands in a missing entry."""
    mask = jnp.array([[True, False, True], [True, True, True]])
    x = jnp.where(mask, 1.0, hidden)

    def value(params):
        return vaejax.log_terms(tiny(), params, key, vaejax.Batch(x, mask=mask), num_samples=3).log_weights.sum()

    clean = jnp.where(mask, 1.0, 0.0)
    terms = vaejax.log_terms(tiny(), PARAMS, key, clean, num_samples=3)
    entries = distrax.Normal(terms.latents, 0.8).log_prob(clean)
    expected = (jnp.where(mask, entries, 0).sum(-1) + terms.log_prior - terms.log_posterior).sum()
    np.testing.assert_allclose(value(PARAMS), expected, rtol=1e-5)
    assert bool(jnp.isfinite(jax.grad(value)(PARAMS)["w"]))


def test_a_mask_that_cannot_be_honoured_is_refused(key):
    whole = tiny(likelihood=lambda params, z: distrax.MultivariateNormalTri(z, jnp.eye(3)))
    with pytest.raises(TypeError, match="cannot be dropped one by one"):
        vaejax.log_terms(whole, PARAMS, key, vaejax.Batch(jnp.ones((5, 3)), mask=jnp.ones((5, 3), bool)))


@pytest.mark.parametrize(
    "family",
    [
        lambda z: distrax.Normal(z, 1.0),
        lambda z: LogNormal(z, jnp.ones_like(z)),
        lambda z: distrax.Gamma(jnp.exp(z), 1.0),
        lambda z: distrax.Beta(jnp.exp(z), 2.0),
        lambda z: Poisson(z),
        lambda z: Cauchy(z, jnp.ones_like(z)),
        lambda z: distrax.Laplace(z, 1.0),
        lambda z: Kumaraswamy(jnp.exp(z), jnp.ones_like(z)),
    ],
)
@pytest.mark.wants_nan
def test_masked_entries_outside_the_support_have_no_gradient(family, key):
    """A missing value becomes 0, which may lie outside the support: value and gradient are those of the rest alone."""
    model = tiny(likelihood=lambda params, z: distrax.Independent(family(params["w"] * z), 1))
    mask = jnp.array([[True, False, True]] * 4)
    x = jnp.where(mask, 0.5, jnp.nan)

    def value(params):
        return vaejax.log_terms(model, params, key, vaejax.Batch(x, mask=mask)).log_likelihood.sum()

    def by_hand(params):
        z = params["w"] * vaejax.log_terms(model, params, key, vaejax.Batch(x, mask=mask)).latents
        return family(z[..., jnp.array([0, 2])]).log_prob(jnp.full((1, 4, 2), 0.5)).sum()

    np.testing.assert_allclose(value(PARAMS), by_hand(PARAMS), rtol=1e-4)
    np.testing.assert_allclose(jax.grad(value)(PARAMS)["w"], jax.grad(by_hand)(PARAMS)["w"], rtol=1e-3, atol=1e-4)


def test_a_default_is_not_taken_for_a_context(key):
    """The closure idiom keeps its value when the batch carries a context for somebody else."""
    model = tiny(likelihood=lambda params, z, scale=0.8: diagonal_normal(z, jnp.asarray(scale)))
    x = jnp.ones((5, 3))
    with_context = vaejax.log_terms(model, PARAMS, key, vaejax.Batch(x, jnp.full((5, 3), 9.0)))
    np.testing.assert_array_equal(with_context.log_likelihood, vaejax.log_terms(model, PARAMS, key, x).log_likelihood)


@pytest.mark.parametrize("mask", [jnp.ones(3, bool), jnp.ones((3, 3)), jnp.ones((3, 1), bool)])
def test_masks_never_broadcast(mask, key):
    with pytest.raises(ValueError, match=r"batch.mask must be bool and have the shape of x \[3, 3\]"):
        vaejax.log_terms(tiny(), PARAMS, key, vaejax.Batch(jnp.ones((3, 3)), mask=mask))


@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (1,), ()])
def test_weights_never_broadcast(shape, key):
    estimator = vaejax.estimators.pathwise(tiny(), vaejax.objectives.elbo)
    with pytest.raises(ValueError, match=r"wanted one weight per example: \[\*batch\] = \[3\]"):
        estimator.estimate(PARAMS, (), key, vaejax.Batch(jnp.ones((3, 3)), weight=jnp.ones(shape)))


def test_mapping_over_examples_is_the_batch(key):
    """The bundled model serves a single example too, so that vmap over examples works."""
    model = vaejax.models.vae(x_shape=3, latent_size=2, hidden_sizes=(4,))
    params, x = model.init(key), jnp.ones((5, 3))
    mapped = jax.vmap(lambda row: vaejax.log_terms(model, params, key, row, num_samples=2).kl)(x)
    np.testing.assert_allclose(mapped, vaejax.log_terms(model, params, key, x).kl, rtol=1e-5)


def test_a_likelihood_that_takes_the_mask_uses_it(key):
    def likelihood(params, z, *, mask=None):
        return distrax.MultivariateNormalTri(z, jnp.eye(3) * jnp.where(mask.all(), 1.0, 2.0))

    mask = jnp.ones((5, 3), bool).at[0, 0].set(False)
    x = jnp.ones((5, 3))
    seen = vaejax.log_terms(tiny(likelihood=likelihood), PARAMS, key, vaejax.Batch(x, mask=mask))
    expected = distrax.MultivariateNormalTri(seen.latents, 2 * jnp.eye(3)).log_prob(jnp.where(mask, x, 0))
    np.testing.assert_allclose(seen.log_likelihood, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"likelihood": lambda params, z: distrax.Normal(z, 1.0)},
            r"log p\(x\|z\) has shape \[1, 5, 3\], wanted \[K, \*batch\] = \[1, 5\]",
        ),
        ({"prior": lambda params: distrax.Normal(jnp.zeros(3), 1.0)}, r"log p\(z\) has shape \[1, 5, 3\]"),
        (
            {"posterior": lambda params, x: distrax.Normal(x, 1.0)},
            r"wanted \[K, \*batch\] = \[1, 5, 3\] as log q\(z\|x\)",
        ),
        (
            {"posterior": lambda params, x: diagonal_normal(x.T @ x, jnp.ones((3, 3)))},
            r"log q\(z\|x\) has shape \[1, 3\]",
        ),
    ],
)
def test_wrong_shapes_are_explained(changes, message, key):
    with pytest.raises(ValueError, match=message):
        vaejax.log_terms(tiny(**changes), PARAMS, key, jnp.ones((5, 3)))


def test_bad_arguments(key):
    x = jnp.ones((5, 3))
    with pytest.raises(TypeError, match="typed key, got a raw uint32"):
        vaejax.log_terms(tiny(), PARAMS, jax.random.PRNGKey(0), x)
    with pytest.raises(ValueError, match="single key"):
        vaejax.log_terms(tiny(), PARAMS, jax.random.split(key), x)
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        vaejax.log_terms(tiny(), PARAMS, key, x, num_samples=0)
    with pytest.raises(TypeError, match="num_samples must be an integer"):
        vaejax.log_terms(tiny(), PARAMS, key, x, num_samples=2.0)
    with pytest.raises(TypeError, match="got str"):
        vaejax.log_terms(tiny(), PARAMS, key, "123")
    with pytest.raises(ValueError, match="did you mean 'closed_form'"):
        vaejax.log_terms(tiny(), PARAMS, key, x, kl="closedform")


def test_plain_distrax_models_compile_once(key):
    """MultivariateNormalDiag retraces as an argument; inside a model it does no harm."""
    model = tiny(
        posterior=lambda params, x: distrax.MultivariateNormalDiag(params["w"] * x, jnp.ones_like(x)),
        likelihood=lambda params, z: Bernoulli(z),
    )
    traces = []

    @jax.jit
    def f(params, key, x):
        traces.append(1)
        return vaejax.log_terms(model, params, key, x).log_weights

    for k in jax.random.split(key, 3):
        f(PARAMS, k, jnp.ones((5, 3)))
    assert len(traces) == 1
