"""Draws in a stream: any summary of log-terms that can be added to, at a memory that depends on neither samples nor examples."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from vaejax import checks, compilation, random
from vaejax.evaluate.encoding import alone
from vaejax.terms import batch_shape, log_terms
from vaejax.types import Array, Batch, Key, LogTerms, Model, Params

# Entries of x|z held at once: 4 MB of float32 stays in a CPU's cache, where larger blocks run at the speed of memory;
# accelerators want large blocks, of which the networks make some sixteen times as much, in no more than a quarter of the memory.
_BUDGET = {"cpu": 2**20}
_ACCELERATOR_BUDGET = 2**26
_BYTES = 4 * 16 * 4
_LARGEST_CHUNK = 64
# Examples between two looks at a progress bar and the disk.
BLOCK = 100


class Summary(NamedTuple):
    """What is kept of the draws of an example.

    Attributes:
        begin: (log-terms of the first draws, S) -> what is kept of them, with axes ``[*batch]`` behind any of its own.
        add: (kept, log-terms of more draws) -> kept.
    """

    begin: Callable[[LogTerms, int], Any]
    add: Callable[[Any, LogTerms], Any]


def stream(
    summary: Summary,
    model: Model,
    params: Params,
    key: Key,
    batch: Any,
    *,
    num_samples: int,
    chunk_size: int | None,
    progress: bool | None = False,
) -> Any:
    """The summary of S draws for every example of the leading axis, several examples at a time, in one compiled program.

    Each example has a key of its own, so its numbers depend neither on the others nor on how many are worked on at once.
    What is kept comes back with the axis of the examples first, then the summary's own, then further batch axes. With ``progress``
    the examples go in blocks under a bar (None: on a terminal only).
    """
    checks.key(key)
    batch = checks.batch(batch, "batch", model)._replace(weight=None)
    check_hashable(model)
    if chunk_size is not None:
        checks.positive_int(chunk_size, "chunk_size")
    shape = () if progress is False else batch_shape(model, params, key, batch)
    if not shape:
        return compiled(summary, model, num_samples, chunk_size, params, key, batch)
    keys = jax.random.split(key, shape[0])
    parts = []
    disable = None if progress is None else False
    with tqdm(total=shape[0], unit="example", desc="sampling", disable=disable, dynamic_ncols=True) as bar:
        for first in range(0, shape[0], BLOCK):
            some, part = jax.tree.map(lambda leaf: leaf[first : first + BLOCK], (keys, batch))  # noqa: B023
            parts.append(compiled(summary, model, num_samples, chunk_size, params, some, part))
            jax.block_until_ready(parts[-1])
            bar.update(len(part.x))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def check_hashable(model: Model) -> None:
    """Raises unless the model's functions can be a static argument of a compiled program."""
    try:
        hash(model)
    except TypeError as error:
        raise TypeError(
            f"the model's functions must be hashable to be compiled ({error}); use plain functions or frozen dataclasses"
        ) from error


def budget() -> int:
    """How many entries of x|z are held at once."""
    if (found := _BUDGET.get(jax.default_backend())) is not None:
        return found
    # What a device does not tell is taken to be enough.
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return _ACCELERATOR_BUDGET if memory is None else max(1, min(_ACCELERATOR_BUDGET, memory // _BYTES))


@functools.partial(compilation.static_jit, num_static=4)
def compiled(
    summary: Summary, model: Model, num_samples: int, chunk_size: int | None, params: Params, key: Array, batch: Batch
) -> Any:
    """`stream` after its checks, with one key for all or one for each example of the leading axis."""
    shape = batch_shape(model, params, key if key.ndim == 0 else key[0], batch)
    examples = shape[0] if shape else 1
    entries = max(1, batch.x.size // max(examples, 1))
    chunk = min(num_samples, chunk_size or max(1, min(_LARGEST_CHUNK, budget() // entries)))
    if not shape:
        return _merged(summary, model, num_samples, chunk, params, key, batch)

    def one(example: tuple[Key, Batch]) -> Any:
        example_key, single = example
        kept = _merged(summary, model, num_samples, chunk, params, example_key, alone(single))
        # The example's own axis stands behind the summary's own and before further batch axes.
        return jax.tree.map(lambda leaf: leaf.squeeze(leaf.ndim - len(shape)), kept)

    keys = key if key.ndim else jax.random.split(key, examples)
    block = max(1, min(examples, budget() // (chunk * entries)))
    return jax.lax.map(one, (keys, batch), batch_size=block)


def _merged(
    summary: Summary, model: Model, num_samples: int, chunk: int, params: Params, key: Key, batch: Batch
) -> Any:
    """The summary of ``num_samples`` draws, ``chunk`` at a time."""

    def draw(index: Any, size: int) -> LogTerms:
        return log_terms(model, params, random.fold_in(key, index), batch, num_samples=size)

    full, rest = divmod(num_samples, chunk)
    total = summary.begin(draw(0, chunk), num_samples)
    total = jax.lax.fori_loop(1, full, lambda i, running: summary.add(running, draw(i, chunk)), total)
    return summary.add(total, draw(full, rest)) if rest else total
