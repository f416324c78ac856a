"""Uniform noise for reparameterised draws: independent, antithetic, or a scrambled Sobol sequence."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from vaejax import checks, random
from vaejax.dists.reparameterization import from_noise
from vaejax.types import Array, Key

KINDS = ("independent", "antithetic", "sobol")

# 23 random bits, in the middle of their cells: neither 0 nor 1 nor anything that float32 would round to them, and 1 − u is exact.
_BITS = 23


def uniform_noise(
    kind: str, key: Key, num_samples: int, batch_shape: tuple[int, ...], event_shape: tuple[int, ...]
) -> Array:
    """K points of (0, 1)^event for each example; each point is uniform, what differs is how the K hang together.

    Args:
        kind: ``"independent"``; ``"antithetic"``: the second half is 1 − u of the first; ``"sobol"``: the first K points of a Sobol
            sequence with a nested uniform (Owen) scrambling of its own for each example and dimension, best where K is a power of 2.
        key: typed key.
        num_samples: K; even for antithetic noise.
        batch_shape: of the examples.
        event_shape: of one draw.

    Returns:
        ``[K, *batch, *event]``.

    Raises:
        ValueError: an unknown kind, an odd K for antithetic noise.

    Source:
        Hammersley & Morton 1956 (antithetic); Owen 1995 with the hash of Burley 2020, section 4 (scrambling).

    Examples:
        >>> import jax
        >>> u = uniform_noise("antithetic", jax.random.key(0), 4, (5,), (2,))
        >>> bool((u[:2] + u[2:] == 1).all())
        True
    """
    checks.one_of(kind, "noise", KINDS)
    checks.key(key)
    checks.positive_int(num_samples, "num_samples")
    batch_shape, event_shape = tuple(batch_shape), tuple(event_shape)
    if kind == "sobol":
        return _to_unit(_scrambled_sobol(key, num_samples, batch_shape, event_shape))
    if kind == "independent":
        return _to_unit(random.bits(key, (num_samples, *batch_shape, *event_shape), jnp.uint32))
    if num_samples % 2:
        raise ValueError(f"antithetic noise comes in pairs, so K must be even, got {num_samples}")
    half = _to_unit(random.bits(key, (num_samples // 2, *batch_shape, *event_shape), jnp.uint32))
    return jnp.concatenate([half, 1 - half])


def draw_with_noise(distribution: Any, kind: str, key: Key, num_samples: int) -> Array:
    """K draws ``[K, *batch, *event]`` through `from_noise`: differentiable in the distribution's parameters.

    Raises:
        TypeError: for a distribution without a map from uniform noise.
    """
    batch_shape, event_shape = (getattr(distribution, name, None) for name in ("batch_shape", "event_shape"))
    if not (isinstance(batch_shape, tuple) and isinstance(event_shape, tuple) and _is_flat(event_shape)):
        raise TypeError(
            f"{type(distribution).__name__} does not have one batch_shape and one event_shape, which {kind} noise needs; use "
            "noise='independent'"
        )
    u = uniform_noise(kind, key, num_samples, batch_shape, event_shape)
    z = from_noise(distribution, u)
    kept = getattr(distribution, "dtype", z.dtype)
    return z.astype(kept) if jnp.issubdtype(kept, jnp.floating) else z


def _is_flat(shape: tuple[Any, ...]) -> bool:
    """Whether this is the shape of one array, not a tuple of several."""
    return all(isinstance(size, int) for size in shape)


def _to_unit(bits: Array) -> Array:
    return ((bits >> (32 - _BITS)).astype(jnp.zeros(()).dtype) + 0.5) * 2.0**-_BITS


def _reverse_bits(x: Any) -> Any:
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        x = ((x >> shift) & np.uint32(mask)) | ((x & np.uint32(mask)) << shift)
    return (x >> 16) | (x << 16)


def _scrambled_sobol(key: Key, num_samples: int, batch_shape: tuple[int, ...], event_shape: tuple[int, ...]) -> Array:
    # SciPy's statistics take half a second to import, and nothing else needs them.
    from scipy.stats import qmc

    size = math.prod(event_shape)
    if size > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"Sobol points have at most {qmc.Sobol.MAXDIM} dimensions, the latents {size}; use antithetic noise"
        )
    # A power of two at a time: SciPy warns of anything else, and the first K points are what is wanted.
    points = qmc.Sobol(size, scramble=False, bits=32).random_base2(max(0, math.ceil(math.log2(num_samples))))
    reversed_points = _reverse_bits((points[:num_samples] * 2.0**32).astype(np.uint32))
    seeds = random.bits(key, (*batch_shape, *event_shape), jnp.uint32)
    x = jnp.asarray(reversed_points).reshape(num_samples, *(1,) * len(batch_shape), *event_shape)
    # On reversed bits each step lets a bit depend on higher digits alone, which is what makes the scrambling nested; the
    # added seed alone makes each point uniform.
    x = x + seeds
    for multiplier in (0x6C50B47C, 0xB82F1E52, 0xC7AFE638, 0x8D22F6E6):
        x = x ^ (x * np.uint32(multiplier))
    return _reverse_bits(x)
