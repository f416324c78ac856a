"""REBAR and RELAX: a relaxation, or a network, as a control variate whose scale is learned while it is used."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vaejax import checks
from vaejax.dists.factors import Factors, couple, factors, noise, score
from vaejax.dists.factors import relax as relaxed_state
from vaejax.estimators.base import Terms, gradient, weighted_mean
from vaejax.estimators.problem import (
    Problem,
    Values,
    check_layers,
    discrete_layers,
    features,
    logits_surrogate,
    problem,
    redrawn_below,
    sampled,
    stopped_values,
)
from vaejax.nets import Network, mlp
from vaejax.terms import log_terms
from vaejax.types import Array, Batch, Estimate, Estimator, Key, LogTerms, Model, Params, as_batch, declares


class Tuned(NamedTuple):
    """What one layer's control variate is made of.

    Attributes:
        eta: scale of the relaxed objective.
        log_temperature: of the relaxation.
        critic: params of the network, or None.
    """

    eta: Array
    log_temperature: Array
    critic: Any = None


class RebarState(NamedTuple):
    """The control variates, and the state of their optimiser.

    Attributes:
        tuned: one `Tuned` for each discrete layer.
        opt_state: of the optimiser.
    """

    tuned: tuple[Tuned, ...]
    opt_state: Any


def rebar(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    temperature: Any = 0.5,
    eta: float = 1.0,
    optimizer: optax.GradientTransformation | None = None,
    terms: Terms = log_terms,
) -> Estimator:
    """[f(b) − η f(σ_T(ỹ))] ∇log q(b) + η ∇f(σ_T(y)) − η ∇f(σ_T(ỹ)), y = logits + noise, b = H(y), ỹ drawn given b: unbiased for any η, T.

    y and ỹ share their noise, so that they are equal in value and differ in their derivatives: the relaxed objective is evaluated once, and
    its direct dependence on the params cancels. η and T descend the squared norm of the gradient in the logits, at each step, for each
    layer; layers below a relaxed one are relaxed too.

    Args:
        model: with Bernoulli or categorical layers, and a likelihood defined between their states.
        objective: an objective that averages over draws.
        num_samples: K.
        temperature: T at the start, to be tuned from there, or a schedule ``step -> T``, which is kept to.
        eta: η at the start.
        optimizer: of η and log T; None is Adam at 1e-2. ``optax.set_to_zero()`` holds them fixed.
        terms: as in `pathwise`.

    Raises:
        TypeError: from ``init``, for other latents.

    Source:
        Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein 2017, eqs. 3–7 and section 3.2; tuning by E[2 g ∂g/∂λ].

    Examples:
        >>> import jax, vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = rebar(model, vaejax.objectives.elbo, temperature=0.5)
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> state = estimator.init(params, jax.random.key(1), x)
        >>> estimate, state = estimator.estimate(params, state, jax.random.key(2), x)
        >>> estimate.objective.shape, len(state.tuned)
        ((5,), 1)
    """
    made = problem("rebar", model, objective, num_samples, terms, averages=True)
    return _control_variate("rebar", made, _Start(temperature, eta, None), optimizer)


def relax(
    model: Model,
    objective: Any,
    *,
    num_samples: int = 1,
    critic: Sequence[int] = (50,),
    temperature: Any = 0.5,
    eta: float = 1.0,
    optimizer: optax.GradientTransformation | None = None,
    terms: Terms = log_terms,
) -> Estimator:
    """REBAR with a free-form critic: the control variate is η f(σ_T(y)) + r(y, x), r a network; unbiased whatever it is.

    Args:
        model: as in `rebar`.
        objective: as in `rebar`.
        num_samples: K.
        critic: sizes of its hidden layers.
        temperature: as in `rebar`.
        eta: as in `rebar`; 0 with a frozen optimiser leaves the critic alone.
        optimizer: of η, log T and the critic; None is Adam at 1e-2 for the former and at 1e-3 for the critic.
        terms: as in `pathwise`.

    Source:
        Grathwohl, Choi, Wu, Roeder & Duvenaud 2018, eqs. 7–11, algorithm 2 and appendix B.

    Examples:
        >>> import vaejax
        >>> model = vaejax.models.sigmoid_belief_network(x_shape=4, layer_sizes=3)
        >>> estimator = relax(model, vaejax.objectives.elbo, critic=(10,))
    """
    for size in critic:
        checks.positive_int(size, "each of critic")
    made = problem("relax", model, objective, num_samples, terms, averages=True)
    return _control_variate("relax", made, _Start(temperature, eta, tuple(critic)), optimizer)


class _Start(NamedTuple):
    temperature: Any
    eta: float
    critic: tuple[int, ...] | None


def _control_variate(
    name: str, made: Problem, start: _Start, optimizer: optax.GradientTransformation | None
) -> Estimator:
    _check_start(name, start)
    tuner = _default_optimizer() if optimizer is None else optimizer

    def init(params: Params, key: Key, batch: Any) -> RebarState:
        batch = as_batch(batch)
        seen = check_layers(
            name, made, params, key, batch, kinds=("bernoulli", "categorical"), way_out="score_function"
        )
        found = [q for layer in seen.layers if (q := factors(layer)) is not None]
        size = features(batch, seen.batch_ndims).shape[-1]
        keys = jax.random.split(key, len(found))
        tuned = tuple(_start_tuned(start, q, size, k) for q, k in zip(found, keys))
        return RebarState(tuned, tuner.init(tuned))

    def estimate(params: Params, state: RebarState, key: Key, batch: Any, step: Any = 0) -> tuple[Estimate, RebarState]:
        checks.key(key)
        batch = as_batch(batch)
        key, noise_key = jax.random.split(key)
        drawn, values = stopped_values(made, params, key, batch, step)
        places = _places(drawn, values, noise_key, batch)
        now = _at_step(start, state.tuned, step)

        def spread(tuned: tuple[Tuned, ...]) -> tuple[Array, list[Array]]:
            found = [_layer_gradient(place, one, start.critic) for place, one in zip(places, tuned)]
            squares = jnp.asarray(sum(place.q.sum_event(g**2) for place, g in zip(places, found)))
            return weighted_mean(squares, batch.weight, sample_axes=1), found

        slopes, cotangents = jax.grad(spread, has_aux=True)(now)
        updates, opt_state = tuner.update(slopes, state.opt_state, now)
        left = iter(cotangents)
        by_layer = [None if layer is None else next(left) for layer, _ in discrete_layers(drawn)]
        result = gradient(
            made.objective,
            params,
            batch,
            step,
            lambda params: made.draw(params, key, batch),
            lambda live: logits_surrogate(live, by_layer),
        )
        return result, RebarState(_at_step(start, optax.apply_updates(now, updates), step), opt_state)

    return Estimator(init, estimate, made.model.trainable, made.model.refresh)


def _check_start(name: str, start: _Start) -> None:
    if not callable(start.temperature):
        checks.real(start.temperature, "temperature", minimum=0.0, open_minimum=True)
    elif declares(start.temperature, "params"):
        raise TypeError(
            f"{name} tunes its temperature by itself, so that a function of params would not be learned; give a number to start from, or "
            "a schedule step -> T"
        )
    checks.real(start.eta, "eta")


def _at_step(start: _Start, tuned: tuple[Tuned, ...], step: Any) -> tuple[Tuned, ...]:
    """With the schedule's temperature, where there is one, whatever the optimiser made of it."""
    if not callable(start.temperature):
        return tuned
    return tuple(
        one._replace(log_temperature=jnp.log(jnp.asarray(start.temperature(step), one.log_temperature.dtype)))
        for one in tuned
    )


