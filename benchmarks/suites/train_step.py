"""A Python loop of compiled steps, and an ensemble of seeds by vmap."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vaejax
from benchmarks import handwritten, ours, workloads
from benchmarks.harness import HAND, OURS, Row, interleaved
from benchmarks.options import Options
from benchmarks.suites.epoch import fresh, keep
from benchmarks.workloads import Workload
from vaejax import compilation

_PUBLISHED = {"tiny": {HAND: 1.0, "NumPyro": 1.0, "PyTorch": 0.30}}
SEEDS = 8


def run(options: Options) -> Iterator[Row]:
    for name, work in options.works({"tiny": workloads.TINY, "kw": workloads.KW}).items():
        figures = interleaved(contestants(work, options), options.repeats(25), scale=1e6 / work.steps)
        yield Row(f"{work.name}: Python loop", "µs a step", figures, options.targets(_PUBLISHED.get(name, {})))
    work = options.works({"tiny": workloads.TINY})["tiny"]
    figures = interleaved(ensemble(work), options.repeats(25), scale=1e6 / work.steps)
    yield Row(f"{work.name}: {SEEDS} seeds by vmap", "µs a step of an epoch", figures, options.targets({"one seed": 6}))


def contestants(work: Workload, options: Options) -> dict[str, Callable[[], Any]]:
    x = workloads.data(work)[: work.batch]
    held = jnp.asarray(x)
    optimizer = optax.adam(workloads.LEARNING_RATE)
    state, carry = fresh(work, optimizer, held)
    mine = vaejax.train.make_train_step(ours.estimator(work), optimizer)
    theirs = handwritten.make(work, optimizer)[0]
    found = {OURS: looped(mine, state, held, work.steps), HAND: looped(theirs, carry, held, work.steps)}
    if "numpyro" in options.peers:
        from benchmarks.peers import numpyro_svi

        found["NumPyro"] = numpyro_svi.loop(work, held)
    if "torch" in options.peers:
        from benchmarks.peers import torch_eager

        found["PyTorch"] = torch_eager.loop(work, x)
        found["PyTorch compiled"] = torch_eager.loop(work, x, compiled=True)
    return found


def looped(step: Callable, carry: Any, x: jax.Array, steps: int) -> Callable[[], Any]:
    def many(carry: Any) -> Any:
        for _ in range(steps):
            carry, value = step(carry, x)
        return carry, value

    return keep(many, carry)


def ensemble(work: Workload) -> dict[str, Callable[[], Any]]:
    """An epoch of `SEEDS` autoencoders at once, each with its own start and shuffling, and of one."""
    data, optimizer = jnp.asarray(workloads.data(work)), optax.adam(workloads.LEARNING_RATE)
    model, estimator = ours.model(work), ours.estimator(work)
    epoch = vaejax.train.make_epoch(estimator, optimizer, batch_size=work.batch)

    def start(key: jax.Array) -> vaejax.TrainState:
        return vaejax.train.init(key, model, estimator, optimizer, data)

    states = [start(key) for key in jax.random.split(jax.random.key(0), SEEDS)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    several = compilation.jit(jax.vmap(epoch, in_axes=(0, None)), donate_argnums=0)
    return {OURS: keep(lambda s: several(s, data), together), "one seed": keep(lambda s: epoch(s, data), states[0])}
