"""Estimators for discrete latents off the beaten track: posteriors of other kinds, odd draws, what stays finite."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from benchmarks import enumerable
from tests.helpers import slow_unless, tree_allclose
from vaejax import dists, estimators, train
from vaejax.dists import Bernoulli, Chain, OneHotCategorical, diagonal_normal, standard_normal
from vaejax.estimators import baselines, signals, variance
from vaejax.estimators.unordered import set_weights
from vaejax.objectives import elbo, iwae

X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, 6)), jnp.float32)


def model(posterior=lambda p, x: Bernoulli(x @ p["encoder"]), prior=lambda p: Bernoulli(jnp.zeros(4)), size=4):
    return vaejax.Model(
        init=lambda key, batch: {"encoder": 0.3 * jax.random.normal(key, (6, size)), "decoder": jnp.ones((size, 6))},
        posterior=posterior,
        prior=prior,
        likelihood=lambda p, z: Bernoulli(z.astype(float) @ p["decoder"] - 1),
    )


# --- draws that move without being on record as reparameterised


class Own:
    """N(loc, e^2·log_scale), as somebody might write it: the two methods that are required, no more."""

    def __init__(self, loc, log_scale):
        self.loc, self.log_scale = loc, log_scale

    def log_prob(self, z):
        return -0.5 * ((z - self.loc) * jnp.exp(-self.log_scale)) ** 2 - self.log_scale - 0.5 * jnp.log(2 * jnp.pi)

    def sample_and_log_prob(self, *, seed, sample_shape=()):
        z = self.loc + jnp.exp(self.log_scale) * jax.random.normal(seed, (*sample_shape, *self.loc.shape))
        return z, self.log_prob(z)


def mixture(p, x):
    probs = jnp.broadcast_to(jnp.array([0.3, 0.7]), (*x.shape, 2))
    loc = p["loc"] + jnp.array([-1.0, 1.0]) + 0 * x[..., None]
    return distrax.MixtureSameFamily(
        distrax.Categorical(probs=probs), distrax.Normal(loc, jnp.exp(p["log_scale"]) * jnp.ones_like(loc))
    )


def one_dimensional(posterior):
    return vaejax.Model(
        init=lambda key, batch: {"loc": jnp.array(0.4), "log_scale": jnp.array(-0.2)},
        posterior=posterior,
        prior=lambda p: distrax.Normal(0.0, 1.0),
        likelihood=lambda p, z: distrax.Normal(jnp.sin(z), 0.7),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own", "mixture"])
@pytest.mark.parametrize(
    "constructor",
    [
        functools.partial(estimators.score_function, num_samples=4, baseline=baselines.leave_one_out()),
        functools.partial(estimators.vimco, num_samples=4),
    ],
)
def test_what_moves_and_is_scored_counts_once(name, constructor, key, x64):
    posterior = mixture if name == "mixture" else lambda p, x: Own(p["loc"] + 0 * x, p["log_scale"] + 0 * x)
    made, x = one_dimensional(posterior), jnp.array([0.5, -0.3])
    params = made.init(key, x)
    z = jnp.linspace(-12.0, 12.0, 4001)

    def loss(p):
        q = made.posterior(p, x)
        grid = jnp.broadcast_to(z[:, None], (len(z), 2))
        terms = made.likelihood(p, grid).log_prob(x) + made.prior(p).log_prob(grid) - q.log_prob(grid)
        return -jnp.mean(jnp.sum(jnp.exp(q.log_prob(grid)) * terms, 0) * (z[1] - z[0]))

    exact = jax.grad(loss)(params)
    found = variance(constructor(made, elbo), params, key, x, num_draws=100_000, block_size=5000)
    for part in exact:
        error = float(jnp.sqrt(found.variance[part] / found.num_draws))
        assert abs(float(found.mean[part] - exact[part])) < 5 * error
        assert error < 0.05 * float(optax.tree.norm(exact))


# --- other kinds of posteriors and data


@pytest.mark.slow
def test_integer_draws_of_distrax(key):
    """distrax draws int32 by default; gradients are those of vaejax's own family."""
    ours = model()
    theirs = model(lambda p, x: distrax.Independent(distrax.Bernoulli(logits=x @ p["encoder"]), 1))
    params = ours.init(key, X)
    for constructor in (estimators.disarm, estimators.arm, estimators.rebar, estimators.score_function):
        a, b = (constructor(made, elbo) for made in (ours, theirs))
        found = [
            variance(e, params, key, X, num_draws=2000, state=e.init(params, key, X), block_size=500) for e in (a, b)
        ]
        error = np.sqrt((found[0].variance["encoder"] + found[1].variance["encoder"]) / 2000)
        assert (np.abs(found[0].mean["encoder"] - found[1].mean["encoder"]) < 5 * error + 1e-6).all()
    categories = model(
        lambda p, x: distrax.OneHotCategorical(logits=x @ p["encoder"]),
        lambda p: distrax.OneHotCategorical(logits=jnp.zeros(4)),
    )
    arsm = estimators.arsm(categories, elbo)
    assert jnp.isfinite(arsm.estimate(params, arsm.init(params, key, X), key, X)[0].grads["encoder"]).all()


