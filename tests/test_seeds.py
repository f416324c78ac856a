"""Seeds of any size: no two of them give the same numbers, and those below 2³² keep theirs."""

import jax
import numpy as np
import pytest

from vaejax import data, random
from vaejax.data.splits import permutation
from vaejax.report import exact, full, job, revisit
from vaejax.report.config import RunConfig, Training
from vaejax.report.fit_options import Ppca

LARGE = (2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 2**96, 2**200, 10**1000)
SEEDS = (0, 1, 2, *LARGE)


def words(key):
    return tuple(jax.random.key_data(key).tolist())


def test_seeds_below_32_bits_keep_their_keys():
    for seed in (0, 1, 12345, 2**31, 2**32 - 1):
        assert words(random.seed_key(seed)) == words(jax.random.key(seed))


def test_seeds_below_64_bits_have_the_keys_of_x64(x64):
    for seed in (2**32, 2**40 + 3, 2**63, 2**64 - 1):
        # The words of the number itself, and what JAX makes of it where it has 64 bits.
        assert words(random.seed_key(seed)) == (seed >> 32, seed % 2**32) == words(jax.random.key(np.uint64(seed)))


def test_no_two_seeds_share_a_key():
    assert len({words(random.seed_key(seed)) for seed in SEEDS}) == len(SEEDS)
    many = {words(random.seed_key(2**64 + i)) for i in range(200)}
    assert len(many) == 200


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64, int])
def test_integers_of_numpy_are_seeds(kind):
    assert words(random.seed_key(kind(7))) == words(jax.random.key(7))


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_four_words(impl):
    with jax.default_prng_impl(impl):
        small, large = random.seed_key(7), random.seed_key(2**32 + 7)
        assert words(small) == words(jax.random.key(7))
        assert words(large) == (1, 7, 1, 7)
        assert large.dtype == small.dtype


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "must be at least 0, got -1"),
        (np.int64(-3), ValueError, "must be at least 0, got -3"),
        (True, TypeError, "must be an integer, got True of type bool"),
        (np.bool_(False), TypeError, "must be an integer"),
        (1.0, TypeError, "must be an integer, got 1.0 of type float"),
        ("1", TypeError, "must be an integer, got '1' of type str"),
    ],
)
def test_what_is_no_seed(seed, error, message):
    with pytest.raises(error, match=message):
        random.seed_key(seed)
    with pytest.raises(error, match=f"seed= {message}"):
        permutation(4, seed)
    with pytest.raises(error, match=message):
        data.sprites(size=8, count=2, seed=seed)
    with pytest.raises(error, match=message):
        job.plan(RunConfig(name="digits", training=Training(seed=seed)))
    with pytest.raises(error, match=f"--seed {message}"):
        exact.plan(Ppca(dataset="digits", seed=seed))
    for reopen in (revisit.evaluate_run, revisit.plot_run, revisit.sample_run, full.report_run):
        # A bad seed is refused before the run, which does not exist here, is opened.
        some = {"split": "test", "samples": 1, "use": None, "progress": None}
        options = {
            revisit.plot_run: {"out": None, "only": None, "use": None, "kind": "png"},
            revisit.sample_run: {"out": None, "count": 1, "ancestral": True, "label": None, "use": None},
        }.get(reopen, some)
        with pytest.raises(error, match=message):
            reopen("nowhere", seed=seed, **options)


def test_shuffles_by_large_seeds_differ():
    assert len({tuple(permutation(100, seed).tolist()) for seed in SEEDS}) == len(SEEDS)


def test_runs_by_large_seeds_differ():
    keys = [job.keys(RunConfig(training=Training(seed=seed))) for seed in SEEDS]
    for use in ("fit", "test", "evaluate", "plot"):
        assert len({words(one[use]) for one in keys}) == len(SEEDS)
    first = jax.random.split(jax.random.key(5), 4)
    assert words(job.keys(RunConfig(training=Training(seed=5)))["fit"]) == words(first[0])


def test_random_states_of_scikit():
    from vaejax.conjugate.scikit.common import key_of

    for use in ("fit", "sample"):
        assert len({words(key_of(seed, use)) for seed in SEEDS}) == len(SEEDS)
    assert words(key_of(3, "fit")) != words(key_of(3, "sample"))
    assert words(key_of(np.int64(3), "fit")) == words(key_of(3, "fit"))
    state = np.random.RandomState(0)
    # An instance moves on, and another from the same seed gives the same keys.
    first, second = words(key_of(state, "fit")), words(key_of(state, "fit"))
    assert first != second
    assert words(key_of(np.random.RandomState(0), "fit")) == first
    # All 64 bits are drawn: 2000 states of 31 bits would repeat one in a thousand times, and bits above would be 0.
    high = {words(key_of(np.random.RandomState(i), "fit"))[0] for i in range(50)}
    assert len(high) == 50
    with pytest.raises(ValueError, match="random_state must be at least 0, got -1"):
        key_of(-1, "fit")
    with pytest.raises(TypeError, match="random_state must be an integer, got True"):
        key_of(True, "fit")
