"""Gaussian mixtures by EM against scikit-learn, one run of both, interleaved.

    python -m benchmarks conjugate [--rows 200000] [--columns 20] [--components 16] [--iterations 10] [--starts 32]

float32, full covariances, no regularisation, equal iterations from starts of a kind: seconds of a fit (median over the repeats),
their ratio, and the peak resident memory that each adds, every measurement in a process of its own. Starts: all of them in one
compiled program, against scikit-learn's fits one after another, of which ``--loop`` are timed and scaled.
"""

import argparse
import importlib
import resource
import subprocess
import sys
import time
import warnings

import numpy as np


def problem(rows: int, columns: int, components: int) -> np.ndarray:
    """Correlated clusters that overlap, so that EM has not converged after the iterations that are timed."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(components, columns))
    roots = rng.normal(size=(components, columns, columns)) / np.sqrt(columns)
    which = rng.integers(components, size=rows)
    noise = rng.normal(size=(rows, columns))
    x = means[which]
    for k in range(components):
        x[which == k] += noise[which == k] @ roots[k]
    return x.astype(np.float32)


def begin(x: np.ndarray, components: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal weights, means by k-means++ among 5000 rows, their pooled covariance within the nearest: what vaejax begins at."""
    from sklearn.cluster import kmeans_plusplus
    from sklearn.metrics import pairwise_distances_argmin

    some = x[np.random.default_rng(seed).choice(len(x), min(5000, len(x)), replace=False)]
    means, _ = kmeans_plusplus(some, components, random_state=seed)
    away = some - means[pairwise_distances_argmin(some, means)]
    return (
        np.full(components, 1 / components, np.float32),
        means,
        np.tile(away.T @ away / len(some), (components, 1, 1)),
    )


def scikit_learn(x: np.ndarray, options: argparse.Namespace, starts: int) -> tuple[float, float]:
    """Seconds of that many fits one after another, and the best mean log-likelihood."""
    from sklearn.mixture import GaussianMixture

    warnings.simplefilter("ignore")
    given = [begin(x, options.components, seed) for seed in range(starts)]
    began, best = time.perf_counter(), -np.inf
    for weights, means, covariances in given:
        model = GaussianMixture(
            options.components,
            max_iter=options.iterations,
            tol=0,
            reg_covar=0,
            weights_init=weights,
            means_init=means,
            precisions_init=np.linalg.inv(covariances),
        ).fit(x)
        best = max(best, float(model.lower_bound_))
    return time.perf_counter() - began, best


def vaejax_em(x: np.ndarray, options: argparse.Namespace, starts: int) -> tuple[float, float]:
    """Seconds of a fit once compiled; one start, or all of them in one program."""
    import jax

    from vaejax.conjugate import gmm

    several = {"start": "k-means++", "num_starts": starts}
    given = {"start": gmm.Gmm(*begin(x, options.components, 0))} if starts == 1 else several

    def fit() -> tuple[float, float]:
        began = time.perf_counter()
        found = gmm.fit_em(
            jax.random.key(0), x, options.components, max_steps=options.iterations, tolerance=0.0, **given
        )
        value = float(found.objective) / len(x)
        if int(found.num_steps) < options.iterations or found.reseeded.any():
            raise SystemExit(
                f"not the same work: {found.num_steps} steps, {found.reseeded.sum()} components began anew"
            )
        return time.perf_counter() - began, value

    fit()
    return fit()


def one(options: argparse.Namespace) -> None:
    """Prints seconds, mean log-likelihood and the peak memory in MiB above those of the data and the library."""
    x = problem(options.rows, options.columns, options.components)
    which, starts = options.one[0], int(options.one[1])
    importlib.import_module({"scikit-learn": "sklearn.mixture", "vaejax": "vaejax.conjugate"}[which])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, value = {"scikit-learn": scikit_learn, "vaejax": vaejax_em}[which](x, options, starts)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(seconds, value, peak)


def measured(options: argparse.Namespace, which: str, starts: int) -> tuple[float, float, float]:
    """`one` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.conjugate", "--one", which, str(starts)]
    for name in ("rows", "columns", "components", "iterations"):
        command += [f"--{name}", str(getattr(options, name))]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, value, peak = map(float, out.split()[-3:])
    return seconds, value, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"rows": 200_000, "columns": 20, "components": 16, "iterations": 10, "starts": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--loop", type=int, default=2, help="of scikit-learn's fits one after another, how many are timed"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, default=None, metavar=("WHICH", "STARTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        return one(options)
    print(
        f"{options.rows} x {options.columns}, {options.components} full components, {options.iterations} iterations, float32"
    )
    for starts in (1, options.starts):
        timed = 1 if starts == 1 else options.loop
        times: dict[str, list] = {"scikit-learn": [], "vaejax": []}
        for _ in range(options.repeats if starts == 1 else 1):
            times["scikit-learn"].append(measured(options, "scikit-learn", timed))
            times["vaejax"].append(measured(options, "vaejax", starts))
        medians = {name: np.median(np.array(rows), axis=0) for name, rows in times.items()}
        medians["scikit-learn"][0] *= starts / timed
        for name, (seconds, value, peak) in medians.items():
            said = f" ({timed} timed)" if name == "scikit-learn" and timed < starts else ""
            print(
                f"{starts:3} starts  {name:13} {seconds:8.2f} s{said}, {value:.4f} nats a row, {peak:6.0f} MiB beside the data"
            )
        ratio = medians["scikit-learn"][0] / medians["vaejax"][0]
        print(f"{starts:3} starts  vaejax is {ratio:.1f} times as fast", flush=True)
    return None


if __name__ == "__main__":
    main()
