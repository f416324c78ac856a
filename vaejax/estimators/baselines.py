"""Baselines for score-function gradients: what is subtracted from a signal, learned from earlier steps only.

A baseline is independent of the draw that it serves, so that the gradient stays unbiased. Signals are ``[K, *batch]``, or
``[K, *batch, *entries]`` where each latent has its own.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vaejax import checks
from vaejax.estimators.signals import leave_one_out as signals_of_others
from vaejax.nets import Network, mlp
from vaejax.numerics import weighted_mean
from vaejax.types import Array, Key, call


class Baseline(NamedTuple):
    """A baseline as pure functions.

    Attributes:
        init: ``(key, x) -> state``, x the observed data with one event axis, ``[*batch, features]``.
        value: ``(state, x, signals) -> `` what is subtracted, broadcastable to the signals.
        update: ``(state, x, signals, weight=None) -> state``, after the step; ``weight [*batch]`` as in `Batch`, passed by name where
            the batch has weights and the function declares it.
        scale: ``state -> `` a positive factor for the signals.
        needs_many_samples: whether it needs K > 1.
    """

    init: Callable
    value: Callable
    update: Callable
    scale: Callable = lambda state: 1.0
    needs_many_samples: bool = False


def constant(value: float = 0.0) -> Baseline:
    """The same number always; 0 is the plain score function (Williams 1992)."""
    value = checks.real(value, "value")
    return Baseline(lambda key, x: (), lambda state, x, signals: value, lambda state, x, signals, weight=None: state)


def leave_one_out() -> Baseline:
    """The mean of the other draws' signals: `estimators.signals.leave_one_out`. Needs K > 1."""
    return constant()._replace(value=lambda state, x, signals: signals_of_others(signals), needs_many_samples=True)


class Average(NamedTuple):
    """A running mean.

    Attributes:
        mean: so far.
        updates: how many so far.
    """

    mean: Array
    updates: Array


def _averaged(state: Average, value: Array, decay: float) -> Average:
    # The first values are averaged evenly, so that no start value lingers.
    kept = jnp.minimum(decay, state.updates / (state.updates + 1))
    return Average(kept * state.mean + (1 - kept) * value, state.updates + 1)


def moving_average(decay: float = 0.9) -> Baseline:
    """A running mean of the signals of earlier steps (Ranganath, Gerrish & Blei 2014; "centring" in Mnih & Gregor 2014)."""
    decay = checks.real(decay, "decay", minimum=0.0, maximum=1.0)
    return Baseline(
        lambda key, x: Average(jnp.zeros(()), jnp.zeros(())),
        lambda state, x, signals: state.mean,
        lambda state, x, signals, weight=None: _averaged(state, weighted_mean(signals, weight, sample_axes=1), decay),
    )


class NetworkState(NamedTuple):
    """A regression in progress.

    Attributes:
        params: of the network.
        opt_state: of its optimiser.
    """

    params: Any
    opt_state: Any


def network(hidden_sizes: Sequence[int] = (100,), *, optimizer: optax.GradientTransformation | None = None) -> Baseline:
    """A network of x trained by least squares on the signals (Mnih & Gregor 2014, section 2.3).

    Args:
        hidden_sizes: tanh layers; the output starts near 0.
        optimizer: any Optax optimiser; None is Adam at 1e-3.
    """
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer

    def predict(params: Any, x: Array, signals: Array) -> Array:
        out = _net(x, hidden_sizes).apply(params, x.astype(signals.dtype))[..., 0]
        return out.reshape(1, *out.shape, *(1,) * (signals.ndim - 1 - out.ndim))

    def init(key: Key, x: Array) -> NetworkState:
        params = _net(x, hidden_sizes).init(key)
        return NetworkState(params, optimizer.init(params))

    def update(state: NetworkState, x: Array, signals: Array, weight: Array | None = None) -> NetworkState:
        def loss(params: Any) -> Array:
            return weighted_mean((signals - predict(params, x, signals)) ** 2, weight, sample_axes=1)

        updates, opt_state = optimizer.update(jax.grad(loss)(state.params), state.opt_state, state.params)
        return NetworkState(optax.apply_updates(state.params, updates), opt_state)

    return Baseline(init, lambda state, x, signals: predict(state.params, x, signals), update)


@functools.cache
def _regression(size: int, hidden_sizes: tuple[int, ...]) -> Network:
    return mlp((size,), hidden_sizes, (1,))


def _net(x: Array, hidden_sizes: Sequence[int]) -> Network:
    return _regression(x.shape[-1], tuple(hidden_sizes))


def added(*parts: Baseline) -> Baseline:
    """One baseline after the other: each sees what those before it have left of the signals."""

    def each(function: Callable, state: tuple, x: Array, signals: Array) -> list:
        out = []
        for part, own in zip(parts, state):
            out.append(function(part)(own, x, signals))
            signals = signals - jnp.broadcast_to(part.value(own, x, signals), signals.shape)
        return out

    return Baseline(
        lambda key, x: tuple(part.init(k, x) for part, k in zip(parts, jax.random.split(key, len(parts)))),
        lambda state, x, signals: functools.reduce(jnp.add, each(lambda part: part.value, state, x, signals)),
        lambda state, x, signals, weight=None: tuple(
            each(lambda part: functools.partial(call, part.update, weight=weight), state, x, signals)
        ),
        lambda state: functools.reduce(jnp.multiply, [part.scale(own) for part, own in zip(parts, state)]),
        any(part.needs_many_samples for part in parts),
    )


def normalized(inner: Baseline, decay: float = 0.9) -> Baseline:
    """``inner``, with what is left divided by max(1, a running standard deviation of earlier steps) (Mnih & Gregor 2014, section 2.3.2).

    The gradient is then unbiased up to a positive factor, which `Baseline.scale` gives.
    """
    decay = checks.real(decay, "decay", minimum=0.0, maximum=1.0)

    def update(state: tuple, x: Array, signals: Array, weight: Array | None = None) -> tuple:
        left = signals - jnp.broadcast_to(inner.value(state[0], x, signals), signals.shape)
        # About its own mean: the centring of the inner baseline lags a step behind.
        variance = weighted_mean((left - weighted_mean(left, weight, sample_axes=1)) ** 2, weight, sample_axes=1)
        return call(inner.update, state[0], x, signals, weight=weight), _averaged(state[1], variance, decay)

    return Baseline(
        lambda key, x: (inner.init(key, x), Average(jnp.ones(()), jnp.zeros(()))),
        lambda state, x, signals: inner.value(state[0], x, signals),
        update,
        lambda state: inner.scale(state[0]) / jnp.maximum(1.0, jnp.sqrt(state[1].mean)),
        inner.needs_many_samples,
    )
