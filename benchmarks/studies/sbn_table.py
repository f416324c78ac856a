"""Sigmoid belief networks on static MNIST, 200 Bernoulli latents a layer: estimators at an equal wall-clock budget.

    python -m benchmarks sbn_table [--data-dir DIR] --out RUNS [--network linear] [--minutes 3] [--rows disarm rebar …]

Each row trains the same model from the same parameters for the same time (compilation not counted; a row ends with the epoch that
passes its budget), then reports the test NLL by importance sampling, the ELBO, and the variance of its own encoder's gradient where it
ended. Rows keep run directories and go on where they stopped; a row that is done is only read.
Published: Yin & Zhou 2019, table 2 (ARM; hundreds of thousands of updates at rate 1e-4).
"""

import argparse
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from benchmarks.options import load, study
from vaejax import estimators
from vaejax.estimators import baselines
from vaejax.objectives import elbo, iwae

NETWORKS: dict[str, dict[str, tuple[int, ...]]] = {
    "linear": {"layer_sizes": (200,)},
    "nonlinear": {"layer_sizes": (200,), "hidden_sizes": (200, 200)},
    "two-layer": {"layer_sizes": (200, 200)},
}
_LOO = functools.partial(estimators.score_function, baseline=baselines.leave_one_out())
# name -> (constructor, objective, published key)
ROWS: dict[str, tuple[Callable, Callable, str]] = {
    "score_function": (estimators.score_function, elbo, "REINFORCE"),
    "nvil": (estimators.nvil, elbo, "NVIL"),
    "leave-one-out-2": (functools.partial(_LOO, num_samples=2), elbo, ""),
    "leave-one-out-4-local": (functools.partial(_LOO, num_samples=4, rao_blackwell=True), elbo, ""),
    "vimco-5": (functools.partial(estimators.vimco, num_samples=5), iwae, ""),
    "muprop": (estimators.muprop, elbo, ""),
    "rebar": (estimators.rebar, elbo, "REBAR"),
    "relax": (estimators.relax, elbo, ""),
    "arm": (estimators.arm, elbo, "ARM"),
    "disarm": (estimators.disarm, elbo, ""),
    "measure_valued": (estimators.measure_valued, elbo, ""),
    "unordered_set-4": (functools.partial(estimators.unordered_set, num_samples=4), elbo, ""),
    "concrete": (estimators.concrete, elbo, "Concrete"),
    "straight_through": (estimators.straight_through, elbo, ""),
    "gumbel_straight_through": (estimators.gumbel_straight_through, elbo, ""),
}
FIVE = ("score_function", "nvil", "vimco-5", "rebar", "disarm")
PUBLISHED = {
    "linear": {"REINFORCE": 164.0, "NVIL": 113.1, "Concrete": 107.3, "REBAR": 107.7, "ARM": 107.2},
    "nonlinear": {"NVIL": 102.2, "Concrete": 99.6, "REBAR": 101.4, "ARM": 98.4},
    "two-layer": {"NVIL": 99.8, "Concrete": 95.6, "REBAR": 95.4, "ARM": 96.7},
}


class Row(NamedTuple):
    """What one row leaves: per test image, and in all."""

    nll: np.ndarray
    standard_error: np.ndarray
    elbo: np.ndarray
    log_variance: float
    signal_to_noise: float
    updates: int
    seconds: float


def spent(seconds: Mapping[int, float], epoch: int) -> float:
    """Seconds of the epochs up to this one, the first one's compilation left out where a later one tells."""
    so_far = [seconds[e] for e in sorted(seconds) if e <= epoch]
    return sum(so_far[1:]) + min(so_far[:2])


def budget(directory: Path, limit: float) -> Callable[[int, Any, Mapping[str, Any]], bool]:
    """A callback that ends training once the run has spent its seconds, those before a resumption included."""
    history = directory / "history.jsonl"
    lines = history.read_text().splitlines() if history.exists() else []
    seconds = {int(row["epoch"]): float(row["seconds"]) for row in map(json.loads, lines)}

    def stop(step: int, state: Any, row: Mapping[str, Any]) -> bool:
        seconds[int(row["epoch"])] = float(row["seconds"])
        return spent(seconds, int(row["epoch"])) >= limit

    return stop


def build(options: argparse.Namespace, name: str) -> tuple[vaejax.Model, vaejax.Estimator]:
    model = vaejax.models.sigmoid_belief_network(x_shape=(28, 28), **NETWORKS[options.network])
    constructor, objective, _ = ROWS[name]
    return model, constructor(model, objective)


