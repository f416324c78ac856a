"""A random order of many rows without sorting them."""

import jax
import jax.numpy as jnp

from vaejax import random
from vaejax.types import Array, Key

_ROUNDS = 8
# Below this the halves of a number are too short to mix, and walking costs nothing.
_LEAST_BITS = 3


def permutation(key: Key, size: int) -> Array:
    """A pseudo-random permutation of 0, …, size − 1, each number computed by itself.

    A Feistel network whose round functions are tables of random bits permutes the numbers below a power of 4; a number that lands at
    ``size`` or beyond is sent through again until it does not, which leaves a permutation of those below. That takes time linear in the
    size with a small constant, where `jax.random.permutation` sorts twice (on a CPU, half of an epoch of a small model). Enough for
    shuffling; not every order can come (as a cipher's cannot: those of a full power of 4 are all even).

    Args:
        key: typed key, used once.
        size: a static number below 2³¹.

    Returns:
        ``[size]`` int32.

    Source:
        Luby & Rackoff 1988 (the network); Black & Rogaway 2002, section 3 (walking along the cycle).

    Examples:
        >>> import jax
        >>> sorted(permutation(jax.random.key(0), 5).tolist())
        [0, 1, 2, 3, 4]
    """
    half_bits = _LEAST_BITS
    while 4**half_bits < size:
        half_bits += 1
    tables = random.bits(key, (_ROUNDS, 2**half_bits), jnp.uint32) >> (32 - half_bits)

    def once(numbers: Array) -> Array:
        left, right = numbers >> half_bits, numbers & (2**half_bits - 1)
        for table in tables:
            left, right = right, left ^ table.at[right].get(mode="promise_in_bounds")
        return (left << half_bits) | right

    begun = once(jnp.arange(size, dtype=jnp.uint32))
    ended = jax.lax.while_loop(
        lambda numbers: jnp.any(numbers >= size),
        lambda numbers: jnp.where(numbers < size, numbers, once(numbers)),
        begun,
    )
    return ended.astype(jnp.int32)
