"""Memory and time of an importance-weighted gradient with many draws, materialised and in chunks.

    python -m benchmarks many_draws [--samples 5000] [--chunk 50 250] [--limit-gb 12]

Nets 784-200-200-50, batch 20. Each case runs in a process of its own, so that its peak of resident memory is its own.
"""

import argparse
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import vaejax
from benchmarks import peak

_ESTIMATORS = ["pathwise", "doubly_reparameterized"]


def measure(estimator: str, num_samples: int, chunk_size: int | None, repeats: int) -> None:
    """Prints one case: peak resident memory, and the median time of a gradient once compiled."""
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
    name = f"{estimator:24} K={num_samples} chunk={chunk_size!s:5}"
    print(f"{name} peak {peak.mib() / 1024:6.2f} GiB, {np.median(seconds[1:]):7.2f} s a gradient", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--chunk", type=int, nargs="+", default=[50, 250])
    parser.add_argument("--estimators", nargs="+", choices=_ESTIMATORS, default=_ESTIMATORS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--limit-gb", type=float, default=12.0, help="address space of each process beyond which it is stopped"
    )
    parser.add_argument(
        "--one", nargs=2, default=None, metavar=("ESTIMATOR", "CHUNK"), help="one case, in this process"
    )
    options = parser.parse_args()
    if options.one is not None:
        limit = int(options.limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        chunk = None if options.one[1] == "None" else int(options.one[1])
        return measure(options.one[0], options.samples, chunk, options.repeats)
    for estimator in options.estimators:
        for chunk in (*options.chunk, None):
            command = [sys.executable, "-m", "benchmarks.studies.many_draws", "--one", estimator, str(chunk)]
            command += ["--samples", str(options.samples), "--repeats", str(options.repeats)]
            if subprocess.run([*command, "--limit-gb", str(options.limit_gb)], check=False).returncode:
                print(
                    f"{estimator:24} K={options.samples} chunk={chunk!s:5} ended by the error above, or beyond {options.limit_gb} GiB",
                    flush=True,
                )
    return None


if __name__ == "__main__":
    main()