def _default_optimizer() -> optax.GradientTransformation:
    def label(tuned: tuple[Tuned, ...]) -> Any:
        def of(path: Any, leaf: Any) -> str:
            return "critic" if any(getattr(part, "name", None) == "critic" for part in path) else "scale"

        return jax.tree_util.tree_map_with_path(of, tuned)

    return optax.partition({"scale": optax.adam(1e-2), "critic": optax.adam(1e-3)}, label)


def _start_tuned(start: _Start, q: Factors, size: int, key: Key) -> Tuned:
    dtype = q.logits.dtype
    critic = None
    if start.critic is not None:
        critic = jax.tree.map(lambda a: a.astype(dtype), _critic(start.critic, q.event_shape, size).init(key))
    temperature = start.temperature(0) if callable(start.temperature) else start.temperature
    return Tuned(jnp.asarray(start.eta, dtype), jnp.log(jnp.asarray(temperature, dtype)), critic)


@functools.cache
def _critic(hidden_sizes: tuple[int, ...], event_shape: tuple[int, ...], features: int) -> Network:
    return mlp(event_shape, hidden_sizes, (1,), context_size=features)


class _Place(NamedTuple):
    """One discrete layer at its draws."""

    q: Factors
    z: Array
    y: Array
    noise: Array
    at_draws: Array
    relaxed: Any
    features: Array


