"""Numbers of vaejax.random are those of jax.random, whatever the key, the shape and the type; normal ones but for rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from vaejax import random

SHAPES = [(), (3, 0), (2, 3, 5), (1000,)]


def same_to_the_bit(found, exact):
    np.testing.assert_array_equal(found, exact)


def same_but_for_rounding(found, exact):
    np.testing.assert_allclose(found, exact, rtol=1e-5)


@pytest.mark.parametrize(("shape", "compiled"), [*((shape, False) for shape in SHAPES), ((2, 3, 5), True)])
@pytest.mark.parametrize("kind", ["bits", "uniform", "normal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_they_are_jaxs(kind, shape, dtype, compiled):
    compare = same_but_for_rounding if kind == "normal" and dtype == np.float32 else same_to_the_bit
    with jax.enable_x64(dtype == np.float64):
        words = {np.float32: jnp.uint32, np.float64: jnp.uint64}.get(dtype, jnp.uint8)
        wanted = words if kind == "bits" else dtype
        ours, theirs = (
            (lambda key, f=f: f(key, shape, wanted)) for f in (getattr(random, kind), getattr(jax.random, kind))
        )
        if compiled:
            ours, theirs = jax.jit(ours), jax.jit(theirs)
        for seed in (0, 123456789):
            key = jax.random.key(seed)
            found, exact = ours(key), theirs(key)
            assert (found.dtype, found.shape) == (exact.dtype, exact.shape)
            compare(found, exact)
        keys = jax.random.split(jax.random.key(5), 4)
        compare(jax.vmap(ours)(keys), jax.vmap(theirs)(keys))


def test_ranges_defaults_and_other_keys():
    key = jax.random.key(1)
    low, high = jnp.array([0.0, 2.0, -3.0]), jnp.array([1.0, 2.5, 3.0])
    np.testing.assert_array_equal(
        random.uniform(key, (5, 3), jnp.float32, low, high), jax.random.uniform(key, (5, 3), jnp.float32, low, high)
    )
    for x64 in (False, True):
        with jax.enable_x64(x64):
            for name in ("uniform", "normal"):
                found, exact = getattr(random, name)(key, (4,)), getattr(jax.random, name)(key, (4,))
                assert found.dtype == exact.dtype
                (same_but_for_rounding if name == "normal" else same_to_the_bit)(found, exact)
    other = jax.random.key(1, impl="rbg")
    np.testing.assert_array_equal(random.normal(other, (4,)), jax.random.normal(other, (4,)))
    np.testing.assert_array_equal(random.bits(other, (4,)), jax.random.bits(other, (4,), jnp.uint32))
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(random.normal(key, (5,)), jax.random.normal(key, (5,)))


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("uniform", np.float64, jnp.float32),
        ("uniform", float, jnp.float32),
        ("normal", np.float64, jnp.float32),
        ("normal", float, jnp.float32),
        ("bits", np.uint64, jnp.uint32),
    ],
)
def test_types_and_shapes_as_they_come_without_x64(name, given, kind):
    """float64, uint64 and Python's float mean what there is; a number is a shape too."""
    key, compare = jax.random.key(2), same_but_for_rounding if name == "normal" else same_to_the_bit
    found = getattr(random, name)(key, 9, given)
    assert found.dtype == kind
    compare(found, getattr(jax.random, name)(key, (9,), kind))


@pytest.mark.parametrize("name", ["bits", "uniform", "normal"])
def test_what_jax_refuses_is_refused(name):
    with pytest.raises(ValueError, match="single key"):
        getattr(random, name)(jax.random.split(jax.random.key(0)), (5, 2))
    with pytest.raises(ValueError, match="single key"):
        random.fold_in(jax.random.split(jax.random.key(0)), 1)
    with pytest.raises(TypeError):
        random.uniform(jax.random.key(0), (3,), minval=jnp.zeros((2, 3)))
    with jax.debug_key_reuse(True):
        key = jax.random.key(0)
        getattr(random, name)(key, (3,))
        with pytest.raises(jax.errors.KeyReuseError):
            getattr(random, name)(key, (3,))


def test_outside_a_program_it_is_compiled_all_the_same():
    """One program for a call, not a dispatch for each operation of it."""
    key = jax.random.key(3)
    for draw in (lambda: random.normal(key, (7,)), lambda: random.fold_in(key, 7), lambda: random.uniform(key, (7,))):
        draw()
    before = random._normal._cache_size(), random._uniform._cache_size(), random._fold_in._cache_size()
    random.normal(key, (7,)), random.uniform(key, (7,)), random.fold_in(key, 8)
    assert (random._normal._cache_size(), random._uniform._cache_size(), random._fold_in._cache_size()) == before
    assert all(before)


