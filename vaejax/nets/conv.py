"""A small convolutional encoder and decoder for images ``[height, width]`` or ``[height, width, channels]``."""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vaejax import checks
from vaejax.nets import strided
from vaejax.nets.network import Network, from_nnx
from vaejax.types import Array


def _channels(shape: tuple[int, ...]) -> int:
    return shape[2] if len(shape) == 3 else 1


def _halved(size: int, times: int) -> int:
    for _ in range(times):
        size = -(-size // 2)
    return size


def _check(shape: tuple[int, ...], widths: Sequence[int], **sizes: int) -> None:
    if len(shape) not in (2, 3):
        raise ValueError(
            f"convolutions need an image shape [height, width] or [height, width, channels], got {list(shape)}"
        )
    if not isinstance(widths, Sequence) or not widths:
        raise TypeError(f"widths must be the channels of each convolution, such as (16, 32), got {widths!r}")
    for width in widths:
        checks.positive_int(width, "each of widths")
    for name, size in sizes.items():
        checks.positive_int(size, name)
    warn_channels_first(shape)


def warn_channels_first(shape: tuple[int, ...]) -> None:
    """Warns about an image shape that reads like ``[channels, height, width]``: 1 to 4 rows, and further axes of similar length.

    Examples:
        >>> warn_channels_first((28, 28, 1))
    """
    if len(shape) == 3 and shape[0] <= 4 < min(shape[1:]) and max(shape[1:]) <= 4 * min(shape[1:]):
        rest = (*shape[1:], shape[0])
        warnings.warn(
            f"convolutions read the shape {list(shape)} as height {shape[0]}, width {shape[1]} and {shape[2]} channels. If the "
            f"channels come first, build for {rest} and convert the images with jnp.moveaxis(x, -3, -1).",
            stacklevel=checks.outside(),
        )


class _Strided(nnx.Module):
    """A 3×3 convolution of stride 2, or its transpose: kernel and bias as `nnx.Conv` names and begins them."""

    def __init__(
        self, fan_in: int, fan_out: int, *, transposed: bool, use_bias: bool = True, dtype: Any = None, rngs: nnx.Rngs
    ):
        layer = nnx.ConvTranspose if transposed else nnx.Conv
        begun = layer(fan_in, fan_out, (3, 3), strides=2, use_bias=use_bias, rngs=rngs)
        self.kernel, self.bias = begun.kernel, begun.bias
        self.transposed, self.dtype = transposed, dtype

    def __call__(self, x: Array) -> Array:
        """``[n, h, w, c]`` to half or twice the height and width."""
        kernel = jnp.asarray(self.kernel)
        dtype = jnp.result_type(x, kernel) if self.dtype is None else self.dtype
        found = (strided.convolve_transposed if self.transposed else strided.convolve)(
            x.astype(dtype), kernel.astype(dtype)
        )
        return found if self.bias is None else found + jnp.asarray(self.bias, dtype)


class ConvEncoder(nnx.Module):
    """3×3 convolutions of stride 2, then one dense layer to ``[..., out_size]``; context joins as constant channels."""

    def __init__(
        self,
        shape: tuple[int, ...],
        widths: Sequence[int],
        out_size: int,
        *,
        context_size: int = 0,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        self.shape, self.activation, self.depth = tuple(shape), activation, len(widths)
        sizes = [_channels(shape) + context_size, *widths]
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            setattr(self, f"conv_{i}", _Strided(fan_in, fan_out, transposed=False, dtype=dtype, rngs=rngs))
        flat = math.prod(_halved(s, len(widths)) for s in shape[:2]) * sizes[-1]
        self.out = nnx.Linear(flat, out_size, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """``[..., *shape]`` and ``[..., c]`` to ``[..., out_size]``."""
        checks.event_shape(x, self.shape)
        lead = x.shape[: x.ndim - len(self.shape)]
        h = x.reshape(-1, *self.shape[:2], _channels(self.shape))
        if context is not None:
            planes = context.reshape(-1, 1, 1, context.shape[-1]).astype(h.dtype)
            h = jnp.concatenate([h, jnp.broadcast_to(planes, (*h.shape[:3], planes.shape[-1]))], -1)
        for i in range(self.depth):
            h = self.activation(getattr(self, f"conv_{i}")(h))
        return self.out(h.reshape(h.shape[0], -1)).reshape(*lead, -1)


class ConvDecoder(nnx.Module):
    """One dense layer, then transposed 3×3 convolutions of stride 2, cropped to ``[..., *out_shape]``."""

    def __init__(
        self,
        in_size: int,
        widths: Sequence[int],
        shape: tuple[int, ...],
        outputs: int = 1,
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        use_output_bias: bool = True,
        dtype: Any = None,
        rngs: nnx.Rngs,
    ):
        self.shape, self.outputs, self.activation, self.depth = tuple(shape), outputs, activation, len(widths)
        self.start = (*(_halved(s, len(widths)) for s in shape[:2]), widths[0])
        self.dense = nnx.Linear(in_size, math.prod(self.start), dtype=dtype, rngs=rngs)
        sizes = [*widths, _channels(shape) * outputs]
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            bias = use_output_bias or i + 1 < len(widths)
            layer = _Strided(fan_in, fan_out, transposed=True, use_bias=bias, dtype=dtype, rngs=rngs)
            setattr(self, f"conv_{i}", layer)

    def __call__(self, z: Array, context: Array | None = None) -> Array:
        """``[..., latent]`` and ``[..., c]`` to ``[..., *shape]``, or ``[..., *shape, outputs]`` with more than one output."""
        if context is not None:
            z = jnp.concatenate([z, context.astype(z.dtype)], -1)
        lead = z.shape[:-1]
        h = self.dense(z).reshape(-1, *self.start)
        for i in range(self.depth):
            h = getattr(self, f"conv_{i}")(self.activation(h))
        h = h[:, : self.shape[0], : self.shape[1]]
        return h.reshape(*lead, *self.shape, *((self.outputs,) if self.outputs > 1 else ()))


def conv_encoder(
    shape: tuple[int, ...], widths: Sequence[int], out_size: int, *, context_size: int = 0, **options: Any
) -> Network:
    """A `ConvEncoder` as a pure network.

    Warns:
        UserWarning: a shape that reads like ``[channels, height, width]``; the channels are the last axis here.

    Raises:
        TypeError: widths that are no sequence of integers.
        ValueError: a shape that is no image's, a width or size below 1.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> net = conv_encoder((28, 28), (16, 32), 20)
        >>> net.apply(net.init(jax.random.key(0)), jnp.zeros((5, 28, 28))).shape
        (5, 20)
    """
    _check(shape, widths, out_size=out_size)
    return from_nnx(lambda rngs: ConvEncoder(shape, widths, out_size, context_size=context_size, rngs=rngs, **options))


def conv_decoder(
    latent_size: int,
    widths: Sequence[int],
    shape: tuple[int, ...],
    *,
    outputs: int = 1,
    context_size: int = 0,
    **options: Any,
) -> Network:
    """A `ConvDecoder` as a pure network.

    Warns:
        UserWarning: a shape that reads like ``[channels, height, width]``; the channels are the last axis here.

    Raises:
        TypeError: widths that are no sequence of integers.
        ValueError: a shape that is no image's, a width or size below 1.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> net = conv_decoder(10, (32, 16), (28, 28))
        >>> net.apply(net.init(jax.random.key(0)), jnp.zeros((2, 5, 10))).shape
        (2, 5, 28, 28)
    """
    _check(shape, widths, latent_size=latent_size, outputs=outputs)
    return from_nnx(lambda rngs: ConvDecoder(latent_size + context_size, widths, shape, outputs, rngs=rngs, **options))
