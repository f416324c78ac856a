"""Bits, uniform and normal numbers, binary outcomes: those of `jax.random`, in one pass over the array on CPUs.

JAX compiles threefry for CPUs as a loop of small kernels, each of which goes over the whole array; written out, its twenty rounds
are one kernel, which also makes the numbers of the bits: of many numbers, two to nine times as fast (benchmarks/NOTES.md). Bits,
keys and uniform numbers are the same to the last bit. Normal ones of float32 differ from JAX's by up to 6e-6 of themselves: where JAX
takes log1p(−u²), which is slow on CPUs and loses digits at the ends, these take log((1 − u)(1 + u)). Binary outcomes of float32 and
float64 differ where a uniform number and the probability are neighbours. Keys of another kind, other devices and other types go to
`jax.random`.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.types import Array, Key, default_float

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
# Of erf⁻¹(u) / u, from the highest power: of w − 2.5 where w < 5, of √w − 3 beyond (Giles 2010, single precision).
_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941
)  # fmt: skip
_TAILS = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682
)  # fmt: skip
_WORDS = {np.dtype(np.float32): np.uint32, np.dtype(np.float64): np.uint64}


def seed_key(seed: int, name: str = "seed") -> Key:
    """Returns the typed key of an integer seed of any size.

    Below 2³² this is ``jax.random.key(seed)``. With x64 off, that function drops the upper bits of larger seeds, so
    that 0 and 2³² give the same key. Here seeds below 2⁶⁴ have distinct keys, those of `jax.random.key` with x64 on.
    Larger seeds are hashed to 64 bits.

    Args:
        seed: an integer of at least 0.
        name: of the argument, for messages.

    Raises:
        TypeError: a bool, or a value that is not an integer.
        ValueError: a negative seed.

    Source:
        O'Neill 2015, *Developing a seed_seq alternative* (the hash, as in `numpy.random.SeedSequence`).

    Examples:
        >>> import jax
        >>> [jax.random.key_data(seed_key(seed)).tolist() for seed in (7, 2**32 + 7)]
        [[0, 7], [1, 7]]
    """
    value = checks.seed(seed, name)
    if value < 2**32:
        return jax.random.key(value)
    words = np.random.SeedSequence(value).generate_state(2) if value >= 2**64 else [value >> 32, value % 2**32]
    # Key types of more than two words repeat those of the seed, as their own seeding does.
    shape = jax.random.key_data(jax.random.key(0)).shape
    return jax.random.wrap_key_data(jnp.asarray(np.resize(np.asarray(words, np.uint32), shape)))


def bits(key: Key, shape: int | Sequence[int] = (), dtype: Any = None) -> Array:
    """Random bits as `jax.random.bits` gives them, ``shape``.

    Args:
        key: typed key.
        shape: of the result.
        dtype: an unsigned one; the default if None, uint32 but where x64 is on.

    Source:
        Salmon, Moraes, Dror & Shaw 2011 (threefry-2x32, 20 rounds).

    Examples:
        >>> import jax
        >>> bool((bits(jax.random.key(0), (3, 5)) == jax.random.bits(jax.random.key(0), (3, 5), "uint32")).all())
        True
    """
    shape, dtype = _canonical(shape), jax.dtypes.canonicalize_dtype(jnp.uint if dtype is None else dtype)
    if not _in_one_pass(key, shape) or dtype not in (np.uint32, np.uint64):
        return jax.random.bits(key, shape, dtype)
    return _bits(key, shape, dtype)


def fold_in(key: Key, data: int | Array) -> Key:
    """The key of ``data``, an integer, under a key, as `jax.random.fold_in` gives it.

    Examples:
        >>> import jax
        >>> bool(fold_in(jax.random.key(0), 7) == jax.random.fold_in(jax.random.key(0), 7))
        True
    """
    if np.ndim(data) or not _in_one_pass(key, ()):
        return jax.random.fold_in(key, data)
    return _fold_in(key, jnp.uint32(data))


def uniform(
    key: Key,
    shape: int | Sequence[int] = (),
    dtype: Any = None,
    minval: float | Array = 0.0,
    maxval: float | Array = 1.0,
) -> Array:
    """Uniform numbers of [minval, maxval) as `jax.random.uniform` gives them, ``shape``; ``dtype`` the default float if None.

    Examples:
        >>> import jax
        >>> bool((uniform(jax.random.key(0), (9,)) == jax.random.uniform(jax.random.key(0), (9,))).all())
        True
    """
    shape, kind = _canonical(shape), jax.dtypes.canonicalize_dtype(default_float() if dtype is None else dtype)
    if kind not in _WORDS or np.ndim(minval) or np.ndim(maxval) or not _in_one_pass(key, shape):
        return jax.random.uniform(key, shape, kind, minval, maxval)
    return _uniform(key, shape, kind, minval, maxval)


def below(numbers: Array, threshold: Array) -> Array:
    """Whether uniform numbers u of [0, 1) are below a threshold.

    It is roots that are compared: of bits alone the compiler makes the numbers anew in everything that reads the outcome, twenty rounds
    each time; what took a root it keeps. Where u is nearer to the threshold than rounding can tell, the answer is no.

    Examples:
        >>> import jax.numpy as jnp
        >>> below(jnp.array([0.0, 0.5]), jnp.array([0.0, 1.0])).tolist()
        [False, True]
    """
    # A root has no slope at 0, and an outcome none at all.
    return jnp.sqrt(numbers) < jnp.sqrt(jnp.maximum(jax.lax.stop_gradient(threshold), 0))


def bernoulli(key: Key, probability: Array, shape: int | Sequence[int] | None = None) -> Array:
    """True with a probability, ``shape``, or that of ``probability``; the uniform numbers have 23 bits at least, whatever its type.

    Raises:
        ValueError: a probability whose shape does not broadcast to ``shape``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> bernoulli(jax.random.key(0), jnp.array([0.0, 1.0])).tolist()
        [False, True]
    """
    probability = jnp.asarray(probability)
    shape = probability.shape if shape is None else _canonical(shape)
    kind = jnp.promote_types(probability.dtype, jnp.float32)
    return below(uniform(key, shape, kind), jnp.broadcast_to(probability, shape).astype(kind))


def normal(key: Key, shape: int | Sequence[int] = (), dtype: Any = None) -> Array:
    """Standard normal numbers √2 erf⁻¹(u), u uniform on (−1, 1), ``shape``; ``dtype`` the default float if None.

    Those of `jax.random.normal` but for rounding: float32 ones are within 4e-7 of √2 erf⁻¹(u), JAX's within 6e-6.

    Source:
        Giles 2010, the polynomials in w = −log((1 − u)(1 + u)).

    Examples:
        >>> import jax
        >>> key = jax.random.key(0)
        >>> bool(abs(normal(key, (9,)) - jax.random.normal(key, (9,))).max() < 1e-5)
        True
    """
    shape, kind = _canonical(shape), jax.dtypes.canonicalize_dtype(default_float() if dtype is None else dtype)
    if kind != np.float32 or not _in_one_pass(key, shape):
        return jax.random.normal(key, shape, kind)
    return _normal(key, shape)


def _canonical(shape: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(map(operator.index, (shape,) if np.ndim(shape) == 0 else shape))  # type: ignore[arg-type]


def _in_one_pass(key: Key, shape: tuple[int, ...]) -> bool:
    """Whether threefry is to be written out here: for one of JAX's own keys, on a CPU, unless JAX is to watch how keys are used."""
    return (
        jax.default_backend() == "cpu"
        and np.ndim(key) == 0
        and jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]  # the layout of counts followed here
        and not jax.config.jax_debug_key_reuse  # type: ignore[attr-defined]
        and str(getattr(key, "dtype", "")) == "key<fry>"
        and math.prod(shape) < 2**32
    )


