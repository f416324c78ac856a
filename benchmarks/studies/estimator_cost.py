"""What a gradient costs: every estimator for discrete latents beside the score function with leave-one-out, at equal K.

    python -m benchmarks estimator_cost [--repeats 30] [--layers 1] [--categories 0]

A linear sigmoid belief network, 784 pixels and 200 Bernoullis a layer, one compiled update of Adam; with ``--categories n`` one layer of
groups of n categories, as many logits in all. The estimators take turns, and the ratio is the median over turns. ``evaluations`` is the
catalogue's: model evaluations a draw, beside the one at the draw.
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from vaejax import estimators
from vaejax.dists import Bernoulli, OneHotCategorical
from vaejax.estimators import baselines
from vaejax.objectives import elbo

REFERENCE = "score_function, leave one out"
LIMITS = {"relax": 4.0, "rebar": 3.0}
# One estimate of these is tens of ordinary ones: fewer turns.
SLOW = {"measure_valued"}


def cases(kind: str, layers: int) -> dict[str, Callable]:
    """Every estimator of the catalogue that serves such latents, under its own name, and the reference."""
    served = {
        row.name: row.constructor
        for row in estimators.catalogue()
        if (kind in row.latents or row.latents == "any")
        and row.name != "enumerate_latents"
        and (layers == 1 or "one layer" not in row.latents)
    }
    return {REFERENCE: functools.partial(estimators.score_function, baseline=baselines.leave_one_out()), **served}


def categorical_model(pixels: int, size: int, categories: int) -> vaejax.Model:
    """Linear, ``size // categories`` groups."""
    event = (size // categories, categories)

    def family(logits: jax.Array) -> OneHotCategorical:
        return OneHotCategorical(logits.reshape(*logits.shape[:-1], *event), event_ndims=2)

    return vaejax.Model(
        init=lambda key, batch: {
            "encoder": 0.05 * jax.random.normal(key, (pixels, event[0] * categories)),
            "prior": jnp.zeros(event[0] * categories),
            "decoder": 0.05 * jax.random.normal(key, (event[0] * categories, pixels)),
        },
        posterior=lambda p, x: family(x @ p["encoder"]),
        prior=lambda p: family(p["prior"]),
        likelihood=lambda p, z: Bernoulli(z.reshape(*z.shape[:-2], -1) @ p["decoder"]),
    )


def compiled(constructor: Callable, model: vaejax.Model, x: jax.Array, num_samples: int) -> Callable[[], float]:
    """Seconds of one update, compiled and warm."""
    estimator, optimizer = constructor(model, elbo, num_samples=num_samples), optax.adam(1e-3)
    step = vaejax.train.make_train_step(estimator, optimizer)
    held = [step(vaejax.train.init(jax.random.key(0), model, estimator, optimizer, x), x)[0]]

    def once() -> float:
        began = time.perf_counter()
        held[0] = jax.block_until_ready(step(held[0], x)[0])
        return time.perf_counter() - began

    once()
    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--categories", type=int, default=0, help="of each group; 0 is Bernoullis")
    parser.add_argument("--size", type=int, default=200, help="logits a layer")
    parser.add_argument("--pixels", type=int, default=784)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--samples", type=int, default=2, help="K, at least 2")
    parser.add_argument("--rows", nargs="+", default=None, metavar="ESTIMATOR", help="these only, beside the reference")
    options = parser.parse_args()
    if options.categories:
        kind, model = "categorical", categorical_model(options.pixels, options.size, options.categories)
    else:
        layer_sizes = (options.size,) * options.layers
        kind, model = "Bernoulli", vaejax.models.sigmoid_belief_network(x_shape=options.pixels, layer_sizes=layer_sizes)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (options.batch_size, options.pixels)), jnp.float32)
    evaluations = {row.name: row.evaluations for row in estimators.catalogue()}
    found = cases(kind, options.layers)
    rows = list(found) if options.rows is None else [REFERENCE, *options.rows]
    if unknown := set(rows) - set(found):
        parser.error(
            f"no estimator for {kind} latents here: {', '.join(sorted(unknown))}; there are {', '.join(found)}"
        )
    timers = {name: compiled(found[name], model, x, options.samples) for name in rows}
    times: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(options.repeats):
        for name, once in timers.items():
            if name not in SLOW or turn < 3:
                times[name].append(once())
    reference = np.array(times[REFERENCE])
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}, batch {options.batch_size}, K={options.samples}")
    print("| estimator | ms | relative cost | evaluations | wanted |\n|---|---|---|---|---|")
    for name, own in times.items():
        ratio = float(np.median(np.array(own) / reference[: len(own)]))
        limit = LIMITS.get(name, 2.0)
        wanted = f"≤ {limit:g}" + ("" if ratio <= limit else ": no")
        print(f"| {name} | {1e3 * np.median(own):.2f} | {ratio:.2f} | {evaluations.get(name, '0')} | {wanted} |")


if __name__ == "__main__":
    main()
