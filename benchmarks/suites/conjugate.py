"""Gaussian mixtures by EM against scikit-learn: time of an iteration, and the memory that a fit adds.

float32, full covariances, no regularisation, as many iterations from starts of a kind (for one start from the same numbers). Every
measurement is a process of its own, so that its peak of memory is too. Many starts: all in one compiled program, against
scikit-learn's fits one after another, of which two are timed.
"""

import importlib
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks import peak
from benchmarks.harness import OURS, Row
from benchmarks.options import Options

THEIRS = "scikit-learn"
_TIMED = 2


class Sizes(NamedTuple):
    """Of the data, the model and the work."""

    rows: int = 200_000
    columns: int = 20
    components: int = 16
    iterations: int = 10


class Fit(NamedTuple):
    """What a process prints: seconds, iterations in all, best mean log-likelihood in nats, components that began anew, peak MiB."""

    seconds: float
    iterations: float
    log_likelihood: float
    reseeds: float
    peak: float


def run(options: Options) -> Iterator[Row]:
    sizes = Sizes(2000, 4, 3, 5) if options.quick else Sizes()
    with_peer = "sklearn" in options.peers
    name = f"mixture, {sizes.rows} x {sizes.columns}, {sizes.components} full components, {sizes.iterations} iterations, float32"
    for starts in (1, 4 if options.quick else 32):
        found: dict[str, list[Fit]] = {OURS: [], **({THEIRS: []} if with_peer else {})}
        for _ in range(options.repeats(3 if starts == 1 else 1)):
            for who, fits in found.items():
                fits.append(measured(who, starts if who == OURS else min(starts, _TIMED), sizes))
        figures = {who: [1e3 * fit.seconds / fit.iterations for fit in fits] for who, fits in found.items()}
        held = {who: [fit.peak for fit in fits] for who, fits in found.items()}
        # Three and five times as fast.
        targets = options.targets({THEIRS: 1 / 3 if starts == 1 else 1 / 5}) if with_peer else {}
        many = f"{starts} start{'s' if starts > 1 else ''}"
        yield Row(f"{name}, {many}", "ms an iteration of a start", figures, targets, _note(found, starts, sizes))
        yield Row(f"{name}, {many}: memory", "MiB beside data and library", held)


def _note(found: dict[str, list[Fit]], starts: int, sizes: Sizes) -> str:
    parts = (
        [f"of scikit-learn's {starts} fits, one after another, {_TIMED} are timed"]
        if starts > _TIMED and THEIRS in found
        else []
    )
    for who, fits in found.items():
        fit = fits[0]
        wanted = sizes.iterations * (starts if who == OURS else min(starts, _TIMED))
        parts.append(
            f"{who}: {fit.iterations:.0f} of {wanted} iterations in {fit.seconds:.2f} s, {fit.log_likelihood:.4f} nats a row"
            + (f" ({fit.reseeds:.0f} components began anew)" if fit.reseeds else "")
        )
    return "; ".join(parts)


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


def scikit_learn(x: np.ndarray, sizes: Sizes, starts: int) -> tuple[float, int, float, int]:
    """A `Fit` but for the memory: that many fits one after another."""
    from sklearn.mixture import GaussianMixture

    warnings.simplefilter("ignore")
    given = [begin(x, sizes.components, seed) for seed in range(starts)]
    models, began = [], time.perf_counter()
    for weights, means, covariances in given:
        model = GaussianMixture(
            sizes.components,
            max_iter=sizes.iterations,
            tol=0,
            reg_covar=0,
            weights_init=weights,
            means_init=means,
            precisions_init=np.linalg.inv(covariances),
        )
        models.append(model.fit(x))
    seconds = time.perf_counter() - began
    return seconds, sum(model.n_iter_ for model in models), max(model.score(x) for model in models), 0


def vaejax_em(x: np.ndarray, sizes: Sizes, starts: int) -> tuple[float, int, float, int]:
    """A `Fit` but for the memory, once compiled: one start, or all of them in one program."""
    import jax

    from vaejax.conjugate import gmm

    given: dict = {"start": gmm.Gmm(*begin(x, sizes.components, 0))}
    if starts > 1:
        given = {"start": "k-means++", "num_starts": starts}

    def fit() -> tuple[float, int, float, int]:
        began = time.perf_counter()
        found = gmm.fit_em(jax.random.key(0), x, sizes.components, max_steps=sizes.iterations, tolerance=0.0, **given)
        value = float(found.objective) / len(x)
        seconds = time.perf_counter() - began
        return seconds, int(found.start_steps.sum()), value, int(found.start_reseeds.sum())

    fit()
    return fit()


def one(which: str, starts: int, sizes: Sizes) -> None:
    """Prints a `Fit`."""
    x = problem(sizes.rows, sizes.columns, sizes.components)
    importlib.import_module({THEIRS: "sklearn.mixture", OURS: "vaejax.conjugate"}[which])
    peak.forget()
    before = peak.mib()
    found = {THEIRS: scikit_learn, OURS: vaejax_em}[which](x, sizes, starts)
    print(*found, peak.mib() - before)


def measured(which: str, starts: int, sizes: Sizes) -> Fit:
    """`one` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.suites.conjugate", which, *map(str, (starts, *sizes))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{which}'s fit ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return Fit(*map(float, done.stdout.split()[-5:]))


if __name__ == "__main__":
    one(sys.argv[1], int(sys.argv[2]), Sizes(*map(int, sys.argv[3:])))
