"""models.vae with every likelihood, context, dtype, and every way to build its networks."""

import functools
import math

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import nnx

import vaejax
from tests.helpers import tree_allclose
from vaejax import models, nets
from vaejax.dists import likelihoods

RNG = np.random.default_rng(0)
DATA = {
    "bernoulli": (likelihoods.bernoulli(), RNG.integers(0, 2, (40, 2, 3)).astype(np.float32)),
    "fractional": (likelihoods.bernoulli(fractional=True), RNG.random((40, 2, 3)).astype(np.float32)),
    "binomial": (likelihoods.binomial(16), RNG.integers(0, 17, (40, 2, 3)).astype(np.uint8)),
    "poisson": (likelihoods.poisson(), RNG.poisson(3.0, (40, 2, 3)).astype(np.int32)),
    "categorical": (likelihoods.categorical(4), RNG.integers(0, 4, (40, 2, 3)).astype(np.uint8)),
    "normal fixed": (likelihoods.normal(0.3), RNG.normal(2.0, 1.0, (40, 2, 3)).astype(np.float32)),
    "normal shared": (likelihoods.normal("shared"), RNG.normal(2.0, 1.0, (40, 2, 3)).astype(np.float32)),
    "normal per dimension": (likelihoods.normal("per_dimension"), RNG.normal(2.0, 1.0, (40, 2, 3)).astype(np.float32)),
    "normal per example": (likelihoods.normal("per_example"), RNG.normal(2.0, 1.0, (40, 2, 3)).astype(np.float32)),
}


def build(family, **options):
    return models.vae(x_shape=(2, 3), latent_size=2, hidden_sizes=(8,), likelihood=family, **options)


@pytest.mark.parametrize("name", DATA)
def test_every_likelihood_trains(name, key):
    family, x = DATA[name]
    model = build(family)
    estimator, optimizer = vaejax.estimators.pathwise(model, vaejax.objectives.elbo), optax.adam(1e-2)
    state = vaejax.train.init(key, model, estimator, optimizer, x)
    step = vaejax.train.make_train_step(estimator, optimizer)
    values = []
    for _ in range(200):
        state, metrics = step(state, x)
        values.append(float(metrics["objective"]))
    assert np.isfinite(values).all()
    # Against the spread of single steps, so that noise alone cannot pass.
    assert np.mean(values[-20:]) > np.mean(values[:20])


@pytest.mark.parametrize("name", DATA)
def test_output_starts_at_the_data_mean(name, key):
    family, x = DATA[name]
    model = build(family)
    params = model.init(key, x)
    params["decoder"] = jax.tree.map(jnp.zeros_like, params["decoder"])
    p = model.likelihood(params, jnp.zeros((1, 2)))
    if name == "categorical":
        frequencies = np.stack([(x == c).mean(0) for c in range(4)], -1)
        np.testing.assert_allclose(p.distribution.probs[0], (frequencies * 40 + 0.25) / 41, rtol=1e-4)
        return
    prior = {"bernoulli": 0.5, "fractional": 0.5, "binomial": 8.0, "poisson": 0.5}.get(name)
    mean = x.astype(np.float64).mean(0)
    np.testing.assert_allclose(p.mean()[0], mean if prior is None else (mean * 40 + prior) / 41, rtol=1e-4)


def test_output_bias_respects_the_mask(key):
    x, mask = np.ones((10, 2, 3), np.float32), np.ones((10, 2, 3), bool)
    x[5:, 0], mask[5:, 0] = np.nan, False
    params = build("normal").init(key, vaejax.Batch(x, mask=mask))
    np.testing.assert_allclose(params["output_bias"], 1.0)


def test_constant_pixels_start_finite(key):
    params = build("bernoulli").init(key, np.zeros((10, 2, 3), np.float32))
    np.testing.assert_allclose(params["output_bias"], math.log(0.5 / 10.5), rtol=1e-4)


