"""What can be done with a finished run: evaluate it again, sample from it, draw its figures."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaejax import checks, data, random
from vaejax.evaluate import encoding
from vaejax.evaluate.simulate import prior_draws
from vaejax.plots import ask, grid
from vaejax.report import build, job, pictures
from vaejax.report.measure import Results, as_dict, in_words, measure
from vaejax.report.run import Run, open_run, params_of, read_history, write_figures
from vaejax.types import Key, Params


def open_with_data(directory: str | Path) -> tuple[Run, data.Dataset]:
    """A run and the data that it was made with.

    Raises:
        ValueError: the data have changed since.
        As `open_run` and `vaejax.data.load`.
    """
    run = open_run(directory)
    dataset, facts = build.open_data(run.config)
    job.check_unchanged(facts, run)
    return run, dataset


def evaluate_run(
    directory: Path, *, split: str | None, samples: int, use: str | None, seed: int, progress: bool | None
) -> str:
    """Evaluates a run again, adds a line to its ``evaluations.jsonl``, and returns the results in words."""
    key = random.seed_key(seed)
    run, dataset = open_with_data(directory)
    split = split or job.reported_part(dataset)
    batch = job.prepared(run.config, run.facts, dataset, split)
    results = measure(run.model, params_of(run, use), key, batch, samples=samples, progress=progress)
    keep_line(run, results, split=split, parameters=use or run.config.evaluation.use, seed=seed)
    return in_words(results, split, levels=job.units(run.facts))


def keep_line(run: Run, results: Results, **how: Any) -> None:
    """Adds results, and how they were had, to a run's ``evaluations.jsonl``."""
    with open(run.directory / "evaluations.jsonl", "a") as stream:
        stream.write(json.dumps({**how, **as_dict(results)}) + "\n")


def plot_run(directory: Path, *, out: Path | None, only: Any, use: str | None, seed: int, kind: str) -> list[Path]:
    """Draws a run's figures again, all or those named."""
    random_key = random.seed_key(seed)
    run, dataset = open_with_data(directory)
    split = job.reported_part(dataset)
    test = job.prepared(run.config, run.facts, dataset, split)
    labels = None if dataset.labels is None else dataset.labels[split]
    made = pictures.drawings(
        run.model, params_of(run, use), run.facts, random_key, test,
        labels=labels, history=read_history(run.directory), cmap=pictures.colours(run.config.name),
        train=job.prepared(run.config, run.facts, dataset, "train"),
    )  # fmt: skip
    return write_figures(
        out or run.directory / "figures", pictures.draw_all(made) if only is None else pictures.draw(made, only), kind
    )


class Samples(NamedTuple):
    """New examples.

    Attributes:
        x: ``[count, *event]``.
        z: ``[count, latent]``.
        likelihood: p(x|z).
    """

    x: np.ndarray
    z: np.ndarray
    likelihood: Any


def sample(run: Run, params: Params, key: Key, *, count: int, ancestral: bool, label: str | None = None) -> Samples:
    """z ~ p(z), and x ~ p(x|z) or its mean.

    Raises:
        ValueError: a count below 1, a label that the model does not know.
    """
    checks.positive_int(count, "count")
    prior_key, likelihood_key = jax.random.split(key)
    context = _context(run, count, label)
    z = prior_draws(run.model, params, prior_key, count, context)
    likelihood = encoding.decode(run.model, params, z, context=context)
    x = np.asarray(likelihood.sample(seed=likelihood_key)[0]) if ancestral else ask.centre(likelihood)[0]
    # Grey levels that were modelled as x / levels come back as grey levels.
    x = x * (job.units(run.facts) or 1)
    return Samples(x if run.facts.offset is None else x + np.asarray(run.facts.offset), np.asarray(z), likelihood)


def _context(run: Run, count: int, label: str | None) -> Any:
    """Integer labels: the class named, or all in turn; None for a model without."""
    size = run.facts.context_size
    if not size:
        if label is not None:
            raise ValueError("this model was trained without labels; leave --label out, or train with --conditional")
        return None
    if label is None:
        return jnp.arange(count) % size
    names = run.facts.label_names or tuple(map(str, range(size)))
    return jnp.full(count, names.index(checks.one_of(label, "label", names)))


def sample_run(
    directory: Path, *, out: Path | None, count: int, ancestral: bool, label: str | None, use: str | None, seed: int
) -> list[Path]:
    """Writes samples: ``.npz`` with x and z, for a table ``.csv`` too, for images a ``.png`` of the first hundred."""
    key = random.seed_key(seed)
    run = open_run(directory)
    params = params_of(run, use)
    drawn = sample(run, params, key, count=count, ancestral=ancestral, label=label)
    stem = out or run.directory / "samples"
    stem = stem.with_suffix("") if stem.suffix in (".npz", ".csv", ".png") else stem
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = [stem.with_name(f"{stem.name}.npz")]
    np.savez_compressed(written[0], x=drawn.x, z=drawn.z)
    if drawn.x.ndim == 2:
        written.append(stem.with_name(f"{stem.name}.csv"))
        with open(written[-1], "w", newline="") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(run.facts.columns or [f"x{i}" for i in range(drawn.x.shape[1])])
            whole = ancestral and run.facts.likelihood != "normal"
            rows.writerows((drawn.x.astype(int) if whole else drawn.x).tolist())
    else:
        images = grid.as_images(drawn.x[:100], None)
        limits = grid.scale(images, drawn.likelihood, pictures.colours(run.config.name))
        title = "draws x ~ p(x|z), z ~ p(z)" if ancestral else "means of p(x|z), z ~ p(z)"
        figure = grid.rows_of_images(
            [grid.Row(images[i : i + 10]) for i in range(0, len(images), 10)], limits, title=title
        )
        written.append(stem.with_name(f"{stem.name}.png"))
        figure.savefig(written[-1], dpi=150)
    return written
