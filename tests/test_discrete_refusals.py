"""Discrete latents in use: what is refused, with the way out; training, and runs that are resumed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import tree_allclose
from vaejax import estimators, train
from vaejax.dists import Bernoulli, Chain, OneHotCategorical, diagonal_normal, standard_normal
from vaejax.estimators import baselines
from vaejax.objectives import elbo, iwae


def model(posterior=None, size=4):
    """Two layers of Bernoullis, or another posterior over one."""

    def init(key, batch):
        w = jax.random.normal(key, (3, 6, 6)) / 2
        return {"encoder": w[:2], "decoder": w[2]}

    def chain(p, x):
        return Chain([lambda _: Bernoulli(x @ p["encoder"][0]), lambda z: Bernoulli((2 * z[0] - 1) @ p["encoder"][1])])

    zeros = jnp.zeros(6)
    prior = Chain([lambda _: Bernoulli(zeros), lambda z: Bernoulli(zeros + 0 * z[0])])
    if posterior is not None:
        return vaejax.Model(init, posterior, lambda p: Bernoulli(zeros), lambda p, z: Bernoulli(z @ p["decoder"]))
    return vaejax.Model(init, chain, lambda p: prior, lambda p, z: Bernoulli((z[0] + z[1]) @ p["decoder"]))


X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, 6)), jnp.float32)


@vaejax.objectives.objective(of_log_weights=True)
def squared(terms, *, step=0):
    return jnp.mean(terms.log_weights, 0) ** 2


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: estimators.pathwise(model(), elbo), TypeError, "Bernoulli, whose draws.*enumerate_latents, disarm"),
        (lambda: estimators.doubly_reparameterized(model(), iwae), TypeError, "Bernoulli, whose draws.*disarm"),
        (
            lambda: estimators.vimco(model(), iwae, num_samples=1),
            ValueError,
            "K > 1 draws, got K=1; use num_samples=2 or more, or score_function",
        ),
        (
            lambda: estimators.vimco(model(), squared, num_samples=3),
            ValueError,
            "squared: it does not rise by c where all log-weights do, as bounds do; use score_function",
        ),
        (
            lambda: estimators.arm(model(lambda p, x: OneHotCategorical(x @ p["encoder"][0])), elbo),
            TypeError,
            "arm serves bernoulli latents, got OneHotCategorical; use arsm",
        ),
        (
            lambda: estimators.enumerate_latents(model(lambda p, x: Bernoulli(jnp.zeros((len(x), 40)))), elbo),
            ValueError,
            r"sum over 10\^12.0 states, more than max_states=4096; use rebar",
        ),
        (
            lambda: estimators.disarm(model(lambda p, x: diagonal_normal(x, jnp.ones(6))), elbo),
            TypeError,
            "which reparameterises; use pathwise",
        ),
        (lambda: estimators.unordered_set(model(), elbo), TypeError, "one layer of latents, got 2; use vimco"),
        (
            lambda: estimators.unordered_set(model(lambda p, x: Bernoulli(x[:, :1])), elbo, num_samples=3),
            ValueError,
            "3 different states of 2; use enumerate_latents",
        ),
        (lambda: estimators.rebar(model(), iwae, num_samples=3), ValueError, "no mean over draws.*use vimco"),
        (lambda: estimators.rebar(model(), elbo, temperature=0.0), ValueError, "temperature must be finite, greater"),
        (
            lambda: estimators.concrete(model(), elbo, temperature=-1.0),
            ValueError,
            "temperature must be finite, greater",
        ),
        (lambda: estimators.concrete(model(), elbo, kl="exact"), ValueError, "unknown kl"),
        (
            lambda: estimators.score_function(model(), elbo, baseline=baselines.leave_one_out()),
            ValueError,
            "at K=1; use num_samples=2 or more, or moving_average",
        ),
        (
            lambda: estimators.score_function(model(), iwae, num_samples=3, rao_blackwell=True),
            ValueError,
            "a signal for each latent needs a mean over draws; use vimco",
        ),
        (lambda: estimators.score_function(model(), elbo, baseline=0.5), TypeError, "vaejax.estimators.baselines"),
        (
            lambda: estimators.measure_valued(model(lambda p, x: vaejax.dists.Cauchy(x, jnp.ones(6))), elbo),
            TypeError,
            "measure_valued serves .* got Cauchy; use pathwise",
        ),
    ],
)
def test_refused_with_the_way_out(build, error, words, key):
    params = {"encoder": jnp.zeros((2, 6, 6)), "decoder": jnp.zeros((6, 6))}
    with pytest.raises(error, match=words):
        build().init(params, key, X)


STATEFUL = {
    "nvil": functools.partial(estimators.nvil, baseline=baselines.network((5,))),
    "relax": functools.partial(estimators.relax, critic=(5,)),
}


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.slow
def test_a_run_is_resumed_with_the_state_of_its_estimator(name, key, tmp_path):
    def run(epochs, directory, resume=False):
        made = model()
        return train.fit(
            key,
            made,
            X,
            estimator=STATEFUL[name](made, elbo),
            optimizer=optax.adam(1e-2),
            num_epochs=epochs,
            batch_size=4,
            run_directory=directory,
            resume=resume,
        )

    whole = run(6, tmp_path / "whole")
    run(3, tmp_path / "parts")
    resumed = run(6, tmp_path / "parts", resume=True)
    tree_allclose(resumed.state, whole.state, rtol=0, atol=0)
    assert np.isfinite(whole.history["objective"]).all()
    evidence = vaejax.evaluate.log_marginal(model(), whole.state.params, key, X, num_samples=50)
    bound = vaejax.evaluate.elbo(model(), whole.state.params, key, X, num_samples=50)
    assert evidence.estimate.mean() > bound.estimate.mean()


@pytest.mark.slow
def test_rebar_keeps_to_a_schedule(key):
    made, falling = model(), optax.linear_schedule(1.0, 0.1, 100)
    params, step = made.init(key, X), 50
    scheduled, fixed = (estimators.rebar(made, elbo, temperature=t) for t in (falling, 0.55))
    a, state = scheduled.estimate(params, scheduled.init(params, key, X), key, X, step)
    b, _ = fixed.estimate(params, fixed.init(params, key, X), key, X, step)
    tree_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jnp.exp(state.tuned[0].log_temperature), 0.55, rtol=1e-5)
    assert float(state.tuned[0].eta) != 1.0
    with pytest.raises(TypeError, match="tunes its temperature by itself"):
        estimators.relax(made, elbo, temperature=lambda params: 1.0)


def test_temperatures_by_schedule_and_by_params(key):
    made = model()
    params = made.init(key, X)
    falling = optax.linear_schedule(1.0, 0.1, 10)
    scheduled = estimators.concrete(made, elbo, temperature=falling)
    fixed = estimators.concrete(made, elbo, temperature=0.55)
    a, b = (e.estimate(params, e.init(params, key, X), key, X, 5)[0] for e in (scheduled, fixed))
    tree_allclose(a, b, rtol=1e-5)
    learned = estimators.concrete(made, elbo, temperature=lambda params: jnp.exp(params["log_temperature"]))
    wider = {**params, "log_temperature": jnp.log(0.55)}
    found = learned.estimate(wider, learned.init(wider, key, X), key, X)[0]
    tree_allclose({k: found.grads[k] for k in params}, b.grads, rtol=1e-4, atol=1e-6)
    assert float(found.grads["log_temperature"]) != 0


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (lambda: Chain([standard_normal(2)]), r"functions of the tuple .* got \[.*\]; write Chain"),
        (lambda: Chain(lambda _: standard_normal(2)), "functions of the tuple .* got function"),
        (lambda: Chain([]), r"functions of the tuple .* got \[\]"),
    ],
)
def test_a_chain_is_made_of_functions(made, wanted):
    with pytest.raises(TypeError, match=wanted):
        made()


def test_layers_that_do_not_match_are_counted(key):
    with pytest.raises(
        ValueError, match="1 layers takes a tuple of as many latents, got a tuple of 2; posterior and prior"
    ):
        Chain([lambda _: standard_normal(2)]).log_prob((jnp.zeros(2), jnp.zeros(2)))


def test_other_draws_than_one_are_the_way_out():
    model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
    with pytest.raises(ValueError, match="use num_samples=2 or more, or moving_average"):
        estimators.score_function(model, elbo, baseline=estimators.baselines.leave_one_out())
    with pytest.raises(ValueError, match="use num_samples=2 or more, or score_function"):
        estimators.unordered_set(model, elbo, num_samples=1)


@pytest.mark.slow
def test_an_exact_gradient_is_a_tree_like_the_params(key):
    model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
    params, x = model.init(key), jnp.ones((5, 4))
    enumeration = estimators.enumerate_latents(model, elbo)
    whole = enumeration.estimate(params, enumeration.init(params, key, x), key, x)[0]
    with pytest.raises(ValueError, match=r"Estimate\.grads"):
        estimators.certify(estimators.disarm(model, elbo), whole, params, key, x, num_draws=10)
    found = estimators.certify(
        estimators.straight_through(model, elbo), whole.grads, params, key, x, num_draws=2000, repeats=2
    )
    assert found.biased()
    assert not found.biased(threshold=1e6)
    assert str(found).splitlines()[-1].startswith("biased (largest z")
    assert "ms each" in str(found)
    broken = found._replace(z={**found.z, "encoder": float("nan")})
    assert broken.biased(threshold=1e6)
    assert "not finite" in str(broken)