def test_sigma_never_falls_below_its_floor(key):
    for scale in ("shared", "per_dimension", "per_example"):
        family = likelihoods.normal(scale, floor=0.05)
        params = {"raw_scale": jnp.full((2, 3), -1e4)}
        raw = jnp.full((2, 3, 2), -1e4) if scale == "per_example" else jnp.zeros((2, 3))
        np.testing.assert_allclose(family.distribution(params, raw, 2).stddev(), 0.05, rtol=1e-6)


def test_fixed_sigma_is_that_sigma():
    p = likelihoods.normal(0.3).distribution({}, jnp.ones((2, 3)), 2)
    np.testing.assert_allclose(p.log_prob(jnp.zeros((2, 3))), scipy.stats.norm(1, 0.3).logpdf(0) * 6, rtol=1e-5)


def test_context_reaches_both_networks(key):
    model = build("bernoulli", context_size=3)
    params = model.init(key, None)
    x, labels = jnp.zeros((4, 2, 3)), jnp.array([0, 1, 2, 0])
    q = model.posterior(params, x, labels)
    assert not np.allclose(q.mean()[0], q.mean()[1])
    np.testing.assert_array_equal(q.mean()[0], q.mean()[3])
    np.testing.assert_allclose(q.mean(), model.posterior(params, x, jax.nn.one_hot(labels, 3)).mean(), rtol=1e-6)
    p = model.likelihood(params, jnp.zeros((5, 4, 2)), labels)
    assert p.batch_shape == (5, 4)
    assert not np.allclose(p.mean()[0, 0], p.mean()[0, 1])
    terms = vaejax.log_terms(model, params, key, vaejax.Batch(x, labels), num_samples=3)
    assert terms.log_weights.shape == (3, 4)


@pytest.mark.parametrize("context_size", [0, 3])
def test_the_encoder_can_tell_missing_from_wrong(context_size, key):
    x, mask = jnp.zeros((4, 2, 3)), jnp.ones((4, 2, 3), bool).at[0, 0].set(False)
    context = jnp.array([0, 1, 2, 0]) if context_size else None
    for encode_mask in (False, True):
        model = build("bernoulli", encode_mask=encode_mask, context_size=context_size)
        params = model.init(key)
        masked, whole = (vaejax.log_terms(model, params, key, vaejax.Batch(x, context, m)).kl for m in (mask, None))
        np.testing.assert_allclose(masked[1:], whole[1:], rtol=1e-6)
        assert np.allclose(masked[0], whole[0]) is not encode_mask


@pytest.mark.parametrize(
    ("context_size", "context", "message"),
    [
        (3, None, "built with context_size=3"),
        (0, jnp.zeros((4, 3)), "built without one"),
        (3, jnp.array([0, 1, 2, 3]), "labels from 0 to 2"),
        (3, jnp.zeros((4, 2)), r"context must have shape \[\*batch, 3\]"),
        (3, jnp.zeros((5, 3)), r"context has leading axes \[5\], wanted those of the batch, \[4\]"),
    ],
)
def test_wrong_contexts_are_explained(context_size, context, message, key):
    model = build("bernoulli", context_size=context_size)
    params = model.init(key, None)
    with pytest.raises(ValueError, match=message):
        vaejax.log_terms(model, params, key, vaejax.Batch(jnp.zeros((4, 2, 3)), context))


def test_bad_contexts_are_refused_at_the_door(key):
    """Inside a compiled step a label out of range would be one-hot encoded to zeros."""
    model = build("bernoulli", context_size=3)
    batch = vaejax.Batch(np.zeros((4, 2, 3), np.float32), np.array([0, 1, 2, 3]))
    options = {"estimator": vaejax.estimators.pathwise(model, vaejax.objectives.elbo), "optimizer": optax.adam(1e-3)}
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        vaejax.train.fit(key, model, batch, num_epochs=1, batch_size=2, **options)
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        vaejax.evaluate.log_marginal(model, model.init(key), key, batch, num_samples=2)


