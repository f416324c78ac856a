"""``vaejax evaluate RUN --report``: everything that can be told of a trained model, as one page and as JSON."""

import datetime
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import vaejax
from vaejax import checks, evaluate, random
from vaejax.data import Dataset
from vaejax.evaluate.blocks import digest
from vaejax.report import job, page, pictures, sections
from vaejax.report.measure import as_dict, in_words, measure
from vaejax.report.revisit import keep_line, open_with_data
from vaejax.report.run import Run, params_of, plain, read_history
from vaejax.train.storage import write_text
from vaejax.types import Batch, Key, Params

_SAMPLES, _DRAWS = 5000, 50
# Examples for the latents and for comparing samples; simulations.
_MANY = 2000
_SIMULATIONS = 1000


class Material(NamedTuple):
    """A run opened for evaluation.

    Attributes:
        run: the run.
        dataset: its data.
        params: the parameters chosen.
        batch: the part of the data to evaluate, as the model sees it, in an order of its own: files may be sorted by class.
        order: the rows of that part in this order.
        split: that part.
    """

    run: Run
    dataset: Dataset
    params: Params
    batch: Batch
    order: np.ndarray
    split: str

    def some(self, count: int) -> Batch:
        """The first examples in this order."""
        return jax.tree.map(lambda leaf: leaf[:count], self.batch)


def opened(directory: str | Path, *, split: str | None = "test", use: str | None = None) -> Material:
    """A run, its data and parameters.

    Raises:
        As `vaejax.report.open_run`, `vaejax.data.load`; ValueError where the data have changed.
    """
    run, dataset = open_with_data(directory)
    split = split or job.reported_part(dataset)
    batch = job.prepared(run.config, run.facts, dataset, split)
    order = np.asarray(jax.random.permutation(jax.random.key(0), len(batch.x)))
    return Material(run, dataset, params_of(run, use), jax.tree.map(lambda leaf: leaf[order], batch), order, split)


def report_run(
    directory: Path,
    *,
    split: str | None = None,
    samples: int = 1000,
    use: str | None = None,
    seed: int = 1,
    examples: int = 100,
    temperatures: int = 1000,
    progress: bool | None = None,
) -> str:
    """Writes ``report.html`` and ``report.json`` into a run and returns what they say in words.

    Args:
        directory: the run.
        split: the part of the data; None: test, without test rows validation, without these train.
        samples: importance samples of each example of that part.
        use: ``"best"`` or ``"last"`` parameters; None for what the run's settings say.
        seed: of the random numbers.
        examples: how many of the examples get AIS and the other slow numbers.
        temperatures: of AIS.
        progress: bars; None shows them on a terminal only.
    """
    checks.positive_int(examples, "examples")
    checks.positive_int(temperatures, "temperatures")
    checks.seed(seed)
    material = opened(directory, split=split, use=use)
    split = material.split
    run, keys = material.run, jax.random.split(random.seed_key(seed), 8)
    chosen = use or run.config.evaluation.use
    results = measure(run.model, material.params, keys[5], material.batch, samples=samples, progress=progress)
    keep_line(run, results, split=split, parameters=chosen, seed=seed)
    # Other parameters, or another JAX, get a folder of their own.
    own = digest(material.params, jax.__version__)[:8]
    kept = run.directory / "evidence" / f"{split}-{examples}-{_SAMPLES}-{temperatures}-seed{seed}-{own}"
    evidence, gap = _evidence(material, keys, examples, temperatures, kept, progress)
    made = [sections.density(results, evidence, gap, material.batch.mask), *_others(material, keys, split)]
    about = {
        "run": run.directory.name,
        "data": f"{run.config.name}, {len(material.batch.x)} {split} examples",
        "model": f"{run.facts.likelihood} likelihood, {run.config.model.latent_size} latent dimensions",
        "parameters": chosen,
        "seed": seed,
        "made": datetime.datetime.now().isoformat(" ", "minutes"),
        "vaejax": vaejax.__version__,
        "jax": f"{jax.__version__} on {jax.default_backend()}",
    }
    whole = {**page.as_dict(about, made), "whole": as_dict(results)}
    stem = "report" if split == "test" else f"report-{split}"
    files = [run.directory / f"{stem}.{kind}" for kind in ("html", "json")]
    write_text(files[0], page.as_html(f"vaejax: {run.directory.name}", about, made))
    write_text(files[1], json.dumps(plain(whole), indent=1, allow_nan=False) + "\n")
    whole_split = in_words(results, split, levels=job.units(run.facts))
    count = len(evidence.columns["elbo"])
    return f"{whole_split}\n\n{count} of them from every side:\n{evidence}\n\n{files[0]}\n{files[1]}"


