"""The variational autoencoder of Kingma & Welling: diagonal-Gaussian posterior, standard-normal prior, any likelihood."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks
from vaejax.dists import diagonal_normal, likelihoods, standard_normal
from vaejax.dists.backend import Distribution
from vaejax.nets import Network, mlp
from vaejax.types import Array, Key, Model, Params, as_batch, call, default_float, flat_examples


class _Parts(NamedTuple):
    x_shape: tuple[int, ...]
    latent_size: int
    context_size: int
    encode_mask: bool
    raw_shape: tuple[int, ...]
    family: likelihoods.Likelihood
    encoder: Network
    decoder: Network


def vae(
    *,
    x_shape: int | Sequence[int],
    latent_size: int,
    hidden_sizes: Sequence[int] = (200, 200),
    likelihood: str | likelihoods.Likelihood = "bernoulli",
    context_size: int = 0,
    encode_mask: bool = False,
    encoder: Network | None = None,
    decoder: Network | None = None,
    activation: Callable[[Array], Array] = jnp.tanh,
    layer_norm: bool = False,
    dropout_rate: float = 0.0,
    dtype: Any = None,
) -> Model:
    """p(z) = N(0, I), p(x|z) = likelihood(decoder(z)), q(z|x) = N(μ(x), diag σ(x)²) with (μ, log σ) = encoder(x).

    The decoder's output starts at the data's mean, and a learned σ at their spread: ``init`` reads both off the batch (all of the
    training data, ideally; None starts at 0 and 1).

    Args:
        x_shape: the event shape of the data, e.g. ``(28, 28)``.
        latent_size: dimension of z.
        hidden_sizes: widths of the encoder's hidden layers; the decoder has them in reverse.
        likelihood: ``"bernoulli"``, ``"normal"``, ``"poisson"``, or a family from `vaejax.dists.likelihoods`.
        context_size: width of the context given to both networks; 0 for none. A float context is ``[*batch, context_size]``; an
            integer one, ``[*batch]``, holds labels below ``context_size`` and is one-hot encoded.
        encode_mask: give the encoder the mask too, ``[*batch, entries of x]`` zeros and ones after the context. Without it a missing
            entry reads as 0 to the encoder (the likelihood leaves it out in either case).
        encoder: a network ``x [, context] -> [..., 2·latent_size]`` in place of the bundled MLP.
        decoder: a network ``z [, context] -> [..., *x_shape]`` (with a last axis ``likelihood.outputs`` where that exceeds 1).
        activation: of the bundled networks.
        layer_norm: likewise.
        dropout_rate: likewise, in training only.
        dtype: computation type of the bundled networks, such as bfloat16; parameters and log-densities stay float32.

    Returns:
        A `Model`; its params are ``{"encoder", "decoder", "output_bias", "likelihood"}``.

    Raises:
        ValueError: sizes below 1, an unknown likelihood; later, data of another shape or outside the likelihood's support, a
            missing or unexpected context, params of another model.

    Source:
        Kingma & Welling 2014, section 3 and appendix C; Sohn et al. 2015 (context).

    Examples:
        >>> import jax
        >>> model = vae(x_shape=(8, 8), latent_size=2, likelihood=likelihoods.binomial(16))
        >>> params = model.init(jax.random.key(0), None)
        >>> model.posterior(params, jax.numpy.zeros((5, 8, 8))).batch_shape
        (5,)
    """
    shape: tuple[int, ...] = tuple(np.atleast_1d(x_shape).tolist())
    for size in shape:
        checks.positive_int(size, "each of x_shape")
    checks.positive_int(latent_size, "latent_size")
    hidden_sizes = tuple(np.atleast_1d(hidden_sizes).tolist())
    if context_size:
        checks.positive_int(context_size, "context_size")
    family = likelihoods.resolve(likelihood)
    options: dict[str, Any] = {
        "activation": activation,
        "layer_norm": layer_norm,
        "dropout_rate": dropout_rate,
        "dtype": dtype,
    }
    raw_shape = (*shape, family.outputs) if family.outputs > 1 else shape
    side = context_size + encode_mask * math.prod(shape)
    encoder = encoder or mlp(shape, hidden_sizes, (2 * latent_size,), context_size=side, **options)
    # The output bias lives in the model, so that it starts at the data's mean whatever the network is.
    decoder = decoder or mlp(
        (latent_size,), hidden_sizes[::-1], raw_shape, use_output_bias=False, context_size=context_size, **options
    )
    parts = _Parts(shape, latent_size, context_size, encode_mask, raw_shape, family, encoder, decoder)
    return Model(
        init=functools.partial(_init, parts),
        posterior=functools.partial(_posterior, parts),
        prior=functools.partial(_prior, parts),
        likelihood=functools.partial(_likelihood, parts),
        check=functools.partial(_check, parts),
    )


def _init(parts: _Parts, key: Key, batch: Any = None) -> Params:
    checks.key(key)
    encoder_key, decoder_key = jax.random.split(key)
    context = (jnp.zeros((1, parts.context_size)),) if parts.context_size else ()
    blank, seen = jnp.zeros((1, *parts.x_shape)), jnp.ones((1, *parts.x_shape), bool)
    data = () if batch is None else _data(parts, batch)
    bias = parts.family.bias(*data) if data else jnp.zeros(parts.raw_shape)
    return {
        "encoder": parts.encoder.init(encoder_key, blank, *_with_mask(parts, context, seen)),
        "decoder": parts.decoder.init(decoder_key, jnp.zeros((1, parts.latent_size)), *context),
        "output_bias": bias.astype(default_float()),
        "likelihood": parts.family.init(parts.x_shape, *data),
    }


def _check(parts: _Parts, batch: Any) -> None:
    batch = as_batch(batch)
    checks.event_shape(batch.x, parts.x_shape)
    checks.observed_somewhere(batch, len(parts.x_shape))
    parts.family.check(batch.x, batch.mask)
    _features(parts, batch.context, batch.x.shape[: batch.x.ndim - len(parts.x_shape)])


def _data(parts: _Parts, batch: Any) -> tuple[Array, Array | None]:
    """The examples ``[n, *x_shape]`` and their mask or weights, checked."""
    _check(parts, batch)
    return flat_examples(as_batch(batch), parts.x_shape)


def _posterior(
    parts: _Parts, params: Params, x: Array, context: Any = None, *, mask: Array | None = None, key: Key | None = None
) -> Distribution:
    checks.event_shape(x, parts.x_shape)
    _check_params(params)
    lead = x.shape[: x.ndim - len(parts.x_shape)]
    x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(default_float())
    side = _with_mask(parts, _features(parts, context, lead), jnp.ones(x.shape, bool) if mask is None else mask)
    raw = call(parts.encoder.apply, params["encoder"], x, *side, key=key)
    loc, log_scale = jnp.split(_checked_output(raw, (*lead, 2 * parts.latent_size), "encoder"), 2, axis=-1)
    return diagonal_normal(loc, log_scale=log_scale)


def _prior(parts: _Parts, params: Params, context: Any = None) -> Distribution:
    return standard_normal(parts.latent_size)


def _likelihood(
    parts: _Parts, params: Params, z: Array, context: Any = None, *, key: Key | None = None
) -> Distribution:
    checks.event_shape(z, (parts.latent_size,), "z")
    _check_params(params)
    lead = z.shape[:-1]
    features = [f.reshape(-1, f.shape[-1]) for f in (z, *_features(parts, context, lead))]
    raw = call(parts.decoder.apply, params["decoder"], *features, key=key)
    # The bias joins while there is one leading axis: after [K, batch] XLA would compute the gradient of raw twice.
    raw = _checked_output(raw, (features[0].shape[0], *parts.raw_shape), "decoder") + params["output_bias"][None]
    return parts.family.distribution(params["likelihood"], raw.reshape(*lead, *parts.raw_shape), len(parts.x_shape))


def _features(parts: _Parts, context: Any, lead: tuple[int, ...]) -> tuple[Array, ...]:
    """The context as ``[*lead, context_size]`` numbers for a network, repeated along the sample axis where there is one."""
    size = parts.context_size
    if not size:
        if context is not None:
            raise ValueError(
                "the batch has a context, but this model was built without one; pass context_size= to vae, or leave the context out"
            )
        return ()
    if not hasattr(context, "dtype"):
        raise ValueError(
            f"this model was built with context_size={size}; give Batch(x, context=...) with one array, got {type(context).__name__}"
        )
    if jnp.issubdtype(context.dtype, jnp.integer):
        context = _one_hot(context, size)
    checks.event_shape(context, (size,), "context")
    # A vector would be repeated for every example.
    if (
        context.ndim - 1 > len(lead)
        or (context.ndim == 1 and lead)
        or context.shape[:-1] != lead[len(lead) - context.ndim + 1 :]
    ):
        raise ValueError(
            f"context has leading axes {list(context.shape[:-1])}, wanted those of the batch, {list(lead)}"
        )
    return (jnp.broadcast_to(context, (*lead, size)).astype(default_float()),)


def _one_hot(context: Array, size: int) -> Array:
    """One-hot rows of an integer context, which holds labels, or such rows already if its last axis has ``size`` entries."""
    if context.ndim < 2 or context.shape[-1] != size:
        checks.values(context, lambda c: (c >= 0) & (c < size), "context", f"labels from 0 to {size - 1}")
        return jax.nn.one_hot(context, size, dtype=default_float())
    checks.values(
        context,
        lambda c: ((c == 0) | (c == 1)) & (c.sum(axis=-1, keepdims=True) == 1),
        "context",
        f"labels from 0 to {size - 1}, or one-hot rows of {size} integers (convert covariates and counts with "
        ".astype('float32'))",
    )
    return context


def _with_mask(parts: _Parts, features: tuple[Array, ...], mask: Array) -> tuple[Array, ...]:
    """The encoder's second input: the context, the mask, or both side by side."""
    if not parts.encode_mask:
        return features
    seen = mask.reshape(*mask.shape[: mask.ndim - len(parts.x_shape)], -1).astype(default_float())
    return (jnp.concatenate([*features, seen], axis=-1),)


def _checked_output(raw: Any, shape: tuple[int, ...], name: str) -> Array:
    if jnp.shape(raw) != shape:
        raise ValueError(f"the {name} gave an output of shape {list(jnp.shape(raw))}, wanted {list(shape)}")
    return raw.astype(jnp.promote_types(raw.dtype, jnp.float32))


def _check_params(params: Params) -> None:
    names = {"encoder", "decoder", "output_bias", "likelihood"}
    if not isinstance(params, dict) or set(params) != names:
        came = sorted(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(
            f"these params do not belong to a vae: got {came}, wanted {sorted(names)}; use the params that its init returned"
        )
