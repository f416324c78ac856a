"""The floor: the matrix products (or convolutions) of a training step, forwards and backwards, and nothing else."""

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
    """Inputs and kernels of all layers, shapes as in the model."""
    encoder, decoder = handwritten.layer_shapes(work)
    if work.conv:
        return _convolutions(work)
    generator = np.random.default_rng(0)
    dtype = jnp.bfloat16 if work.bfloat16 else jnp.float32
    rows = [work.batch] * len(encoder) + [work.batch * work.draws] * len(decoder)
    # Orthonormal rows or columns: hᵀ(hw) is a projection of w, which can be projected for ever without growing or vanishing.
    inputs = [
        jnp.asarray(_orthonormal(generator, n, fan_in), dtype) for n, (fan_in, _) in zip(rows, [*encoder, *decoder])
    ]
    return inputs, [jnp.asarray(generator.normal(size=shape), dtype) for shape in [*encoder, *decoder]]


def _orthonormal(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    if rows * columns > 2**22:  # a QR of this size takes too long; near enough
        return generator.normal(size=(rows, columns)).astype(np.float32) / np.sqrt(max(rows, columns))
    square = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))[0]
    return square if rows >= columns else square.T


def _convolutions(work: Workload) -> tuple[list[jax.Array], list[jax.Array]]:
    params = handwritten.init(jax.random.key(0), work)
    kernels = [layer["w"] for part in ("encoder", "decoder") for layer in params[part]]
    inputs, h = [], jnp.ones((work.batch, *work.x_shape, 1))
    for w in kernels[: len(work.hidden)]:
        inputs.append(h)
        h = _down(h, w)
    size = h.shape[1]
    inputs += [h.reshape(work.batch, -1), jnp.ones((work.batch * work.draws, work.latent))]
    h = (inputs[-1] @ kernels[len(work.hidden) + 1]).reshape(-1, size, size, work.hidden[-1])
    for w in kernels[len(work.hidden) + 2 :]:
        inputs.append(h)
        h = _up(h, w)
    return inputs, kernels


def _down(h: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(h, w, (2, 2), "SAME", dimension_numbers=handwritten.CONV)


def _up(h: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_transpose(h, w, (2, 2), "SAME", dimension_numbers=handwritten.CONV)


def step_of(work: Workload) -> Callable[[Any], Any]:
    """One step, jitted, over `layers`."""
    down = range(len(work.hidden) if work.conv else 0)
    encoder, decoder = handwritten.layer_shapes(work)
    up = range(len(encoder) + 1 if work.conv else len(encoder) + len(decoder), len(encoder) + len(decoder))

    def step(carry: tuple[list[jax.Array], list[jax.Array]]) -> tuple[list[jax.Array], list[jax.Array]]:
        inputs, kernels = [], []
        for i, (h, w) in enumerate(zip(*carry)):
            if i in down or i in up:
                out, pull = jax.vjp(_down if i in down else _up, h, w)
                into_h, into_w = pull(out)
                kernels.append(w + _TINY * into_w)
            else:
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
