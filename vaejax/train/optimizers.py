"""Optax transformations in a training step: extra arguments, frozen leaves, and the parameters to evaluate."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import SAMState, ScheduleFreeState, schedule_free_eval_params

from vaejax.train.checkpoint import without_absl_log
from vaejax.types import Array, Estimate, Estimator, Key, Params, TrainState

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


class LookaheadPair(NamedTuple):
    """The state of `optax.lookahead`, with its slow parameters; the fast ones are those of the training state."""

    state: Any
    slow: Params


def as_transformation(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """Returns an optimizer as a transformation of ordinary parameters that accepts any extra argument.

    `optax.MultiSteps` is converted. `optax.lookahead` expects pairs of parameters: the slow ones become part of its state.

    Raises:
        TypeError: not an Optax transformation.
    """
    if isinstance(optimizer, optax.MultiSteps):
        inner = optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    elif isinstance(optimizer, optax.GradientTransformation):
        inner = optax.with_extra_args_support(optimizer)
    else:
        raise TypeError(
            "optimizer must be an Optax gradient transformation such as optax.adam(1e-3), got "
            f"{_described(optimizer)}. {_cure(optimizer)}"
        )

    def init(params: Params) -> Any:
        with without_absl_log():
            state = inner.init(params)
        if not _states(state, optax.LookaheadState):
            return state
        return LookaheadPair(inner.init(optax.LookaheadParams.init_synced(params)), params)

    def update(grads: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
        if not isinstance(state, LookaheadPair):
            return _updated(inner, grads, state, params, extra)
        pair = optax.LookaheadParams(fast=params, slow=state.slow)
        updates, after = _updated(inner, grads, state.state, pair, extra)
        return updates.fast, LookaheadPair(after, optax.apply_updates(state.slow, updates.slow))

    return optax.GradientTransformationExtraArgs(init, update)


def _updated(inner: Any, grads: Params, state: Any, params: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
    """Calls ``inner.update`` with the extra arguments that every member of a chain accepts.

    `optax.chain` passes all of them to each member that accepts any, and some (`optax.contrib.sam`) accept one only.
    """
    while True:
        try:
            return inner.update(grads, state, params, **extra)
        except TypeError as error:
            name = _UNEXPECTED.search(str(error))
            if name is None or name.group(1) not in extra:
                raise
            extra = {key: value for key, value in extra.items() if key != name.group(1)}


def _described(optimizer: Any) -> str:
    name = getattr(optimizer, "__name__", "")
    return f"{type(optimizer).__name__} {name}".strip()


def _cure(optimizer: Any) -> str:
    if hasattr(optimizer, "tx"):
        return "Pass the transformation that it holds, its .tx."
    if hasattr(optimizer, "gradient_transformation"):
        return "Pass its .gradient_transformation()."
    if isinstance(optimizer, int | float):
        return f"Pass optax.adam({optimizer!r})."
    if not callable(optimizer):
        return "Build one with Optax."
    names = list(_parameters(optimizer))
    if len(names) == 1 and names[0] in ("count", "step", "step_count"):
        return "A schedule is a learning rate: pass optax.adam(schedule)."
    return f"Call it with its settings, as in {getattr(optimizer, '__name__', 'optimizer')}(1e-3)."


def _parameters(function: Callable) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def effective_optimizer(estimator: Estimator, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer, leaving alone the leaves that the model does not train."""
    transformation = as_transformation(optimizer)
    if estimator.trainable is None:
        return transformation
    trainable = estimator.trainable

    def labels(params: Params) -> Params:
        return jax.tree.map(lambda train: "trained" if train else "frozen", trainable(params))

    masked = optax.GradientTransformationExtraArgs(transformation.init, _masked_update(transformation))
    parts = optax.partition({"trained": masked, "frozen": optax.set_to_zero()}, labels)

    def update(grads: Params, state: Any, params: Params | None = None, **extra: Any) -> tuple[Params, Any]:
        return parts.update(grads, state, params, all_params=params, **extra)

    return optax.GradientTransformationExtraArgs(parts.init, update)


def _masked_update(transformation: optax.GradientTransformationExtraArgs) -> Callable:
    """Returns the update on the trained leaves, with extra arguments that are functions of these alone."""

    def update(grads: Params, state: Any, params: Any = None, *, all_params: Params, **extra: Any) -> Any:
        def on_trained(function: Callable) -> Callable:
            @functools.wraps(function)
            def of_trained(trained: Any, *args: Any, **options: Any) -> Any:
                return function(_completed(trained, all_params), *args, **options)

            return of_trained

        masked: dict[str, Any] = {name: on_trained(extra[name]) for name in ("value_fn", "obj_fn") if name in extra}
        if "grad" in extra:
            masked["grad"] = grads
        if "grad_fn" in extra:
            grad_fn = on_trained(extra["grad_fn"])
            masked["grad_fn"] = lambda trained, *args: _masked(grad_fn(trained, *args), trained)
        return transformation.update(grads, state, params, **{**extra, **masked})

    return update


