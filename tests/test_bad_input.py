"""Bad input meets a clear error at the door: what came, what was wanted, what to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaejax
from vaejax import Batch, data, estimators, evaluate, models, objectives, train
from vaejax.dists import Bernoulli, standard_normal
from vaejax.dists.backend import distrax

X = np.ones((8, 6), np.float32)
KEY = jax.random.key(0)
MODEL = models.vae(x_shape=6, latent_size=2, hidden_sizes=(4,))
ESTIMATOR = estimators.pathwise(MODEL, objectives.elbo)
OPTIONS = {"estimator": ESTIMATOR, "optimizer": optax.adam(1e-3), "num_epochs": 1, "batch_size": 4}
DISCRETE = MODEL._replace(
    posterior=lambda params, x: Bernoulli(jnp.zeros((*x.shape[:-1], 2))),
    prior=lambda params: distrax.Independent(distrax.Bernoulli(jnp.zeros(2)), 1),
)


class Coin:
    """A posterior of one's own, on no record."""

    def sample_and_log_prob(self, *, seed, sample_shape):
        return jnp.zeros((*sample_shape, 8, 2), jnp.int32), jnp.zeros((*sample_shape, 8))


UNKNOWN = MODEL._replace(posterior=lambda params, x: Coin())


def fit(x=X, key=KEY, model=MODEL, **changes):
    return train.fit(key, model, x, **{**OPTIONS, **changes})


def holding(value):
    x = X.copy()
    x[2, 3] = value
    return x