# Compiled also where the caller is not; within a program, part of it.
_compiled = functools.partial(jax.jit, inline=True)


@functools.partial(_compiled, static_argnums=(1, 2))
def _bits(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    counts = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    high, low = _threefry(jax.random.key_data(key), np.uint32(0), counts)
    if dtype == np.uint32:
        return high ^ low
    return high.astype(jnp.uint64) << np.uint64(32) | low.astype(jnp.uint64)


@_compiled
def _fold_in(key: Key, data: Array) -> Key:
    words = _threefry(jax.random.key_data(key), np.uint32(0), data)
    return jax.random.wrap_key_data(jnp.stack(words), impl="threefry2x32")


@functools.partial(_compiled, static_argnums=(1, 2))
def _uniform(key: Key, shape: tuple[int, ...], kind: Any, minval: Any, maxval: Any) -> Array:
    word: Any = _WORDS[kind]
    # The bits of a number from 1 to 2.
    drawn = _bits(key, shape, np.dtype(word)) >> word(8 * kind.itemsize - jnp.finfo(kind).nmant)
    unit = jax.lax.bitcast_convert_type(drawn | np.ones((), kind).view(word), kind) - np.ones((), kind)
    low, high = jnp.asarray(minval, kind), jnp.asarray(maxval, kind)
    return jnp.maximum(low, unit * (high - low) + low)


@functools.partial(_compiled, static_argnums=1)
def _normal(key: Key, shape: tuple[int, ...]) -> Array:
    u = _uniform(key, shape, np.dtype(np.float32), np.nextafter(np.float32(-1), np.float32(0)), np.float32(1))
    w = -jnp.log((1 - u) * (1 + u))
    centre = w < 5
    at = jnp.where(centre, w - 2.5, jnp.sqrt(w) - 3)
    ratio = jnp.zeros((), jnp.float32)
    for inner, outer in zip(_CENTRE, _TAILS):
        ratio = jnp.where(centre, jnp.float32(inner), jnp.float32(outer)) + ratio * at
    return np.float32(np.sqrt(2)) * ratio * u


def _threefry(key: Array, high: Any, low: Any) -> tuple[Array, Array]:
    """Two words for each count, itself in two, from a key ``[2]``."""
    first, second = key[0], key[1]
    schedule = (first, second, first ^ second ^ _PARITY)
    x, y = first + high, second + low
    for turn in range(5):
        for rotation in _ROTATIONS[turn % 2]:
            x = x + y
            y = x ^ (y << np.uint32(rotation) | y >> np.uint32(32 - rotation))
        x = x + schedule[(turn + 1) % 3]
        y = y + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y
