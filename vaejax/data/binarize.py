"""Binary images from grey ones: dynamically (afresh whenever asked) or once and for all."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaejax import checks, random
from vaejax.types import Array, Batch, Key, as_batch, default_float, observed


def binarize(key: Key, x: Array, *, levels: int | None = None) -> Array:
    """Draws each entry from Bernoulli(x / levels), as float 0 or 1.

    Integer images (0 … ``levels``, at most 255) take 8 random bits an entry: r uniform on 0…255 is compared with a
    threshold whose fractional part is rounded up or down once for each example, at random, so that every entry's probability
    is exactly x / levels. (Entries of one image are then dependent through that rounding, with a covariance below 2⁻¹⁸.)
    Float images in [0, 1] take a uniform number an entry.

    Args:
        key: typed key.
        x: ``[*batch, *event]``; its first axis counts the examples.
        levels: the grey level that stands for 1; integer images need it (255 for 8-bit images, 16 for scikit-learn's digits).

    Raises:
        ValueError: integers without ``levels``, levels outside 1…255, floats with ``levels``, or values out of range.

    Source:
        Salakhutdinov & Murray 2008 (the convention); Burda et al. 2016 (afresh at each epoch).

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> binarize(jax.random.key(0), jnp.array([[0, 255]], jnp.uint8), levels=255)
        Array([[0., 1.]], dtype=float32)
    """
    checks.key(key)
    x = as_batch(x).x
    if jnp.issubdtype(x.dtype, jnp.floating):
        if levels is not None:
            raise ValueError(
                f"levels= is for integer images, got {x.dtype}; leave it out for floats in [0, 1]. If these have been binarised before: "
                "fit(preprocess=) prepares its validation data itself, so give those as they came"
            )
        checks.values(x, lambda v: (v >= 0) & (v <= 1), "float images to binarise", "values in [0, 1]")
        return random.bernoulli(key, x).astype(default_float())
    if levels is None:
        raise ValueError(
            f"integer images (dtype {x.dtype}) need levels=, the grey level that stands for 1 (255 for 8-bit images)"
        )
    if not 1 <= checks.positive_int(levels, "levels") <= 255:
        raise ValueError(
            f"levels must be between 1 and 255, got {levels}; divide by the largest value to use float images"
        )
    checks.values(x, lambda v: (v >= 0) & (v <= levels), "integer images to binarise", f"values from 0 to {levels}")
    return _binarize_bytes(key, jnp.asarray(x), levels)


def _binarize_bytes(key: Key, x: Array, levels: int) -> Array:
    byte_key, round_key = jax.random.split(key)
    # One 32-bit word feeds four entries: asking for uint8 bits would draw a whole word for each.
    words = random.bits(byte_key, (-(-x.size // 4),), jnp.uint32)
    noise = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: x.size].reshape(x.shape)
    scaled = x.astype(jnp.int32) * 256
    threshold = scaled // levels
    if 256 % levels:
        rounding = jax.random.randint(round_key, (x.shape[0],) + (1,) * (x.ndim - 1), 0, levels)
        threshold += rounding < scaled % levels
    return (noise < threshold).astype(default_float())


def dynamic_binarization(*, levels: int | None = None) -> Callable[[Key, Any], Batch]:
    """A ``preprocess`` for `vaejax.train.fit` and `make_epoch` that binarises every batch afresh; missing entries become 0.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> preprocess = dynamic_binarization(levels=255)
        >>> preprocess(jax.random.key(0), jnp.full((1, 2), 255, jnp.uint8)).x
        Array([[1., 1.]], dtype=float32)
    """
    return functools.partial(_binarize_batch, levels)


def _binarize_batch(levels: int | None, key: Key, batch: Any) -> Batch:
    batch = as_batch(batch)
    return batch._replace(x=binarize(key, observed(batch), levels=levels))


def unit_interval(*, levels: int) -> Callable[[Key, Any], Batch]:
    """A ``preprocess`` that makes numbers in [0, 1] of integer images, x / levels; missing entries become 0.

    Densities are then those of x / levels: a continuous density of data that take ``levels`` + 1 values, unbounded where σ may
    vanish.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> unit_interval(levels=4)(jax.random.key(0), jnp.array([[1, 4]], jnp.uint8)).x
        Array([[0.25, 1.  ]], dtype=float32)
    """
    checks.positive_int(levels, "levels")
    return functools.partial(_scale_batch, levels)


def _scale_batch(levels: int, key: Key, batch: Any) -> Batch:
    batch = as_batch(batch)
    x = jnp.asarray(observed(batch))
    checks.values(x, lambda v: (v >= 0) & (v <= levels), "integer images to scale", f"values from 0 to {levels}")
    return batch._replace(x=x.astype(default_float()) / levels)
