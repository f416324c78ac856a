"""Memory of a compiled step beside what it cannot do without; the rows of one, five and fifty draws show how it grows with them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vaejax
from benchmarks import handwritten, ours, workloads
from benchmarks.harness import HAND, OURS, Row
from benchmarks.options import Options
from benchmarks.suites.epoch import fresh

NEEDED = "parameters, optimiser state, batch"
_MIB = 2**20


def run(options: Options) -> Iterator[Row]:
    for work in options.works(workloads.TRAINED).values():
        optimizer = optax.adam(workloads.LEARNING_RATE)
        data = jnp.asarray(workloads.data(work))
        state, carry = fresh(work, optimizer, data[: work.batch])
        mine = vaejax.train.make_train_step(ours.estimator(work), optimizer)
        theirs = handwritten.make(work, optimizer)[0]
        needed = size((state, data[: work.batch]))
        figures = {
            OURS: [held(mine, state, data[: work.batch])],
            HAND: [held(theirs, carry, data[: work.batch])],
            NEEDED: [needed],
        }
        yield Row(f"{work.name}: one step", "MiB at the most, by the compiler's own account", figures)


def held(function: Any, *arguments: Any) -> float:
    """MiB of arguments, results that reuse none of them, and buffers in between."""
    found = function.lower(*arguments).compile().memory_analysis()
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return (found.argument_size_in_bytes + new + found.temp_size_in_bytes) / _MIB


def size(tree: Any) -> float:
    """MiB of the arrays."""
    leaves = [
        jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(tree)
    ]
    return sum(leaf.nbytes for leaf in leaves) / _MIB
