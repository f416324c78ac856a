"""Multilayer perceptrons."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from vaejax import checks
from vaejax.nets.network import Network, from_nnx
from vaejax.types import Array

# Glorot & Bengio 2010, as in the nets of Kingma & Welling 2014 and Burda et al. 2016.
_GLOROT = nnx.initializers.glorot_uniform()


class MLP(nnx.Module):
    """Dense layers on the last axis, any leading axes; a second input (context) is appended to the first.

    Layer normalisation comes before the activation, dropout after it. With ``dtype`` (bfloat16, say) products run in that type
    while parameters stay float32.
    """

    def __init__(
        self,
        in_size: int,
        hidden_sizes: Sequence[int],
        out_shape: tuple[int, ...],
        *,
        in_ndims: int = 1,
        activation: Callable[[Array], Array] = jnp.tanh,
        layer_norm: bool = False,
        dropout_rate: float = 0.0,
        use_output_bias: bool = True,
        kernel_init: Callable = _GLOROT,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        self.in_ndims, self.out_shape, self.activation, self.depth = (
            in_ndims,
            tuple(out_shape),
            activation,
            len(hidden_sizes),
        )
        sizes = [in_size, *hidden_sizes]
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            setattr(self, f"dense_{i}", nnx.Linear(fan_in, fan_out, kernel_init=kernel_init, dtype=dtype, rngs=rngs))
            if layer_norm:
                setattr(self, f"norm_{i}", nnx.LayerNorm(fan_out, dtype=dtype, rngs=rngs))
            if dropout_rate:
                setattr(self, f"dropout_{i}", nnx.Dropout(dropout_rate, rngs=rngs))
        self.out = nnx.Linear(
            sizes[-1], math.prod(out_shape), use_bias=use_output_bias, kernel_init=kernel_init, dtype=dtype, rngs=rngs
        )

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """``[..., *event]`` and ``[..., c]`` to ``[..., *out_shape]``."""
        lead = x.shape[: x.ndim - self.in_ndims]
        # One leading axis: with [K, batch, ...] XLA computes the gradient of every layer's output more than once.
        h = x.reshape(math.prod(lead), -1)
        if context is not None:
            h = jnp.concatenate([h, context.reshape(h.shape[0], -1).astype(h.dtype)], -1)
        for i in range(self.depth):
            h = getattr(self, f"dense_{i}")(h)
            h = getattr(self, f"norm_{i}", lambda y: y)(h)
            h = getattr(self, f"dropout_{i}", lambda y: y)(self.activation(h))
        return self.out(h).reshape(*lead, *self.out_shape)


def mlp(
    in_shape: tuple[int, ...],
    hidden_sizes: Sequence[int],
    out_shape: tuple[int, ...],
    *,
    context_size: int = 0,
    dropout_rate: float = 0.0,
    **options: Any,
) -> Network:
    """An `MLP` as a pure network from ``[..., *in_shape]`` (and ``[..., context_size]``) to ``[..., *out_shape]``.

    Other options go to `MLP`: activation, layer_norm, use_output_bias, kernel_init, dtype.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> net = mlp((28, 28), (200, 200), (100,))
        >>> net.apply(net.init(jax.random.key(0)), jnp.zeros((2, 5, 28, 28))).shape
        (2, 5, 100)
    """
    for size in hidden_sizes:
        checks.positive_int(size, "each of hidden_sizes")
    checks.real(dropout_rate, "dropout_rate", minimum=0.0, maximum=0.99)
    in_size = math.prod(in_shape) + context_size
    return from_nnx(
        lambda rngs: MLP(
            in_size, hidden_sizes, out_shape, in_ndims=len(in_shape), dropout_rate=dropout_rate, rngs=rngs, **options
        )
    )
