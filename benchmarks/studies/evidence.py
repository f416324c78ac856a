"""Time and memory of each way to the evidence: importance sampling at two numbers of samples, AIS, bounds from both sides.

    python -m benchmarks evidence [--run runs/mnist-…] [--examples 100] [--samples 500 50000] [--temperatures 1000]

Without a run: nets 784-200-200-50 as they begin, on random images. Each case runs in a process of its own, so that its peak of resident
memory is its own; "nothing" is a process that opens model and data and evaluates nothing. AIS at two lengths tells its cost a
temperature from that of compilation.
"""

import argparse
import subprocess
import sys
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from benchmarks import peak
from vaejax import evaluate
from vaejax.report import full


def opened(options: argparse.Namespace) -> tuple[vaejax.Model, Any, Any]:
    """Model, params and examples: of a run, or as they begin."""
    if options.run is not None:
        material = full.opened(options.run)
        return material.run.model, material.params, material.some(options.examples)
    model = vaejax.models.vae(x_shape=784, latent_size=50, hidden_sizes=(200, 200))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (options.examples, 784)), jnp.float32)
    return model, model.init(jax.random.key(0), x), vaejax.Batch(x)


def one(case: str, size: int, options: argparse.Namespace) -> None:
    """Prints one case."""
    model, params, batch = opened(options)
    key, began = jax.random.key(1), time.perf_counter()
    value = ""
    if case == "log_marginal":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
            found: Any = evaluate.log_marginal(model, params, key, batch, num_samples=size)
        value = str(evaluate.mean_estimate(found))
    elif case == "ais":
        found = evaluate.ais(model, params, key, batch, num_temperatures=size)
        value = str(evaluate.mean_estimate(found))
    elif case == "bdmc":
        found = evaluate.bdmc(model, params, key, num_examples=len(batch.x), num_temperatures=size)
        value = f"gap {found.gap.mean():.3f} ± {found.gap.std(ddof=1) / len(found.gap) ** 0.5:.3f}"
    seconds = time.perf_counter() - began
    print(f"{case:12} {size:6d}  peak {peak.mib():7.0f} MiB  {seconds:8.1f} s  {value}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default=None, help="a run directory, for a trained model")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--samples", type=int, nargs="*", default=[500, 50_000])
    parser.add_argument("--temperatures", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--one", nargs=2, default=None, metavar=("CASE", "SIZE"), help="one case, in this process")
    options = parser.parse_args()
    if options.one is not None:
        return one(options.one[0], int(options.one[1]), options)
    cases = [("nothing", 0), *(("log_marginal", n) for n in options.samples)]
    cases += [(name, n) for name in ("ais", "bdmc") for n in options.temperatures]
    shared = ["--examples", str(options.examples), *(["--run", options.run] if options.run else [])]
    for case, size in cases:
        command = [sys.executable, "-m", "benchmarks.studies.evidence", "--one", case, str(size), *shared]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"{case} {size} ended by the error above")
    return None


if __name__ == "__main__":
    main()
