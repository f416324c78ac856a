"""What happens when numbers stop being finite: the step and the term that broke are found and named."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vaejax.terms import log_terms
from vaejax.train.epoch import Preprocess, plan_epoch, take_batch
from vaejax.train.step import step
from vaejax.types import Batch, Estimator, Model, TrainState


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


def find(
    model: Model,
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
    state = state._replace(key=plan.next_key)

    @jax.jit
    def advance(state: TrainState, index: Any) -> tuple[TrainState, dict[str, Any]]:
        batch = take_batch(data, plan, index, preprocess)
        after, metrics = step(estimator, optimizer, state, batch)
        _, key, _ = jax.random.split(state.key, 3)
        grads = estimator.estimate(state.params, state.estimator_state, key, batch, state.step)[0].grads
        terms = log_terms(model, state.params, key, batch)
        named = {"x": batch.x.astype(jnp.float32)} | {
            name: getattr(terms, name)
            for name in ("log_likelihood", "log_prior", "log_posterior", "kl")
            if getattr(terms, name) is not None
        }
        return after, {"terms": named, "objective": metrics["objective"], "grads": grads, "params": after.params}

    for index in range(plan.order.shape[0]):
        after, seen = advance(state, index)
        broken = describe(jax.device_get(seen))
        if broken:
            return state, broken
        state = after
    return state, "the objective, in the compiled epoch only"


def describe(seen: dict[str, Any]) -> str:
    """Names the first thing that is not finite, in the order in which a step computes."""
    for name, value in seen["terms"].items():
        bad = ~np.isfinite(np.asarray(value, np.float64))
        if bad.any():
            return f"{name} is {_kind(value)} in {int(bad.sum())} of {bad.size} values"
    if not np.isfinite(seen["objective"]):
        return f"the objective is {_kind(seen['objective'])} although its terms are finite"
    for part, name in (("grads", "the gradient"), ("params", "the update")):
        for path, leaf in jax.tree_util.tree_leaves_with_path(seen[part]):
            if not np.isfinite(leaf).all():
                return f"{name} of params{jax.tree_util.keystr(path)} is {_kind(leaf)}"
    return ""


def _kind(value: Any) -> str:
    return "nan" if np.isnan(np.asarray(value, np.float64)).any() else "infinite"
