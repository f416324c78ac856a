"""A whole epoch: shuffled, one compiled scan where the library has one."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vaejax
from benchmarks import floor, handwritten, ours, workloads
from benchmarks.harness import FLOOR, HAND, OURS, Row, interleaved, spread
from benchmarks.options import Options
from benchmarks.workloads import Workload

_PUBLISHED = {
    "kw": {HAND: 0.92, "NumPyro": 0.98, "PyTorch": 0.40, FLOOR: 1.40},
    "iwae50": {HAND: 0.95, "NumPyro": 0.98, "PyTorch": 0.60, FLOOR: 1.70},
    "tiny": {HAND: 0.80, "NumPyro": 0.95, "PyTorch": 0.10},
}
# Dense products in bfloat16, per second, as their makers state them; cards of one name differ, so the whole name counts.
_PEAKS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
}
PEAK, _SHARE = "the products at the device's peak", 0.4


def run(options: Options) -> Iterator[Row]:
    for name, work in options.works(workloads.TRAINED).items():
        functions = contestants(work, options)
        figures = interleaved(functions, options.repeats(25), scale=1e6 / work.steps)
        yield Row(work.name, "µs a step of an epoch", figures, options.targets(_PUBLISHED.get(name, {})))
    if jax.default_backend() != "cpu" or options.large:
        yield from large(options)


def large(options: Options) -> Iterator[Row]:
    """Networks in bfloat16 that a large device can be busy with, and the share of its peak that they reach."""
    for name, work in options.works({"kw": workloads.KW, "large": workloads.LARGE}).items():
        work = work._replace(name=f"{work.name}, bfloat16", bfloat16=True)
        functions = contestants(work, options)
        figures = interleaved(functions, options.repeats(15), scale=1e6 / work.steps)
        targets: dict[str, float] = {}
        note = f"{flops(work) / (1e-6 * spread(figures[OURS]).median) / 1e12:.3g} TFLOP/s in matrix products"
        if peak := _PEAKS.get(jax.devices()[0].device_kind):
            figures[PEAK] = [1e6 * flops(work) / peak] * len(figures[OURS])
            targets = options.targets({PEAK: 1 / _SHARE}) if name == "large" else {}
            note += f", {spread(a / b for a, b in zip(figures[PEAK], figures[OURS])).median:.0%} of the device's {peak / 1e12:.0f}"
        yield Row(work.name, "µs a step of an epoch", figures, targets, note)


def flops(work: Workload) -> float:
    """Of the products of one step: two each for output and gradient of the kernel, and of the input but for the first."""
    return sum((2 if i == 0 else 3) * 2.0 * math.prod(shape) for i, shape in enumerate(floor.matrices(work)))


def keep(function: Callable, carry: Any) -> Callable[[], Any]:
    """``function(carry) -> (carry, value)`` as a function without arguments that goes on from where it was."""
    box = [carry]

    def run() -> Any:
        box[0], value = function(box[0])
        return value

    return run


def fresh(work: Workload, optimizer: optax.GradientTransformation, x: jax.Array) -> tuple[Any, Any]:
    """The state to train from: vaejax's, and that of the hand-written program."""
    state = vaejax.train.init(jax.random.key(1), ours.model(work), ours.estimator(work), optimizer, x)
    params = handwritten.init(jax.random.key(1), work)
    return state, (params, optimizer.init(params), jax.random.key(2))


def contestants(work: Workload, options: Options) -> dict[str, Callable[[], Any]]:
    data = workloads.data(work)
    held = jnp.asarray(data)
    optimizer = optax.adam(workloads.LEARNING_RATE)
    state, carry = fresh(work, optimizer, held[: work.batch])
    mine = vaejax.train.make_epoch(ours.estimator(work), optimizer, batch_size=work.batch)
    theirs = handwritten.make(work, optimizer)[1]
    found = {OURS: keep(lambda s: mine(s, held), state), HAND: keep(lambda c: theirs(c, held), carry)}
    if "numpyro" in options.peers and not work.bfloat16:
        from benchmarks.peers import numpyro_svi

        found["NumPyro"] = numpyro_svi.epoch(work, held)
    if "torch" in options.peers:
        from benchmarks.peers import torch_eager

        found["PyTorch"] = torch_eager.epoch(work, data)
        found["PyTorch compiled"] = torch_eager.epoch(work, data, compiled=True)
    if "pythae" in options.peers and work.draws == 1 and not (work.conv or work.bfloat16):
        from benchmarks.peers import pythae_vae

        found["Pythae"] = pythae_vae.epoch(work, data)
    return {**found, FLOOR: floor.products(work)}
