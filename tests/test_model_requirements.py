"""What models lack is said before any work: log-densities, densities, contexts, records of reparameterization."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from vaejax import Batch, estimators, evaluate, objectives
from vaejax.dists import Bernoulli, diagonal_normal, standard_normal
from vaejax.dists.backend import distrax

KEY = jax.random.key(0)
X = np.random.default_rng(0).integers(0, 2, (6, 4)).astype(np.float32)
PARAMS = {"w": 0.3 * jnp.ones((4, 2))}


class OnlyDraws:
    """A posterior without log_prob, whose draws are differentiable."""

    reparameterized = True

    def __init__(self, inner):
        self.sample_and_log_prob = inner.sample_and_log_prob


class Unrecorded:
    """A posterior that is on no record of reparameterization."""

    def __init__(self, inner):
        self.sample_and_log_prob, self.log_prob = inner.sample_and_log_prob, inner.log_prob


class Sampler:
    """A likelihood without mean and mode."""

    def __init__(self, inner):
        self.sample, self.log_prob = inner.sample, inner.log_prob


def model(**changes):
    functions = {
        "init": lambda key, batch: PARAMS,
        "posterior": lambda params, x: diagonal_normal(x @ params["w"], 1.0),
        "prior": lambda params: standard_normal(2),
        "likelihood": lambda params, z: Bernoulli(z @ params["w"].T),
    }
    return vaejax.Model(**{**functions, **changes})


WITHOUT_LOG_PROB = model(posterior=lambda params, x: OnlyDraws(diagonal_normal(x @ params["w"], 1.0)))


@pytest.mark.parametrize(
    "make",
    [
        lambda m: estimators.sticking_the_landing(m, objectives.elbo),
        lambda m: estimators.doubly_reparameterized(m, objectives.iwae, num_samples=2),
        lambda m: estimators.score_function(m, objectives.elbo),
        lambda m: estimators.nvil(m, objectives.elbo),
        lambda m: estimators.vimco(m, objectives.iwae, num_samples=2),
    ],
    ids=["sticking_the_landing", "doubly_reparameterized", "score_function", "nvil", "vimco"],
)
def test_estimators_that_score_latents_ask_for_log_prob_in_init(make):
    with pytest.raises(TypeError, match=r"OnlyDraws has no log_prob\. Give it a method"):
        make(WITHOUT_LOG_PROB).init(PARAMS, KEY, X)
    make(model()).init(PARAMS, KEY, X)


def test_evaluations_that_score_latents_ask_for_log_prob():
    for start in ("prior", "posterior"):
        with pytest.raises(TypeError, match=r"log q.z.x. at given latents, but OnlyDraws has no log_prob"):
            evaluate.ais(WITHOUT_LOG_PROB, PARAMS, KEY, X, num_temperatures=5, num_chains=2, start=start)
    with pytest.raises(TypeError, match="OnlyDraws has no log_prob"):
        evaluate.aggregate(WITHOUT_LOG_PROB, PARAMS, KEY, X)


def test_what_only_draws_serves_a_posterior_without_log_prob():
    """The numbers of the same posterior with log_prob."""
    for make in (estimators.pathwise,):
        gradients = [
            make(m, objectives.elbo).estimate(PARAMS, (), KEY, X)[0].grads["w"] for m in (WITHOUT_LOG_PROB, model())
        ]
        assert np.isfinite(gradients[0]).all()
    values = [evaluate.elbo(m, PARAMS, KEY, X, num_samples=500) for m in (WITHOUT_LOG_PROB, model())]
    error = np.hypot(values[0].standard_error, values[1].standard_error)
    assert (np.abs(values[0].estimate - values[1].estimate) < 5 * error).all()
    assert error.max() < 0.2


def test_pathwise_warns_of_families_that_are_not_on_record():
    unrecorded = model(posterior=lambda params, x: Unrecorded(diagonal_normal(x @ params["w"], 1.0)))
    with pytest.warns(UserWarning, match="draws of Unrecorded are differentiable in its parameters is not on record"):
        vaejax.train.init(KEY, unrecorded, estimators.pathwise(unrecorded, objectives.elbo), optax.adam(1e-3), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimators.pathwise(model(), objectives.elbo).init(PARAMS, KEY, X)


@pytest.mark.parametrize(
    "posterior",
    [
        lambda params, x: distrax.Independent(distrax.Deterministic(x @ params["w"]), 1),
        lambda params, x: vaejax.dists.Chain(
            [
                lambda _: diagonal_normal(x @ params["w"], 1.0),
                lambda above: distrax.Independent(distrax.Deterministic(above[0]), 1),
            ]
        ),
    ],
    ids=["one layer", "a layer of a chain"],
)
def test_a_plain_autoencoder_has_no_marginal_likelihood(posterior):
    plain = model(
        posterior=posterior,
        prior=lambda params: (
            vaejax.dists.Chain([lambda _: standard_normal(2), lambda above: standard_normal(2)])
            if "Chain" in posterior.__code__.co_names
            else standard_normal(2)
        ),
        likelihood=lambda params, z: Bernoulli(jax.tree.leaves(z)[-1] @ params["w"].T),
    )
    with pytest.raises(TypeError, match="must have a density, got Deterministic: an autoencoder without noise"):
        evaluate.log_marginal(plain, PARAMS, KEY, X, num_samples=10)


CONDITIONAL = {
    "posterior": model(posterior=lambda params, x, context: diagonal_normal(x @ params["w"] + context, 1.0)),
    "prior": model(prior=lambda params, context: diagonal_normal(context, jnp.ones(2))),
    "likelihood": model(likelihood=lambda params, z, context: Bernoulli(z @ params["w"].T + context[..., :1])),
}


@pytest.mark.parametrize("part", CONDITIONAL)
def test_a_missing_context_is_named(part):
    conditional, context = CONDITIONAL[part], jnp.ones((6, 2))
    acts = [
        lambda c: vaejax.log_terms(conditional, PARAMS, KEY, Batch(X, context=c)),
        lambda c: evaluate.elbo(conditional, PARAMS, KEY, Batch(X, context=c)).estimate,
    ]
    if part != "posterior":
        acts.append(lambda c: evaluate.simulate(conditional, PARAMS, KEY, 6, c))
    for act in acts:
        act(context)
        with pytest.raises(ValueError, match=r"must get a context, got none\. .*Batch.x, context="):
            act(None)


def test_errors_of_a_model_function_itself_stay():
    broken = model(prior=lambda params: standard_normal(2)(3))
    with pytest.raises(TypeError, match="not callable"):
        vaejax.log_terms(broken, PARAMS, KEY, X)


def test_figures_and_simulate_serve_decoders_that_can_only_draw():
    pytest.importorskip("matplotlib")
    sampler = model(likelihood=lambda params, z: Sampler(Bernoulli(5 * z @ params["w"].T)))
    known = model(likelihood=lambda params, z: Bernoulli(5 * z @ params["w"].T))
    for one in (sampler, known):
        assert evaluate.simulate(one, PARAMS, KEY, 3)[1].x.shape == (3, 4)
        figures = [
            vaejax.plots.reconstructions(one, PARAMS, KEY, X, image_shape=(2, 2)),
            vaejax.plots.prior_samples(one, PARAMS, KEY, num_rows=2, num_columns=2, image_shape=(2, 2)),
            vaejax.plots.prior_samples(one, PARAMS, KEY, num_rows=2, num_columns=2, image_shape=(2, 2), ancestral=True),
            vaejax.plots.responses(one, PARAMS, KEY, X),
            vaejax.plots.item_fit(one, PARAMS, KEY, X),
        ]
        assert all(figure.axes for figure in figures)
    z = jnp.ones((1, 3, 2))
    means = [vaejax.plots.ask.expectation(one.likelihood(PARAMS, z)) for one in (sampler, known)]
    # 64 draws of a binary variable: a standard error of at most 1/16.
    np.testing.assert_allclose(means[0], means[1], atol=5 / 16)
    assert vaejax.plots.ask.centre(sampler.likelihood(PARAMS, z))[1] == "mean of 64 draws"
