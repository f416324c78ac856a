"""A whole epoch as one compiled scan over data that stay on the device."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vaejax import checks, compilation, random
from vaejax.train.shuffle import permutation
from vaejax.train.state import check_parts
from vaejax.train.step import Metrics, split_key, update
from vaejax.types import Array, Batch, Estimator, Key, TrainState, as_batch

Preprocess = Callable[[Key, Batch], Batch]


class Plan(NamedTuple):
    """The randomness of one epoch.

    Attributes:
        order: ``[num_batches, batch_size]`` row numbers.
        preprocess_key: key of the preprocessing; batch i uses ``fold_in(preprocess_key, i)``.
        step_keys: ``[num_batches]``; step i is that of a state with key i.
        next_key: key of the training state after the epoch.
    """

    order: Array
    preprocess_key: Key
    step_keys: Array
    next_key: Key


def plan_epoch(key: Key, num_examples: int, batch_size: int) -> Plan:
    """Shuffles the rows on the device; the remainder that fills no batch is dropped."""
    next_key, shuffle_key, preprocess_key, steps_key = jax.random.split(key, 4)
    num_batches = num_examples // batch_size
    if not num_batches:
        raise ValueError(
            f"batch_size={batch_size} is larger than the data, {num_examples} examples; make batches smaller"
        )
    order = permutation(shuffle_key, num_examples)[: num_batches * batch_size]
    step_keys = jax.random.split(steps_key, num_batches)
    return Plan(order.reshape(num_batches, batch_size), preprocess_key, step_keys, next_key)


def take_batch(data: Batch, plan: Plan, index: Any, preprocess: Preprocess | None, sharding: Any = None) -> Batch:
    """Batch number ``index`` of an epoch, preprocessed."""
    rows = plan.order[index]
    batch = jax.tree.map(lambda leaf: _take(leaf, rows, flat=sharding is None), data)
    if sharding is not None:
        batch = jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), batch)
    return batch if preprocess is None else as_batch(preprocess(random.fold_in(plan.preprocess_key, index), batch))


def _take(leaf: Array, rows: Array, *, flat: bool) -> Array:
    """``leaf[rows]``, rows known to be there; as runs of a flat array they are copied without a division for each entry."""
    size = math.prod(leaf.shape[1:])
    if not flat or leaf.size >= 2**31 or not size:
        return leaf.at[rows].get(mode="promise_in_bounds", unique_indices=True)
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(), start_index_map=(0,))
    found = jax.lax.gather(
        leaf.reshape(-1), (rows * size)[:, None], numbers, (size,), unique_indices=True, mode="promise_in_bounds"
    )
    return found.reshape(len(rows), *leaf.shape[1:])


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
    ``preprocess`` touches a batch of them. The state is donated.

    Args:
        estimator: gives the gradient.
        optimizer: the one that the state was made with.
        batch_size: examples per step.
        preprocess: ``(key, Batch) -> Batch``, such as `vaejax.data.dynamic_binarization`.
        sharding: how each batch's leading axis is laid out over devices; gradients are then summed over them by XLA.

    Raises:
        ValueError: a batch size below 1, or (when called) larger than the data.
    """
    check_parts(estimator, optimizer)
    checks.positive_int(batch_size, "batch_size")

    def epoch(state: TrainState, data: Any) -> tuple[TrainState, Metrics]:
        data = as_batch(data)
        plan = plan_epoch(state.key, data.x.shape[0], batch_size)

        # Made all at once: a step's keys would be a dozen small operations in each.
        keys = jax.vmap(split_key)(plan.step_keys)[:, 1:]

        def body(state: TrainState, each: tuple[Array, Array]) -> tuple[TrainState, Metrics]:
            index, own = each
            return update(estimator, optimizer, state, own, take_batch(data, plan, index, preprocess, sharding))

        return jax.lax.scan(body, state._replace(key=plan.next_key), (jnp.arange(len(keys)), keys))

    return compilation.jit(epoch, donate_argnums=0)
