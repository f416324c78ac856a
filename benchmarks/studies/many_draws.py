"""Memory and time of an importance-weighted gradient with many draws, materialised and in chunks.

    python -m benchmarks many_draws [--samples 5000] [--chunk 50 250] [--limit-gb 12] [--json OUT]

Nets 784-200-200-50, batch 20. Each case runs in a process of its own, so that its peak of resident memory is its own; one beyond the limit
fails the study, by name, when the others are done.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from benchmarks import harness, options, peak
from benchmarks.harness import OURS, Row

_ESTIMATORS = ["pathwise", "doubly_reparameterized"]


def measure(estimator: str, num_samples: int, chunk_size: int | None, repeats: int) -> None:
    """Prints one case as JSON: seconds of each gradient once compiled, and the peak of resident memory, GiB."""
    model = vaejax.models.vae(x_shape=784, latent_size=50, hidden_sizes=(200, 200))
    made = getattr(vaejax.estimators, estimator)(
        model, vaejax.objectives.iwae, num_samples=num_samples, chunk_size=chunk_size
    )
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (20, 784)), jnp.float32)
    params = model.init(jax.random.key(0), x)
    state = made.init(params, jax.random.key(0), x)
    gradient = jax.jit(lambda p, k: made.estimate(p, state, k, x)[0].grads)
    seconds = []
    for key in jax.random.split(jax.random.key(1), repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(gradient(params, key))
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds[1:], "peak": peak.mib() / 1024}), flush=True)


def cases(given: argparse.Namespace) -> Iterator[Row]:
    """Each in a process of its own.

    Raises:
        RuntimeError: at the end, naming the cases that could not be done.
    """
    failed = []
    for estimator in given.estimators:
        for chunk in (*given.chunk, None):
            name = f"{estimator}, K={given.samples}, {'all at once' if chunk is None else f'chunk_size={chunk}'}"
            command = [sys.executable, "-m", "benchmarks.studies.many_draws", "--one", estimator, str(chunk)]
            command += ["--samples", str(given.samples), "--repeats", str(given.repeats)]
            command += ["--limit-gb", str(given.limit_gb)]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                failed.append(name)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            yield Row(name, "s a gradient", {OURS: found["seconds"]}, {}, "", {"peak GiB": found["peak"]})
    if failed:
        raise RuntimeError(f"ended by the errors above, or beyond {given.limit_gb} GiB: {'; '.join(failed)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--chunk", type=int, nargs="+", default=[50, 250])
    parser.add_argument("--estimators", nargs="+", choices=_ESTIMATORS, default=_ESTIMATORS)
    parser.add_argument(
        "--limit-gb", type=float, default=12.0, help="address space of each process beyond which it is stopped"
    )
    parser.add_argument(
        "--one", nargs=2, default=None, metavar=("ESTIMATOR", "CHUNK"), help="one case, in this process"
    )
    options.add_results(parser, repeats=3)
    given = parser.parse_args()
    options.check_results(parser, given)
    if given.one is not None:
        limit = int(given.limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        chunk = None if given.one[1] == "None" else int(given.one[1])
        return measure(given.one[0], given.samples, chunk, given.repeats)
    results = harness.Results(given.json, harness.command(["many_draws", *sys.argv[1:]]), {}, {})
    harness.measure(results, {"many_draws": lambda: cases(given)})
    return None


if __name__ == "__main__":
    main()