def train_row(name: str, options: argparse.Namespace, images: np.ndarray, out: Path) -> Any:
    """Trains, or goes on with, one row."""
    model, estimator = build(options, name)
    result = vaejax.train.fit(
        jax.random.key(options.seed),
        model,
        images,
        estimator=estimator,
        optimizer=optax.adam(options.rate),
        num_epochs=options.epochs,
        batch_size=options.batch_size,
        run_directory=out / name,
        resume=True,
        save_every=30.0,
        nonfinite="skip",
        callbacks=(budget(out / name, 60 * options.minutes),),
        config={"row": name, "network": options.network, "rate": options.rate},
    )
    if result.interrupted:
        raise SystemExit(
            f"{name} stopped after epoch {int(result.history['epoch'][-1])}; run the same command to go on"
        )
    return result


def evaluate_row(name: str, options: argparse.Namespace, result: Any, images: np.ndarray, test: jax.Array) -> Row:
    """The same random numbers for every row."""
    model, estimator = build(options, name)
    state, key = result.state, jax.random.key(options.seed + 2)
    evidence = vaejax.evaluate.log_marginal(model, state.params, key, test, num_samples=options.samples)
    bound = vaejax.evaluate.elbo(model, state.params, key, test, num_samples=10)
    batch = jnp.asarray(images[: options.batch_size], jnp.float32)
    spread = estimators.variance(
        estimator, state.params, key, batch, num_draws=options.draws, state=state.estimator_state, block_size=5
    )
    seconds = dict(zip(result.history["epoch"].astype(int), result.history["seconds"]))
    return Row(
        -np.asarray(evidence.estimate),
        np.asarray(evidence.standard_error),
        np.asarray(bound.estimate),
        float(jnp.log(spread.total_variance["encoder"])),
        float(spread.signal_to_noise["encoder"]),
        int(state.step),
        spent(seconds, max(seconds)),
    )


def row(name: str, options: argparse.Namespace, images: np.ndarray, test: jax.Array, out: Path) -> Row:
    """A row, from its file where it is done at these settings."""
    file = out / f"{name}-{options.samples}samples-{len(test)}images.npz"
    if file.exists():
        with np.load(file) as kept:
            return Row(*(kept[field] if kept[field].ndim else kept[field].item() for field in Row._fields))
    done = evaluate_row(name, options, train_row(name, options, images, out), images, test)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **done._asdict())
    partial.replace(file)
    return done


def report(rows: dict[str, Row], network: str) -> str:
    """A Markdown table, best test NLL first; differences are paired with the best row's."""
    best = min(rows.values(), key=lambda r: r.nll.mean())
    columns = (
        *("estimator", "test NLL ± (images)", "± (Monte Carlo)", "above the best, paired", "ELBO"),
        *("updates", "seconds", "ln variance", "signal to noise", "published"),
    )
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, done in sorted(rows.items(), key=lambda item: item[1].nll.mean()):
        n = len(done.nll)
        gap = done.nll - best.nll
        paper = PUBLISHED[network].get(ROWS[name][2])
        lines.append(
            f"| {name} | {done.nll.mean():.2f} ± {done.nll.std(ddof=1) / n**0.5:.2f} | {np.sqrt((done.standard_error**2).sum()) / n:.3f} | "
            f"{gap.mean():+.2f} ± {gap.std(ddof=1) / n**0.5:.2f} | {done.elbo.mean():.2f} | {done.updates} | {done.seconds:.0f} | "
            f"{done.log_variance:.2f} | {done.signal_to_noise:.3f} | {'' if paper is None else paper} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = study(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", choices=NETWORKS, default="linear")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "five", "all"], default=["all"])
    parser.add_argument("--minutes", type=float, default=3.0, help="of training, for each row (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=100_000, help="at most")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam")
    parser.add_argument("--samples", type=int, default=1000, help="draws a test image for the NLL")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=200, help="gradients for their variance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=None, help="use this many training images only (to try it out)")
    options = parser.parse_args()
    data = load(parser, "mnist_static", options.data_dir)
    images = np.asarray(data.train.x)[: options.examples]
    test = jnp.asarray(np.asarray(data.test.x)[: options.test_images], jnp.float32)
    names: list[str] = []
    for name in options.rows:
        names += {"five": FIVE, "all": tuple(ROWS)}.get(name, (name,))
    # What decides a row's numbers names its folder, so that no row is taken for another's.
    settings = (
        f"{options.network}-{len(images)}images-batch{options.batch_size}-rate{options.rate:g}-"
        f"{options.minutes:g}minutes-seed{options.seed}"
    )
    out = options.out / settings
    out.mkdir(parents=True, exist_ok=True)
    print(f"{settings}; {jax.devices()[0].device_kind}, JAX {jax.__version__}", flush=True)
    rows = {}
    for name in names:
        rows[name] = row(name, options, images, test, out)
        print(report({name: rows[name]}, options.network).splitlines()[-1], flush=True)
    table = report(rows, options.network)
    print(f"\n{table}")
    (out / "table.md").write_text(table + "\n")


if __name__ == "__main__":
    main()
