"""The batches of an epoch: which rows, in which order, and how a compiled scan comes by them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaejax import random
from vaejax.train.shuffle import permutation
from vaejax.types import Array, Batch, Key, as_batch

Preprocess = Callable[[Key, Batch], Batch]
# What is held of batches gathered ahead, in bytes, and from how many of them on that is worth while.
_HELD = 2**20
_FEWEST = 8


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


def from_outside(state: Any, batch: Any) -> tuple[Any, Any]:
    """Returns the arguments of a compiled step or epoch, with arrays of other libraries converted (`as_batch`).

    The structure of ``batch`` stays, a dict of batches included, so that nothing is traced again.

    Raises:
        TypeError, ValueError: from `as_batch`, such as integers that the device's type cannot hold.
    """
    if isinstance(batch, jax.Array) or all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch)):
        return state, batch
    if isinstance(batch, dict):
        return state, {name: from_outside(state, part)[1] for name, part in batch.items()}
    converted = as_batch(batch)
    return state, converted if isinstance(batch, Batch) or converted.mask is not None else converted.x


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
    return _preprocessed(batch, plan, index, preprocess)


def in_turn(
    data: Batch, plan: Plan, preprocess: Preprocess | None, sharding: Any = None
) -> tuple[Any, Callable[[Any, Any], tuple[Any, Batch]]]:
    """`take_batch` for a scan over the batches from the first to the last.

    The compiler of CPUs splits a gather between threads by the size of what is gathered from, and waking a thread takes longer than
    gathering a small batch. Of small batches, many are gathered at once and held.

    Returns:
        What the scan is to carry, and ``(carry, index) -> (carry, batch)``.
    """
    num_batches, batch_size = plan.order.shape
    size = sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(data)) * batch_size
    ahead = min(_HELD // max(size, 1), num_batches)
    if ahead < _FEWEST or sharding is not None or jax.default_backend() != "cpu":
        return None, lambda carry, index: (None, take_batch(data, plan, index, preprocess, sharding))
    rows = jnp.pad(plan.order, ((0, -num_batches % ahead), (0, 0))).reshape(-1, ahead * batch_size)

    def gather(group: Any) -> Batch:
        taken = jax.tree.map(lambda leaf: _take(leaf, rows[group], flat=True), data)
        return jax.tree.map(lambda leaf: leaf.reshape(ahead, batch_size, *leaf.shape[1:]), taken)

    def following(held: Batch, index: Any) -> tuple[Batch, Batch]:
        held = jax.lax.cond(index % ahead == 0, gather, lambda group: held, index // ahead)
        batch = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index % ahead, keepdims=False), held)
        return held, _preprocessed(batch, plan, index, preprocess)

    return gather(0), following


def _preprocessed(batch: Batch, plan: Plan, index: Any, preprocess: Preprocess | None) -> Batch:
    return batch if preprocess is None else as_batch(preprocess(random.fold_in(plan.preprocess_key, index), batch))


def _take(leaf: Array, rows: Array, *, flat: bool) -> Array:
    """``leaf[rows]``, rows known to be there; as runs of a flat array they are copied without a division for each entry."""
    size = math.prod(leaf.shape[1:])
    if not flat or leaf.size >= 2**31 or not size:
        return leaf.at[rows].get(mode="promise_in_bounds")
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(), start_index_map=(0,))
    found = jax.lax.gather(leaf.reshape(-1), (rows * size)[:, None], numbers, (size,), mode="promise_in_bounds")
    return found.reshape(len(rows), *leaf.shape[1:])