def test_an_integer_one_hot_is_a_context_too(key):
    model = build("bernoulli", context_size=3)
    params, x, labels = model.init(key), jnp.zeros((4, 2, 3)), jnp.array([0, 1, 2, 0])
    one_hot = jax.nn.one_hot(labels, 3, dtype=jnp.int32)
    np.testing.assert_allclose(
        model.posterior(params, x, one_hot).mean(), model.posterior(params, x, labels).mean(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("bernoulli", 0.5, "only 0 and 1"),
        ("bernoulli", 2.0, "only 0 and 1"),
        ("fractional", 1.5, r"values in \[0, 1\]"),
        ("fractional", -0.1, r"values in \[0, 1\]"),
        ("binomial", 17, "integers from 0 to 16"),
        ("binomial", 0.5, "integers from 0 to 16"),
        ("poisson", -1, "integers of at least 0"),
        ("categorical", 4, "integers from 0 to 3"),
    ],
)
def test_values_outside_the_support(name, bad, message, key):
    family, x = DATA[name]
    x = x.astype(np.float32)
    x[3, 1, 1] = bad
    with pytest.raises(ValueError, match=message):
        build(family).init(key, x)


def test_bad_construction(key):
    with pytest.raises(ValueError, match="unknown likelihood 'bernouli'; did you mean 'bernoulli'"):
        build("bernouli")
    with pytest.raises(ValueError, match=r"needs a size: pass vaejax.dists.likelihoods.binomial\(total_count\)"):
        build("binomial")
    with pytest.raises(TypeError, match="likelihood must be a name"):
        build(3)
    with pytest.raises(ValueError, match="latent_size must be at least 1"):
        models.vae(x_shape=(3,), latent_size=0)
    with pytest.raises(ValueError, match="scale must be finite, greater than 0, got -1"):
        likelihoods.normal(-1.0)
    with pytest.raises(ValueError, match="did you mean 'per_example'"):
        likelihoods.normal("per-example")
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        likelihoods.categorical(1)
    with pytest.raises(ValueError, match="scale must hold positive numbers"):
        vaejax.dists.diagonal_normal(jnp.zeros(2), jnp.array([1.0, -1.0]))
    assert models.vae(x_shape=np.int64(6), latent_size=2).init(key)["output_bias"].shape == (6,)
    with pytest.raises(ValueError, match="total_count must be at least 1"):
        likelihoods.binomial(0)
    with pytest.raises(TypeError, match="typed key"):
        build("bernoulli").init(jax.random.PRNGKey(0), None)


@pytest.mark.parametrize("x", [jnp.zeros((4, 2, 4)), jnp.zeros(3), jnp.zeros((4, 6))])
def test_wrong_event_shape(x, key):
    model = build("bernoulli")
    params = model.init(key, None)
    with pytest.raises(ValueError, match=r"x must have shape \[\*batch, 2, 3\], got"):
        vaejax.log_terms(model, params, key, x)
    with pytest.raises(ValueError, match=r"x must have shape \[\*batch, 2, 3\], got"):
        model.init(key, x)


def test_params_of_another_model(key):
    model, x = build("bernoulli"), jnp.zeros((4, 2, 3))
    other = models.vae(x_shape=(2, 3), latent_size=3, hidden_sizes=(8,)).init(key, None)
    with pytest.raises(ValueError, match=r"do not belong to MLP.*shape"):
        vaejax.log_terms(model, other, key, x)
    with pytest.raises(ValueError, match="do not belong to a vae: got"):
        vaejax.log_terms(model, {"w": 1.0}, key, x)
    with pytest.raises(ValueError, match="do not belong to"):
        vaejax.evaluate.log_marginal(model, other, key, x, num_samples=3)


def test_wrong_networks_are_explained(key):
    net = nets.mlp((2, 3), (8,), (3,))
    model = build("bernoulli", encoder=net)
    with pytest.raises(ValueError, match=r"the encoder gave an output of shape \[4, 3\], wanted \[4, 4\]"):
        model.posterior(model.init(key, None), jnp.zeros((4, 2, 3)))


