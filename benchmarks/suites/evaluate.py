"""The log-marginal by importance sampling: 5000 draws for each of 200 images."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import vaejax
from benchmarks import floor, handwritten, ours, workloads
from benchmarks.harness import FLOOR, HAND, OURS, Row, interleaved
from benchmarks.options import Options

_PUBLISHED = {HAND: 0.75, "Pythae": 0.20, FLOOR: 2.0}
IMAGES, SAMPLES = 200, 5000
# Of the hand-written program: the fastest of 5, 10, 20, 50, 100 on two cores.
CHUNK = 10


def run(options: Options) -> Iterator[Row]:
    images, samples = (8, 40) if options.quick else (IMAGES, SAMPLES)
    work = options.works({"iwae": workloads.EVALUATED})["iwae"]._replace(batch=images, steps=1)
    figures = interleaved(contestants(work, samples, options), options.repeats(7))
    nets = "-".join(map(str, (work.x_size, *work.hidden, work.latent)))
    name = f"{'(quick) ' if options.quick else ''}log-marginal, {samples} draws, {images} images, {nets}"
    yield Row(name, "s", figures, options.targets(_PUBLISHED))


def contestants(work: workloads.Workload, samples: int, options: Options) -> dict[str, Callable[[], Any]]:
    x = workloads.data(work)
    held, key = jnp.asarray(x), jax.random.key(0)
    model = ours.model(work)
    params = model.init(key, held)
    by_hand = handwritten.init(key, work)
    theirs = handwritten.make_log_marginal(work, samples, CHUNK)

    def mine() -> Any:
        with warnings.catch_warnings():
            # Networks that were not trained: their weights are what the warning is about.
            warnings.simplefilter("ignore", vaejax.evaluate.UntrustworthyEstimate)
            return vaejax.evaluate.log_marginal(model, params, key, held, num_samples=samples)

    found = {OURS: mine, HAND: lambda: theirs(by_hand, key, held)}
    if "pythae" in options.peers:
        from benchmarks.peers import pythae_vae

        found["Pythae"] = pythae_vae.log_marginal(work, x, samples)
    return {**found, FLOOR: floor.log_marginal_products(work, samples, CHUNK)}
