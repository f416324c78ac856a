"""Permutations are permutations, and as random as sorting random numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vaejax.train.shuffle import permutation


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 16, 63, 64, 65, 100, 1000, 4097, 60_000])
def test_every_number_comes_once(key, size):
    assert np.array_equal(np.sort(permutation(key, size)), np.arange(size))


def many(key, size, count):
    return np.asarray(jax.jit(jax.vmap(lambda k: permutation(k, size)))(jax.random.split(key, count)))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_all_orders_of_a_few_are_equally_likely(key, size):
    found = many(key, size, 12_000)
    codes = {order: i for i, order in enumerate(itertools.permutations(range(size)))}
    counts = np.bincount([codes[tuple(order)] for order in found.tolist()], minlength=len(codes))
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("size", [24, 100])
def test_each_row_is_equally_likely_in_each_place_and_beside_each_other(key, size):
    found = many(key, size, 10_000)
    places = np.zeros((size, size))
    np.add.at(places, (np.broadcast_to(np.arange(size), found.shape).ravel(), found.ravel()), 1)
    following = np.zeros((size, size))
    np.add.at(following, (found[:, :-1].ravel(), found[:, 1:].ravel()), 1)
    beside = following[~np.eye(size, dtype=bool)]
    for counts, freedom in ((places.ravel(), (size - 1) ** 2), (beside, size * (size - 1) - 1)):
        statistic = np.sum((counts - counts.mean()) ** 2) / counts.mean()
        # Normal enough at so many degrees of freedom; rows and neighbours exclude each other, which takes away a little variance.
        assert abs(statistic - freedom) / np.sqrt(2 * freedom) < 5


def test_batches_hold_as_many_of_a_class_as_by_sorting(key):
    """The number of the first 300 of 1000 rows that fall into the first batch of 100: hypergeometric, variance included."""
    first = many(key, 1000, 2000)[:, :100]
    count = (first < 300).sum(1)
    exact = stats.hypergeom(1000, 300, 100)
    assert abs(count.mean() - exact.mean()) < 5 * exact.std() / np.sqrt(len(count))
    assert abs(count.var() / exact.var() - 1) < 5 * np.sqrt(2 / len(count))


def test_another_key_gives_another_order(key):
    one, other = (permutation(k, 1000) for k in jax.random.split(key))
    assert int(jnp.sum(one == other)) < 10


@pytest.mark.parametrize(("size", "error"), [(-3, ValueError), (2**31, ValueError), (5.0, TypeError)])
def test_sizes_that_are_none(key, size, error):
    with pytest.raises(error):
        permutation(key, size)
