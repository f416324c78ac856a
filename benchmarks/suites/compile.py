"""From a fresh process to the first step: tracing, compilation and one update of the K&W model, and of a whole epoch."""

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import HAND, OURS, Row
from benchmarks.options import Options

# Each runs in a process of its own: imports and data first, then the clock, from building the step to its result.
_BEGIN = """
import sys, time
import jax, jax.numpy as jnp, optax
from benchmarks import workloads
work = workloads.quick(workloads.{work}) if {quick} else workloads.{work}
x, key = jnp.asarray(workloads.data(work)), jax.random.key(0)
jax.block_until_ready(x + 1)
"""
_END = "\njax.block_until_ready(out)\nprint(time.perf_counter() - began)"
_PROGRAMS = {
    OURS: """
import vaejax, vaejax.train, vaejax.models, vaejax.estimators
from benchmarks import ours
began = time.perf_counter()
model, estimator, optimizer = ours.model(work), ours.estimator(work), optax.adam(1e-3)
state = vaejax.train.init(key, model, estimator, optimizer, x[: work.batch])
if {epoch}:
    out = vaejax.train.make_epoch(estimator, optimizer, batch_size=work.batch)(state, x)
else:
    out = vaejax.train.make_train_step(estimator, optimizer)(state, x[: work.batch])
""",
    HAND: """
from benchmarks import handwritten
began = time.perf_counter()
optimizer = optax.adam(1e-3)
params = handwritten.init(key, work)
step, epoch = handwritten.make(work, optimizer)
out = (epoch if {epoch} else step)((params, optimizer.init(params), key), x if {epoch} else x[: work.batch])
""",
    "NumPyro": """
from benchmarks.peers import numpyro_svi
began = time.perf_counter()
if {epoch}:
    out = numpyro_svi.epoch(work, x)()
else:
    made = numpyro_svi.svi(work)
    out = jax.jit(made.update)(made.init(key, x[: work.batch]), x[: work.batch])
""",
}
LIMIT = "limit"


def run(options: Options) -> Iterator[Row]:
    for name, epoch in (("first step", False), ("first epoch", True)):
        for work in ("KW", "TINY"):
            who = [one for one in _PROGRAMS if one != "NumPyro" or "numpyro" in options.peers]
            figures: dict[str, list[float]] = {one: [] for one in who}
            for _ in range(options.repeats(5)):
                for one in who:
                    figures[one].append(
                        seconds((_BEGIN + _PROGRAMS[one] + _END).format(work=work, epoch=epoch, quick=options.quick))
                    )
            targets: dict[str, float] = {}
            if work == "KW" and not epoch:
                figures[LIMIT], targets = [1.5] * len(figures[OURS]), options.targets({LIMIT: 1.0})
            note = "initial parameters, tracing, compilation and the first result, imports apart"
            yield Row(f"{name} of {work}", "s", figures, targets, note)


def seconds(program: str) -> float:
    """What a program prints last, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])
