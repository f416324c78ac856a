"""Nothing broadcasts along an event axis: likelihoods, priors, contexts and weights of another shape are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vaejax
from vaejax import Batch
from vaejax.dists import Chain, diagonal_normal, likelihoods, standard_normal
from vaejax.dists.backend import distrax

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
MASK = np.arange(4) < 3 + np.zeros((6, 1))


def model(outputs=4, prior=lambda params: standard_normal(2), likelihood=None, posterior=None):
    return vaejax.Model(
        init=lambda key, batch: {"encoder": 0.1 * jnp.ones((4, 2)), "decoder": jnp.ones((2, outputs))},
        posterior=posterior or (lambda params, x: diagonal_normal(x @ params["encoder"], 1.0)),
        prior=prior,
        likelihood=likelihood or (lambda params, z: diagonal_normal(z @ params["decoder"], 1.0)),
    )


def top(_):
    return standard_normal(2)


WRONG = {
    "a decoder of one column": (model(outputs=1), "likelihood p.x.z. must have the event shape of x, .4., got .1."),
    "a Bernoulli decoder of one column": (
        model(likelihood=lambda params, z: vaejax.dists.Bernoulli(z[..., :1])),
        "event shape of x, .4., got .1.",
    ),
    "a distrax decoder of one column": (
        model(likelihood=lambda params, z: distrax.Independent(distrax.Normal(z[..., :1], 1.0), 1)),
        "event shape of x, .4., got .1.",
    ),
    "a prior of one dimension": (
        model(prior=lambda params: standard_normal(1)),
        "prior p.z. must have the event shape of the latents, .2., got .1.",
    ),
    "a layer of the prior of one dimension": (
        model(
            posterior=lambda params, x: Chain([lambda _: diagonal_normal(x[..., :2], 1.0), lambda above: diagonal_normal(above[0], 1.0)]),
            prior=lambda params: Chain([top, lambda above: diagonal_normal(above[0][..., :1], 1.0)]),
            likelihood=lambda params, z: diagonal_normal(z[1] @ params["decoder"], 1.0),
        ),
        "layer 1 of the prior p.z. must have the event shape of its latents, .2., got .1.",
    ),
    "a posterior without the batch": (
        model(
            posterior=lambda params, x: standard_normal(2),
            likelihood=lambda params, z: diagonal_normal(jnp.ones((6, 4)) * z.sum(), 1.0),
        ),
        "event shape of x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_shapes_that_would_broadcast_are_refused(name):
    wrong, message = WRONG[name]
    params = wrong.init(None, None)
    entrances = [
        lambda batch: vaejax.log_terms(wrong, params, KEY, batch, num_samples=6),
        lambda batch: vaejax.evaluate.elbo(wrong, params, KEY, batch, num_samples=6),
    ]
    batches = [X, Batch(X, mask=MASK)]
    if "posterior" in name:  # evaluations see one example at a time, where the shapes of its terms differ
        entrances, batches = entrances[:1], batches[:1]
    for entrance in entrances:
        for batch in batches:
            with pytest.raises(ValueError, match=message):
                entrance(batch)


@pytest.mark.parametrize("family", ["bernoulli", "normal", "poisson", "categorical", "binomial"])
def test_families_have_the_event_shape_of_x(family):
    made = likelihoods.categorical(3) if family == "categorical" else family
    made = likelihoods.binomial(3) if family == "binomial" else made
    x = np.ones((5, 2, 3), np.int32)
    right = vaejax.models.vae(x_shape=(2, 3), latent_size=2, hidden_sizes=(4,), likelihood=made)
    params = right.init(KEY, None)
    assert vaejax.log_terms(right, params, KEY, x).log_likelihood.shape == (1, 5)
    assert vaejax.log_terms(right, params, KEY, Batch(x, mask=x > 0)).log_likelihood.shape == (1, 5)


CONDITIONAL = vaejax.models.vae(x_shape=4, latent_size=2, hidden_sizes=(4,), likelihood="normal", context_size=6)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (np.tile([0, 2, 0, 0, 0, 0], (6, 1)), "labels from 0 to 5, or one-hot rows"),
        (np.tile([1, 1, 0, 0, 0, 0], (6, 1)), "one-hot rows of 6 integers"),
        (np.zeros((6, 6), int), "one-hot rows of 6 integers"),
        (np.arange(6) + 1, "labels from 0 to 5"),
        (np.arange(6.0), "context has leading axes .., wanted those of the batch, .6."),
        (np.ones((6, 1)), "context must have shape .*6"),
    ],
)
def test_contexts_of_another_shape_are_refused(context, message):
    params = CONDITIONAL.init(KEY, None)
    for act in (
        lambda batch: CONDITIONAL.init(KEY, batch),
        lambda batch: vaejax.evaluate.elbo(CONDITIONAL, params, KEY, batch),
    ):
        with pytest.raises(ValueError, match=message):
            act(Batch(X, context=context))


def test_labels_and_one_hot_rows_are_the_same_context():
    labels, params = np.array([0, 5, 2, 2, 1, 3]), CONDITIONAL.init(KEY, None)
    contexts = [labels, np.eye(6, dtype=int)[labels], np.eye(6, dtype=np.float32)[labels]]
    values = [vaejax.evaluate.elbo(CONDITIONAL, params, KEY, Batch(X, context=c)).estimate for c in contexts]
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


@pytest.mark.parametrize("weight", [np.ones((6, 1)), np.ones(1), np.ones((6, 4)), np.ones(5)])
def test_weights_are_one_for_each_example(weight):
    estimator = vaejax.estimators.pathwise(model(), vaejax.objectives.elbo)
    with pytest.raises(ValueError, match="weight"):
        estimator.estimate(model().init(None, None), (), KEY, Batch(X, weight=weight))


def test_baselines_have_one_number_per_example():
    wide = vaejax.estimators.baselines.constant()._replace(value=lambda state, x, signals: jnp.zeros((6, 1)))
    estimator = vaejax.estimators.score_function(model(), vaejax.objectives.elbo, num_samples=2, baseline=wide)
    params = model().init(None, None)
    state = estimator.init(params, KEY, X)
    with pytest.raises(ValueError, match=r"broadcast to the signals .* = \[2, 6\], got \[6, 1\]"):
        estimator.estimate(params, state, KEY, X)