@pytest.mark.slow
def test_the_critic_sees_fractions(key):
    made = model(lambda p, x: distrax.Independent(distrax.Bernoulli(logits=x @ p["encoder"]), 1))
    made = made._replace(likelihood=lambda p, z: diagonal_normal(z.astype(float) @ p["decoder"], jnp.ones(6)))
    params, relax = made.init(key, X), estimators.relax(made, elbo, critic=(5,))
    state = relax.init(params, key, X)
    a, b = (relax.estimate(params, state, key, X + shift)[1] for shift in (0.2, 0.4))
    first = [s.tuned[0].critic["dense_0"]["kernel"] for s in (a, b)]
    assert float(jnp.abs(first[0] - first[1]).max()) > 0


@pytest.mark.parametrize(
    "constructor",
    slow_unless(
        lambda constructor: constructor is estimators.disarm,
        [estimators.unordered_set, estimators.disarm, estimators.enumerate_latents],
    ),
)
def test_a_chain_of_one_layer_is_that_layer(constructor, key):
    alone = model()
    chained = alone._replace(
        posterior=lambda p, x: Chain([lambda _: alone.posterior(p, x)]),
        prior=lambda p: Chain([lambda _: alone.prior(p)]),
        likelihood=lambda p, z: alone.likelihood(p, z[0]),
    )
    params = alone.init(key, X)
    a, b = (constructor(made, elbo) for made in (alone, chained))
    spread = [variance(e, params, key, X, num_draws=3000, state=e.init(params, key, X), block_size=500) for e in (a, b)]
    error = np.sqrt((spread[0].variance["encoder"] + spread[1].variance["encoder"]) / 3000)
    assert (np.abs(spread[0].mean["encoder"] - spread[1].mean["encoder"]) < 5 * error + 1e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "constructor",
    [
        estimators.disarm,
        estimators.rebar,
        estimators.muprop,
        functools.partial(estimators.score_function, num_samples=2, rao_blackwell=True),
    ],
)
def test_two_batch_axes_and_weights(constructor, key, x64):
    made = enumerable.BUILDERS["two layers of 3"]()
    batch = vaejax.Batch(jnp.stack([enumerable.X, 1 - enumerable.X]), weight=jnp.array([[0.5, 2.0], [1.0, 0.0]]))
    params = made.points["far"]
    exact = estimators.enumerate_latents(made.model, elbo).estimate(params, (), key, batch)[0].grads
    found = estimators.certify(constructor(made.model, elbo), exact, params, key, batch, num_draws=60_000, repeats=0)
    assert max(found.z.values()) < 5
    assert max(found.standard_error.values()) < 0.05


# --- what stays finite


@pytest.mark.slow
def test_a_set_of_states_that_are_all_very_unlikely(key):
    """200 Bernoullis have log-probabilities of −138: the weights of four of them still sum to about 1."""
    log_prob = jnp.array([-138.0, -140.0, -137.5, -139.0])[:, None]
    weight, baseline = set_weights(log_prob, jnp.array([-313.0, -300.0, -320.0, -310.0])[:, None])
    np.testing.assert_allclose(weight.sum(0), 1.0, rtol=1e-3)
    assert ((baseline > -325) & (baseline < -295)).all()
    network = vaejax.models.sigmoid_belief_network(x_shape=20, layer_sizes=200)
    x = jnp.ones((3, 20))
    params = network.init(key, x)
    made = estimators.unordered_set(network, elbo, num_samples=4)
    found = made.estimate(params, made.init(params, key, x), key, x)[0]
    plain = vaejax.evaluate.elbo(network, params, key, x, num_samples=200).estimate
    assert (jnp.abs(found.objective - plain) < 20).all()


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_a_draw_of_no_weight(mean):
    found = signals.vimco_signal(jnp.array([-jnp.inf, 0.5, 1.5]), mean=mean)
    assert jnp.isfinite(found).all() if mean == "arithmetic" else not jnp.isnan(found).any()
    np.testing.assert_allclose(
        signals.leave_one_out(jnp.array([-jnp.inf, 0.5, 1.5])), [1.0, -jnp.inf, -jnp.inf], rtol=1e-6
    )