def _is_masked(leaf: Any) -> bool:
    return isinstance(leaf, optax.MaskedNode)


def _completed(masked: Any, params: Params) -> Params:
    """Returns ``masked`` with the leaves of ``params`` in its gaps."""
    return jax.tree.map(lambda m, p: p if _is_masked(m) else m, masked, params, is_leaf=_is_masked)


def _masked(params: Params, like: Any) -> Any:
    """Returns ``params`` with the gaps of ``like``."""
    return jax.tree.map(lambda m, p: m if _is_masked(m) else p, like, params, is_leaf=_is_masked)


def extra_arguments(
    estimator: Estimator, state: TrainState, key: Key, batch: Any, estimate: Estimate
) -> dict[str, Any]:
    """Returns what Optax documents as extra arguments of ``update``, in the direction that is minimized.

    ``value`` is the loss and ``grad`` its gradient, as estimated. ``value_fn`` (also ``obj_fn``) and ``grad_fn`` evaluate them at
    other parameters with the same batch and the same random numbers. The derivative of ``value_fn`` is the estimator's gradient.
    """

    def estimate_at(params: Params) -> Estimate:
        return estimator.estimate(params, state.estimator_state, key, batch, state.step)[0]

    @jax.custom_jvp
    def value_at(params: Params) -> Array:
        return _loss(estimate_at(params))

    @value_at.defjvp
    def _(primals: tuple[Params], tangents: tuple[Params]) -> tuple[Array, Array]:
        at = estimate_at(primals[0])
        slopes = jax.tree.map(lambda g, t: jnp.sum(g * t), at.grads, tangents[0])
        value = _loss(at)
        return value, jnp.asarray(sum(jax.tree.leaves(slopes)), value.dtype)

    # Line searches refuse extra arguments that value_fn does not accept.
    def value_fn(params: Params, *, grad_fn: Any = None, obj_fn: Any = None) -> Array:
        return value_at(params)

    def grad_fn(params: Params, *_: Any) -> Params:
        return estimate_at(params).grads

    functions = {"value_fn": value_fn, "obj_fn": value_fn, "grad_fn": grad_fn}
    return {"value": _loss(estimate), "grad": estimate.grads, **functions}


def _loss(estimate: Estimate) -> Array:
    """The loss of an estimate; custom estimators without one maximize the metric ``objective``."""
    return -estimate.metrics["objective"] if estimate.loss is None else estimate.loss


def evaluation_params(state: TrainState) -> Params:
    """Returns the parameters to evaluate: those that Optax documents where it differs, else ``state.params``.

    These are the slow parameters of `optax.lookahead`, the averaged ones of `optax.contrib.schedule_free`
    (`optax.contrib.schedule_free_eval_params`), and the unperturbed ones of `optax.contrib.sam`.

    Args:
        state: from `vaejax.train.init`, a training step or `vaejax.train.fit`.

    Examples:
        >>> import jax, optax, vaejax
        >>> model = vaejax.models.vae(x_shape=(4,), latent_size=2, hidden_sizes=(8,))
        >>> estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
        >>> optimizer, x = optax.contrib.schedule_free_adamw(1e-3), jax.numpy.ones((5, 4))
        >>> state = vaejax.train.init(jax.random.key(0), model, estimator, optimizer, x)
        >>> sorted(evaluation_params(state))
        ['decoder', 'encoder', 'likelihood', 'output_bias']
    """
    params = state.params
    for part in _states(state.opt_state, (LookaheadPair, ScheduleFreeState, SAMState)):
        if isinstance(part, LookaheadPair):
            params = _completed(part.slow, params)
        elif isinstance(part, ScheduleFreeState):
            params = _completed(schedule_free_eval_params(part, _masked(params, part.z)), params)
        elif part.cache is not None:
            synced = part.steps_since_sync == 0
            trained = _masked(params, part.cache)
            params = _completed(jax.tree.map(lambda p, c, s=synced: jnp.where(s, p, c), trained, part.cache), params)
    return params


def _states(tree: Any, kinds: Any) -> list[Any]:
    """The outermost states of these kinds in the state of an optimizer."""
    return [
        leaf for leaf in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kinds)) if isinstance(leaf, kinds)
    ]
