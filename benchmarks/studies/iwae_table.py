"""The one-layer rows of the IWAE paper's table 1, at any budget: MNIST binarised afresh at each epoch.

    python -m benchmarks iwae_table [--data-dir DIR] --out RUNS [--epochs 160] [--rows VAE-1 VAE-5 IWAE-5 DReG-5]

A row is an objective and a number of draws: ``VAE-k`` the ELBO, ``IWAE-k`` the importance-weighted bound, ``DReG-k`` the same bound with
the doubly reparameterised gradient. Nets, Adam and the schedule are the paper's (Burda, Grosse & Salakhutdinov 2016, section 5 and
appendix C): batch 20, rate 0.001·10^(−i/7) for 3^i epochs, i = 0…7, 3280 in all; ``--epochs`` cuts it off.
Each row keeps a run directory and goes on where it stopped; a row that is done is only read.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaejax
from benchmarks.options import load, study
from benchmarks.studies.mnist import flat
from vaejax.estimators import doubly_reparameterized, pathwise
from vaejax.objectives import elbo, iwae

# NLL and active units after 3280 epochs (table 1).
PUBLISHED = {
    "VAE-1": (86.76, 19),
    "IWAE-1": (86.76, 19),
    "VAE-5": (86.47, 20),
    "IWAE-5": (85.54, 22),
    "VAE-50": (86.35, 20),
    "IWAE-50": (84.78, 25),
}
FAMILIES = {"VAE": (pathwise, elbo), "IWAE": (pathwise, iwae), "DReG": (doubly_reparameterized, iwae)}


class Row(NamedTuple):
    """What one row leaves: per test image, and in all."""

    nll: np.ndarray
    standard_error: np.ndarray
    active_units: int
    train_seconds: float
    evaluate_seconds: float


def schedule(steps_per_epoch: int) -> optax.Schedule:
    """0.001·10^(−i/7) for 3^i epochs."""
    ends = np.cumsum([3**i for i in range(8)])[:-1] * steps_per_epoch
    return optax.piecewise_constant_schedule(1e-3, {int(end): 10 ** (-1 / 7) for end in ends})


def train_row(
    name: str, options: argparse.Namespace, images: np.ndarray, out: Path
) -> tuple[vaejax.Model, dict, float]:
    """Trains, or goes on with, one row; the model, its parameters and the seconds spent training."""
    family, draws = name.split("-")
    model = vaejax.models.vae(x_shape=784, latent_size=50, hidden_sizes=(200, 200))
    estimator, objective = FAMILIES[family]
    result = vaejax.train.fit(
        jax.random.key(options.seed),
        model,
        images,
        estimator=estimator(model, objective, num_samples=int(draws)),
        optimizer=optax.adam(schedule(len(images) // options.batch_size), eps=1e-4),
        num_epochs=options.epochs,
        batch_size=options.batch_size,
        preprocess=vaejax.data.dynamic_binarization(levels=255),
        run_directory=out / name,
        resume=True,
        save_every=60.0,
        config={"row": name, "schedule": "paper"},
    )
    if result.interrupted:
        raise SystemExit(
            f"{name} stopped after epoch {int(result.history['epoch'][-1])}; run the same command to go on"
        )
    return model, result.state.params, float(result.history["seconds"].sum())


def evaluate_row(model: vaejax.Model, params: dict, seconds: float, test: jax.Array, samples: int, seed: int) -> Row:
    """The test NLL with the same random numbers for every row, and the latents whose posterior mean moves (variance > 0.01)."""
    began = time.perf_counter()
    evidence = vaejax.evaluate.log_marginal(model, params, jax.random.key(seed + 2), test, num_samples=samples)
    nll, error = -np.asarray(evidence.estimate), np.asarray(evidence.standard_error)
    active = vaejax.evaluate.active_units(model, params, test).num_by_variance
    return Row(nll, error, active, seconds, time.perf_counter() - began)


def row(name: str, options: argparse.Namespace, images: np.ndarray, test: jax.Array, out: Path) -> Row:
    """A row, from its file where it is done at these settings."""
    file = out / f"{name}-{options.samples}samples.npz"
    if file.exists():
        with np.load(file) as kept:
            return Row(*(kept[field] if kept[field].ndim else kept[field].item() for field in Row._fields))
    done = evaluate_row(*train_row(name, options, images, out), test, options.samples, options.seed)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **done._asdict())
    partial.replace(file)
    return done


def report(rows: dict[str, Row]) -> None:
    """The table, then the paired differences over test images."""
    print(
        f"{'row':8} {'test NLL':>9} {'± (images)':>10} {'± (MC)':>7} {'active':>6} {'paper':>6} {'gap':>6} {'train s':>8} {'eval s':>7}"
    )
    for name, done in rows.items():
        n = len(done.nll)
        paper, units = PUBLISHED.get(name, (float("nan"), 0))
        print(
            f"{name:8} {done.nll.mean():9.3f} {done.nll.std(ddof=1) / n**0.5:10.3f} "
            f"{np.sqrt((done.standard_error**2).sum()) / n:7.3f} {done.active_units:6d} {paper:6.2f} {done.nll.mean() - paper:6.2f} "
            f"{done.train_seconds:8.0f} {done.evaluate_seconds:7.0f}" + (f"   (paper: {units} active)" if units else "")
        )
    names = list(rows)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            difference = rows[b].nll - rows[a].nll
            error = difference.std(ddof=1) / len(difference) ** 0.5
            print(f"NLL {b} − {a}: {difference.mean():+.3f} ± {error:.3f} (paired over {len(difference)} test images)")


def main() -> None:
    parser = study(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=["VAE-1", "VAE-5", "IWAE-5", "DReG-5"])
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=None, help="use this many images only (to try it out)")
    options = parser.parse_args()
    for name in options.rows:
        family, _, draws = name.partition("-")
        if family not in FAMILIES or not draws.isdigit() or int(draws) < 1:
            parser.error(f"--rows takes VAE-k, IWAE-k and DReG-k with a number of draws k, got {name}")
    images, test = (part[: options.examples] for part in flat(load(parser, "mnist", options.data_dir)))
    binarize = jax.jit(functools.partial(vaejax.data.binarize, levels=255))
    test_bits = binarize(jax.random.key(options.seed + 1), jnp.asarray(test))
    print(
        "device",
        jax.devices()[0].device_kind,
        "jax",
        jax.__version__,
        "epochs",
        options.epochs,
        "samples",
        options.samples,
        flush=True,
    )
    # What decides a row's numbers names its folder, so that no row is taken for another's.
    settings = f"{len(images)}images-batch{options.batch_size}-{options.epochs}epochs-seed{options.seed}"
    out = options.out / settings
    out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name in options.rows:
        rows[name] = row(name, options, images, test_bits, out)
        report({name: rows[name]})
    report(rows)


if __name__ == "__main__":
    main()