def test_categories_that_are_ruled_out():
    q = OneHotCategorical(jnp.array([0.0, -jnp.inf, 1.0]))
    p = OneHotCategorical(jnp.array([0.0, 0.3, 1.0]))
    assert jnp.isfinite(q.log_prob(jnp.array([1.0, 0.0, 0.0])))
    assert q.log_prob(jnp.array([0.0, 1.0, 0.0])) < -1e30
    wanted = jax.nn.log_softmax(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(q.entropy(), -jnp.sum(jnp.exp(wanted) * wanted), rtol=1e-6)
    assert jnp.isfinite(dists.kl_divergence(q, p))


@pytest.mark.slow
def test_training_goes_on_after_a_bad_batch(key):
    """With nonfinite='skip' what the estimator learns is left out with the update."""

    def preprocess(key, batch):
        return batch._replace(x=jnp.where(jax.random.bernoulli(key, 0.3), jnp.nan, batch.x))

    for constructor in (estimators.nvil, estimators.rebar, functools.partial(estimators.relax, critic=(5,))):
        made = model()._replace(likelihood=lambda p, z: diagonal_normal(z @ p["decoder"], jnp.ones(6)))
        result = train.fit(
            key,
            made,
            jnp.tile(X, (5, 1)),
            estimator=constructor(made, elbo),
            optimizer=optax.adam(1e-2),
            num_epochs=4,
            batch_size=4,
            preprocess=preprocess,
            nonfinite="skip",
            progress=False,
        )
        assert 0 < result.history["skipped"].sum() < 30
        leaves = jax.tree.leaves((result.state.estimator_state, result.state.params))
        assert all(jnp.isfinite(leaf).all() for leaf in leaves)


# --- chains as values


def test_log_terms_of_a_chain_under_jit_and_vmap(key):
    network = vaejax.models.sigmoid_belief_network(x_shape=6, layer_sizes=(4, 3))
    params = network.init(key, X)

    def of(k):
        return vaejax.log_terms(network, params, k, X, num_samples=2)

    plain, compiled = of(key), jax.jit(of)(key)
    tree_allclose(plain[:3], compiled[:3], rtol=1e-5, atol=1e-5)
    assert jax.tree.structure(plain) == jax.tree.structure(compiled)
    assert jax.vmap(of)(jax.random.split(key, 3)).latents[1].shape == (3, 2, 8, 3)


@pytest.mark.slow
def test_monte_carlo_kl_of_chains_keeps_the_score(key, x64):
    def chain(logits):
        return Chain([lambda _: Bernoulli(logits), lambda above: Bernoulli(logits[:2] * (2 * above[0][..., :2] - 1))])

    logits, other = jnp.array([0.4, -0.9, 1.1]), jnp.array([0.1, 0.2, -0.3])
    z = tuple(jnp.asarray(part) for part in np.split(enumerable.binary(5), [3], axis=1))

    def exact(logits):
        log_q = chain(logits).log_prob(z)
        return jnp.sum(jnp.exp(log_q) * (log_q - chain(other).log_prob(z)))

    def estimate(logits, k):
        return dists.kl_divergence(chain(logits), chain(other), key=k, num_samples=100)

    grads = jax.vmap(jax.grad(estimate), (None, 0))(logits, jax.random.split(key, 2000))
    error = grads.std(0) / np.sqrt(2000)
    assert (jnp.abs(grads.mean(0) - jax.grad(exact)(logits)) < 5 * error).all()
    assert jnp.linalg.norm(error) < 0.05 * jnp.linalg.norm(jax.grad(exact)(logits))


# --- refusals


@vaejax.objectives.objective(averages_draws=True)
def squares(terms, *, step=0):
    return -jnp.mean(terms.log_weights**2, 0)


class Pair:
    """A prior that is no product of factors."""

    batch_shape = ()

    def log_prob(self, z):
        return jnp.sum(z, -1)


two = model(
    lambda p, x: Chain([lambda _: Bernoulli(x @ p["encoder"]), lambda above: Bernoulli(above[0])]),
    lambda p: Chain([lambda _: Bernoulli(jnp.zeros(4)), lambda above: Bernoulli(above[0])]),
)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (
            lambda: estimators.concrete(model(prior=lambda p: Pair()), elbo),
            TypeError,
            "Pair has no relaxation.*straight",
        ),
        (
            lambda: estimators.concrete(model(prior=lambda p: OneHotCategorical(jnp.zeros(4))), elbo),
            TypeError,
            "OneHotCategorical has no relaxation like that of Bernoulli",
        ),
        (
            lambda: estimators.concrete(model(), iwae, kl="discrete"),
            ValueError,
            "does not read the closed-form KL; use",
        ),
        (
            lambda: estimators.concrete(model(), functools.partial(elbo, kl="monte_carlo"), kl="discrete"),
            ValueError,
            "does not read the closed-form KL",
        ),
        (
            lambda: estimators.concrete(model(), elbo, kl="discrete", prior_temperature=0.3),
            ValueError,
            "prior_temperature would count for nothing",
        ),
        (
            lambda: estimators.concrete(two, elbo, kl="discrete"),
            TypeError,
            "one layer, got a chain of 2; use kl='relaxed'",
        ),
        (lambda: estimators.nvil(model(), squares), ValueError, "not linear in log p.*rao_blackwell=False"),
        (
            lambda: estimators.score_function(model(), squares, rao_blackwell=True),
            ValueError,
            "not linear in log p.*rao_blackwell=False",
        ),
        (
            lambda: estimators.enumerate_latents(
                model(lambda p, x: Bernoulli(jnp.zeros((len(x), 1200))), lambda p: Bernoulli(jnp.zeros(1200)), 1200),
                elbo,
            ),
            ValueError,
            r"10\^361.*use rebar",
        ),
        (
            lambda: estimators.rebar(model(lambda p, x: distrax.Categorical(logits=x @ p["encoder"])), elbo),
            TypeError,
            "OneHotCategorical",
        ),
        (
            lambda: estimators.disarm(model(), functools.partial(elbo, kl="closed_form")),
            ValueError,
            "use kl='auto' or 'monte_carlo'",
        ),
    ],
)
def test_refusals(build, error, words, key):
    params = {"encoder": jnp.ones((6, 4)), "decoder": jnp.ones((4, 6))}
    with pytest.raises(error, match=words):
        build().init(params, key, X)