def _places(drawn: LogTerms, values: Values, key: Key, batch: Batch) -> list[_Place]:
    lead = drawn.log_prior.shape
    seen = features(batch, len(lead) - 1)
    seen = jnp.broadcast_to(seen, (*lead, seen.shape[-1]))
    found = []
    for index, (layer, z) in enumerate(discrete_layers(drawn)):
        if layer is None:
            continue
        noise_key, below_key = jax.random.split(jax.random.fold_in(key, index))
        q = layer._replace(logits=jnp.broadcast_to(layer.logits, z.shape))
        eps = noise(q, noise_key, ())
        relaxed = functools.partial(_relaxed_value, drawn, values, q, index, below_key)
        found.append(_Place(q, z, couple(q, z, eps), eps, values.at_draws, relaxed, seen.astype(q.logits.dtype)))
    return found


def _relaxed_value(
    drawn: LogTerms, values: Values, q: Factors, index: int, key: Key, y: Array, temperature: Array
) -> Array:
    """f with one layer relaxed at y, and the layers below it relaxed given that, with noise of their own."""

    def draw(layer: Any, key: Key, shape: tuple[int, ...]) -> Array:
        found = factors(layer)
        if found is None:
            return sampled(layer, key, shape)
        return relaxed_state(found, found.logits + noise(found, key, shape), temperature)

    return values.at(redrawn_below(drawn, index, relaxed_state(q, y, temperature), key, draw))


def _layer_gradient(place: _Place, tuned: Tuned, critic: tuple[int, ...] | None) -> Array:
    """The gradient of E f in the logits, ``[K, *batch, *event]``, as a function of what is tuned."""
    q = place.q

    def control(y: Array) -> tuple[Array, Array]:
        value = tuned.eta * place.relaxed(y, jnp.exp(tuned.log_temperature))
        if critic is not None:
            network = _critic(critic, q.event_shape, place.features.shape[-1])
            value = value + network.apply(tuned.critic, y, place.features)[..., 0]
        return jnp.sum(value), value

    slope, value = jax.grad(control, has_aux=True)(place.y)

    def paths(logits: Array) -> tuple[Array, Array]:
        # y as logits plus noise held fixed, and as what the coupling makes of it; categories' logits are normalised in both.
        moved = jax.nn.log_softmax(logits, -1) if q.categorical else logits
        return moved, couple(q._replace(logits=logits), place.z, place.noise)

    through = jax.vjp(paths, q.logits)[1]((slope, -slope))[0]
    left = (place.at_draws - value)[(..., *(None,) * q.event_ndims)]
    return left * score(q, place.z) + through
