"""Step and epoch of vaejax against the same model hand-written in plain JAX, interleaved in one run.

    python -m benchmarks.train_step [--repeats 30] [--json OUT]

Prints the median time of each and the median of the ratios taken pair by pair (machines drift; ratios hold). The floor is
the matrix products of the step alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vaejax
from benchmarks import handwritten

# name: sizes, batch, steps in an epoch.
WORK = {
    "K&W 784-500-20, batch 100": (handwritten.Sizes(784, 500, 20), 100, 100),
    "tiny 30-32-3, batch 128": (handwritten.Sizes(30, 32, 3), 128, 500),
}


def looped(step: Callable, carry: Any, x: jax.Array, steps: int) -> Any:
    for _ in range(steps):
        carry, value = step(carry, x)
    return carry, value


def floor(sizes: handwritten.Sizes, batch: int, steps: int) -> Callable:
    """The step's matrix products, forwards and backwards, chained so that none can be dropped."""
    shapes = [(sizes.x, sizes.hidden), (sizes.hidden, 2 * sizes.z), (sizes.z, sizes.hidden), (sizes.hidden, sizes.x)]

    def body(carry: Any, _: Any) -> Any:
        weights, inputs = carry
        outputs = [h @ w for h, w in zip(inputs, weights)]
        inputs = [h + 1e-9 * (o @ w.T) for h, o, w in zip(inputs, outputs, weights)]
        return ([w + 1e-9 * (h.T @ o) for h, o, w in zip(inputs, outputs, weights)], inputs), None

    run = jax.jit(lambda carry: jax.lax.scan(body, carry, None, length=steps))
    carry = ([jnp.ones(s) for s in shapes], [jnp.ones((batch, s[0])) for s in shapes])
    return lambda: run(carry)


def contestants(sizes: handwritten.Sizes, batch: int, steps: int) -> dict[str, Callable]:
    """Named functions that each run ``steps`` steps from the state that they left."""
    optimizer = optax.adam(1e-3)
    data = jax.random.bernoulli(jax.random.key(0), 0.3, (batch * steps, sizes.x)).astype(jnp.float32)
    x = data[:batch]
    model = vaejax.models.vae(x_shape=sizes.x, latent_size=sizes.z, hidden_sizes=(sizes.hidden,))
    estimator = vaejax.estimators.pathwise(model, vaejax.objectives.elbo)
    ours_step = vaejax.train.make_train_step(estimator, optimizer)
    ours_epoch = vaejax.train.make_epoch(estimator, optimizer, batch_size=batch)
    hand_step, hand_epoch = handwritten.make(optimizer, batch)

    def fresh(ours: bool) -> Any:
        if ours:
            return vaejax.train.init(jax.random.key(1), model, estimator, optimizer, x)
        params = handwritten.init(jax.random.key(1), sizes)
        return params, optimizer.init(params), jax.random.key(2)

    def keep(function: Callable, carry: Any) -> Callable:
        box = [carry]

        def run() -> Any:
            box[0], value = function(box[0])
            return value

        return run

    return {
        "vaejax epoch": keep(lambda s: ours_epoch(s, data), fresh(True)),
        "hand-written epoch": keep(lambda s: hand_epoch(s, data), fresh(False)),
        "vaejax loop": keep(lambda s: looped(ours_step, s, x, steps), fresh(True)),
        "hand-written loop": keep(lambda s: looped(hand_step, s, x, steps), fresh(False)),
        "matrix products": floor(sizes, batch, steps),
    }


def measure(functions: dict[str, Callable], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
        jax.block_until_ready(function())
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], a: str, b: str) -> float:
    return statistics.median(x / y for x, y in zip(times[a], times[b]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "repeats": options.repeats,
    }
    print(f"device {results['device']}, jax {jax.__version__}, medians of {options.repeats} interleaved repeats")
    for name, (sizes, batch, steps) in WORK.items():
        times = measure(contestants(sizes, batch, steps), options.repeats)
        per_step = {who: statistics.median(t) / steps * 1e6 for who, t in times.items()}
        ratios = {kind: ratio(times, f"vaejax {kind}", f"hand-written {kind}") for kind in ("epoch", "loop")}
        ratios["epoch to matrix products"] = ratio(times, "vaejax epoch", "matrix products")
        results[name] = {"microseconds_per_step": per_step, "ratios": ratios}
        print(f"\n{name}")
        for who, micro in per_step.items():
            print(f"  {who:20s} {micro:9.1f} µs a step")
        for kind, value in ratios.items():
            print(f"  ratio {kind:26s} {value:6.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
