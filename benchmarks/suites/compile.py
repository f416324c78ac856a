"""How long the first step takes, compilation included, and how long it takes to get there, each in a fresh process."""

import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.harness import HAND, OURS, Row
from benchmarks.options import Options


class Program(NamedTuple):
    """Statements.

    Attributes:
        imports: before the clock.
        begin: builds everything and the initial parameters.
        step: the first call of the compiled step, which leaves ``out``.
        epoch: of the compiled epoch.
    """

    imports: str
    begin: str
    step: str
    epoch: str


_COMMON = """
import time
import jax, jax.numpy as jnp, optax
from benchmarks import workloads
work = workloads.quick(workloads.{work}) if {quick} else workloads.{work}
data, key, optimizer = jnp.asarray(workloads.data(work)), jax.random.key(0), optax.adam(1e-3)
x = jax.block_until_ready(data[: work.batch])
"""
_PROGRAMS = {
    OURS: Program(
        imports="import vaejax, vaejax.train, vaejax.models, vaejax.estimators\nfrom benchmarks import ours",
        begin="""
model, estimator = ours.model(work), ours.estimator(work)
state = vaejax.train.init(key, model, estimator, optimizer, x)
step = vaejax.train.make_train_step(estimator, optimizer)
epoch = vaejax.train.make_epoch(estimator, optimizer, batch_size=work.batch)
out = state.params""",
        step="out = step(state, x)[1]",
        epoch="out = epoch(state, data)[1]",
    ),
    HAND: Program(
        imports="from benchmarks import handwritten",
        begin="""
params = handwritten.init(key, work)
carry = (params, optimizer.init(params), key)
step, epoch = handwritten.make(work, optimizer)
out = params""",
        step="out = step(carry, x)[1]",
        epoch="out = epoch(carry, data)[1]",
    ),
    "NumPyro": Program(
        imports="from benchmarks.peers import numpyro_svi",
        begin="""
svi = numpyro_svi.svi(work)
state = svi.init(key, x)
epoch = numpyro_svi.epoch(work, data)
out = state.optim_state""",
        step="out = jax.jit(svi.update)(state, x)",
        epoch="out = epoch()",
    ),
}
_READY = "\njax.block_until_ready(out)\n"
LIMIT = "1.5 s"


def run(options: Options) -> Iterator[Row]:
    who = {name: program for name, program in _PROGRAMS.items() if name != "NumPyro" or "numpyro" in options.peers}
    for work in ("KW", "TINY"):
        for what in ("step", "epoch", "begin"):
            figures: dict[str, list[float]] = {name: [] for name in who}
            for _ in range(options.repeats(5)):
                for name, program in who.items():
                    figures[name].append(seconds(_timed(program, what, work, options.quick)))
            targets: dict[str, float] = {}
            if work == "KW" and what == "step":
                figures[LIMIT], targets = [1.5] * len(figures[OURS]), options.targets({LIMIT: 1.0})
            title = {
                "step": "the first step, from call to result",
                "epoch": "the first epoch",
                "begin": "initial state",
            }
            yield Row(f"{work}: {title[what]}", "s", figures, targets)


def _timed(program: Program, what: str, work: str, quick: bool) -> str:
    before, timed = ("", program.begin) if what == "begin" else (program.begin + _READY, getattr(program, what))
    lines = [
        _COMMON.format(work=work, quick=quick),
        program.imports,
        before,
        "began = time.perf_counter()",
        timed,
        _READY,
    ]
    return "\n".join([*lines, "print(time.perf_counter() - began)"])


def seconds(program: str) -> float:
    """What a program prints last, in a fresh process."""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"a program that was to be timed ended with status {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return float(done.stdout.split()[-1])
