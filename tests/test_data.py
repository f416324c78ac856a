"""Datasets and binarisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import assert_mean
from vaejax import Batch, data


def test_digits_are_scikit_learns_and_split_without_overlap():
    from sklearn.datasets import load_digits

    source, digits = load_digits(), data.load("digits")
    parts = [digits.train, digits.validation, digits.test]
    assert [len(p.x) for p in parts] == [1260, 180, 357]
    together = np.concatenate([p.x for p in parts])
    np.testing.assert_array_equal(
        np.unique(together.reshape(-1, 64), axis=0), np.unique(source.images.reshape(-1, 64).astype(np.uint8), axis=0)
    )
    assert together.sum() == source.images.sum()
    np.testing.assert_array_equal(digits.test.x[0], source.images[80])
    assert digits.labels["test"][0] == source.target[80]
    # Every digit in every part, near its share.
    for labels in digits.labels.values():
        counts = np.bincount(labels, minlength=10) / len(labels)
        assert 0.06 < counts.min() < counts.max() < 0.13


@pytest.mark.parametrize("levels", [16, 255, 100, 1])
def test_probabilities_of_grey_levels_are_exact(levels, key):
    """Every level's frequency over 40,000 draws within 5 standard errors of level/levels; 0 and full exactly."""
    grey = jnp.arange(levels + 1, dtype=jnp.uint8)
    draws = data.binarize(key, jnp.tile(grey, (40_000, 1)), levels=levels)
    assert draws.dtype == jnp.float32
    assert set(np.unique(draws)) <= {0.0, 1.0}
    probability = np.arange(levels + 1) / levels
    error = np.sqrt(probability * (1 - probability) / 40_000)
    assert (np.abs(np.asarray(draws).mean(0) - probability) <= 5 * error + 1e-9).all()


@pytest.mark.slow
def test_the_shared_rounding_removes_the_bias_of_eight_bits(key):
    """Without it, level 127 of 255 would come up with probability 127/256: 0.0019 off, 39 standard errors here."""
    mean = np.mean(
        [
            data.binarize(k, jnp.full((20_000, 784), 127, jnp.uint8), levels=255).mean()
            for k in jax.random.split(key, 10)
        ]
    )
    # Pixels of one image share a rounding: the variance is p(1−p)/n plus the covariance bound 2^-18 per image.
    error = np.sqrt(0.25 / (200_000 * 784) + 2.0**-18 / 200_000)
    assert abs(mean - 127 / 255) < 5 * error
    assert abs(mean - 127 / 256) > 20 * error


def test_pixels_are_nearly_independent(key):
    draws = np.asarray(data.binarize(key, jnp.full((200_000, 5), 100, jnp.uint8), levels=255))
    covariance = np.cov(draws.T) - np.diag(draws.var(0))
    assert np.abs(covariance).max() < 5 * 0.25 / np.sqrt(200_000) + 2.0**-18


def test_float_images(key):
    draws = jax.vmap(lambda k: data.binarize(k, jnp.array([[0.0, 0.3, 1.0]])))(jax.random.split(key, 10_000))
    assert_mean(draws[:, 0], [0.0, 0.3, 1.0], cap=0.005)


def test_missing_entries_are_no_obstacle(key):
    x = jnp.array([[0.0, jnp.nan, 1.0]])
    batch = data.dynamic_binarization()(key, Batch(x, mask=~jnp.isnan(x)))
    np.testing.assert_array_equal(batch.x, [[0.0, 0.0, 1.0]])


def test_eight_bits_an_entry_and_no_more(key):
    """The compiled program draws a quarter of a 32-bit word for each entry."""
    jaxpr = jax.make_jaxpr(lambda k, x: data.binarize(k, x, levels=16))(key, jnp.zeros((10, 784), jnp.uint8))
    assert "u32[1960]" in str(jaxpr)
    assert "u32[7840]" not in str(jaxpr)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_either_type_are_met(key, dtype):
    """NumPy's own type too, whatever x64 is: one in 0.3, within five standard errors."""
    drawn = np.asarray(data.binarize(key, np.full((100, 784), 0.3, dtype)))
    assert abs(drawn.mean() - 0.3) < 5 * np.sqrt(0.21 / drawn.size)


def test_dynamic_binarization_is_afresh_for_each_key_and_keeps_the_rest(key):
    preprocess = data.dynamic_binarization(levels=16)
    batch = Batch(jnp.full((3, 50), 8, jnp.uint8), context=jnp.arange(3))
    a, b = (preprocess(k, batch) for k in jax.random.split(key))
    assert not np.array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.context, batch.context)
    np.testing.assert_array_equal(preprocess(key, batch).x, jax.jit(preprocess)(key, batch).x)
