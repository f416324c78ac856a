"""models.sigmoid_belief_network: exact by enumeration, masked data, training, errors."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from tests.helpers import tree_allclose
from vaejax.dists import Chain, likelihoods
from vaejax.models import sigmoid_belief_network
from vaejax.objectives import elbo

LAYERS = {"one layer": (4,), "two layers": (3, 2), "three layers": (2, 2, 2)}


def states(layer_sizes, batch):
    """Every joint state, each layer ``[S, batch, size]``."""
    rows = np.array(list(itertools.product([0.0, 1.0], repeat=sum(layer_sizes))))
    found = np.split(rows, np.cumsum(layer_sizes)[:-1], axis=1)
    return tuple(jnp.broadcast_to(jnp.asarray(z)[:, None], (len(rows), batch, z.shape[-1])) for z in found)


@pytest.fixture(params=list(LAYERS))
def network(request, key, x64):
    sizes = LAYERS[request.param]
    model = sigmoid_belief_network(x_shape=(2, 3), layer_sizes=sizes, hidden_sizes=(5,) if len(sizes) == 2 else ())
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (7, 2, 3)), float)
    params = jax.tree.map(
        lambda a, k: a + 0.4 * jax.random.normal(k, a.shape),
        (start := model.init(key, x)),
        jax.tree.unflatten(jax.tree.structure(start), [*jax.random.split(key, len(jax.tree.leaves(start)))]),
    )
    return model, params, x, sizes


def test_densities_sum_to_one_and_give_the_evidence(network, key):
    """Σ q = Σ p = 1 over all states, and importance sampling finds log Σ_z p(x, z)."""
    model, params, x, sizes = network
    z = states(sizes, len(x))
    z = z if len(sizes) > 1 else z[0]
    log_q, log_p = model.posterior(params, x).log_prob(z), model.prior(params).log_prob(z)
    for log_prob in (log_q, log_p):
        np.testing.assert_allclose(jnp.exp(log_prob).sum(0), 1.0, rtol=1e-12)
    evidence = jax.nn.logsumexp(model.likelihood(params, z).log_prob(x) + log_p, 0)
    found = vaejax.evaluate.log_marginal(model, params, key, x, num_samples=20_000)
    assert float(found.standard_error.max()) < 0.05
    assert (jnp.abs(found.estimate - evidence) < 5 * found.standard_error).all()


def test_the_latents_are_drawn_as_the_densities_say(network, key):
    model, params, x, sizes = network
    z = states(sizes, len(x))
    drawn = vaejax.log_terms(model, params, key, x, num_samples=20_000).latents
    probs = jnp.exp(model.posterior(params, x).log_prob(z if len(sizes) > 1 else z[0]))
    for level, layer in enumerate(drawn if len(sizes) > 1 else (drawn,)):
        wanted = jnp.einsum("sb,sbd->bd", probs, z[level])
        error = jnp.sqrt(wanted * (1 - wanted) / 20_000)
        assert (jnp.abs(layer.mean(0) - wanted) < 5 * error + 1e-12).all()


def test_the_encoder_sees_hidden_entries_at_their_mean(key):
    model = sigmoid_belief_network(x_shape=6, layer_sizes=4)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (50, 6)), jnp.float32)
    mask = jnp.asarray(np.random.default_rng(1).random((50, 6)) < 0.7).at[:, 0].set(True)
    params = model.init(key, vaejax.Batch(x, mask=mask))
    mean = jnp.sum(x * mask, 0) / mask.sum(0)
    np.testing.assert_allclose(params["input_mean"], mean, rtol=1e-6)
    with_mask = model.posterior(params, x, mask=mask)
    np.testing.assert_allclose(
        with_mask.logits, model.posterior(params, jnp.where(mask, x, mean)).logits, rtol=1e-5, atol=1e-6
    )
    terms = vaejax.log_terms(model, params, key, vaejax.Batch(jnp.where(mask, x, jnp.nan), mask=mask))
    assert jnp.isfinite(terms.log_weights).all()


@pytest.mark.parametrize("layer_sizes", [(8,), (8, 4)])
def test_it_learns_and_leaves_the_mean_alone(layer_sizes, key):
    """Two clusters of opposite patterns: the bound comes near their entropy, log 2 and the noise."""
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 2, 10)
    x = jnp.asarray(np.abs((rng.random((512, 1)) < 0.5) - pattern), jnp.float32)
    model = sigmoid_belief_network(x_shape=10, layer_sizes=layer_sizes)
    result = vaejax.train.fit(
        key,
        model,
        x,
        estimator=vaejax.estimators.disarm(model, elbo),
        optimizer=optax.adam(2e-2),
        num_epochs=150,
        batch_size=64,
        progress=False,
    )
    found = vaejax.evaluate.log_marginal(model, result.state.params, key, x[:64], num_samples=200)
    assert abs(float(found.estimate.mean()) + math.log(2)) < 0.1
    tree_allclose(result.state.params["input_mean"], model.init(key, x)["input_mean"])


def test_other_likelihoods_and_a_start_without_data(key):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 4, (20, 5)))
    model = sigmoid_belief_network(x_shape=5, layer_sizes=(3, 2), likelihood=likelihoods.categorical(4))
    for params in (model.init(key, x), model.init(key, None)):
        terms = vaejax.log_terms(model, params, key, x, num_samples=2)
        assert terms.log_weights.shape == (2, 20)
        assert isinstance(terms.posterior, Chain)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: sigmoid_belief_network(x_shape=4, layer_sizes=()), "layer_sizes is empty"),
        (lambda: sigmoid_belief_network(x_shape=4, layer_sizes=(3, 0)), "each of layer_sizes"),
        (lambda: sigmoid_belief_network(x_shape=0), "each of x_shape"),
        (lambda: sigmoid_belief_network(x_shape=4, hidden_sizes=(-1,)), "each of hidden_sizes"),
        (lambda: sigmoid_belief_network(x_shape=4, likelihood="gauss"), "likelihood"),
        (lambda: ready(vaejax.Batch(jnp.ones((3, 4)), context=jnp.ones((3, 2)))), "context"),
        (lambda: ready(jnp.ones((3, 5))), r"\[.*4\]|event"),
        (lambda: ready(jnp.full((3, 4), 0.5)), "0"),
        (lambda: ready(jnp.full((3, 4), jnp.nan)), "nan"),
    ],
)
def test_bad_arguments(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def ready(batch):
    return sigmoid_belief_network(x_shape=4, layer_sizes=3).init(jax.random.key(0), batch)