@pytest.mark.slow
def test_bfloat16_networks_keep_float32_densities(key):
    wide, narrow = build("bernoulli"), build("bernoulli", dtype=jnp.bfloat16)
    params, x = wide.init(key, None), jnp.asarray(DATA["bernoulli"][1])
    a, b = (vaejax.log_terms(m, params, key, x, num_samples=5) for m in (wide, narrow))
    assert {t.dtype for t in (b.log_likelihood, b.log_prior, b.log_posterior, b.kl)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=0.05, atol=0.1)
    estimator = vaejax.estimators.pathwise(narrow, vaejax.objectives.elbo)
    estimate, _ = estimator.estimate(params, (), key, x)
    assert all(bool(jnp.isfinite(g).all()) and g.dtype == jnp.float32 for g in jax.tree.leaves(estimate.grads))


def test_float64_throughout(key, x64):
    model = build("bernoulli")
    params = model.init(key, DATA["bernoulli"][1])
    terms = vaejax.log_terms(model, params, key, DATA["bernoulli"][1])
    assert terms.log_weights.dtype == jnp.float64


def test_dropout_in_training_only(key):
    model, x = build("bernoulli", dropout_rate=0.5), jnp.asarray(DATA["bernoulli"][1])
    params = model.init(key, x)
    still = vaejax.log_terms(model, params, key, x)
    np.testing.assert_array_equal(still.kl, vaejax.log_terms(model, params, jax.random.key(9), x).kl)
    moved = [vaejax.log_terms(model, params, k, x, training=True).kl for k in jax.random.split(key)]
    assert not np.allclose(moved[0], moved[1])


class LinenNet(linen.Module):
    out_shape: tuple

    @linen.compact
    def __call__(self, x):
        h = linen.tanh(linen.Dense(8)(x.reshape(*x.shape[: x.ndim - (2 if self.out_shape == (4,) else 1)], -1)))
        return linen.Dense(math.prod(self.out_shape))(h).reshape(*h.shape[:-1], *self.out_shape)


def plain(in_ndims, in_size, out_shape):
    def init(key, x):
        keys = jax.random.split(key)
        weights = {
            "a": jax.random.normal(keys[0], (in_size, 8)),
            "b": jax.random.normal(keys[1], (8, math.prod(out_shape))),
        }
        return jax.tree.map(lambda w: w / math.sqrt(w.shape[0]), weights) | {"bias": jnp.zeros(8)}

    def apply(params, x):
        lead = x.shape[: x.ndim - in_ndims]
        return (jnp.tanh(x.reshape(*lead, -1) @ params["a"] + params["bias"]) @ params["b"]).reshape(*lead, *out_shape)

    return nets.Network(init, apply)


def network_pairs():
    import equinox as eqx

    def eqx_net(shape_in, out_shape):
        return lambda k: eqx.nn.Sequential(
            [
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.MLP(math.prod(shape_in), math.prod(out_shape), 8, 1, key=k),
                eqx.nn.Lambda(functools.partial(jnp.reshape, shape=out_shape)),
            ]
        )

    def nnx_net(n_in, out):
        return lambda rngs: nnx.Sequential(nnx.Linear(n_in, 8, rngs=rngs), jnp.tanh, nnx.Linear(8, out, rngs=rngs))

    return {
        "linen": (nets.from_linen(LinenNet((4,))), nets.from_linen(LinenNet((2, 3)))),
        "nnx": (flattened(nets.from_nnx(nnx_net(6, 4)), 2, (4,)), flattened(nets.from_nnx(nnx_net(2, 6)), 1, (2, 3))),
        "equinox": (nets.from_equinox(eqx_net((2, 3), (4,)), event_ndims=2), nets.from_equinox(eqx_net((2,), (2, 3)))),
        "plain": (plain(2, 6, (4,)), plain(1, 2, (2, 3))),
        "bundled conv": (nets.conv_encoder((2, 3), (4,), 4), nets.conv_decoder(2, (4,), (2, 3))),
    }


