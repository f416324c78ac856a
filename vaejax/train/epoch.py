"""A whole epoch as one compiled scan over data that stay on the device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vaejax import checks, compilation
from vaejax.train import layout
from vaejax.train.batches import Preprocess, from_outside, in_turn, plan_epoch
from vaejax.train.state import check_parts
from vaejax.train.step import Metrics, split_key, update
from vaejax.types import Array, Estimator, TrainState


def make_epoch(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    preprocess: Preprocess | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Compiles an epoch: ``epoch(state, data) -> (state, metrics)``, metrics ``[num_batches]`` each.

    The rows of ``data`` are shuffled on the device with the state's key, cut into batches (a remainder is dropped after
    shuffling), preprocessed and stepped through in one `jax.lax.scan`. Data keep their type: uint8 images stay uint8 until
    ``preprocess`` touches a batch of them. The state is donated. Shapes are checked here, values are not: `init` and `fit` check them.

    Args:
        estimator: gives the gradient.
        optimizer: the one that the state was made with.
        batch_size: examples per step.
        preprocess: ``(key, Batch) -> Batch``, such as `vaejax.data.dynamic_binarization`.
        sharding: how each batch's leading axis is laid out over devices; gradients are then summed over them by XLA. A mesh with
            explicit axes, such as `jax.make_mesh` returns, is used with automatic ones.

    Raises:
        TypeError: an optimizer or a sharding of another kind.
        ValueError: a batch size below 1, not a multiple of the devices, or (when called) larger than the data; a mask, weight or
            context of other rows than ``x``.
    """
    check_parts(estimator, optimizer)
    checks.positive_int(batch_size, "batch_size")
    sharding = layout.automatic(sharding)
    layout.check_divisible(sharding, batch_size)
    return _epoch.program(estimator, optimizer, batch_size, preprocess, sharding)


@functools.partial(compilation.static_jit, num_static=5, prepare=from_outside, donate_argnums=0)
def _epoch(
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    preprocess: Preprocess | None,
    sharding: jax.sharding.Sharding | None,
    state: TrainState,
    data: Any,
) -> tuple[TrainState, Metrics]:
    data = checks.batch(data)
    plan = plan_epoch(state.key, data.x.shape[0], batch_size)

    # Made all at once: a step's keys would be a dozen small operations in each.
    keys = jax.vmap(split_key)(plan.step_keys)[:, 1:]

    carried, following = in_turn(data, plan, preprocess, sharding)

    def body(carry: tuple[TrainState, Any], each: tuple[Array, Array]) -> tuple[tuple[TrainState, Any], Metrics]:
        (state, carried), (index, own) = carry, each
        carried, batch = following(carried, index)
        state, metrics = update(estimator, optimizer, state, own, batch)
        return (state, carried), metrics

    (state, _), metrics = jax.lax.scan(
        body, (state._replace(key=plan.next_key), carried), (jnp.arange(len(keys)), keys)
    )
    return state, metrics
