"""3×3 convolutions of stride 2, and their transposes, as matrix products.

XLA's convolutions are slow on CPUs inside compiled loops: the networks of the benchmark took twenty-five times what PyTorch does
(benchmarks/NOTES.md). On accelerators they are what they should be.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vaejax.types import Array

_TAPS = [(i, j) for i in range(3) for j in range(3)]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Entries of patches at once.
_LARGEST = 2**25


def convolve(x: Array, kernel: Array) -> Array:
    """A convolution with padding "SAME" and stride 2: ``[n, h, w, c]`` and ``[3, 3, c, o]`` to ``[n, ⌈h/2⌉, ⌈w/2⌉, o]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> convolve(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
        [[9.0, 6.0], [6.0, 4.0]]
    """
    _check(x, kernel)
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)
    height, width = (-(-size // 2) for size in x.shape[1:3])

    def product(x: Array) -> Array:
        # Of an even size all padding stands behind; of an odd one, half of it.
        before = [size % 2 for size in x.shape[1:3]]
        pad = [(b, 2 * half + 1 - b - size) for b, half, size in zip(before, (height, width), x.shape[1:3])]
        x = jnp.pad(x, [(0, 0), *pad, (0, 0)])
        patches = [x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2] for i, j in _TAPS]
        return _matmul(jnp.concatenate(patches, -1), kernel.reshape(9 * x.shape[-1], kernel.shape[-1])).astype(x.dtype)

    return _in_blocks(product, x, height * width * 9 * x.shape[-1])


def convolve_transposed(x: Array, kernel: Array) -> Array:
    """The transposed convolution, as `jax.lax.conv_transpose` has it: ``[n, h, w, c]`` and ``[3, 3, c, o]`` to ``[n, 2h, 2w, o]``.

    Examples:
        >>> import jax.numpy as jnp
        >>> convolve_transposed(jnp.ones((1, 1, 2, 1)), jnp.arange(9.0).reshape(3, 3, 1, 1))[0, :, :, 0].tolist()
        [[8.0, 7.0, 14.0, 7.0], [5.0, 4.0, 8.0, 4.0]]
    """
    _check(x, kernel)
    if jax.default_backend() != "cpu":
        return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=_DIMENSIONS)
    height, width, outputs = *x.shape[1:3], kernel.shape[-1]

    def product(x: Array) -> Array:
        # What each entry adds through each tap; then each entry of the result gathers the one, two or four taps that reach it.
        # Split, not sliced: the gradient is then one concatenation, not a sum of nine arrays that are mostly zeros.
        taps = jnp.moveaxis(kernel, 2, 0).reshape(x.shape[-1], len(_TAPS) * outputs)
        parts = dict(zip(_TAPS, jax.lax.split(_matmul(x, taps), [outputs] * len(_TAPS), axis=3)))

        def phase(down: int, right: int) -> Array:
            reach = [(i, j) for i, j in _TAPS if (i - down) % 2 == 0 and (j - right) % 2 == 0]
            found = [_moved(parts[i, j], 1 - (down + i) // 2, 1 - (right + j) // 2) for i, j in reach]
            return sum(found[1:], found[0])

        rows = [jnp.stack([phase(down, right) for right in range(2)], 3) for down in range(2)]
        return jnp.stack(rows, 2).reshape(len(x), 2 * height, 2 * width, outputs).astype(x.dtype)

    return _in_blocks(product, x, height * width * 9 * outputs)


def _matmul(x: Array, kernel: Array) -> Array:
    """A product in float32 at least: narrow types are rounded once, after all sums of a block, and so are their gradients."""
    # Of matrices: the kernel's gradient would sum over three axes of images otherwise, and transpose them first.
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    found = jnp.matmul(rows, kernel, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
    return found.reshape(*x.shape[:-1], kernel.shape[-1])


def _moved(x: Array, down: int, right: int) -> Array:
    """So many places down and to the right; zeros come in, what goes out is lost."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (down, -down, 0), (right, -right, 0), (0, 0, 0)])


def _check(x: Array, kernel: Array) -> None:
    if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[:3] != (3, 3, x.shape[-1]):
        raise ValueError(
            f"images must be [n, height, width, c] and the kernel [3, 3, c, outputs], got {list(x.shape)} and {list(kernel.shape)}"
        )


def _in_blocks(function: Callable[[Array], Array], x: Array, entries: int) -> Array:
    """``function`` of as many examples at once as keep what it makes of them small."""
    block = max(1, _LARGEST // max(entries, 1))
    if len(x) <= block:
        return function(x)
    whole = len(x) // block
    # Whole blocks, not examples mapped together: their products stay those of matrices.
    found = jax.lax.map(function, x[: whole * block].reshape(whole, block, *x.shape[1:]))
    found = found.reshape(whole * block, *found.shape[2:])
    return jnp.concatenate([found, function(x[whole * block :])]) if len(x) % block else found
