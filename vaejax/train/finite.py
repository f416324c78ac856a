"""What happens when numbers stop being finite: the step and the term that broke are found and named."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax import compilation
from vaejax.train.batches import Preprocess, plan_epoch, take_batch
from vaejax.train.optimizers import effective_optimizer
from vaejax.train.step import split_key, step
from vaejax.types import Batch, Estimate, Estimator, Key, Params, TrainState


class NonFiniteError(FloatingPointError):
    """Training met NaN or infinity.

    Attributes:
        step: number of the update that broke, from 0.
        state: the training state just before it, all of it finite.
        history: the epochs completed before it.
    """

    def __init__(self, message: str, step: int, state: TrainState, history: dict[str, np.ndarray]):
        super().__init__(message)
        self.step, self.state, self.history = step, state, history


def all_finite(tree: Any) -> bool:
    """Whether every number of a tree is finite."""
    return all(jax.device_get([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def mean(values: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The mean of the finite values, weighted by ``weight`` of the same shape; NaN where there is none."""
    counted = np.isfinite(values) if weight is None else np.isfinite(values) & (weight > 0)
    if not counted.any():
        return float("nan")
    return float(np.average(values[counted], weights=None if weight is None else weight[counted]))


def with_skipping(
    estimator: Estimator, optimizer: optax.GradientTransformation, state: TrainState
) -> tuple[Estimator, optax.GradientTransformation, TrainState]:
    """The same training, with updates left out where the gradient is not finite (`optax.apply_if_finite`), the estimator's own too."""
    # Partials of module functions compare by content as static arguments: a second run does not compile again.
    guarded = optax.GradientTransformationExtraArgs(
        functools.partial(_guarded_init, estimator, optimizer), functools.partial(_guarded_update, estimator, optimizer)
    )
    opt_state = guarded.init(state.params)._replace(inner_state=state.opt_state)
    estimate = functools.partial(_guarded_estimate, estimator)
    return estimator._replace(estimate=estimate, trainable=None), guarded, state._replace(opt_state=opt_state)


def _guarded_estimate(
    estimator: Estimator, params: Params, before: Any, key: Key, batch: Any, step: Any = 0
) -> tuple[Estimate, Any]:
    estimate, after = estimator.estimate(params, before, key, batch, step)
    leaves = [leaf for leaf in jax.tree.leaves((estimate.grads, after)) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    good = jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]))
    return estimate, jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)


def _guard(estimator: Estimator, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    # The bound on consecutive errors is ours to set: beyond it apply_if_finite would let the NaN through. Outermost, so that
    # its counts can be read whatever the optimiser is made of.
    inner = effective_optimizer(estimator, optimizer)
    return optax.apply_if_finite(inner, max_consecutive_errors=2**31 - 1)


def _guarded_init(estimator: Estimator, optimizer: Any, params: Params) -> Any:
    return _guard(estimator, optimizer).init(params)


def _guarded_update(
    estimator: Estimator, optimizer: Any, grads: Params, state: Any, params: Params | None = None, **extra: Any
) -> tuple[Params, Any]:
    return _guard(estimator, optimizer).update(grads, state, params, **extra)


def without_skipping(state: TrainState) -> TrainState:
    """The state as the caller's own optimiser made it."""
    return state._replace(opt_state=state.opt_state.inner_state)


def skipped(before: TrainState, after: TrainState) -> int:
    """How many updates were left out between two states."""
    return int(after.opt_state.total_notfinite) - int(before.opt_state.total_notfinite)


def find(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Batch,
    batch_size: int,
    preprocess: Preprocess | None,
) -> tuple[TrainState, str]:
    """Replays an epoch from its first state, one step at a time, up to the step that breaks.

    Returns:
        The state before that step, and what broke in it.
    """
    plan = plan_epoch(state.key, data.x.shape[0], batch_size)

    @compilation.jit
    def advance(state: TrainState, index: Any) -> tuple[TrainState, dict[str, Any]]:
        batch = take_batch(data, plan, index, preprocess)
        after, _ = step(estimator, optimizer, state, batch)
        # The same key as in the step, so the same draws: what broke there breaks here.
        _, key, _ = split_key(state.key)
        estimate, _ = estimator.estimate(state.params, state.estimator_state, key, batch, state.step)
        return after, {"x": batch.x, "metrics": estimate.metrics, "grads": estimate.grads, "params": after.params}

    for index, step_key in enumerate(plan.step_keys):
        state = state._replace(key=step_key)
        after, seen = advance(state, index)
        broken = describe(jax.device_get(seen))
        if broken:
            return state, broken
        state = after
    return state, "the objective, in the compiled epoch only"


def describe(seen: dict[str, Any]) -> str:
    """Names the first thing that is not finite, in the order in which a step computes."""
    # The objective is made of the other metrics: it comes last.
    metrics = sorted(seen["metrics"].items(), key=lambda item: item[0] == "objective")
    for name, value in [("x, as preprocessed,", seen["x"]), *metrics]:
        if not np.isfinite(np.asarray(value, np.float64)).all():
            return f"{name} is {_kind(value)}"
    for part, name in (("grads", "the gradient"), ("params", "the update")):
        for path, leaf in jax.tree_util.tree_leaves_with_path(seen[part]):
            if not np.isfinite(leaf).all():
                return f"{name} of params{jax.tree_util.keystr(path)} is {_kind(leaf)}"
    return ""


def _kind(value: Any) -> str:
    return "nan" if np.isnan(np.asarray(value, np.float64)).any() else "infinite"