@pytest.mark.parametrize("data", [0, 1, 2**32 - 1, np.uint32(77), jnp.int32(5), jnp.int32(-3)])
def test_folded_keys_are_jaxs(data):
    key = jax.random.key(8)
    assert random.fold_in(key, data) == jax.random.fold_in(key, data)
    assert jax.jit(random.fold_in)(key, jnp.asarray(data, jnp.uint32)) == jax.random.fold_in(
        key, jnp.asarray(data, jnp.uint32)
    )
    keys = jax.random.split(key, 3)
    found = jax.vmap(random.fold_in, in_axes=(0, None))(keys, data)
    assert (found == jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)).all()
    other = jax.random.key(8, impl="rbg")
    assert random.fold_in(other, 3) == jax.random.fold_in(other, 3)


def test_normal_numbers_are_exact_to_the_float():
    """√2 erf⁻¹(u) in double precision, at the ends of the range too."""
    key = jax.random.key(2)
    u = np.asarray(
        random.uniform(key, (1_000_000,), np.float32, np.nextafter(np.float32(-1), np.float32(0)), 1.0), np.float64
    )
    exact = np.sqrt(2) * erfinv(u)
    found = np.asarray(random.normal(key, (1_000_000,), np.float32), np.float64)
    assert np.abs(u).max() > 1 - 1e-5
    assert np.abs(found / exact - 1).max() < 4e-7
    assert np.abs(np.asarray(jax.random.normal(key, (1_000_000,), np.float32)) / exact - 1).max() > 1e-6


def test_one_pass_without_a_loop():
    """What is won: no loop over the array, and every number from one kernel."""
    program = jax.jit(lambda key: random.normal(key, (64, 3))).lower(jax.random.key(0)).as_text()
    assert ("while" in program) == (jax.default_backend() != "cpu")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32, np.float64])
def test_outcomes_are_those_of_the_uniform_numbers(dtype):
    """But where the probability is no further from the number than a rounding; never at 0, always at 1."""
    with jax.enable_x64(dtype == np.float64):
        key, p = jax.random.key(3), jnp.linspace(0, 1, 50_000).astype(dtype)
        u = random.uniform(key, p.shape, jnp.promote_types(dtype, jnp.float32))
        apart = np.abs(u - p.astype(u.dtype)) > 4 * jnp.finfo(u.dtype).eps
        found = np.asarray(random.bernoulli(key, p))
        assert apart.mean() > 0.999
        np.testing.assert_array_equal(found[apart], np.asarray(u < p.astype(u.dtype))[apart])
        many = random.bernoulli(key, jnp.asarray([0.0, 1.0, 2.0, -1.0], dtype), (10_000, 4))
        assert many.all(0).tolist() == [False, True, True, False]
        assert many.any(0).tolist() == [False, True, True, False]


def test_outcomes_carry_no_gradient_and_no_nan():
    """Also at 0 and with a tangent of 0, where a root's would be no number."""
    with jax.debug_nans(True):
        value, slope = jax.jvp(
            lambda p: random.bernoulli(jax.random.key(0), p).astype(p.dtype), (jnp.array([0.0, 1.0]),), (jnp.zeros(2),)
        )
        assert value.tolist() == [0.0, 1.0]
        assert slope.tolist() == [0.0, 0.0]


def test_a_shape_that_is_another_is_refused():
    with pytest.raises(ValueError, match="broadcast"):
        random.bernoulli(jax.random.key(0), jnp.full((5, 1), 0.5), (3,))


def test_outcomes_are_drawn_once_however_many_read_them():
    """Of comparisons of bits alone the compiler makes the numbers again in each kernel that reads them."""
    weights = jnp.linspace(-1, 1, 200 * 7).reshape(200, 7)

    def read(key, p):
        z = random.bernoulli(key, p, (3, *p.shape)).astype(p.dtype)
        return z @ weights, jnp.sum(jnp.exp(z * p), -1), jnp.sum(jnp.cos(z - p), 0)

    program = jax.jit(read).lower(jax.random.key(0), jnp.full((50, 200), 0.5)).compile().as_text()
    assert program.count(" xor(") <= 30
