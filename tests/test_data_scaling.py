"""Description and standardisation: exact numbers, and densities that come back in the original units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaejax import Batch, data
from vaejax.report.narrow import narrowed


def dataset(*parts, mask=None, **fields):
    masks = (None,) * 3 if mask is None else mask
    return data.Dataset(*(Batch(np.asarray(x), mask=m) for x, m in zip(parts, masks)), None, None, "mine")._replace(
        **fields
    )


def test_a_summary_counts_what_is_observed():
    x = np.array([[1.5, 9.0, 2.0], [3.0, -4.0, 2.0]], np.float32)
    masks = (np.array([[True, False, True], [True, True, True]]), np.ones((2, 3), bool), np.zeros((2, 3), bool))
    summary = data.describe(dataset(x, x[:, ::-1] * [1, 0, 1], np.full((2, 3), 99.0), mask=masks))
    assert summary == data.Summary("mine", 2, 2, 2, (3,), "float32", "real", -4.0, 3.0, 7 / 18, 2, None)
    assert str(summary) == (
        "mine: 2 train, 2 validation, 2 test\n  each 3, float32, real from -4 to 3\n"
        "  38.9 % of the entries are missing; 2 of 3 entries never vary in train"
    )


@pytest.mark.parametrize(
    ("x", "levels", "kind"),
    [
        (np.array([[0, 1]], np.uint8), None, "binary"),
        (np.array([[0.0, 1.0]], np.float32), None, "binary"),
        (np.array([[0, 1]], np.uint8), 16, "counts"),
        (np.array([[0, 2]], np.uint8), None, "counts"),
        (np.array([[0.0, 2.0]], np.float32), None, "counts"),
        (np.array([[-1, 2]], np.int32), None, "real"),
        (np.array([[0.5, 1.0]], np.float32), None, "real"),
    ],
)
def test_kinds(x, levels, kind):
    assert data.describe(dataset(x, x, x, levels=levels)).kind == kind


def test_classes_are_counted_in_all_parts():
    x = np.zeros((2, 1), np.uint8)
    labels = {"train": np.array([0, 1]), "validation": np.array([1, 1]), "test": np.array([2, 0])}
    assert data.describe(dataset(x, x, x, labels=labels)).classes == 3
    assert data.describe(dataset(x, x, x, labels=labels, label_names=("a", "b", "c", "d"))).classes == 4


def test_standardised_by_what_is_observed_in_train():
    train = np.array([[1.0, 10.0], [3.0, 77.0], [5.0, 30.0]], np.float32)
    mask = np.array([[True, True], [True, False], [True, True]])
    test = np.array([[3.0, 40.0]], np.float32)
    standardised, scaling = data.standardize(
        dataset(train, test, test, mask=(mask, np.ones((1, 2), bool), np.array([[True, False]])))
    )
    np.testing.assert_allclose(scaling.mean, [3, 20])
    np.testing.assert_allclose(scaling.scale, [np.sqrt(8 / 3), 10], rtol=1e-6)
    np.testing.assert_allclose(standardised.train.x[:, 1], [-1, 0, 1])
    np.testing.assert_allclose(standardised.validation.x, [[0, 2]])
    np.testing.assert_allclose(standardised.test.x, [[0, 0]])
    assert standardised.train.x.dtype == np.float32
    np.testing.assert_array_equal(standardised.train.mask, mask)
    np.testing.assert_allclose(
        data.log_scale_sum(scaling, standardised.train), np.log(8 / 3) / 2 + np.log(10) * mask[:, 1], rtol=1e-6
    )


def test_the_log_density_in_the_original_units(x64):
    """A Gaussian in standardised units, brought back by log_scale_sum, is the Gaussian of the original units."""
    x = np.random.default_rng(0).normal([5, -300], [0.2, 70], (40, 2))
    mask = np.random.default_rng(1).random((40, 2)) > 0.3
    standardised, scaling = data.standardize(dataset(x, x, x, mask=(mask,) * 3))

    def log_density(x, loc, scale):
        each = -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)
        return jnp.where(mask, each, 0).sum(-1)

    mean, scale = (jnp.asarray(v, float) for v in scaling)
    back = log_density(jnp.asarray(standardised.train.x), 0.0, 1.0) - jax.jit(data.log_scale_sum)(
        scaling, standardised.train
    )
    np.testing.assert_allclose(back, log_density(x, mean, scale), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("train", "fields", "message"),
    [
        ([[1.5, 2], [1.5, 3]], {"columns": ("a", "b")}, r"entries never vary in train: 'a'; remove them"),
        ([[[1.5, 2]], [[1.5, 3]]], {}, r"\(0, 0\); remove them: the density of a constant is infinite"),
        ([[0, 1], [1, 0]], {}, "mine is binary, and standardize is for real values"),
        ([[0.5, 1], [1, 0]], {"levels": 16}, "mine is grey levels"),
        ([[0.0, 1], [1e-30, 0]], {}, "too many standard deviations from the mean for float32"),
    ],
)
def test_what_cannot_be_standardised(train, fields, message):
    train = np.array(train, np.float32)
    other = train + 1e10 if "many" in message else train
    with pytest.raises(ValueError, match=message):
        data.standardize(dataset(train, other, train, **fields))


def test_an_entry_never_observed_is_constant():
    x, mask = np.array([[1.5, 2], [2.5, 3]], np.float32), np.array([[True, False], [True, False]])
    with pytest.raises(ValueError, match=r"train: 1; remove them"):
        data.standardize(dataset(x, x, x, mask=(mask,) * 3))


def test_a_scaling_of_another_shape():
    scaling = data.Scaling(np.zeros(3, np.float32), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"x must have shape \[\*batch, 3\]"):
        data.log_scale_sum(scaling, jnp.zeros((4, 2)))


def weighted(x, weight, mask=None):
    part = Batch(np.asarray(x), mask=mask, weight=np.asarray(weight))
    return data.Dataset(part, part, part, None, None, "mine")


@pytest.mark.parametrize("absent", [99.0, 1e300, np.nan])
def test_rows_of_weight_zero_do_not_standardise(absent):
    padded = weighted([1.5, 3.5, absent], [1, 1, 0])
    standardised, (mean, scale) = data.standardize(padded)
    assert (float(mean), float(scale)) == (2.5, 1.0)
    np.testing.assert_array_equal(standardised.train.x[:2], [-1, 1])
    np.testing.assert_array_equal(standardised.train.weight, [1, 1, 0])
    assert data.describe(padded)[6:11] == ("real", 1.5, 3.5, 0.0, 0)
    with pytest.raises(ValueError, match="never vary in train"):
        data.standardize(weighted([1.5, 1.5, absent], [1, 1, 0]))


def test_rows_of_weight_zero_may_overflow():
    standardised, scaling = data.standardize(weighted([0.0, 2e-10, 1e300], [1, 1, 0]))
    np.testing.assert_allclose(scaling.mean, 1e-10)
    np.testing.assert_allclose(standardised.train.x[:2], [-1, 1])


def test_weights_standardise_as_repeated_rows():
    rng = np.random.default_rng(0)
    x, mask, weight = rng.normal(5, 3, (9, 2)), rng.random((9, 2)) > 0.3, np.arange(9) % 4
    _, scaling = data.standardize(weighted(x, weight, mask))
    rows = np.ma.masked_array(x.repeat(weight, 0), ~mask.repeat(weight, 0))
    np.testing.assert_allclose(scaling.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(scaling.scale, rows.std(0), rtol=1e-12)
    # A common factor of the weights changes nothing, even where they sum to less than 1.
    _, other = data.standardize(weighted(x, weight / 100, mask))
    np.testing.assert_allclose(other, scaling, rtol=1e-12)
    assert data.describe(weighted(x, weight, mask)).missing == pytest.approx(rows.mask.mean())


def test_rows_of_weight_zero_do_not_shift():
    x = np.array([[1.7e9 + 0.25], [1.7e9 + 0.5], [1e300]])
    rows, offset = narrowed(weighted(x, [1, 1, 0]), shift=True)
    assert offset.tolist() == [1.7e9 + 0.375]
    assert rows.train.x[:2].tolist() == [[-0.125], [0.125]]
