"""A random order of many rows without sorting them."""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks, random
from vaejax.types import Array, Key

_ROUNDS = 8
# Below this the two digits of a number are too small to mix, and walking costs nothing.
_LEAST = 8
_MIXERS = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))


def permutation(key: Key, size: int) -> Array:
    """A pseudo-random permutation of 0, …, size − 1, each number computed by itself.

    A Feistel network over two digits of bases near √size: by turns, one digit has a random function of the other added to it. It
    permutes the numbers below the product of the bases; one that lands at ``size`` or beyond is sent through again until it does not,
    which leaves a permutation of those below. That takes time linear in the size with a small constant, where
    `jax.random.permutation` sorts twice (on a CPU, half of an epoch of a small model). Enough for shuffling; not every order can come.

    Args:
        key: typed key, used once.
        size: a static number below 2³¹.

    Returns:
        ``[size]`` int32.

    Raises:
        TypeError: a raw key, a size that is no integer.
        ValueError: a size below 0 or too large.

    Source:
        Luby & Rackoff 1988 (the network); Black & Rogaway 2002, sections 3 and 4 (walking along the cycle, two bases).

    Examples:
        >>> import jax
        >>> sorted(permutation(jax.random.key(0), 5).tolist())
        [0, 1, 2, 3, 4]
    """
    checks.key(key)
    if not 0 <= operator.index(size) < 2**31:
        raise ValueError(f"size must be a number of rows from 0 to 2**31 - 1, got {size}")
    return _permutation(key, operator.index(size))


# Compiled also where the caller is not; within a program, part of it.
@functools.partial(jax.jit, static_argnums=1, inline=True)
def _permutation(key: Key, size: int) -> Array:
    high_base = max(_LEAST, math.isqrt(max(size - 1, 0)) + 1)
    low_base = max(_LEAST, -(-size // high_base))
    offsets = random.bits(key, (_ROUNDS // 2, 2), jnp.uint32)

    def once(numbers: Array) -> Array:
        high, low = numbers // low_base, numbers % low_base
        for of_low, of_high in offsets:
            high = _add(high, _mixed(low + of_low), high_base)
            low = _add(low, _mixed(high + of_high), low_base)
        return high * low_base + low

    ended = jax.lax.while_loop(
        lambda numbers: jnp.any(numbers >= size),
        lambda numbers: jnp.where(numbers < size, numbers, once(numbers)),
        once(jnp.arange(size, dtype=jnp.uint32)),
    )
    return ended.astype(jnp.int32)


def _mixed(words: Array) -> Array:
    """Words of which each bit depends on all: the last step of MurmurHash3 (Appleby 2011)."""
    for shift, factor in _MIXERS:
        words = (words ^ words >> np.uint32(shift)) * np.uint32(factor)
    return words ^ words >> np.uint32(16)


def _add(digit: Array, words: Array, base: int) -> Array:
    """``digit`` + ⌊words · base / 2³²⌋, modulo ``base``; the product in two parts, since 64 bits are not to be had."""
    upper, lower = words >> np.uint32(16), words & np.uint32(0xFFFF)
    total = digit + (upper * base + (lower * base >> np.uint32(16)) >> np.uint32(16))
    return jnp.where(total < base, total, total - base)
