"""What a gradient costs: every estimator for discrete latents beside the score function with leave-one-out, at equal K.

    python -m benchmarks estimator_cost [--repeats 30] [--layers 1] [--categories 0] [--json OUT]

A linear sigmoid belief network, 784 pixels and 200 Bernoullis a layer, one compiled update of Adam; with ``--categories n`` one layer of
groups of n categories, as many logits in all. The estimators take turns, the ratio is the median over turns, and
rows come when all are done. What is said of
evaluations is the catalogue's: those of the model a draw, beside the one at the draw.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from benchmarks import harness, options
from vaejax import estimators
from vaejax.dists import Bernoulli, OneHotCategorical
from vaejax.estimators import baselines
from vaejax.objectives import elbo

REFERENCE = "score_function, leave one out"
LIMITS = {"relax": 4.0, "rebar": 3.0}


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


def updating(constructor: Callable, model: vaejax.Model, x: jax.Array, num_samples: int) -> Callable[[], Any]:
    """One update after another."""
    estimator, optimizer = constructor(model, elbo, num_samples=num_samples), optax.adam(1e-3)
    step = vaejax.train.make_train_step(estimator, optimizer)
    held = [vaejax.train.init(jax.random.key(0), model, estimator, optimizer, x)]

    def once() -> vaejax.TrainState:
        held[0] = step(held[0], x)[0]
        return held[0]

    return once


def measured(updates: dict[str, Callable[[], Any]], work: str, repeats: int) -> Iterator[harness.Row]:
    """A row for each estimator, beside the reference, which is among them."""
    evaluations = {row.name: row.evaluations for row in estimators.catalogue()}
    times = harness.interleaved(updates, repeats, scale=1e3)
    for name, own in times.items():
        targets = {} if name == REFERENCE else {REFERENCE: LIMITS.get(name, 2.0)}
        note = f"evaluations of the model a draw, beside the one there: {evaluations.get(name, '0')}"
        yield harness.Row(
            f"{name}: {work}", "ms an update", {harness.OURS: own, REFERENCE: times[REFERENCE]}, targets, note
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--categories", type=int, default=0, help="of each group; 0 is Bernoullis")
    parser.add_argument("--size", type=int, default=200, help="logits a layer")
    parser.add_argument("--pixels", type=int, default=784)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--samples", type=int, default=2, help="K, at least 2")
    parser.add_argument("--rows", nargs="+", default=None, metavar="ESTIMATOR", help="these only, beside the reference")
    options.add_results(parser, repeats=30)
    given = parser.parse_args()
    options.check_results(parser, given)
    if given.categories:
        kind, model = "categorical", categorical_model(given.pixels, given.size, given.categories)
        latents = f"{given.size // given.categories} categories of {given.categories}"
    else:
        latents = f"{given.size} Bernoullis" + (f" in each of {given.layers} layers" if given.layers > 1 else "")
        layer_sizes = (given.size,) * given.layers
        kind, model = "Bernoulli", vaejax.models.sigmoid_belief_network(x_shape=given.pixels, layer_sizes=layer_sizes)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (given.batch_size, given.pixels)), jnp.float32)
    found = cases(kind, given.layers)
    names = list(found) if given.rows is None else [REFERENCE, *given.rows]
    if unknown := set(names) - set(found):
        parser.error(
            f"no estimator for {kind} latents here: {', '.join(sorted(unknown))}; there are {', '.join(found)}"
        )
    updates = {name: updating(found[name], model, x, given.samples) for name in names}
    work = f"{latents}, {given.pixels} pixels, batch {given.batch_size}, K={given.samples}"
    results = harness.Results(given.json, harness.command(["estimator_cost", *sys.argv[1:]]), {}, {})
    harness.measure(results, {"estimator_cost": lambda: measured(updates, work, given.repeats)})


if __name__ == "__main__":
    main()