CASES = {
    "NaN": (
        lambda: fit(holding(np.nan)),
        ValueError,
        r"data holds 1 NaN or infinite value, the first at index \(2, 3\)",
    ),
    "infinity": (lambda: fit(holding(np.inf)), ValueError, "NaN or infinite"),
    "outside the Bernoulli's support": (lambda: fit(holding(0.5)), ValueError, "only 0 and 1"),
    "wrong event shape": (lambda: fit(np.ones((8, 5), np.float32)), ValueError, r"\[\*batch, 6\], got \[8, 5\]"),
    "wrong rank": (
        lambda: fit(np.ones(6, np.float32)),
        ValueError,
        "a single example to this model; add a leading axis",
    ),
    "scalar": (lambda: fit(np.float32(1.0)), ValueError, "data is empty"),
    "no examples": (lambda: fit(X[:0]), ValueError, "data is empty"),
    "strings": (lambda: fit(np.array([["a"] * 6])), TypeError, "real numbers"),
    "objects": (lambda: fit(X.astype(object)), TypeError, "dtype object"),
    "complex": (lambda: fit(X.astype(complex)), TypeError, "dtype complex"),
    "a list of arrays": (lambda: fit(list(X)), TypeError, "got a list of arrays. Use numpy.stack"),
    "lists of unequal lengths": (lambda: fit([[1, 0], [1]]), ValueError, "rows of equal length"),
    "a tuple": (lambda: fit((X, X)), TypeError, r"got tuple.*Batch\(x, context="),
    "None": (lambda: fit(None), TypeError, "got NoneType"),
    "mask of floats": (lambda: fit(Batch(X, mask=X)), ValueError, "mask must be bool"),
    "mask of another shape": (
        lambda: fit(Batch(X, mask=np.ones(8, bool))),
        ValueError,
        "mask must be bool and have the shape of x",
    ),
    "a masked weight": (
        lambda: fit(Batch(X, weight=np.ma.masked_equal(np.arange(8.0), 3.0))),
        ValueError,
        "weight must have a value in every entry, got 1 missing",
    ),
    "weights that are all 0": (
        lambda: fit(Batch(X, weight=np.zeros(8))),
        ValueError,
        "weight must be positive for at least one example",
    ),
    "examples of which nothing is observed": (
        lambda: fit(Batch(X, mask=np.arange(8)[:, None] * np.ones((1, 6)) > 1)),
        ValueError,
        "2 examples have no observed entry, the first at index 0",
    ),
    "labels in words": (
        lambda: fit(Batch(X, context=np.array(["a"] * 8))),
        TypeError,
        "context must hold real numbers",
    ),
    "params for a state": (lambda: fit(state=MODEL.init(KEY)), TypeError, "must be a vaejax.TrainState"),
    "a step's pair for a state": (
        lambda: train.make_train_step(ESTIMATOR, optax.adam(1e-3))((1.0, 2.0), X),
        TypeError,
        "a step returns .state, metrics.: unpack both",
    ),
    "a posterior that is a tuple": (
        lambda: vaejax.log_terms(MODEL._replace(posterior=lambda p, x: (x, x)), {}, KEY, X),
        TypeError,
        "model.posterior returned tuple, wanted a distribution",
    ),
    "negative weight": (lambda: fit(Batch(X, weight=np.full(8, -1.0))), ValueError, "weight must not be negative"),
    "weight of another length": (
        lambda: fit(Batch(X, weight=np.ones(7))),
        ValueError,
        "weight must have the batch shape",
    ),
    "context of another length": (
        lambda: fit(Batch(X, context=np.ones((7, 2)))),
        ValueError,
        "leading with the 8 examples",
    ),
    "batch larger than data": (
        lambda: fit(batch_size=9),
        ValueError,
        "batch_size=9 is larger than the data, 8 examples",
    ),
    "batch of none": (lambda: fit(batch_size=0), ValueError, "batch_size must be at least 1"),
    "batch size no integer": (lambda: fit(batch_size=2.5), TypeError, "batch_size must be an integer"),
    "no epochs": (lambda: fit(num_epochs=0), ValueError, "num_epochs must be at least 1"),
    "raw key": (lambda: fit(key=jax.random.PRNGKey(0)), TypeError, "typed key, got a raw uint32 array.*jax.random.key"),
    "seed for a key": (lambda: fit(key=0), TypeError, "typed key, got int"),
    "keys for a key": (lambda: fit(key=jax.random.split(KEY)), ValueError, "jax.vmap to map over keys"),
    "no optimiser": (lambda: fit(optimizer="adam"), TypeError, "optax.adam"),
    "no estimator": (
        lambda: fit(estimator=objectives.elbo),
        TypeError,
        r"estimators.pathwise\(model, objective\), got function",
    ),
    "unknown policy": (lambda: fit(nonfinite="ignore"), ValueError, "unknown nonfinite 'ignore'"),
    "validation outside the support": (lambda: fit(validation=holding(0.5)), ValueError, "only 0 and 1"),
    "evaluation outside the support": (
        lambda: evaluate.log_marginal(MODEL, MODEL.init(KEY), KEY, holding(0.5), num_samples=3),
        ValueError,
        "only 0 and 1",
    ),
    "validation with NaN": (lambda: fit(validation=holding(np.nan)), ValueError, "validation holds 1 NaN"),
    "K of none": (
        lambda: estimators.pathwise(MODEL, objectives.elbo, num_samples=0),
        ValueError,
        "num_samples must be at least 1, got 0",
    ),
    "K as a bool": (
        lambda: estimators.pathwise(MODEL, objectives.elbo, num_samples=True),
        TypeError,
        "must be an integer",
    ),
    "no objective": (lambda: estimators.pathwise(MODEL, 3.0), TypeError, "objective must be a function of log-terms"),
    "no model": (lambda: estimators.pathwise(lambda x: x, objectives.elbo), TypeError, "model must be a vaejax.Model"),
    "objective that averages the batch": (
        lambda: fit(estimator=estimators.pathwise(MODEL, lambda t: t.log_weights.mean())),
        ValueError,
        r"objective <lambda> has shape \[\], wanted one value per example",
    ),
    "negative beta": (
        lambda: fit(estimator=estimators.pathwise(MODEL, functools.partial(objectives.elbo, beta=-1))),
        ValueError,
        "beta must be",
    ),
    "discrete posterior": (
        lambda: train.init(KEY, DISCRETE, estimators.pathwise(DISCRETE, objectives.elbo), optax.adam(1e-3), X),
        TypeError,
        "posterior is Bernoulli, whose draws are not differentiable",
    ),
    "posterior of integers, of an unknown family": (
        lambda: estimators.pathwise(UNKNOWN, objectives.elbo).init({}, KEY, X),
        TypeError,
        "posterior is Coin, whose draws are not differentiable",
    ),
    "samples of none": (
        lambda: evaluate.log_marginal(MODEL, MODEL.init(KEY), KEY, X, num_samples=0),
        ValueError,
        "num_samples must be",
    ),
    "chunk of none": (
        lambda: evaluate.log_marginal(MODEL, MODEL.init(KEY), KEY, X, num_samples=3, chunk_size=0),
        ValueError,
        "chunk_size must be",
    ),
    "NaN in evaluation": (
        lambda: evaluate.log_marginal(MODEL, MODEL.init(KEY), KEY, holding(np.nan), num_samples=3),
        ValueError,
        "NaN",
    ),
    "raw key in evaluation": (
        lambda: evaluate.elbo(MODEL, MODEL.init(KEY), jax.random.PRNGKey(0), X),
        TypeError,
        "typed key",
    ),
    "unknown dataset": (lambda: data.load("digit"), ValueError, "unknown dataset 'digit'; did you mean 'digits'"),
    "directory for the digits": (lambda: data.load("digits", "/tmp"), ValueError, "leave directory out"),
    "integers without levels": (lambda: data.binarize(KEY, np.zeros((2, 3), np.uint8)), ValueError, "need levels="),
    "floats with levels": (lambda: data.binarize(KEY, X, levels=255), ValueError, "for integer images"),
    "levels too many": (
        lambda: data.binarize(KEY, np.zeros((2, 3), np.int32), levels=256),
        ValueError,
        "between 1 and 255",
    ),
    "floats above 1": (lambda: data.binarize(KEY, 2 * X), ValueError, r"values in \[0, 1\]"),
    "integers above the levels": (
        lambda: data.binarize(KEY, np.full((2, 3), 17, np.uint8), levels=16),
        ValueError,
        "values from 0 to 16",
    ),
    "latents of the wrong size": (
        lambda: MODEL.likelihood(MODEL.init(KEY), jnp.zeros((1, 3))),
        ValueError,
        r"z must have shape \[\*batch, 2\]",
    ),
    "KL without closed form or key": (
        lambda: vaejax.kl_divergence(distrax.Logistic(0.0, 1.0), distrax.Logistic(1.0, 1.0)),
        ValueError,
        r"no closed form is known for KL\(Logistic \|\| Logistic\)",
    ),
    "KL across event shapes": (
        lambda: vaejax.kl_divergence(standard_normal(2), standard_normal(3)),
        ValueError,
        "must agree",
    ),
    "unknown name in the package": (lambda: vaejax.iwae, AttributeError, "no attribute 'iwae'"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name):
    act, kind, message = CASES[name]
    with pytest.raises(kind, match=message):
        act()


def test_missing_values_with_a_mask_are_welcome():
    x = holding(np.nan)
    result = fit(Batch(x, mask=~np.isnan(x)))
    assert np.isfinite(result.history["objective"]).all()


def test_the_package_lists_its_names():
    assert {"log_terms", "kl_divergence", "estimators", "Batch"} <= set(dir(vaejax))
    assert all(getattr(vaejax, name) is not None for name in vaejax.__all__)
