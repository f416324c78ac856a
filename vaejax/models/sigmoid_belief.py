"""Sigmoid belief networks: layers of Bernoulli latents, generated from the top down and inferred from the bottom up."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vaejax import checks
from vaejax.dists import Bernoulli, Chain, likelihoods
from vaejax.dists.backend import Distribution
from vaejax.nets import Network, mlp
from vaejax.types import Array, Key, Model, Params, as_batch, default_float, flat_examples


class _Parts(NamedTuple):
    x_shape: tuple[int, ...]
    layer_sizes: tuple[int, ...]
    raw_shape: tuple[int, ...]
    family: likelihoods.Likelihood
    # From the data up: encoders[l] gives layer l its logits, decoders[l] takes layer l to what lies below it.
    encoders: tuple[Network, ...]
    decoders: tuple[Network, ...]


def sigmoid_belief_network(
    *,
    x_shape: int | Sequence[int],
    layer_sizes: int | Sequence[int] = (200,),
    hidden_sizes: Sequence[int] = (),
    likelihood: str | likelihoods.Likelihood = "bernoulli",
    activation: Callable[[Array], Array] = jnp.tanh,
) -> Model:
    """p(z_L) ∏_l p(z_l | z_{l+1}) p(x | z_1) with Bernoulli layers, and q(z_1 | x) ∏_l q(z_{l+1} | z_l) the other way.

    The latents are an array ``[..., size]`` for one layer, a tuple ``(z_1, …, z_L)`` from the data up for several. Networks see latents
    as ±1 and data less their mean, as ``init`` finds it; the output starts at the data's mean. The top layer's logits are learned, from 0.
    A posterior of this kind wants an estimator for discrete latents, such as `vaejax.estimators.disarm`.

    Args:
        x_shape: the event shape of the data.
        layer_sizes: how many latents each layer has, from the data up.
        hidden_sizes: widths of deterministic layers between two stochastic ones, in the encoder's order; none is the linear network.
        likelihood: as in `vaejax.models.vae`.
        activation: of the deterministic layers.

    Returns:
        A `Model`; its params are ``{"encoder", "prior", "decoder", "output_bias", "likelihood", "input_mean"}``, of which the last
        is data, not trained. Entries that the mask hides are at their mean to the encoder.

    Raises:
        ValueError: sizes below 1, an unknown likelihood; later, data of another shape or outside the likelihood's support, a context.

    Source:
        Neal 1992; Mnih & Gregor 2014, section 2 and appendix A.

    Examples:
        >>> import jax, vaejax
        >>> model = sigmoid_belief_network(x_shape=(8, 8), layer_sizes=(20, 10))
        >>> x = jax.random.bernoulli(jax.random.key(0), 0.3, (5, 8, 8)).astype(float)
        >>> params = model.init(jax.random.key(1), x)
        >>> terms = vaejax.log_terms(model, params, jax.random.key(2), x, num_samples=3)
        >>> [z.shape for z in terms.latents], terms.log_weights.shape
        ([(3, 5, 20), (3, 5, 10)], (3, 5))
    """
    shape: tuple[int, ...] = tuple(np.atleast_1d(x_shape).tolist())
    sizes: tuple[int, ...] = tuple(np.atleast_1d(layer_sizes).tolist())
    hidden_sizes = tuple(np.atleast_1d(hidden_sizes).astype(int).tolist())
    for size in shape:
        checks.positive_int(size, "each of x_shape")
    for size in sizes:
        checks.positive_int(size, "each of layer_sizes")
    if not sizes:
        raise ValueError("layer_sizes is empty; give the number of latents of each layer, such as (200,)")
    family = likelihoods.resolve(likelihood)
    raw_shape = (*shape, family.outputs) if family.outputs > 1 else shape
    net = functools.partial(mlp, activation=activation)
    pairs = list(itertools.pairwise(sizes))
    parts = _Parts(
        shape,
        sizes,
        raw_shape,
        family,
        encoders=(net(shape, hidden_sizes, (sizes[0],)), *(net((a,), hidden_sizes, (b,)) for a, b in pairs)),
        # The output bias lives in the model, so that it starts at the data's mean.
        decoders=(
            net((sizes[0],), hidden_sizes[::-1], raw_shape, use_output_bias=False),
            *(net((b,), hidden_sizes[::-1], (a,)) for a, b in pairs),
        ),
    )
    return Model(
        init=functools.partial(_init, parts),
        posterior=functools.partial(_posterior, parts),
        prior=functools.partial(_prior, parts),
        likelihood=functools.partial(_likelihood, parts),
        trainable=_trainable,
        check=functools.partial(_check, parts),
    )


def _init(parts: _Parts, key: Key, batch: Any = None) -> Params:
    checks.key(key)
    keys = jax.random.split(key, (2, len(parts.layer_sizes)))
    encoder, decoder = (
        {_name(level): net.init(k) for level, (net, k) in enumerate(zip(nets, row))}
        for nets, row in zip((parts.encoders, parts.decoders), keys)
    )
    data: tuple = ()
    if batch is not None:
        _check(parts, batch)
        data = flat_examples(as_batch(batch), parts.x_shape)
    zeros = functools.partial(jnp.zeros, dtype=default_float())
    bias = parts.family.bias(*data) if data else zeros(parts.raw_shape)
    return {
        "encoder": encoder,
        "prior": {"top": zeros(parts.layer_sizes[-1]), **{n: p for n, p in decoder.items() if n != "layer_1"}},
        "decoder": decoder["layer_1"],
        "output_bias": bias.astype(default_float()),
        "likelihood": parts.family.init(parts.x_shape, *data),
        "input_mean": likelihoods.mean_of_observed(*data) if data else zeros(parts.x_shape),
    }


def _name(level: int) -> str:
    return f"layer_{level + 1}"


def _trainable(params: Params) -> Params:
    return {name: jax.tree.map(lambda _, name=name: name != "input_mean", part) for name, part in params.items()}


def _check(parts: _Parts, batch: Any) -> None:
    batch = as_batch(batch)
    checks.event_shape(batch.x, parts.x_shape)
    checks.observed_somewhere(batch, len(parts.x_shape))
    parts.family.check(batch.x, batch.mask)
    _no_context(batch.context)


def _no_context(context: Any) -> None:
    if context is not None:
        raise ValueError(
            "the batch has a context, which a sigmoid_belief_network does not use; leave it out, or use vaejax.models.vae(context_size=)"
        )


def _posterior(
    parts: _Parts, params: Params, x: Array, context: Any = None, *, mask: Array | None = None
) -> Distribution | Chain:
    checks.event_shape(x, parts.x_shape)
    _no_context(context)
    centred = x - jax.lax.stop_gradient(params["input_mean"])
    seen = centred if mask is None else jnp.where(mask, centred, 0.0)

    levels = range(len(parts.layer_sizes))
    return _chain([Partial(_EncodeStep(parts, level), params["encoder"], seen) for level in levels])


class _EncodeStep(NamedTuple):
    """The function of a layer. It compares by content, so that chains compare equal as pytrees."""

    parts: _Parts
    level: int

    def __call__(self, params: Params, centred: Array, drawn: tuple) -> Bernoulli:
        below = _signs(drawn[-1]) if drawn else centred
        return Bernoulli(self.parts.encoders[self.level].apply(params[_name(self.level)], below))


def _prior(parts: _Parts, params: Params, context: Any = None) -> Distribution | Chain:
    _no_context(context)

    order = tuple(reversed(range(len(parts.layer_sizes))))
    return _chain([Partial(_DecodeStep(parts, level), params["prior"]) for level in order], order)


class _DecodeStep(NamedTuple):
    """As `_EncodeStep`, of a layer of the prior."""

    parts: _Parts
    level: int

    def __call__(self, params: Params, drawn: tuple) -> Bernoulli:
        if not drawn:
            return Bernoulli(params["top"])
        above = self.level + 1
        return Bernoulli(self.parts.decoders[above].apply(params[_name(above)], _signs(drawn[-1])))


def _chain(conditionals: list, order: tuple[int, ...] | None = None) -> Distribution | Chain:
    return conditionals[0](()) if len(conditionals) == 1 else Chain(conditionals, order)


def _likelihood(parts: _Parts, params: Params, z: Any, context: Any = None) -> Distribution:
    _no_context(context)
    bottom = z[0] if isinstance(z, tuple) else z
    checks.event_shape(bottom, parts.layer_sizes[:1], "z")
    # One leading axis until the bias has joined: after [K, batch] XLA would compute the gradient of raw twice.
    raw = parts.decoders[0].apply(params["decoder"], _signs(bottom).reshape(-1, bottom.shape[-1]))
    raw = (raw + params["output_bias"]).reshape(*bottom.shape[:-1], *parts.raw_shape)
    return parts.family.distribution(params["likelihood"], raw, len(parts.x_shape))


def _signs(z: Array) -> Array:
    """0 and 1 as ±1, so that neither state is silent (Mnih & Gregor 2014 centre what the networks see)."""
    return 2 * z - 1