def _evidence(
    material: Material, keys: Any, examples: int, temperatures: int, kept: Path, progress: bool | None
) -> tuple[evaluate.EvidenceReport, evaluate.InferenceGap]:
    run, batch = material.run, material.some(examples)
    evidence = evaluate.evidence_report(
        run.model, material.params, keys[0], batch, num_samples=_SAMPLES, num_draws=_DRAWS, num_temperatures=temperatures,
        directory=kept, progress=progress,
    )  # fmt: skip
    with warnings.catch_warnings():  # the page tells which evidence the gap rests on, and how many k̂ are too large
        warnings.simplefilter("ignore", evaluate.UntrustworthyEstimate)
        gap = evaluate.inference_gap(
            run.model, material.params, keys[6], batch, evidence=evidence.evidence, num_samples=_SAMPLES,
            directory=kept / "gap", progress=progress,
        )  # fmt: skip
    return evidence, gap


def _others(material: Material, keys: Any, split: str) -> list[page.Section]:
    """What the latents do, whether q is the posterior, what samples look like, and how training went."""
    run, params, many = material.run, material.params, material.some(_MANY)
    rows = np.arange(_SIMULATIONS) % len(material.batch.x)
    context = jax.tree.map(lambda leaf: leaf[rows], material.batch.context)
    figures = _figures(material, keys[4], split)
    looks = {
        name: figures.pop(name) for name in ("reconstructions", "samples_ancestral", "responses") if name in figures
    }
    made = {
        "Latents": lambda: sections.latents(run.model, params, keys[1], many, split),
        "Calibration of the encoder": lambda: sections.calibration(
            run.model, params, keys[2], context, many.mask, num_simulations=_SIMULATIONS
        ),
        "Samples": lambda: sections.samples(run.model, params, keys[3], many, looks, split),
    }
    if material.dataset.factors is not None:
        factors = material.dataset.factors[split][material.order][:_MANY]
        made["Disentanglement"] = lambda: sections.disentanglement(
            run.model, params, keys[7], many, factors, material.dataset.factor_names, split
        )
    last = page.Section(
        "Training and latent space", f"How training went, and where {split} examples lie.", figures=figures
    )
    return [*(_if_possible(title, section) for title, section in made.items()), last]


def _if_possible(title: str, section: Callable[[], page.Section]) -> page.Section:
    """A section, or in its place why it cannot be had of these data: the others took long."""
    try:
        return section()
    except (ValueError, TypeError) as error:
        warnings.warn(f"the report leaves out {title.lower()}: {error}", stacklevel=2)
        return page.Section(title, "", notes=(f"left out: {error}",))


_CAPTIONS = {
    "loss": "The objective over the epochs of training",
    "latent": "Posterior means of held-out examples",
    "reconstructions": "Held-out examples above, their reconstructions below",
    "samples_ancestral": "Draws x ~ p(x|z), z ~ p(z)",
    "responses": "Held-out rows and what the model makes of them",
    "item_fit": "How each column of the data is met by the model's",
    "manifold": "E[x|z] over the plane of the latents",
}


def _figures(material: Material, key: Key, split: str) -> dict[str, Any]:
    run, dataset = material.run, material.dataset
    labels = None if dataset.labels is None else dataset.labels[split][material.order]
    made = pictures.drawings(
        run.model, material.params, run.facts, key, material.batch, labels=labels, history=read_history(run.directory),
        cmap=pictures.colours(run.config.name), train=job.prepared(run.config, run.facts, dataset, "train"),
    )  # fmt: skip
    drawn = pictures.draw_all({name: made[name] for name in _CAPTIONS if name in made})
    return {name: (figure, _CAPTIONS[name]) for name, figure in drawn.items()}
