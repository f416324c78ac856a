"""The K&W autoencoder in plain JAX: what a good engineer writes by hand for one model, with nothing slow on purpose.

Dense tanh nets, the closed-form KL, one draw, Optax's Adam, one jitted scan per epoch over device-resident data.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Sizes(NamedTuple):
    """Widths of x, the hidden layer, and z."""

    x: int
    hidden: int
    z: int


def init(key: jax.Array, sizes: Sizes) -> dict[str, Any]:
    keys = jax.random.split(key, 4)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "w1": glorot(keys[0], (sizes.x, sizes.hidden)),
        "b1": jnp.zeros(sizes.hidden),
        "w2": glorot(keys[1], (sizes.hidden, 2 * sizes.z)),
        "b2": jnp.zeros(2 * sizes.z),
        "w3": glorot(keys[2], (sizes.z, sizes.hidden)),
        "b3": jnp.zeros(sizes.hidden),
        "w4": glorot(keys[3], (sizes.hidden, sizes.x)),
        "b4": jnp.zeros(sizes.x),
    }


def loss(params: dict[str, Any], key: jax.Array, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    loc, log_scale = jnp.split(hidden @ params["w2"] + params["b2"], 2, axis=-1)
    z = loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape)
    logits = jnp.tanh(z @ params["w3"] + params["b3"]) @ params["w4"] + params["b4"]
    log_likelihood = jnp.sum(x * logits - jax.nn.softplus(logits), axis=-1)
    kl = 0.5 * jnp.sum(loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale, axis=-1)
    return jnp.mean(kl - log_likelihood)


def make(optimizer: optax.GradientTransformation, batch_size: int) -> tuple[Any, Any]:
    """Returns a jitted, donating step and epoch over ``(params, opt_state, key)``."""

    def step(carry: Any, x: jax.Array) -> Any:
        params, opt_state, key = carry
        key, noise_key = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, noise_key, x)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key), value

    def epoch(carry: Any, data: jax.Array) -> Any:
        params, opt_state, key = carry
        key, shuffle_key = jax.random.split(key)
        num_batches = data.shape[0] // batch_size
        order = jax.random.permutation(shuffle_key, data.shape[0])[: num_batches * batch_size]
        return jax.lax.scan(
            lambda c, rows: step(c, data[rows]), (params, opt_state, key), order.reshape(num_batches, batch_size)
        )

    return jax.jit(step, donate_argnums=0), jax.jit(epoch, donate_argnums=0)
