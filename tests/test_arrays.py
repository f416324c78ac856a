"""Arrays of other libraries and numbers beyond the device's types, at every entrance."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import polars
import pytest
import scipy.sparse

import vaejax
from tests.helpers import slow_unless
from vaejax import Batch, arrays, checks
from vaejax.dists.backend import distrax

X = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
MODEL = vaejax.models.vae(x_shape=3, latent_size=1, hidden_sizes=(4,))
KEY = jax.random.key(0)


class Tensor:
    """A tensor of another library that offers one of the two protocols."""

    def __init__(self, values, protocol):
        self.values = values
        setattr(type(self), protocol, lambda self, *args, **options: getattr(self.values, protocol)(*args, **options))


class ArrayTensor(Tensor):
    pass


class DLPackTensor(Tensor):
    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


ACCEPTED = {
    "float64": X,
    "big-endian": X.astype(">f8"),
    "big-endian integers": X.astype(">i4"),
    "Fortran order": np.asfortranarray(X),
    "negative strides": np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "every second column": np.repeat(X, 2, axis=1)[:, ::2],
    "long double": X.astype(np.longdouble),
    "float16": X.astype(np.float16),
    "bool": X.astype(bool),
    "uint64": X.astype(np.uint64),
    "numpy.matrix": np.matrix(X) if hasattr(np, "matrix") else X,
    "nested list": X.tolist(),
    "nested list of ints": X.astype(int).tolist(),
    "masked array without masked entries": np.ma.masked_array(X),
    "pandas frame": pandas.DataFrame(X, columns=list("abc")),
    "pandas nullable integers": pandas.DataFrame(X).astype("Int64"),
    "pandas booleans": pandas.DataFrame(X.astype(bool)).astype("boolean"),
    "pandas sparse columns": pandas.DataFrame(X).astype(pandas.SparseDtype(float, 0.0)),
    "pandas frame of several types": pandas.DataFrame(
        {"a": X[:, 0].astype(int), "b": X[:, 1], "c": X[:, 2].astype(bool)}
    ),
    "polars frame": polars.DataFrame(X),
    "polars frame of several types": polars.DataFrame(
        {"a": X[:, 0].astype(int), "b": X[:, 1], "c": X[:, 2].astype(bool)}
    ),
    "__array__": ArrayTensor(X, "__array__"),
    "DLPack": DLPackTensor(X, "__dlpack__"),
    "DLPack bfloat16": DLPackTensor(jnp.asarray(X, jnp.bfloat16), "__dlpack__"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_same_numbers_whatever_holds_them(name):
    batch = vaejax.as_batch(ACCEPTED[name])
    assert batch.mask is None
    np.testing.assert_array_equal(np.asarray(batch.x, np.float64), X)
    assert jax.jit(lambda x: x)(batch.x).shape == X.shape


EVERYWHERE = ["big-endian", "long double", "pandas frame", "polars frame", "nested list"]


@pytest.mark.parametrize("name", slow_unless(lambda name: name in ("pandas frame", "nested list"), EVERYWHERE))
def test_every_entrance_takes_them(name):
    x, estimator = ACCEPTED[name], vaejax.estimators.pathwise(MODEL, vaejax.objectives.elbo)
    options = {"estimator": estimator, "optimizer": optax.adam(1e-2), "num_epochs": 1, "batch_size": 2}
    expected, result = (
        vaejax.train.fit(KEY, MODEL, data, validation=data, **options).history for data in (X.astype("f"), x)
    )
    np.testing.assert_array_equal(result["validation_elbo"], expected["validation_elbo"])
    params = MODEL.init(KEY, x)
    for evaluation in (vaejax.evaluate.elbo, vaejax.evaluate.log_marginal):
        values, reference = (evaluation(MODEL, params, KEY, d, num_samples=2).estimate for d in (x, X.astype("f")))
        np.testing.assert_array_equal(values, reference)
    state = vaejax.train.init(KEY, MODEL, estimator, optax.adam(1e-2), x)
    train_step = vaejax.train.make_train_step(estimator, optax.adam(1e-2))
    state, _ = train_step(state, x)
    epoch = vaejax.train.make_epoch(estimator, optax.adam(1e-2), batch_size=2)
    assert np.isfinite(epoch(state, x)[1]["objective"]).all()


MISSING = np.array([[True, False, True], [True, True, True], [True, True, True], [False, True, True]])
HOLES = np.where(MISSING, X, np.nan)


@pytest.mark.parametrize(
    "x",
    [
        np.ma.masked_array(X, ~MISSING),
        np.ma.masked_array(HOLES, ~MISSING),
        pandas.DataFrame(HOLES).astype("Int64"),
        pandas.DataFrame(HOLES).astype("boolean"),
        polars.DataFrame(HOLES).fill_nan(None),
    ],
    ids=["masked", "masked NaN", "Int64", "boolean", "polars"],
)
def test_entries_marked_as_missing_become_the_mask(x):
    batch = checks.batch(x)
    np.testing.assert_array_equal(batch.mask, MISSING)
    np.testing.assert_array_equal(np.asarray(batch.x, float) * MISSING, X * MISSING)
    params = MODEL.init(KEY, batch)
    values, expected = (
        vaejax.evaluate.elbo(MODEL, params, KEY, data, num_samples=2).estimate
        for data in (x, Batch(np.asarray(X, np.asarray(batch.x).dtype), mask=MISSING))
    )
    np.testing.assert_array_equal(values, expected)
    # A mask that is passed beside it hides further entries.
    both = vaejax.as_batch(Batch(x, mask=np.arange(3) < 2 + np.zeros((4, 1))))
    np.testing.assert_array_equal(both.mask, MISSING & (np.arange(3) < 2))


def test_contexts_and_weights_are_converted():
    codes = vaejax.as_batch(Batch(X, context=pandas.Series(["b", "a", "b", "c"], dtype="category"))).context
    np.testing.assert_array_equal(codes, [1, 0, 1, 2])
    codes = vaejax.as_batch(Batch(X, context=polars.Series(["b", "a", "b", "c"], dtype=polars.Enum(["a", "b", "c"]))))
    np.testing.assert_array_equal(codes.context, [1, 0, 1, 2])
    both = Batch(X, context={"age": pandas.Series([7, 8, 9, 10]), "group": [0, 1, 1, 0]}, weight=[1, 2, 3, 1])
    batch = checks.batch(both)
    np.testing.assert_array_equal(batch.context["age"], [7, 8, 9, 10])
    np.testing.assert_array_equal(batch.context["group"], [0, 1, 1, 0])
    np.testing.assert_array_equal(batch.weight, [1, 2, 3, 1])
    with pytest.raises(ValueError, match="category in every row, got none in row 1"):
        vaejax.as_batch(Batch(X, context=pandas.Series(["b", None, "b", "c"], dtype="category")))


REFUSED = {
    "sparse matrix": (scipy.sparse.csr_matrix(X), TypeError, r"sparse csr_matrix.*x.toarray\(\)"),
    "sparse array": (scipy.sparse.coo_array(X), TypeError, r"x.toarray\(\)"),
    "text column": (pandas.DataFrame({"a": ["u", "v"]}), TypeError, "column 'a' of x must hold real numbers"),
    "text column of polars": (
        polars.DataFrame({"a": ["u", "v"]}),
        TypeError,
        "real numbers, got dtype object with 'u'",
    ),
    "categories as x": (pandas.Series(["u"], dtype="category"), TypeError, "got categories"),
    "dates": (pandas.DataFrame({"a": pandas.to_datetime(["2020-01-01"])}), TypeError, "dtype datetime64"),
    "lazy frame": (polars.DataFrame({"a": [1]}).lazy(), TypeError, r"Use x.collect\(\)"),
    "None in a list": ([[1, None]], TypeError, "None at index .0, 1.. Mark missing entries"),
    "int64 beyond int32": (np.array([[3_000_000_000]]), ValueError, "3000000000 at index .0, 0.. Rescale"),
    "int64 below int32": (np.array([[-3_000_000_000]]), ValueError, "-3000000000 at index"),
    "uint64": (np.array([[2**63]], np.uint64), ValueError, "uint32 can represent, got 9223372036854775808"),
    "Python integer": ([[3_000_000_000]], ValueError, "got 3000000000"),
    "Python integer beyond 64 bits": ([[2**70]], ValueError, f"got {2**70}"),
    "pandas integers": (pandas.DataFrame({"a": [2**31]}), ValueError, "got 2147483648"),
    "float64 beyond float32": (np.array([[1e300]]), ValueError, "float32 can represent, got 1e.300"),
    "long double": (np.array([[1e300]], np.longdouble), ValueError, "float32 can represent"),
    "integers that a float column rounds": (
        pandas.DataFrame({"a": [2**60 + 1], "b": [0.5]}),
        ValueError,
        f"column 'a' of x must hold values that float64 can represent, got {2**60 + 1}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_words(name):
    x, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        vaejax.as_batch(x)


def test_large_integers_are_refused_wherever_they_enter():
    large = 3_000_000_000 + np.arange(12, dtype=np.int64).reshape(4, 3)
    model = vaejax.models.vae(x_shape=3, latent_size=1, hidden_sizes=(4,), likelihood="normal")
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    params, optimizer = model.init(KEY, None), optax.adam(1e-2)
    state = vaejax.train.init(KEY, model, estimator, optimizer, np.ones((4, 3)))
    entrances = {
        "init": lambda x: model.init(KEY, x),
        "train.init": lambda x: vaejax.train.init(KEY, model, estimator, optimizer, x),
        "fit": lambda x: vaejax.train.fit(
            KEY, model, x, estimator=estimator, optimizer=optimizer, num_epochs=1, batch_size=2
        ),
        "validation": lambda x: vaejax.train.fit(
            KEY,
            model,
            np.ones((4, 3)),
            validation=x,
            estimator=estimator,
            optimizer=optimizer,
            num_epochs=1,
            batch_size=2,
        ),
        "elbo": lambda x: vaejax.evaluate.elbo(model, params, KEY, x),
        "log_terms": lambda x: vaejax.log_terms(model, params, KEY, x),
        "a compiled step": lambda x: vaejax.train.make_train_step(estimator, optimizer)(state, x),
        "a compiled epoch": lambda x: vaejax.train.make_epoch(estimator, optimizer, batch_size=2)(state, x),
        "a mixture": lambda x: vaejax.conjugate.gmm.fit_em(KEY, x, 1),
        "a context": lambda x: checks.batch(Batch(np.ones((4, 3)), context=x)),
    }
    for name, act in entrances.items():
        with pytest.raises(ValueError) as error:
            act(large)
        assert "3000000000" in str(error.value), name


def test_hidden_entries_may_hold_anything():
    x = np.where(MISSING, X, 1e300)
    assert vaejax.as_batch(Batch(x, mask=MISSING)).x.shape == X.shape
    x = np.where(MISSING, X.astype(np.int64), 2**40)
    batch = vaejax.as_batch(Batch(x, mask=MISSING))
    np.testing.assert_array_equal(batch.x * MISSING, X * MISSING)


def test_lost_precision_is_reported():
    rng = np.random.default_rng(0)
    far = np.stack([1.7e9 + np.round(60 * rng.normal(size=500), 3), rng.normal(size=500)], axis=1)
    assert len(np.unique(far[:, 0].astype("f"))) < 0.99 * len(np.unique(far[:, 0]))
    assert arrays.rounded_entries(far).tolist() == [True, False]
    shown = np.ones(far.shape, bool)
    shown[:, 0] = np.arange(500) < 2
    far[1, 0] = far[0, 0] + 2**20
    assert not arrays.rounded_entries(far, shown).any()
    # float32 makes 1e9 + 100 1e9 + 128: as many values, another spread.
    assert arrays.rounded_entries(np.repeat([[1e9], [1e9 + 100]], 10, axis=0)).tolist() == [True]
    assert not arrays.rounded_entries(rng.normal(size=(5000, 20)) @ np.ones((20, 3))).any()
    assert not arrays.rounded_entries(np.array([[0.3], [0.1 + 0.2], [0.5]])).any()
    counts = 2**26 + 1000 * np.arange(20)[:, None] + 1
    assert not arrays.rounded_entries(counts).any()
    assert arrays.rounded_entries(counts, integers=True).all()
    assert arrays.rounded_entries(2**30 + np.arange(3, dtype=np.int32)[:, None]).all()
    with jax.enable_x64(True):
        assert not arrays.rounded_entries(1.7e9 + rng.normal(size=(50, 1))).any()
    with pytest.warns(UserWarning, match=r"data loses precision in float32 .* in column 0, 1. Standardize"):
        checks.batch(1.7e9 + rng.normal(size=(50, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.batch(rng.normal(size=(50, 2)))


@pytest.mark.parametrize("content", [np.nan, 7.0, 1e30, -1.0])
def test_what_stands_in_absent_examples_is_not_read(content):
    """Rows of weight 0 may hold NaN and values outside the support: nothing changes, to the bit."""
    weight = np.array([1.0, 2.0, 0.0, 1.0], np.float32)
    changed = X.astype(np.float32).copy()
    changed[2] = content
    batches = [Batch(X.astype(np.float32), weight=weight), Batch(changed, weight=weight)]
    estimator, optimizer = vaejax.estimators.pathwise(MODEL, vaejax.objectives.elbo), optax.adam(1e-2)
    params = MODEL.init(KEY, batches[0])
    jax.tree.map(np.testing.assert_array_equal, MODEL.init(KEY, batches[1]), params)
    gradients = [jax.jit(estimator.estimate)(params, (), KEY, batch)[0].grads for batch in batches]
    jax.tree.map(np.testing.assert_array_equal, *gradients)
    options = {"estimator": estimator, "optimizer": optimizer, "num_epochs": 2, "batch_size": 2}
    fits = [vaejax.train.fit(KEY, MODEL, batch, validation=batch, **options) for batch in batches]
    jax.tree.map(np.testing.assert_array_equal, fits[0].state.params, fits[1].state.params)
    np.testing.assert_array_equal(fits[0].history["validation_elbo"], fits[1].history["validation_elbo"])
    results = [vaejax.evaluate.elbo(MODEL, params, KEY, batch, num_samples=2) for batch in batches]
    assert vaejax.evaluate.mean_estimate(results[0]) == vaejax.evaluate.mean_estimate(results[1])


@pytest.mark.wants_nan
def test_absent_examples_stay_in_the_support_and_their_contexts_are_not_read():
    """Compiled estimates with weights equal those of the rows that are present."""
    gamma = vaejax.Model(
        init=None,
        posterior=lambda params, x: vaejax.dists.diagonal_normal(jnp.zeros((x.shape[0], 1)), 1.0),
        prior=lambda params: vaejax.dists.standard_normal(1),
        likelihood=lambda params, z: distrax.Independent(distrax.Gamma(jnp.exp(params * z + jnp.zeros(2)), 1.0), 1),
    )
    estimator = vaejax.estimators.pathwise(gamma, vaejax.objectives.elbo)
    weighted = Batch(2 * jnp.ones((3, 2)), weight=jnp.array([1.0, 1.0, 0.0]))
    gradient = jax.jit(estimator.estimate)(0.5, (), KEY, weighted)[0].grads
    moved = jax.jit(estimator.estimate)(0.5, (), KEY, weighted._replace(x=weighted.x.at[2].set(jnp.nan)))[0].grads
    assert np.isfinite(gradient)
    assert gradient == moved
    model = vaejax.models.vae(x_shape=3, latent_size=1, hidden_sizes=(4,), context_size=1)
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    context = np.array([[1.0], [np.nan], [2.0], [3.0]], np.float32)
    batch = Batch(X.astype("f"), context=context, weight=np.array([1.0, 0.0, 1.0, 1.0], np.float32))
    grads = jax.jit(estimator.estimate)(model.init(KEY, None), (), KEY, batch)[0].grads
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_absent_examples_along_two_axes():
    x = np.ones((2, 2, 3), np.float32)
    x[0, 1] = np.nan
    batch = Batch(x, weight=np.array([[1.0, 0.0], [1.0, 1.0]]))
    values = vaejax.evaluate.elbo(MODEL, MODEL.init(KEY, None), KEY, batch, num_samples=2)
    assert values.estimate.shape == (2, 2)
    assert np.isfinite(values.estimate).all()


def test_lost_precision_of_a_context_is_reported():
    with pytest.warns(UserWarning, match=r"data.context loses precision in float32"):
        checks.batch(Batch(X, context=1.7e9 + np.arange(4.0)[:, None]))
