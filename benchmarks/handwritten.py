"""The workloads in plain JAX: what a good engineer writes by hand for these models, with nothing slow on purpose.

Dense tanh nets or a convolutional pair, the closed-form KL for one draw and the importance-weighted bound for more, Optax's Adam,
one jitted scan per epoch over device-resident data; the log-marginal by one scan over chunks of draws.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.workloads import Workload

Params = dict[str, Any]
CONV = ("NHWC", "HWIO", "NHWC")


def layer_shapes(work: Workload) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of the kernels of encoder and decoder."""
    if not work.conv:
        encoder = [work.x_size, *work.hidden, 2 * work.latent]
        decoder = [work.latent, *work.hidden[::-1], work.x_size]
        return list(itertools.pairwise(encoder)), list(itertools.pairwise(decoder))
    channels = [1, *work.hidden]
    flat = smallest(work) ** 2 * channels[-1]
    down = [(3, 3, i, o) for i, o in itertools.pairwise(channels)]
    up = [(3, 3, o, i) for i, o in itertools.pairwise(channels)][::-1]
    return [*down, (flat, 2 * work.latent)], [(work.latent, flat), *up]


def smallest(work: Workload) -> int:
    """Height of the image after the last convolution."""
    size = work.x_shape[0]
    for _ in work.hidden:
        size = -(-size // 2)
    return size


def init(key: jax.Array, work: Workload) -> Params:
    glorot = jax.nn.initializers.glorot_uniform()
    encoder, decoder = layer_shapes(work)
    keys = iter(jax.random.split(key, len(encoder) + len(decoder)))
    return {
        name: [{"w": glorot(next(keys), shape), "b": jnp.zeros(shape[-1])} for shape in shapes]
        for name, shapes in (("encoder", encoder), ("decoder", decoder))
    }


def _dense(layer: Params, h: jax.Array, work: Workload) -> jax.Array:
    if not work.bfloat16:
        return h @ layer["w"] + layer["b"]
    return h.astype(jnp.bfloat16) @ layer["w"].astype(jnp.bfloat16) + layer["b"].astype(jnp.bfloat16)


def encode(params: Params, x: jax.Array, work: Workload) -> tuple[jax.Array, jax.Array]:
    """(μ, log σ) of q(z|x), each ``[batch, latent]``."""
    *hidden, out = params["encoder"]
    if work.conv:
        h = x[..., None]
        for layer in hidden:
            h = jax.lax.conv_general_dilated(h, layer["w"], (2, 2), "SAME", dimension_numbers=CONV)
            h = jax.nn.relu(h + layer["b"])
        h = h.reshape(len(x), -1)
    else:
        h = x
        for layer in hidden:
            h = jnp.tanh(_dense(layer, h, work))
    loc, log_scale = jnp.split(_dense(out, h, work).astype(jnp.float32), 2, axis=-1)
    return loc, log_scale


def decode(params: Params, z: jax.Array, work: Workload) -> jax.Array:
    """Logits ``[*lead, *x_shape]`` of p(x|z)."""
    lead = z.shape[:-1]
    h = z.reshape(-1, z.shape[-1])
    first, *rest = params["decoder"]
    h = _dense(first, h, work)
    if work.conv:
        h = h.reshape(len(h), smallest(work), smallest(work), -1)
        for layer in rest:
            h = jax.lax.conv_transpose(jax.nn.relu(h), layer["w"], (2, 2), "SAME", dimension_numbers=CONV)
            h = h + layer["b"]
        h = h[:, : work.x_shape[0], : work.x_shape[1]]
    else:
        for layer in rest:
            h = _dense(layer, jnp.tanh(h), work)
    return h.astype(jnp.float32).reshape(*lead, *work.x_shape)


def log_likelihood(params: Params, z: jax.Array, x: jax.Array, work: Workload) -> jax.Array:
    logits = decode(params, z, work)
    entries = x * logits - jax.nn.softplus(logits)
    return jnp.sum(entries, axis=tuple(range(-len(work.x_shape), 0)))


def log_weights(params: Params, key: jax.Array, x: jax.Array, work: Workload, draws: int) -> jax.Array:
    """log p(x, z_k) − log q(z_k|x) ``[K, batch]``."""
    loc, log_scale = encode(params, x, work)
    noise = jax.random.normal(key, (draws, *loc.shape))
    z = loc + jnp.exp(log_scale) * noise
    # The constants of the two Gaussians cancel.
    log_ratio = jnp.sum(0.5 * noise**2 + log_scale - 0.5 * z**2, axis=-1)
    return log_likelihood(params, z, x, work) + log_ratio


def loss(params: Params, key: jax.Array, x: jax.Array, work: Workload) -> jax.Array:
    """−ELBO for one draw, minus the importance-weighted bound for more; mean over the batch, nats."""
    if work.draws > 1:
        weights = log_weights(params, key, x, work, work.draws)
        return math.log(work.draws) - jnp.mean(jax.nn.logsumexp(weights, axis=0))
    loc, log_scale = encode(params, x, work)
    z = loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape)
    kl = 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale, axis=-1)
    return jnp.mean(kl - log_likelihood(params, z, x, work))


def make(work: Workload, optimizer: optax.GradientTransformation) -> tuple[Any, Any]:
    """Returns a jitted, donating step and epoch over ``(params, opt_state, key)``."""

    def step(carry: Any, x: jax.Array) -> Any:
        params, opt_state, key = carry
        key, noise_key = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, noise_key, x, work)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key), value

    def epoch(carry: Any, data: jax.Array) -> Any:
        params, opt_state, key = carry
        key, shuffle_key = jax.random.split(key)
        order = jax.random.permutation(shuffle_key, data.shape[0])[: work.steps * work.batch]
        return jax.lax.scan(
            lambda c, rows: step(c, data[rows]), (params, opt_state, key), order.reshape(work.steps, work.batch)
        )

    return jax.jit(step, donate_argnums=0), jax.jit(epoch, donate_argnums=0)


def make_log_marginal(work: Workload, samples: int, chunk: int) -> Any:
    """Returns a jitted ``(params, key, x) -> log (1/S) Σ p(x, z)/q(z|x)`` ``[batch]``, a chunk of draws at a time."""

    def log_marginal(params: Params, key: jax.Array, x: jax.Array) -> jax.Array:
        def body(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            weights = log_weights(params, key, x, work, chunk)
            return jnp.logaddexp(total, jax.nn.logsumexp(weights, axis=0)), None

        keys = jax.random.split(key, samples // chunk)
        total, _ = jax.lax.scan(body, jnp.full(len(x), -jnp.inf), keys)
        return total - math.log(samples)

    return jax.jit(log_marginal)