@pytest.mark.parametrize(
    "constructor",
    slow_unless(
        lambda constructor: constructor is estimators.disarm,
        [estimators.enumerate_latents, estimators.unordered_set, estimators.disarm, estimators.vimco],
    ),
)
def test_weights_of_another_shape(constructor, key):
    made = model()
    params, batch = made.init(key, X), vaejax.Batch(X, weight=jnp.ones((8, 1)))
    estimator = constructor(made, elbo)
    with pytest.raises(ValueError, match="one weight per example"):
        estimator.estimate(params, estimator.init(params, key, X), key, batch)


def test_standard_normal_beside_bernoullis_has_no_discrete_kl(key):
    """A continuous layer beside the discrete ones keeps its prior."""
    made = vaejax.Model(
        init=lambda key, batch: {"encoder": jnp.ones((6, 2))},
        posterior=lambda p, x: Chain(
            [lambda _: Bernoulli(x @ p["encoder"]), lambda above: diagonal_normal(above[0], jnp.ones(2))]
        ),
        prior=lambda p: Chain([lambda _: Bernoulli(jnp.zeros(2)), lambda _: standard_normal(2)]),
        likelihood=lambda p, z: Bernoulli(jnp.concatenate([*z, z[0] + z[1]], -1)),
    )
    estimator, params = estimators.concrete(made, elbo), made.init(key, X)
    found = estimator.estimate(params, estimator.init(params, key, X), key, X)[0]
    assert jnp.isfinite(found.grads["encoder"]).all()
