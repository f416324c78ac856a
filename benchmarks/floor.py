"""The floor: the matrix products of a training step, forwards and backwards, and nothing else.

Of a convolution, the product of its patches with the kernel, or of its input with all taps: the same multiplications.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import handwritten
from benchmarks.workloads import Workload

_TINY = 1e-9


def products(work: Workload) -> Callable[[], Any]:
    """The products of an epoch: each layer's output, the gradient of its kernel, and (but for the first, whose input is data) of its input.

    Each step works on what the step before gave, so that the compiler can drop nothing.
    """
    step, carry = step_of(work), layers(work)
    run = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(c), None), carry, None, length=work.steps)[0])
    return lambda: run(carry)


def layers(work: Workload) -> tuple[list[jax.Array], list[jax.Array]]:
    """Inputs and kernels of all layers as matrices, shapes as in the model."""
    generator = np.random.default_rng(0)
    dtype = jnp.bfloat16 if work.bfloat16 else jnp.float32
    shapes = matrices(work)
    # Orthonormal rows or columns: hᵀ(hw) is a projection of w, which can be projected for ever without growing or vanishing.
    inputs = [jnp.asarray(_orthonormal(generator, rows, fan_in), dtype) for rows, fan_in, _ in shapes]
    return inputs, [jnp.asarray(generator.normal(size=shape[1:]), dtype) for shape in shapes]


def matrices(work: Workload) -> list[tuple[int, int, int]]:
    """(rows, inputs, outputs) of each layer's product."""
    encoder, decoder = handwritten.layer_shapes(work)
    batch, drawn = work.batch, work.batch * work.draws
    if not work.conv:
        return [*((batch, *shape) for shape in encoder), *((drawn, *shape) for shape in decoder)]
    sizes = [work.x_shape[0]]
    for _ in work.hidden:
        sizes.append(-(-sizes[-1] // 2))
    down = [(batch * size**2, 9 * i, o) for size, (_, _, i, o) in zip(sizes[1:], encoder)]
    up = [(drawn * size**2, i, 9 * o) for size, (_, _, i, o) in zip(sizes[:0:-1], decoder[1:])]
    return [*down, (batch, *encoder[-1]), (drawn, *decoder[0]), *up]


def _orthonormal(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    if rows * columns > 2**22:  # a QR of this size takes too long; near enough
        return generator.normal(size=(rows, columns)).astype(np.float32) / np.sqrt(max(rows, columns))
    square = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))[0]
    return square if rows >= columns else square.T


def step_of(work: Workload) -> Callable[[Any], Any]:
    """One step, jitted, over `layers`."""

    def step(carry: tuple[list[jax.Array], list[jax.Array]]) -> tuple[list[jax.Array], list[jax.Array]]:
        inputs, kernels = [], []
        for i, (h, w) in enumerate(zip(*carry)):
            out = h @ w
            into_h = out @ w.T if i else None
            kernels.append(h.T @ out)
            inputs.append(h + _TINY * into_h if i else h)
        return inputs, kernels

    return jax.jit(step)


def log_marginal_products(work: Workload, samples: int, chunk: int) -> Callable[[], Any]:
    """The products of the decoder for every draw, and of the encoder once, forwards."""
    encoder, decoder = handwritten.layer_shapes(work)
    x, z = jnp.ones((work.batch, work.x_size)), jnp.ones((work.batch * chunk, work.latent))
    kernels = [[jnp.full(shape, 0.01) for shape in shapes] for shapes in (encoder, decoder)]

    def forwards(h: jax.Array, shapes: list[jax.Array]) -> jax.Array:
        for w in shapes:
            h = h @ w
        return h

    def body(z: jax.Array, _: Any) -> tuple[jax.Array, None]:
        # Every column of the output counts, or the compiler would compute those alone that do.
        return z + _TINY * jnp.max(forwards(z, kernels[1]), axis=1, keepdims=True), None

    run = jax.jit(lambda x, z: (forwards(x, kernels[0]), jax.lax.scan(body, z, None, length=samples // chunk)[0]))
    return lambda: run(x, z)