def flattened(net, in_ndims, out_shape):
    def apply(params, x):
        lead = x.shape[: x.ndim - in_ndims]
        return net.apply(params, x.reshape(*lead, -1)).reshape(*lead, *out_shape)

    return nets.Network(net.init, apply)


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox", "plain", "bundled conv"])
def test_networks_of_every_origin_train(kind, key):
    """Must learn the correlation in the data: beat the best independent model by a margin."""
    encoder, decoder = network_pairs()[kind]
    model = build("bernoulli", encoder=encoder, decoder=decoder)
    x = np.repeat(np.random.default_rng(1).integers(0, 2, (200, 1, 1)), 6, 1).reshape(200, 2, 3).astype(np.float32)
    result = vaejax.train.fit(
        key,
        model,
        x,
        estimator=vaejax.estimators.pathwise(model, vaejax.objectives.elbo),
        optimizer=optax.adam(1e-2),
        num_epochs=150,
        batch_size=50,
    )
    independent = -6 * math.log(2)
    assert result.history["objective"][-1] > independent + 2.0


@pytest.mark.parametrize("scale", ["shared", "per_dimension", "per_example"])
@pytest.mark.parametrize("unit", [1e-2, 1.0, 1e3])
def test_a_learned_sigma_starts_at_the_spread_of_the_data(scale, unit, key):
    """Root mean square distance from the columns' own means, over observed entries; a constant column does not matter."""
    x = np.random.default_rng(0).normal([0.0, 5.0, -3.0], [1.0, 2.0, 0.0], (400, 3)).astype(np.float32) * unit
    mask = np.random.default_rng(1).random(x.shape) < 0.8
    mask[~mask.any(axis=1), 0] = True
    model = models.vae(x_shape=3, latent_size=2, likelihood=likelihoods.normal(scale, floor=1e-4))
    params = model.init(key, vaejax.Batch(np.where(mask, x, np.nan), mask=mask))
    seen = np.ma.array(x, mask=~mask)
    expected = np.sqrt(((seen - seen.mean(0)) ** 2).mean())
    # At z where the decoder's output is its bias alone, as it is on average at initialisation.
    params = {**params, "decoder": jax.tree.map(jnp.zeros_like, params["decoder"])}
    decoded = model.likelihood(params, jnp.zeros((1, 1, 2)))
    np.testing.assert_allclose(jnp.sqrt(decoded.variance()), np.full((1, 1, 3), expected), rtol=1e-4)
    np.testing.assert_allclose(decoded.mean()[0, 0], seen.mean(0), rtol=1e-4, atol=1e-4 * unit)
    constant = model.init(key, np.full((5, 3), 2.0, np.float32))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(constant))


@pytest.mark.wants_nan
def test_a_model_in_own_units_is_the_change_of_variables(key):
    """log p(x|z) = log p(y|z) − Σ log s over the observed entries, the same posterior, the same draws."""
    mean, scale = np.array([70.0, -3.0, 0.5]), np.array([10.0, 0.1, 2.0])
    inner = models.vae(x_shape=3, latent_size=2, likelihood="normal", encode_mask=True)
    outer = models.in_own_units(inner, mean, scale)
    y = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    mask = np.random.default_rng(1).random(y.shape) < 0.7
    mask[:, 0] = True
    of_y = vaejax.Batch(np.where(mask, y, 0), mask=mask)
    of_x = vaejax.Batch(np.where(mask, mean + scale * y, np.nan).astype(np.float32), mask=mask)
    params = outer.init(key, of_x)
    tree_allclose(params, inner.init(key, of_y), rtol=1e-4, atol=1e-4)
    a, b = (vaejax.log_terms(m, params, key, batch, num_samples=4) for m, batch in ((inner, of_y), (outer, of_x)))
    jacobian = np.sum(mask * np.log(scale), axis=1)
    np.testing.assert_allclose(b.log_likelihood, a.log_likelihood - jacobian, rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(b.log_posterior, a.log_posterior, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(b.kl, a.kl, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="NaN"):
        outer.check(np.full((2, 3), np.nan, np.float32))
